//! Emails in the database, as the operator looks for and changes them.

use std::ops::Range;

use chrono::NaiveDateTime;
use diesel::helper_types::IntoBoxed;
use diesel::prelude::*;
use diesel::sql_types::{Nullable, Text};

use super::selection::Selection;
use super::task::{State, Task, TaskVerdict};
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::emails::message::Message;
use crate::mail::attempt::RefusedRecipient;
use crate::mail::mime;
use crate::outbox::EmailStatus;
use crate::outbox::store as outbox_store;
use crate::schema::{accounts, api_keys, emails};

/// The reply shown with a cancelled email. Neither says that it was not sent.
const CANCELLED: &str = "Cancelled by the operator: there are no more attempts.";
const CUT_OFF: &str = "Cancelled by the operator: there are no more attempts. It may have been sent: an attempt was cut off before its result was stored.";

diesel::define_sql_function! {
    /// Of ASCII letters, in both databases.
    fn lower(text: Nullable<Text>) -> Nullable<Text>;
}

type Boxed<'a> = IntoBoxed<'a, emails::table, <Connection as diesel::Connection>::Backend>;

/// The highest number of an email.
pub fn find_newest_of_any_account(conn: &mut Connection) -> db::Result<i64> {
    let newest: Option<i64> = emails::table
        .select(diesel::dsl::max(emails::id))
        .first(conn)?;
    Ok(newest.unwrap_or_default())
}

/// The selected emails with numbers in this range, in order. The cost depends on the length of the
/// range alone, except that a recipient is looked for in contents.
pub fn select_of_any_account(
    conn: &mut Connection,
    selection: &Selection,
    range: &Range<i64>,
) -> db::Result<Vec<i64>> {
    let query = matching(selection)
        .filter(emails::id.ge(range.start))
        .filter(emails::id.lt(range.end))
        .order(emails::id);
    let found: Vec<(i64, Option<String>)> =
        query.select((emails::id, emails::recipient)).load(conn)?;
    let mut ids = Vec::new();
    for (id, first) in found {
        let is_to = match (&selection.recipient, first) {
            (None, _) => true,
            (Some(wanted), Some(first)) if first.eq_ignore_ascii_case(wanted) => true,
            (Some(wanted), _) => is_to(conn, id, wanted)?,
        };
        if is_to {
            ids.push(id);
        }
    }
    Ok(ids)
}

/// Adding 0 keeps the databases from walking other indexes than the one of the range.
fn matching(selection: &Selection) -> Boxed<'_> {
    let mut query = emails::table.into_boxed();
    if !selection.ids.is_empty() {
        query = query.filter(emails::id.eq_any(&selection.ids));
    }
    if let Some(account) = selection.account {
        query = query.filter((emails::account_id + 0).eq(account.0));
    }
    if let Some(id) = selection.key_id {
        query = query.filter((emails::api_key_id + 0).eq(id));
    }
    if !selection.statuses.is_empty() {
        let statuses = selection.statuses.iter().map(|status| status.as_str());
        query = query.filter(emails::status.eq_any(statuses));
    }
    if let Some(before) = selection.before {
        query = query.filter(emails::created_at.lt(before));
    }
    if let Some(after) = selection.after {
        query = query.filter(emails::created_at.ge(after));
    }
    if let Some(recipient) = &selection.recipient {
        // As both columns of JSON have it. A sender is found, too, and left out later.
        let written = serde_json::Value::from(recipient.as_str()).to_string();
        let pattern = format!("%\"email\":{}%", escape_like(&written));
        let first = lower(emails::recipient).eq(recipient);
        let in_content = lower(emails::message).like(pattern.clone()).escape('\\');
        let in_refused = lower(emails::refused).like(pattern).escape('\\');
        query = query.filter(first.or(in_content).or(in_refused));
    }
    query
}

/// Escapes text for use in a LIKE pattern.
fn escape_like(text: &str) -> String {
    let special = |c: char| matches!(c, '\\' | '%' | '_');
    text.chars()
        .flat_map(|c| special(c).then_some('\\').into_iter().chain([c]))
        .collect()
}

/// Whether an address is one of the email's recipients, as far as these are still known.
fn is_to(conn: &mut Connection, id: i64, wanted: &str) -> db::Result<bool> {
    let (content, refused): (Option<String>, Option<String>) = emails::table
        .find(id)
        .select((emails::message, emails::refused))
        .first(conn)
        .optional()?
        .unwrap_or_default();
    let refused = list::<RefusedRecipient>(refused.as_deref()).unwrap_or_default();
    let mut all = recipients(content.as_deref()).unwrap_or_default();
    all.extend(refused.into_iter().map(|refused| refused.email));
    Ok(all.iter().any(|email| email.eq_ignore_ascii_case(wanted)))
}

