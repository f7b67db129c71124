//! `tosend-dashboard key create`

use super::arguments::{refuse_senders_outside, scope_of};
use super::rule_flags::NewRuleFlags;
use crate::accounts::email::Email;
use crate::accounts::event::Actor;
use crate::cli::database::find_account;
use crate::cli::outcome::{CommandFailure, CommandResult, failure, hand_over};
use crate::config::Config;
use crate::db::Db;
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::NewScope;
use crate::keys::secret::PlainKey;
use crate::keys::store::{self, NewKey};

#[derive(Debug, clap::Args)]
pub struct CreateArgs {
    /// Email address of a person in the account
    #[arg(long, value_parser = Email::parse)]
    account: Email,
    /// What the key is for, such as "Production server"
    #[arg(long, value_parser = KeyName::parse)]
    name: KeyName,
    /// What else people should know about it
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_parser = Description::parse
    )]
    description: Description,
    /// Restrict the key to this domain of the account; repeat for more [default: all domains]
    #[arg(long = "domain", value_name = "DOMAIN", value_parser = DomainName::typed)]
    domains: Vec<DomainName>,
    /// When it expires: none, a number of days (90d), the last day on which it works (2027-12-31,
    /// UTC), or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", default_value = "none", value_parser = Expiry::parse_text)]
    expires: Expiry,
    #[command(flatten)]
    pub rule: NewRuleFlags,
}

pub fn create(config: &Config, db: &Db, args: &CreateArgs) -> CommandResult {
    let secret = PlainKey::generate();
    let rule = args.rule.change()?.applied_to(&Rule::default());
    db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        let domains = domains_store::list(conn, account)?;
        let scope = match args.domains.is_empty() {
            true => NewScope::AllDomains,
            false => scope_of(&args.domains, &domains)?,
        };
        refuse_senders_outside(&rule, &scope, &domains)?;
        let new = NewKey {
            name: args.name.clone(),
            description: args.description.clone(),
            scope,
            expiry: args.expires,
            rule,
        };
        let (limit, actor) = (config.key_limit, Actor::operator());
        store::create(conn, account, &new, &secret, limit, &actor).map_err(failure)?;
        // Before the commit: a key that could not be printed must not be created.
        hand_over(secret.expose()).map_err(CommandFailure)
    })?;
    Ok(())
}
