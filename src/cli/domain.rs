//! `tosend-dashboard domain …`

use clap::{Args, Subcommand};

use super::{Failure, Outcome, find_account, make_domain_key, print, verified_elsewhere};
use crate::accounts::event::Actor;
use crate::config::Config;
use crate::db::Db;
use crate::domains::name::DomainName;
use crate::domains::store::{self, DomainStatus};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Add a sending domain; running it again changes nothing
    Add {
        #[command(flatten)]
        which: Which,
        /// Attest, as the operator, that the account owns the domain
        #[arg(long)]
        verified: bool,
    },
    /// Take back that a domain is attested: from now on its DNS records decide
    Unattest {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, Args)]
pub struct Which {
    /// The address of one of the account's people
    #[arg(long)]
    account: String,
    /// The domain, as in acme.com
    name: String,
}

pub fn run(command: Command, config: &Config, db: &Db) -> Outcome {
    match command {
        Command::Add { which, verified } => add(&which, verified, config, db),
        Command::Unattest { which } => unattest(&which, db),
    }
}

fn add(which: &Which, verified: bool, config: &Config, db: &Db) -> Outcome {
    let name = DomainName::parse(&which.name).map_err(|e| e.to_string())?;
    // Before the transaction, for which others may wait.
    let key = make_domain_key(config, db, &name)?;
    let actor = Actor::operator();
    let status = db.write_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        store::add(conn, account, &name, key.as_ref(), &actor)?;
        if verified && !store::set_status(conn, account, &name, DomainStatus::Verified, &actor)? {
            return Err(verified_elsewhere(&name));
        }
        let domain = store::find_by_name(conn, account, &name)?;
        domain
            .map(|domain| domain.status)
            .ok_or_else(|| Failure("the domain was deleted meanwhile".into()))
    })?;
    print(format_args!("{name} is {}.", status.as_str()))
}

fn unattest(which: &Which, db: &Db) -> Outcome {
    let name = DomainName::parse(&which.name).map_err(|e| e.to_string())?;
    let status = db.write_blocking(|conn| {
        let account = find_account(conn, &which.account)?;
        store::unattest(conn, account, &name, &Actor::operator())?
            .ok_or_else(|| Failure(format!("the account has no domain {name}")))
    })?;
    print(format_args!("{name} is {}.", status.as_str()))
}