/// All recipients of a content, each once. `None`: they cannot be read.
fn recipients(content: Option<&str>) -> Option<Vec<String>> {
    let message: Message = serde_json::from_str(content?).ok()?;
    let recipients = mime::recipients(&message).ok()?;
    Some(recipients.iter().map(ToString::to_string).collect())
}

fn list<T: serde::de::DeserializeOwned>(json: Option<&str>) -> Option<Vec<T>> {
    serde_json::from_str(json?).ok()
}

/// An email as the operator sees it.
#[derive(Debug)]
pub struct Details {
    pub id: i64,
    pub message_id: String,
    pub account: String,
    pub key_id: i64,
    pub key_name: String,
    pub sender: Option<String>,
    /// The first recipient, and how many there are in all.
    pub recipient: Option<String>,
    pub recipients: Option<i64>,
    pub created_at: NaiveDateTime,
    pub next_attempt_at: NaiveDateTime,
    pub ended_at: Option<NaiveDateTime>,
    pub reply: Option<String>,
    pub state: State,
}

#[derive(Queryable)]
struct DetailsRow {
    id: i64,
    message_id: String,
    account: String,
    key_id: i64,
    key_name: String,
    sender: Option<String>,
    recipient: Option<String>,
    recipients: Option<i64>,
    next_attempt_at: NaiveDateTime,
    ended_at: Option<NaiveDateTime>,
    reply: Option<String>,
    state: StateRow,
}

/// These emails, in order of their numbers.
pub fn list_of_any_account(conn: &mut Connection, ids: &[i64]) -> db::Result<Vec<Details>> {
    let (now, needed) = (db::stamp(conn)?, needed_since(conn)?);
    let rows: Vec<DetailsRow> = emails::table
        .inner_join(api_keys::table)
        .inner_join(accounts::table.on(accounts::id.eq(emails::account_id)))
        .filter(emails::id.eq_any(ids))
        .order(emails::id)
        .select((
            emails::id,
            emails::message_id,
            accounts::title,
            api_keys::id,
            api_keys::name,
            emails::sender,
            emails::recipient,
            emails::recipients,
            emails::next_attempt_at,
            emails::ended_at,
            emails::reply,
            state_columns(),
        ))
        .load(conn)?;
    let details = |row: DetailsRow| Details {
        id: row.id,
        message_id: row.message_id,
        account: row.account,
        key_id: row.key_id,
        key_name: row.key_name,
        sender: row.sender,
        recipient: row.recipient,
        recipients: row.recipients,
        created_at: row.state.created_at,
        next_attempt_at: row.next_attempt_at,
        ended_at: row.ended_at,
        reply: row.reply,
        state: row.state.read(now, needed),
    };
    Ok(rows.into_iter().map(details).collect())
}

#[derive(Queryable)]
struct StateRow {
    status: String,
    claim: Option<String>,
    next_attempt_at: NaiveDateTime,
    attempts: i64,
    has_content: bool,
    remaining: Option<String>,
    refused: Option<String>,
    created_at: NaiveDateTime,
}

impl StateRow {
    fn read(self, now: NaiveDateTime, needed_since: Option<NaiveDateTime>) -> State {
        let is_leased = self.next_attempt_at > now;
        State {
            status: EmailStatus::parse(&self.status).unwrap_or(EmailStatus::Held),
            is_under_way: self.claim.is_some() && is_leased,
            is_cut_off: self.claim.is_some() && !is_leased,
            attempts: self.attempts,
            has_content: self.has_content,
            remaining: list(self.remaining.as_deref()),
            refused: list(self.refused.as_deref()).unwrap_or_default(),
            is_needed: needed_since.is_none_or(|since| self.created_at >= since),
        }
    }
}

#[diesel::dsl::auto_type]
fn state_columns() -> _ {
    (
        emails::status,
        emails::claim,
        emails::next_attempt_at,
        emails::attempts,
        emails::message.is_not_null(),
        emails::remaining,
        emails::refused,
        emails::created_at,
    )
}

/// What a task would come to with an email; `None`: it is gone, or no longer selected.
pub fn try_of_any_account(
    conn: &mut Connection,
    task: Task,
    id: i64,
    selection: &Selection,
) -> db::Result<Option<TaskVerdict>> {
    let now = db::stamp(conn)?;
    let found = find_state(conn, id, now)?;
    let found = found.filter(|(_, state)| selection.allows(state.status));
    Ok(found.map(|(_, state)| task.verdict(&state)))
}

