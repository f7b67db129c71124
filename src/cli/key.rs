//! `tosend-dashboard key …`

use clap::Subcommand;
use serde::Serialize;

use super::{Failure, Outcome, failure, find_account, print};
use crate::accounts::event::Actor;
use crate::accounts::store::{self as accounts_store, AccountId, AccountStatus};
use crate::clock;
use crate::config::Config;
use crate::db::{Connection, Db};
use crate::domains::name::DomainName;
use crate::domains::store as domains_store;
use crate::keys::expiry::Expiry;
use crate::keys::name::{Description, KeyName};
use crate::keys::rule::Rule;
use crate::keys::scope::{NewScope, Scope};
use crate::keys::secret::PlainKey;
use crate::keys::store::{self, Found, Key, NewKey, Which};

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
        Command::Pause(args) => set_paused(db, &args, true),
        Command::Resume(args) => set_paused(db, &args, false),
    }
}

fn create(config: &Config, db: &Db, account: &str, name: &str, domains: &[String]) -> Outcome {
    let name = KeyName::parse(name).map_err(|e| e.to_string())?;
    let secret = PlainKey::generate();
    db.write_blocking(|conn| {
        let account = find_account(conn, account)?;
        let new = NewKey {
            name,
            description: Description::default(),
            scope: find_scope(conn, account, domains)?,
            expiry: Expiry::NEVER,
            rule: Rule::default(),
        };
        let (limit, actor) = (config.key_limit, Actor::operator());
        store::create(conn, account, &new, &secret, limit, &actor).map_err(failure)?;
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
    let (keys, status) = db.write_blocking(|conn| {
        let account = find_account(conn, account)?;
        let keys = store::list(conn, account, Which::Live, i64::MAX, 0)?;
        Ok::<_, Failure>((keys, accounts_store::find(conn, account)?.status))
    })?;
    if json {
        let keys = keys.iter().map(|key| KeyJson::of(key, status));
        let keys: Vec<KeyJson> = keys.collect();
        return print(serde_json::to_string_pretty(&keys).map_err(|e| e.to_string())?);
    }
    for key in keys {
        print(format_args!(
            "{}\t{}\t{}\t{}\t{}\t{}",
            key.id,
            key.truncated,
            key.standing(&status).as_str(),
            clock::rfc3339(&key.created_at),
            key.scope,
            key.name
        ))?;
    }
    Ok(())
}

impl<'a> KeyJson<'a> {
    fn of(key: &'a Key, account: AccountStatus) -> Self {
        Self {
            id: key.id,
            name: &key.name,
            truncated: key.truncated.to_string(),
            scope: &key.scope,
            status: key.standing(&account).as_str(),
            created_at: clock::rfc3339(&key.created_at),
            last_used_at: key.last_used_at().as_ref().map(clock::rfc3339),
        }
    }
}

fn delete(db: &Db, args: &KeyArgs) -> Outcome {
    let found = db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        store::delete(conn, account, args.id, &Actor::operator()).map_err(Failure::from)
    })?;
    match found {
        Found::Live(key) => print(format_args!("Deleted {} “{}”.", key.truncated, key.name)),
        other => Err(not_live(args.id, &other)),
    }
}

/// Why nothing can be done with a key.
fn not_live(id: i64, found: &Found) -> String {
    match found {
        Found::Ended(key) => match key.end_by(clock::now()) {
            Some(end) => format!("the key {id} has been {} already", end.how.as_str()),
            None => format!("the key {id} has ended"),
        },
        _ => format!("the account has no key {id}"),
    }
}

fn set_paused(db: &Db, args: &KeyArgs, is_paused: bool) -> Outcome {
    let actor = Actor::operator();
    let found = db.write_blocking(|conn| {
        let account = find_account(conn, &args.account)?;
        match is_paused {
            true => store::pause(conn, account, args.id, &actor).map_err(Failure::from),
            false => store::resume(conn, account, args.id, &actor).map_err(Failure::from),
        }
    })?;
    match found {
        Found::Live(_) if is_paused => print(format_args!("The key {} is paused.", args.id)),
        Found::Live(_) => print(format_args!("The key {} is active.", args.id)),
        other => Err(not_live(args.id, &other)),
    }
}
