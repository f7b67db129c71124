//! `tosend-dashboard key …`

mod change;
mod create;
mod json;
mod look;
mod rotate;

use clap::Subcommand;

use super::{Failure, Outcome, failure, find_account, print};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::clock;
use crate::config::Config;
use crate::db::{self, Connection, Db};
use crate::domains::name::DomainName;
use crate::domains::store::Domain;
use crate::keys::rule::{Allowed, InvalidRule, Rule};
use crate::keys::scope::NewScope;
use crate::keys::store::{self, EditError, EndedHow, Found, Key};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key and print it, and nothing else, on stdout
    Create(create::CreateArgs),
    /// List the live keys: number, truncated key, status, creation time, domains, name
    List(look::ListArgs),
    /// Show everything about a key, and its latest events
    Show(look::ShowArgs),
    /// Read text from standard input and print a line for each key in it: which key it is, or what is
    /// wrong with it
    Find(look::FindArgs),
    /// Change the given properties of a key, and nothing else
    Edit(change::EditArgs),
    /// Delete a key: it never works again
    Delete(KeyArgs),
    /// Refuse a key until it is resumed
    Pause(KeyArgs),
    /// Let a paused key work again
    Resume(KeyArgs),
    /// Replace a key: create another one like it and print that, and nothing else, on stdout
    Rotate(rotate::RotateArgs),
    /// End a replaced key now
    Stop(KeyArgs),
    /// Let a replaced key keep working until it is stopped
    Keep(KeyArgs),
}

#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// Email address of a person in the account
    #[arg(long)]
    account: String,
    /// The key's number, as "key list" shows it
    id: i64,
}

pub fn run(command: Command, config: &Config, db: &Db) -> Outcome {
    match command {
        Command::Create(args) => create::create(config, db, &args),
        Command::List(args) => look::list(db, &args),
        Command::Show(args) => look::show(db, &args),
        Command::Find(args) => look::find(db, &args),
        Command::Edit(args) => change::edit(db, &args),
        Command::Delete(args) => delete(db, &args),
        Command::Pause(args) => {
            let key = change_key(db, &args, store::pause)?;
            print(format_args!("The key {} is paused.", key.id))
        }
        Command::Resume(args) => {
            let key = change_key(db, &args, store::resume)?;
            print(format_args!("The key {} is active.", key.id))
        }
        Command::Rotate(args) => rotate::rotate(config, db, &args),
        Command::Stop(args) => rotate::stop(db, &args),
        Command::Keep(args) => {
            let key = change_key(db, &args, store::keep_going)?;
            print(format_args!(
                "The key {} keeps working until it is stopped.",
                key.id
            ))
        }
    }
}

fn delete(db: &Db, args: &KeyArgs) -> Outcome {
    let key = change_key(db, args, store::delete)?;
    print(format_args!("Deleted {} “{}”.", key.truncated, key.name))
}

/// A change that needs no more than the key.
type Change = fn(&mut Connection, AccountId, i64, &Actor) -> db::Result<Found>;

fn change_key(db: &Db, args: &KeyArgs, change: Change) -> Result<Key, Failure> {
    let found = db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        change(conn, account, args.id, &Actor::operator()).map_err(Failure::from)
    })?;
    live(args.id, found)
}

/// The key, if something can still be done with it.
fn live(id: i64, found: Found) -> Result<Key, Failure> {
    match found {
        Found::Live(key) => Ok(key),
        Found::Ended(key) => Err(has_ended(&key)),
        Found::Nothing => Err(no_such_key(id)),
    }
}

fn no_such_key(id: i64) -> Failure {
    Failure(format!("the account has no key {id}"))
}

fn has_ended(key: &Key) -> Failure {
    let end = key.end_by(clock::now());
    let how = end.map_or("ended", |end| match end.how {
        EndedHow::Expired => "expired",
        EndedHow::Deleted => "been deleted",
        EndedHow::Stopped => "been stopped",
    });
    Failure(format!("the key {} has {how} already", key.id))
}

pub(super) fn edit_refusal(id: i64, why: EditError) -> Failure {
    match why {
        EditError::NoSuchKey => no_such_key(id),
        EditError::Ended(key) => has_ended(&key),
        EditError::Changed => Failure(format!(
            "somebody changed the key {id} at the same time: look at it and try again"
        )),
        EditError::UnknownDomain => failure(why),
        EditError::Db(error) => error.into(),
    }
}

/// The scope of these domains of an account, or the first that it does not have.
pub(super) fn scope_of(names: &[DomainName], domains: &[Domain]) -> Result<NewScope, Failure> {
    let mut ids = Vec::new();
    for name in names {
        let found = domains.iter().find(|domain| domain.name == name.as_ref());
        let domain = found.ok_or_else(|| Failure(format!("the account has no domain {name}")))?;
        if !ids.contains(&domain.id) {
            ids.push(domain.id);
        }
    }
    Ok(NewScope::Domains(ids))
}

fn parse_domains(texts: &[String]) -> Result<Vec<DomainName>, Failure> {
    let names = texts.iter().map(|text| DomainName::typed(text));
    names.collect::<Result<_, _>>().map_err(failure)
}

/// What a repeated flag lists. What lists nothing must not come to mean any.
pub(super) fn parse_allowed(
    texts: &[String],
    parse: fn(&str) -> Result<Allowed, InvalidRule>,
) -> Result<Allowed, String> {
    match parse(&texts.join("\n")).map_err(|why| why.to_string())? {
        Allowed::Any => Err("an empty list allows nothing: name an address".to_owned()),
        allowed => Ok(allowed),
    }
}

/// A sender at another domain could never send.
pub(super) fn refuse_senders_outside(
    rule: &Rule,
    scope: &NewScope,
    domains: &[Domain],
) -> Result<(), Failure> {
    match rule.sender_outside(scope, domains) {
        None => Ok(()),
        Some(sender) => Err(Failure(format!(
            "the sender {sender} is not at any of the key's domains"
        ))),
    }
}
