//! `tosend-dashboard key …`

use clap::Subcommand;
use serde::Serialize;

use super::{Failure, Outcome, failure, find_account, print};
use crate::accounts::store::AccountId;
use crate::clock;
use crate::config::Config;
use crate::db::{Connection, Db};
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::name::KeyName;
use crate::keys::scope::{NewScope, Scope};
use crate::keys::secret::PlainKey;
use crate::keys::store::{self, Found, Key, KeyStatus, NewKey};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create a key and print it, alone on stdout
    Create {
        /// The address of one of the account's people
        #[arg(long)]
        account: String,
        /// What the key is for, as in "Production server"
        #[arg(long)]
        name: String,
        /// Only for this domain of the account; may be given again. Without it: all domains
        #[arg(long = "domain")]
        domains: Vec<String>,
    },
    /// List the live keys
    List {
        /// The address of one of the account's people
        #[arg(long)]
        account: String,
        /// As a JSON array
        #[arg(long)]
        json: bool,
    },
    /// Delete a key: it never works again
    Delete(KeyArgs),
    /// Refuse a key until it is resumed
    Pause(KeyArgs),
    /// Let a paused key work again
    Resume(KeyArgs),
}

#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// The address of one of the account's people
    #[arg(long)]
    account: String,
    /// The key's number, as "key list" shows it
    id: i64,
}

#[derive(Serialize)]
struct KeyJson<'a> {
    id: i64,
    name: &'a str,
    truncated: String,
    scope: &'a Scope,
    status: &'static str,
    created_at: String,
    last_used_at: Option<String>,
}

pub fn run(command: Command, config: &Config, db: &Db) -> Outcome {
    match command {
        Command::Create {
            account,
            name,
            domains,
        } => create(config, db, &account, &name, &domains),
        Command::List { account, json } => list(db, &account, json),
        Command::Delete(args) => delete(db, &args),
        Command::Pause(args) => set_status(db, &args, KeyStatus::Paused),
        Command::Resume(args) => set_status(db, &args, KeyStatus::Active),
    }
}

fn create(config: &Config, db: &Db, account: &str, name: &str, domains: &[String]) -> Outcome {
    let name = KeyName::parse(name).map_err(|e| e.to_string())?;
    let secret = PlainKey::generate();
    db.write_blocking(|conn| {
        let account = find_account(conn, account)?;
        let new = NewKey {
            name,
            scope: find_scope(conn, account, domains)?,
            created_by: None,
        };
        store::create(conn, account, &new, &secret, config.key_limit).map_err(failure)?;
        // Before the commit: a key that nobody could read is not made.
        print(secret.expose()).map_err(Failure)
    })?;
    Ok(())
}

fn find_scope(
    conn: &mut Connection,
    account: AccountId,
    domains: &[String],
) -> Result<NewScope, Failure> {
    if domains.is_empty() {
        return Ok(NewScope::AllDomains);
    }
    let mut ids = Vec::new();
    for text in domains {
        let name = DomainName::parse(text).map_err(failure)?;
        let domain = domains_store::find_by_name(conn, account, &name)?
            .ok_or_else(|| Failure(format!("the account has no domain {name}")))?;
        if !ids.contains(&domain.id) {
            ids.push(domain.id);
        }
    }
    Ok(NewScope::Domains(ids))
}

fn list(db: &Db, account: &str, json: bool) -> Outcome {
    let keys = db.write_blocking(|conn| {
        let account = find_account(conn, account)?;
        store::list(conn, account, i64::MAX, 0).map_err(Failure::from)
    })?;
    if json {
        let keys: Vec<KeyJson> = keys.iter().map(KeyJson::from).collect();
        return print(serde_json::to_string_pretty(&keys).map_err(|e| e.to_string())?);
    }
    for key in keys {
        print(format_args!(
            "{}\t{}\t{}\t{}\t{}\t{}",
            key.id,
            key.truncated,
            key.status.as_str(),
            clock::rfc3339(&key.created_at),
            key.scope,
            key.name
        ))?;
    }
    Ok(())
}

impl<'a> From<&'a Key> for KeyJson<'a> {
    fn from(key: &'a Key) -> Self {
        Self {
            id: key.id,
            name: &key.name,
            truncated: key.truncated.to_string(),
            scope: &key.scope,
            status: key.status.as_str(),
            created_at: clock::rfc3339(&key.created_at),
            last_used_at: key.last_used_at.as_ref().map(clock::rfc3339),
        }
    }
}

fn delete(db: &Db, args: &KeyArgs) -> Outcome {
    let found = db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        store::delete(conn, account, args.id).map_err(Failure::from)
    })?;
    match found {
        Found::Live(key) => print(format_args!("Deleted {} “{}”.", key.truncated, key.name)),
        Found::Deleted => Err(format!("the key {} had been deleted already", args.id)),
        Found::Nothing => Err(format!("the account has no key {}", args.id)),
    }
}

fn set_status(db: &Db, args: &KeyArgs, status: KeyStatus) -> Outcome {
    let is_set = db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        store::set_status(conn, account, args.id, status).map_err(Failure::from)
    })?;
    if !is_set {
        return Err(format!("the account has no live key {}", args.id));
    }
    print(format_args!("The key {} is {}.", args.id, status.as_str()))
}
