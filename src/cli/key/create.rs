//! `tosend-dashboard key create`

use super::arguments::{parse_domains, refuse_senders_outside, scope_of};
use super::rule_flags::NewRuleFlags;
use crate::accounts::event::Actor;
use crate::cli::database::find_account;
use crate::cli::outcome::{Failure, Outcome, failure, print};
use crate::config::Config;
use crate::db::Db;
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
    #[arg(long)]
    account: String,
    /// What the key is for, such as "Production server"
    #[arg(long)]
    name: String,
    /// What else people should know about it
    #[arg(long, default_value = "", hide_default_value = true)]
    description: String,
    /// Restrict the key to this domain of the account; repeat for more [default: all domains]
    #[arg(long = "domain", value_name = "DOMAIN")]
    domains: Vec<String>,
    /// When it expires: none, a number of days (90d), the last day on which it works (2027-12-31,
    /// UTC), or a time (RFC 3339)
    #[arg(long, value_name = "WHEN", default_value = "none")]
    expires: String,
    #[command(flatten)]
    rule: NewRuleFlags,
}

pub fn create(config: &Config, db: &Db, args: &CreateArgs) -> Outcome {
    let secret = PlainKey::generate();
    let name = KeyName::parse(&args.name).map_err(|e| e.to_string())?;
    let description = Description::parse(&args.description).map_err(|e| e.to_string())?;
    let expiry = Expiry::parse_text(&args.expires).map_err(|e| e.to_string())?;
    let names = parse_domains(&args.domains)?;
    let rule = args.rule.parse()?.applied_to(&Rule::default());
    db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        let domains = domains_store::list(conn, account)?;
        let scope = match names.is_empty() {
            true => NewScope::AllDomains,
            false => scope_of(&names, &domains)?,
        };
        refuse_senders_outside(&rule, &scope, &domains)?;
        let new = NewKey {
            name,
            description,
            scope,
            expiry,
            rule,
        };
        let (limit, actor) = (config.key_limit, Actor::operator());
        store::create(conn, account, &new, &secret, limit, &actor).map_err(failure)?;
        // Before the commit: a key that could not be printed must not be created.
        print(secret.expose()).map_err(Failure)
    })?;
    Ok(())
}
