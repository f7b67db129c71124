//! `tosend-dashboard key list`, `key show` and `key find`, which change nothing.

use std::fmt::Display;
use std::io::{IsTerminal, Read};

use chrono::NaiveDateTime;
use secrecy::{ExposeSecret, SecretString};

use super::arguments::no_such_key;
use super::json::{KeyJson, ShownJson};
use crate::accounts::email::Email;
use crate::accounts::event::{Filter, actor_label};
use crate::accounts::store::events::{self, Event};
use crate::accounts::store::{self as accounts_store, AccountStatus};
use crate::cli::database::find_account;
use crate::cli::outcome::{CommandFailure, CommandResult, failure, print};
use crate::clock;
use crate::db::{Db, Share};
use crate::keys::find::{Other, identify};
use crate::keys::store::{self, Found, Key, NextEnd, Peer, Standing};
use crate::keys::view::Which;

const EVENTS: i64 = 20;
/// No one pastes more than this.
const MOST_PASTED: u64 = 64 * 1024;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Email address of a person in the account
    #[arg(long, value_parser = Email::parse)]
    account: Email,
    /// List the keys that ended in the last 90 days instead: number, truncated key, how it ended,
    /// when, by whom, domains, name
    #[arg(long)]
    ended: bool,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    #[command(flatten)]
    key: super::arguments::KeyArgs,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct FindArgs {
    /// Email address of a person in the account
    #[arg(long, value_parser = Email::parse)]
    account: Email,
}

pub fn list(db: &Db, args: &ListArgs) -> CommandResult {
    let which = match args.ended {
        true => Which::Ended,
        false => Which::Live,
    };
    let (keys, status) = db.write_urgently_blocking(Share::Half, |conn| {
        let account = find_account(conn, &args.account)?;
        let keys = store::list(conn, account, which, i64::MAX, 0)?;
        Ok::<_, CommandFailure>((keys, accounts_store::find(conn, account)?.status))
    })?;
    if args.json {
        let keys: Vec<KeyJson> = keys.iter().map(|key| KeyJson::of(key, status)).collect();
        return print(serde_json::to_string_pretty(&keys).map_err(|e| e.to_string())?);
    }
    for key in keys {
        let (at, by) = match &key.end {
            None => (key.created_at, String::new()),
            Some(end) => (end.at, format!("{}\t", end.by.as_deref().unwrap_or("-"))),
        };
        print(format_args!(
            "{}\t{}\t{}\t{}\t{by}{}\t{}",
            key.id,
            key.truncated,
            key.standing(&status).status().as_str(),
            clock::rfc3339(&at),
            key.scope,
            key.name
        ))?;
    }
    Ok(())
}

/// Everything known about a key.
struct Shown {
    key: Key,
    account: AccountStatus,
    created_by: String,
    events: Vec<Event>,
}

pub fn show(db: &Db, args: &ShowArgs) -> CommandResult {
    let id = args.key.id;
    let shown = db.write_urgently_blocking(Share::Half, |conn| {
        let account = find_account(conn, &args.key.account)?;
        let key = match store::find(conn, account, id)? {
            Found::Live(key) | Found::Ended(key) => key,
            Found::Nothing => return Err(no_such_key(id)),
        };
        let user = match key.created_by {
            Some(user_id) => accounts_store::find_user(conn, user_id)?,
            None => None,
        };
        let of_key = Filter {
            key_id: Some(id),
            ..Filter::default()
        };
        Ok(Shown {
            created_by: user.map_or_else(|| "operator".to_owned(), |user| user.email),
            account: accounts_store::find(conn, account)?.status,
            events: events::list(conn, account, &of_key, None, EVENTS)?,
            key,
        })
    })?;
    if args.json {
        let json = ShownJson::of(&shown.key, shown.account, &shown.created_by, &shown.events);
        return print(serde_json::to_string_pretty(&json).map_err(|e| e.to_string())?);
    }
    tell(&shown)
}

fn tell(shown: &Shown) -> CommandResult {
    let key = &shown.key;
    let line = |what: &str, value: &dyn Display| print(format_args!("{what:<12} {value}"));
    line("Key", &format_args!("{} {}", key.id, key.truncated))?;
    line("Name", &key.name)?;
    if !key.description.is_empty() {
        line("Description", &key.description)?;
    }
    line("Status", &standing(&key.standing(&shown.account)))?;
    line("Domains", &key.scope)?;
    for (part, allowed) in key.rule.parts() {
        line(&part.title(), allowed)?;
    }
    let (at, by) = (clock::rfc3339(&key.created_at), &shown.created_by);
    line("Created", &format_args!("{at} by {}", actor_label(by)))?;
    line("Expires", &expiry(key))?;
    line("Last used", &last_use(key))?;
    for (what, peer) in [
        ("Replaces", &key.predecessor),
        ("Replaced by", &key.successor),
    ] {
        if let Some(peer) = peer {
            line(what, &format_args!("{} {}", peer.id, peer.truncated))?;
        }
    }
    if !key.has_ended()
        && let Some(how) = stops(&key.next_end())
    {
        line("Stops", &how)?;
    }
    if let Some(old) = &key.predecessor {
        line("Old key", &old_key(key, old))?;
    }
    for event in &shown.events {
        print(event_line(event))?;
    }
    Ok(())
}

