//! `tosend-dashboard domain …`

use clap::{Args, Subcommand};

use super::database::find_account;
use super::outcome::{CommandFailure, CommandResult, print};
use super::server_secret;
use crate::accounts::email::Email;
use crate::accounts::event::Actor;
use crate::clock;
use crate::config::Config;
use crate::db::Db;
use crate::domains::dkim::{SealedKey, record_name, record_text};
use crate::domains::life::GRACE;
use crate::domains::name::DomainName;
use crate::domains::store::{self, Added, DomainStatus};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a sending domain; running it again changes nothing
    Add {
        #[command(flatten)]
        which: DomainArg,
        /// Attest, as the operator, that the account owns the domain
        #[arg(long)]
        verified: bool,
    },
    /// Give a domain a new DKIM key, for example after the server's secret was lost; its DNS record
    /// changes too
    ReplaceKey {
        #[command(flatten)]
        which: DomainArg,
    },
    /// Withdraw the operator's attestation of a domain: from now on, its DNS record decides
    Unattest {
        #[command(flatten)]
        which: DomainArg,
    },
}

#[derive(Debug, Args)]
pub struct DomainArg {
    /// Email address of a person in the account
    #[arg(long, value_parser = Email::parse)]
    account: Email,
    /// The domain, such as acme.com
    #[arg(value_parser = DomainName::typed)]
    name: DomainName,
}

pub fn run(command: Command, config: &Config, db: &Db) -> CommandResult {
    match command {
        Command::Add { which, verified } => add(&which, verified, config, db),
        Command::ReplaceKey { which } => replace_key(&which, config, db),
        Command::Unattest { which } => unattest(&which, db),
    }
}

fn add(which: &DomainArg, verified: bool, config: &Config, db: &Db) -> CommandResult {
    let name = &which.name;
    let is_new = db.read_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        let refusal = store::refusal(conn, account, name, config.domain_limit)?;
        Ok::<_, CommandFailure>(refusal.is_none())
    })?;
    // Before the transaction, because other transactions may wait for that one.
    let key = match is_new {
        true => make_domain_key(config, db, name)?,
        false => None,
    };
    let actor = Actor::operator();
    let (status, public) = db.write_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        let (key, limit) = (key.as_ref(), config.domain_limit);
        if let Added::LimitReached(count) = store::add(conn, account, name, key, limit, &actor)? {
            return Err(domain_limit_reached(count));
        }
        if verified && !store::set_status(conn, account, name, DomainStatus::Verified, &actor)? {
            return Err(verified_elsewhere(name));
        }
        let deleted = || CommandFailure("the domain was deleted in the meantime".into());
        let domain = store::find_by_name(conn, account, name)?.ok_or_else(deleted)?;
        let records = store::find_records(conn, account, domain.id)?.ok_or_else(deleted)?;
        Ok((domain.status, records.dkim_public))
    })?;
    print(format_args!("{name} is {}.", status.as_str()))?;
    match public {
        _ if status.is_verified() => Ok(()),
        Some(public) => print(format_args!(
            "Add this TXT record to DNS:\n{} {}",
            record_name(name.as_ref()),
            record_text(&public)
        )),
        None => {
            print("Its page shows the DNS record to add as soon as the server has made its key.")
        }
    }
}

fn replace_key(which: &DomainArg, config: &Config, db: &Db) -> CommandResult {
    let name = &which.name;
    let key = make_domain_key(config, db, name)?;
    db.write_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        match store::replace_key(conn, account, name, key.as_ref(), &Actor::operator())? {
            true => Ok(()),
            false => Err(no_such_domain(name)),
        }
    })?;
    print(format_args!(
        "{name} has a new key. Add the record that its page shows to DNS within {}. If its emails were signed before, they wait until that record is found.",
        clock::hours(&GRACE)
    ))
}

fn unattest(which: &DomainArg, db: &Db) -> CommandResult {
    let name = &which.name;
    let status = db.write_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        store::unattest(conn, account, name, &Actor::operator())?
            .ok_or_else(|| no_such_domain(name))
    })?;
    print(format_args!("{name} is {}.", status.as_str()))
}

fn no_such_domain(name: &DomainName) -> CommandFailure {
    CommandFailure(format!("the account has no domain {name}"))
}

/// A key for a new domain. `None` where the server has to make it later: only the secret that the
/// nodes share can seal it so that they can use it.
pub fn make_domain_key(
    config: &Config,
    db: &Db,
    name: &DomainName,
) -> Result<Option<SealedKey>, String> {
    server_secret::find_for_sealing(config, db)?
        .map(|secret| SealedKey::make(&secret, name).map_err(|e| e.to_string()))
        .transpose()
}

/// Why a domain cannot be added.
pub fn domain_limit_reached(count: i64) -> CommandFailure {
    CommandFailure(format!(
        "the account has {count} domains, which is its limit (TOSEND_DOMAIN_LIMIT): delete one that is no longer used, or raise the limit"
    ))
}

/// Why a domain cannot be attested.
pub fn verified_elsewhere(name: &DomainName) -> CommandFailure {
    CommandFailure(format!(
        "{name} is verified in another account of this server: only one can send from it"
    ))
}