/// Does a task with an email. Returns its account and the verdict; `None`: it is gone, or no longer
/// selected.
pub fn do_of_any_account(
    conn: &mut Connection,
    task: Task,
    id: i64,
    selection: &Selection,
) -> db::Result<Option<(AccountId, TaskVerdict)>> {
    lock(conn, id)?;
    let now = db::stamp(conn)?;
    let found = find_state(conn, id, now)?;
    let Some((account, state)) = found.filter(|(_, state)| selection.allows(state.status)) else {
        return Ok(None);
    };
    let verdict = task.verdict(&state);
    if verdict.is_done() {
        match task {
            Task::Retry => retry(conn, id, &state, now)?,
            Task::Cancel => cancel(conn, id, &state, now)?,
            Task::Purge => {
                diesel::delete(emails::table.find(id)).execute(conn)?;
            }
        }
    }
    Ok(Some((account, verdict)))
}

/// An email's account and its state at this time; `None`: it is gone.
fn find_state(
    conn: &mut Connection,
    id: i64,
    now: NaiveDateTime,
) -> db::Result<Option<(AccountId, State)>> {
    let needed = needed_since(conn)?;
    let row: Option<(i64, StateRow)> = emails::table
        .find(id)
        .select((emails::account_id, state_columns()))
        .first(conn)
        .optional()?;
    Ok(row.map(|(account, row)| (AccountId(account), row.read(now, needed))))
}

/// Sends a failed or deferred email of an account again. `None`: the account has no such email.
pub fn retry_one(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<(String, TaskVerdict)>> {
    let first: Option<Option<String>> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::id.eq(id))
        .select(emails::recipient)
        .first(conn)
        .optional()?;
    let Some(first) = first else {
        return Ok(None);
    };
    let done = do_of_any_account(conn, Task::Retry, id, &Selection::default())?;
    Ok(done.map(|(_, verdict)| (first.unwrap_or_default(), verdict)))
}

/// Until the transaction ends, no server claims the email or stores a result.
fn lock(conn: &mut Connection, id: i64) -> db::Result<()> {
    match conn {
        Connection::Postgres(conn) => {
            let row = emails::table.find(id).select(emails::id).for_update();
            row.first::<i64>(conn).optional()?;
        }
        // It has one writer.
        Connection::Sqlite(_) => {}
    }
    Ok(())
}

fn retry(conn: &mut Connection, id: i64, email: &State, now: NaiveDateTime) -> db::Result<()> {
    let recipients = email.recipients_of_retry();
    let remaining = recipients.map(|list| serde_json::to_string(&list).expect("strings"));
    diesel::update(emails::table.find(id))
        .set((
            emails::status.eq(EmailStatus::Deferred.as_str()),
            emails::claim.eq(None::<String>),
            emails::ended_at.eq(None::<NaiveDateTime>),
            emails::next_attempt_at.eq(now),
            // The time for retries begins anew.
            emails::first_attempt_at.eq(None::<NaiveDateTime>),
            emails::remaining.eq(remaining),
            emails::refused.eq(None::<String>),
        ))
        .execute(conn)?;
    Ok(())
}

fn cancel(conn: &mut Connection, id: i64, email: &State, now: NaiveDateTime) -> db::Result<()> {
    let content: Option<String> = emails::table.find(id).select(emails::message).first(conn)?;
    let all = recipients(content.as_deref()).unwrap_or_default();
    let remaining = email.remaining.as_ref().unwrap_or(&all);
    let is_delivered = all.len() > remaining.len() + email.refused.len();
    let reply = if email.is_cut_off { CUT_OFF } else { CANCELLED };
    let cancelled = remaining.iter().map(|email| RefusedRecipient {
        email: email.clone(),
        reply: reply.to_owned(),
    });
    let refused: Vec<RefusedRecipient> = email.refused.iter().cloned().chain(cancelled).collect();
    let refused = serde_json::to_string(&refused).expect("strings");
    let status = if is_delivered {
        EmailStatus::Delivered
    } else {
        EmailStatus::Failed
    };
    diesel::update(emails::table.find(id))
        .set((
            emails::status.eq(status.as_str()),
            emails::claim.eq(None::<String>),
            emails::ended_at.eq(now),
            emails::remaining.eq("[]"),
            emails::refused.eq(refused),
            emails::reply.eq(reply),
        ))
        .execute(conn)?;
    Ok(())
}

/// Emails accepted before this time are no longer needed for the totals.
fn needed_since(conn: &mut Connection) -> db::Result<Option<NaiveDateTime>> {
    outbox_store::needed_since_of_any_account(conn)
}
