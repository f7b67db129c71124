//! `tosend-dashboard key edit`

use super::arguments::{
    KeyArgs, edit_refusal, live, recipients, refuse_senders_outside, scope_of, senders,
};
use crate::accounts::event::Actor;
use crate::cli::database::find_account;
use crate::cli::outcome::{Failure, Outcome, print};
use crate::db::Db;
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::{Allowed, Rule};
use crate::keys::scope::NewScope;
use crate::keys::store::{self, Edit, Key};

#[derive(Debug, clap::Args)]
pub struct EditArgs {
    #[command(flatten)]
    key: KeyArgs,
    /// What the key is for
    #[arg(long, value_parser = KeyName::parse)]
    name: Option<KeyName>,
    /// What else people should know about it
    #[arg(long, value_parser = Description::parse)]
    description: Option<Description>,
    /// Restrict the key to this domain of the account; repeat for more
    #[arg(
        long = "domain",
        value_name = "DOMAIN",
        value_parser = DomainName::typed,
        conflicts_with = "all_domains"
    )]
    domains: Vec<DomainName>,
    /// Allow all domains
    #[arg(long)]
    all_domains: bool,
    /// When it expires: none, a number of days from now (90d), the last day on which it works
    /// (2027-12-31, UTC), or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", value_parser = Expiry::parse_text)]
    expires: Option<Expiry>,
    /// Allow only emails from this address; repeat for more
    #[arg(
        long = "sender",
        value_name = "ADDRESS",
        value_parser = senders,
        conflicts_with = "any_sender"
    )]
    senders: Vec<Allowed>,
    /// Allow any address of its domains
    #[arg(long)]
    any_sender: bool,
    /// Allow only emails to this address or domain; repeat for more
    #[arg(
        long = "recipient",
        value_name = "ADDRESS|DOMAIN",
        value_parser = recipients,
        conflicts_with = "any_recipient"
    )]
    recipients: Vec<Allowed>,
    /// Allow any recipient
    #[arg(long)]
    any_recipient: bool,
}

impl EditArgs {
    /// The senders and the recipients, where they change.
    ///
    /// # Errors
    /// The lists are too long together.
    pub fn rule(&self) -> Result<[Option<Allowed>; 2], String> {
        Ok([
            allowed(&self.senders, self.any_sender)?,
            allowed(&self.recipients, self.any_recipient)?,
        ])
    }
}

pub fn edit(db: &Db, args: &EditArgs) -> Outcome {
    let [senders, recipients] = args.rule()?;
    let names = &args.domains;
    let id = args.key.id;
    let (before, after) = db.write_blocking(|conn| {
        let account = find_account(conn, &args.key.account)?;
        let before = live(id, store::find(conn, account, id)?)?;
        let domains = domains_store::list(conn, account)?;
        let scope = match (args.all_domains, names.is_empty()) {
            (true, _) => Some(NewScope::AllDomains),
            (false, true) => None,
            (false, false) => Some(scope_of(names, &domains)?),
        };
        let is_rule_checked = scope.is_some() || senders.is_some();
        let edit = Edit {
            name: args
                .name
                .clone()
                .unwrap_or_else(|| KeyName::known(&before.name)),
            description: match &args.description {
                Some(description) => description.clone(),
                None => Description::known(&before.description),
            },
            scope: scope.unwrap_or_else(|| before.scope.as_new()),
            expiry: args.expires,
            rule: Rule {
                senders: senders.unwrap_or_else(|| before.rule.senders.clone()),
                recipients: recipients.unwrap_or_else(|| before.rule.recipients.clone()),
            },
        };
        if is_rule_checked {
            refuse_senders_outside(&edit.rule, &edit.scope, &domains)?;
        }
        let version = before.version();
        let actor = Actor::operator();
        let after = store::edit(conn, account, id, Some(&version), &edit, &actor);
        Ok::<_, Failure>((before, after.map_err(|why| edit_refusal(id, why))?))
    })?;
    tell(&before, &after)
}

fn allowed(lists: &[Allowed], is_any: bool) -> Result<Option<Allowed>, String> {
    match (is_any, lists) {
        (true, _) => Ok(Some(Allowed::Any)),
        (false, []) => Ok(None),
        (false, lists) => Allowed::joined(lists)
            .map(Some)
            .map_err(|why| why.to_string()),
    }
}

fn tell(before: &Key, after: &Key) -> Outcome {
    match &store::changes(before, after)[..] {
        "" => print("Nothing to change."),
        changes => print(format_args!("Changed the key {}: {changes}.", after.id)),
    }
}
