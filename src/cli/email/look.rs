//! `tosend-dashboard email list` and `email show`, which change nothing.

use std::fmt::Display;

use super::json::EmailJson;
use super::select::{Filters, Search};
use crate::cli::outcome::{CommandFailure, CommandResult, print};
use crate::clock;
use crate::db::Db;
use crate::mail::queue::Selection;
use crate::mail::queue::store::{self, Details};
use crate::outbox::EmailStatus;
use crate::visible::visible;

/// Emails read at a time.
const BATCH: usize = 500;

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    filters: Filters,
    /// List at most this many
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = clap::value_parser!(u32).range(1..))]
    limit: u32,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The email's number, as "email list" shows it
    id: i64,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

pub fn list(db: &Db, args: &ListArgs) -> CommandResult {
    let selection = args.filters.selection(db, &[])?;
    let ids = newest(db, &selection, args.limit as usize)?;
    if args.json {
        print("[")?;
    }
    let mut is_first = true;
    for batch in ids.chunks(BATCH) {
        let mut emails = db
            .read_blocking(|conn| store::list_of_any_account(conn, batch))
            .map_err(CommandFailure::from)?;
        emails.reverse();
        for email in &emails {
            match (args.json, is_first) {
                (true, true) => print(EmailJson::of(email).pretty()?)?,
                (true, false) => print(format_args!(",{}", EmailJson::of(email).pretty()?))?,
                (false, _) => print(line(email))?,
            }
            is_first = false;
        }
    }
    if args.json { print("]") } else { Ok(()) }
}

/// The numbers of the newest of the selected emails, newest first.
fn newest(db: &Db, selection: &Selection, most: usize) -> Result<Vec<i64>, CommandFailure> {
    let mut found = Vec::new();
    for ids in Search::new(db, selection)?.backwards() {
        found.extend(ids?.into_iter().rev());
        if found.len() >= most {
            break;
        }
    }
    found.truncate(most);
    Ok(found)
}

fn line(email: &Details) -> String {
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}",
        email.id,
        status(email),
        clock::rfc3339(&email.created_at),
        email.account,
        email.key_id,
        email.sender.as_deref().unwrap_or("-"),
        recipients(email),
        visible(email.reply.as_deref().unwrap_or("-"))
    )
}

fn status(email: &Details) -> &'static str {
    match email.state.is_under_way {
        true => "being sent",
        false => email.state.status.as_str(),
    }
}

fn recipients(email: &Details) -> String {
    let first = email.recipient.as_deref().unwrap_or("-");
    match email.recipients {
        Some(count) if count > 1 => format!("{first} and {} more", count - 1),
        _ => first.to_owned(),
    }
}

pub fn show(db: &Db, args: &ShowArgs) -> CommandResult {
    let found = db
        .read_blocking(|conn| store::list_of_any_account(conn, &[args.id]))
        .map_err(CommandFailure::from)?;
    let email = found
        .first()
        .ok_or_else(|| format!("there is no email {}", args.id))?;
    match args.json {
        true => print(EmailJson::of(email).pretty()?),
        false => tell(email),
    }
}

fn tell(email: &Details) -> CommandResult {
    let line = |what: &str, value: &dyn Display| print(format_args!("{what:<12} {value}"));
    line("Email", &format_args!("{} {}", email.id, email.message_id))?;
    line("Status", &status(email))?;
    line("Account", &email.account)?;
    line("Key", &format_args!("{} {}", email.key_id, email.key_name))?;
    line("From", &email.sender.as_deref().unwrap_or("-"))?;
    line("To", &recipients(email))?;
    line("Accepted", &clock::rfc3339(&email.created_at))?;
    line("Attempts", &email.state.attempts)?;
    match (email.ended_at, email.state.status) {
        (Some(at), _) => line("Ended", &clock::rfc3339(&at))?,
        (None, _) if email.state.is_under_way => {}
        (None, EmailStatus::Held) => line("Next", &"as soon as a server delivers")?,
        (None, _) => line("Next", &clock::rfc3339(&email.next_attempt_at))?,
    }
    line(
        "Content",
        &if email.state.has_content {
            "kept"
        } else {
            "deleted"
        },
    )?;
    for waiting in email.state.remaining.iter().flatten() {
        line("Still to", waiting)?;
    }
    for refused in &email.state.refused {
        let reply = visible(&refused.reply);
        line("Not to", &format_args!("{}: {reply}", refused.email))?;
    }
    line("Reply", &visible(email.reply.as_deref().unwrap_or("-")))
}
