//! `tosend-dashboard key edit`

use super::arguments::{KeyArgs, edit_refusal, live, refuse_senders_outside, scope_of};
use super::rule_flags::RuleChangeFlags;
use crate::accounts::event::Actor;
use crate::cli::database::find_account;
use crate::cli::outcome::{CommandFailure, CommandResult, print};
use crate::db::{Db, Share};
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::SENDERS;
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
    #[command(flatten)]
    pub rule: RuleChangeFlags,
}

pub fn edit(db: &Db, args: &EditArgs) -> CommandResult {
    let rule = args.rule.change()?;
    let names = &args.domains;
    let id = args.key.id;
    let (before, after) = db.write_urgently_blocking(Share::All, |conn| {
        let account = find_account(conn, &args.key.account)?;
        let before = live(id, store::find(conn, account, id)?)?;
        let domains = domains_store::list(conn, account)?;
        let scope = match (args.all_domains, names.is_empty()) {
            (true, _) => Some(NewScope::AllDomains),
            (false, true) => None,
            (false, false) => Some(scope_of(names, &domains)?),
        };
        let is_rule_checked = scope.is_some() || rule.has(&SENDERS);
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
            rule: rule.applied_to(&before.rule),
        };
        if is_rule_checked {
            refuse_senders_outside(&edit.rule, &edit.scope, &domains)?;
        }
        let version = before.version();
        let actor = Actor::operator();
        let after = store::edit(conn, account, id, Some(&version), &edit, &actor);
        Ok::<_, CommandFailure>((before, after.map_err(|why| edit_refusal(id, why))?))
    })?;
    tell(&before, &after)
}

fn tell(before: &Key, after: &Key) -> CommandResult {
    match &store::describe_changes(before, after)[..] {
        "" => print("Nothing to change."),
        changes => print(format_args!("Changed the key {}: {changes}.", after.id)),
    }
}