fn standing(standing: &Standing) -> String {
    let since = |at: Option<&NaiveDateTime>, by: Option<&str>| {
        let at = at.map(|at| format!(" since {}", clock::rfc3339(at)));
        let by = by.map(|by| format!(", by {}", actor_label(by)));
        format!("{}{}", at.unwrap_or_default(), by.unwrap_or_default())
    };
    let since = match standing {
        Standing::Paused(paused) => since(paused.at.as_ref(), paused.by.as_deref()),
        Standing::Ended(end) => since(Some(&end.at), end.by.as_deref()),
        _ => String::new(),
    };
    format!("{}{since}", standing.status().as_str())
}

fn expiry(key: &Key) -> String {
    let Some(at) = &key.expires_at else {
        return "never".to_owned();
    };
    match key.end_by(clock::now()) {
        Some(_) => clock::rfc3339(at),
        None => format!("{}, in {}", clock::rfc3339(at), clock::left(at)),
    }
}

fn last_use(key: &Key) -> String {
    match &key.last_use {
        None => "never".to_owned(),
        Some(last) => {
            let client = match &last.user_agent[..] {
                "" => String::new(),
                client => format!(" by {}", printable(client)),
            };
            let at = clock::rfc3339(&last.at);
            format!("{at} from {}{client}", last.address)
        }
    }
}

/// How a replaced key stops by itself, unless it expires first.
fn stops(next: &NextEnd) -> Option<String> {
    let at = next.at.filter(|_| !next.is_expiry);
    let at = at.map(|at| format!("{}, in {}", clock::rfc3339(&at), clock::left(&at)));
    let quiet = next
        .when_quiet
        .map(|quiet| format!("when it was not used for {}", clock::hours(&quiet)));
    match (at, quiet) {
        (None, None) => None,
        (at, quiet) => Some(
            at.into_iter()
                .chain(quiet)
                .collect::<Vec<_>>()
                .join(", or "),
        ),
    }
}

/// Whether the old key is still needed.
fn old_key(key: &Key, old: &Peer) -> String {
    let used = old.last_used_at.as_ref().map(clock::rfc3339);
    let used = used.map_or("never used".to_owned(), |at| format!("last used {at}"));
    let next = old.next_end(key);
    match (stops(&next), next.at) {
        (Some(how), _) => format!("{used}; stops {how}"),
        (None, Some(at)) => format!("{used}; expires {}", clock::rfc3339(&at)),
        (None, None) => format!("{used}; keeps working until it is stopped"),
    }
}

fn event_line(event: &Event) -> String {
    let label = event.label();
    let from = event.address.as_ref().map(|from| format!(" from {from}"));
    let detail = match &event.detail[..] {
        "" => String::new(),
        detail => format!(": {}", printable(detail)),
    };
    format!(
        "{} {label} by {}{}{detail}",
        clock::rfc3339(&event.at),
        actor_label(&event.actor),
        from.unwrap_or_default()
    )
}

/// The client's User-Agent must not send control sequences to the terminal.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

pub fn find(db: &Db, args: &FindArgs) -> CommandResult {
    let pasted = read_pasted()?;
    let (mut findings, status) = db.write_urgently_blocking(Share::Half, |conn| {
        let account = find_account(conn, &args.account)?;
        let findings = identify(conn, account, pasted.expose_secret())?;
        Ok::<_, CommandFailure>((findings, accounts_store::find(conn, account)?.status))
    })?;
    findings.sort(status);
    let others = findings.others.iter().map(Other::sentence);
    let others: Vec<String> = others.chain(findings.cut()).collect();
    if findings.keys.is_empty() {
        return Err(others.join("\n"));
    }
    for found in &findings.keys {
        print(found.sentence(status))?;
    }
    let ids = findings.keys.iter().map(|found| found.key.id.to_string());
    print(format_args!(
        "Number: {}",
        ids.collect::<Vec<_>>().join(", ")
    ))?;
    for other in others {
        eprintln!("{other}");
    }
    Ok(())
}

/// Never from an argument: other users can see those, and shells keep them in their history.
fn read_pasted() -> Result<SecretString, String> {
    if std::io::stdin().is_terminal() {
        let pasted = rpassword::prompt_password("Paste the key (it is not shown): ");
        return Ok(pasted.map_err(|e| failure(e).0)?.into());
    }
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(MOST_PASTED)
        .read_to_end(&mut bytes)
        .map_err(|e| format!("standard input cannot be read: {e}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned().into())
}
