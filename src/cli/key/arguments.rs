//! What the key commands share: parsing arguments, and the reasons for refusing them.

use crate::accounts::email::Email;
use crate::cli::outcome::{CommandFailure, failure};
use crate::clock;
use crate::domains::name::DomainName;
use crate::domains::store::Domain;
use crate::keys::rule::{Allowed, Rule, RulePart};
use crate::keys::scope::NewScope;
use crate::keys::store::{EditError, EndedHow, Found, Key};

#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// Email address of a person in the account
    #[arg(long, value_parser = Email::parse)]
    pub account: Email,
    /// The key's number, as "key list" shows it
    pub id: i64,
}

/// The key, if it is live.
pub fn live(id: i64, found: Found) -> Result<Key, CommandFailure> {
    match found {
        Found::Live(key) => Ok(key),
        Found::Ended(key) => Err(has_ended(&key)),
        Found::Nothing => Err(no_such_key(id)),
    }
}

pub fn no_such_key(id: i64) -> CommandFailure {
    CommandFailure(format!("the account has no key {id}"))
}

pub fn has_ended(key: &Key) -> CommandFailure {
    let end = key.end_by(clock::now());
    let how = end.map_or("ended", |end| match end.how {
        EndedHow::Expired => "expired",
        EndedHow::Deleted => "been deleted",
        EndedHow::Stopped => "been stopped",
    });
    CommandFailure(format!("the key {} has {how} already", key.id))
}

pub fn edit_refusal(id: i64, why: EditError) -> CommandFailure {
    match why {
        EditError::NoSuchKey => no_such_key(id),
        EditError::Ended(key) => has_ended(&key),
        EditError::Changed => CommandFailure(format!(
            "somebody changed the key {id} at the same time: look at it and try again"
        )),
        EditError::UnknownDomain => failure(why),
        EditError::Db(error) => error.into(),
    }
}

/// The scope with these domains of an account, or the first domain that it does not have.
pub fn scope_of(names: &[DomainName], domains: &[Domain]) -> Result<NewScope, CommandFailure> {
    let mut ids = Vec::new();
    for name in names {
        let found = domains.iter().find(|domain| domain.name == name.as_ref());
        let domain =
            found.ok_or_else(|| CommandFailure(format!("the account has no domain {name}")))?;
        if !ids.contains(&domain.id) {
            ids.push(domain.id);
        }
    }
    Ok(NewScope::Domains(ids))
}

/// One value of a list in a rule; the list may have more. An empty value must never come to mean
/// "any".
pub fn parse_allowed(part: &RulePart, text: &str) -> Result<Allowed, String> {
    match part.parse(text).map_err(|why| why.to_string())? {
        Allowed::Any => Err("an empty list allows nothing: name an address".to_owned()),
        allowed => Ok(allowed),
    }
}

/// A sender at another domain could never send.
pub fn refuse_senders_outside(
    rule: &Rule,
    scope: &NewScope,
    domains: &[Domain],
) -> Result<(), CommandFailure> {
    match rule.sender_outside(scope, domains) {
        None => Ok(()),
        Some(sender) => Err(CommandFailure(format!(
            "the sender {sender} is not at any of the key's domains"
        ))),
    }
}
