//! Emails to deliver, in the database. Any number of nodes may deliver at once: an email belongs to
//! the node whose claim is on it.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Timestamp};

use super::attempt::{AttemptOutcome, RefusedRecipient};
use super::queue::{State, Task};
use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::outbox::{EmailStatus, store as outbox_store};
use crate::schema::{accounts, api_keys, emails};

/// An email to be sent.
#[derive(Debug)]
pub struct Outgoing {
    pub domain_id: Option<i64>,
    /// As JSON.
    pub message: String,
    pub internet_id: String,
    pub created_at: NaiveDateTime,
    pub attempts: i64,
    pub first_attempt_at: Option<NaiveDateTime>,
    /// The recipients that still have to get it; `None`: all.
    pub remaining: Option<Vec<String>>,
    pub refused: Vec<RefusedRecipient>,
}

/// An email as its account sees it.
#[derive(Debug)]
pub struct Sent {
    pub id: i64,
    pub status: EmailStatus,
    pub created_at: NaiveDateTime,
    pub next_attempt_at: NaiveDateTime,
    pub sender: Option<String>,
    pub recipient: Option<String>,
    pub recipients: Option<i64>,
    pub key_id: i64,
    pub key_name: String,
    pub refused: Vec<RefusedRecipient>,
    pub reply: Option<String>,
    /// Whether there is somebody who did not get it and can be sent it again.
    pub can_be_retried: bool,
}

impl Sent {
    /// How many recipients it has besides the one shown.
    pub fn others(&self) -> i64 {
        self.recipients.map_or(0, |count| count - 1)
    }
}

/// An account with emails to deliver: the next due email of each kind, if any.
#[derive(Debug, Clone, PartialEq, Eq, QueryableByName)]
pub struct Turn {
    #[diesel(sql_type = BigInt)]
    pub account_id: i64,
    /// Never tried yet.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub fresh: Option<i64>,
    /// To be retried.
    #[diesel(sql_type = Nullable<BigInt>)]
    pub retry: Option<i64>,
}

/// Whether any email is due.
pub fn is_any_due_of_any_account(conn: &mut Connection) -> db::Result<bool> {
    let now = db::stamp(conn)?;
    let due = emails::table
        .filter(emails::ended_at.is_null())
        .filter(emails::next_attempt_at.le(now))
        .select(emails::id);
    Ok(due.first::<i64>(conn).optional()?.is_some())
}

/// The accounts with emails to deliver after a given account, in the order of their ids. `except`:
/// emails that were picked before.
///
/// Uses one index lookup per account and kind: the cost depends on the number of accounts examined,
/// not on how many emails they have.
pub fn list_turns_of_any_account(
    conn: &mut Connection,
    after: i64,
    most: i64,
    except: &[i64],
) -> db::Result<Vec<Turn>> {
    let now = db::stamp(conn)?;
    let except = match except {
        [] => String::new(),
        ids => {
            let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
            format!("AND id NOT IN ({})", ids.join(", "))
        }
    };
    // SQLite numbers the parameters by their first occurrence, so they must be bound in this order.
    let (held, deferred) = (EmailStatus::Held.as_str(), EmailStatus::Deferred.as_str());
    // Asked once for an account, not for each of its emails.
    let lives = "waiting.account_id NOT IN (SELECT id FROM accounts WHERE deleted_at IS NOT NULL)";
    let query = sql_query(format!(
        "WITH RECURSIVE waiting (account_id, place) AS (
             SELECT min(account_id), 1 FROM emails WHERE ended_at IS NULL AND account_id > $1
             UNION ALL
             SELECT (SELECT min(emails.account_id) FROM emails
                     WHERE ended_at IS NULL AND emails.account_id > waiting.account_id), place + 1
             FROM waiting WHERE account_id IS NOT NULL AND place < $2
         )
         SELECT account_id,
             CASE WHEN {lives} THEN (SELECT id FROM emails
              WHERE emails.account_id = waiting.account_id AND ended_at IS NULL
                  AND status = '{held}' AND next_attempt_at <= $3 {except}
              ORDER BY next_attempt_at LIMIT 1) END AS fresh,
             CASE WHEN {lives} THEN (SELECT id FROM emails
              WHERE emails.account_id = waiting.account_id AND ended_at IS NULL
                  AND status = '{deferred}' AND next_attempt_at <= $3 {except}
              ORDER BY next_attempt_at LIMIT 1) END AS retry
         FROM waiting WHERE account_id IS NOT NULL",
    ));
    Ok(query
        .bind::<BigInt, _>(after)
        .bind::<BigInt, _>(most)
        .bind::<Timestamp, _>(now)
        .load(conn)?)
}

/// Claims these emails for the length of a lease, except those that another node has taken. Returns
/// the ones claimed.
pub fn claim_of_any_account(
    conn: &mut Connection,
    ids: &[i64],
    claim: &str,
    lease: TimeDelta,
) -> db::Result<Vec<i64>> {
    let now = db::stamp(conn)?;
    let mut claimed = Vec::new();
    for id in ids {
        let due = emails::table
            .filter(emails::id.eq(id))
            .filter(emails::ended_at.is_null())
            .filter(emails::next_attempt_at.le(now));
        let count = diesel::update(due)
            .set((
                emails::claim.eq(claim),
                emails::next_attempt_at.eq(now + lease),
            ))
            .execute(conn)?;
        if count == 1 {
            claimed.push(*id);
        }
    }
    Ok(claimed)
}

/// A claimed email. `None`: the claim is lost, or the account was deleted.
pub fn find_claimed_of_any_account(
    conn: &mut Connection,
    id: i64,
    claim: &str,
) -> db::Result<Option<Outgoing>> {
    let deleted = accounts::table
        .filter(accounts::deleted_at.is_not_null())
        .select(accounts::id);
    let row: Option<OutgoingRow> = claimed(id, claim)
        .filter(emails::account_id.ne_all(deleted))
        .select((
            emails::domain_id,
            emails::message,
            emails::internet_id,
            emails::created_at,
            emails::attempts,
            emails::first_attempt_at,
            emails::remaining,
            emails::refused,
        ))
        .first(conn)
        .optional()?;
    Ok(row.map(Outgoing::from))
}

#[derive(Queryable)]
struct OutgoingRow {
    domain_id: Option<i64>,
    message: Option<String>,
    internet_id: String,
    created_at: NaiveDateTime,
    attempts: i64,
    first_attempt_at: Option<NaiveDateTime>,
    remaining: Option<String>,
    refused: Option<String>,
}

impl From<OutgoingRow> for Outgoing {
    fn from(row: OutgoingRow) -> Self {
        Self {
            domain_id: row.domain_id,
            message: row.message.unwrap_or_default(),
            internet_id: row.internet_id,
            created_at: row.created_at,
            attempts: row.attempts,
            first_attempt_at: row.first_attempt_at,
            remaining: row
                .remaining
                .and_then(|json| serde_json::from_str(&json).ok()),
            refused: refused_of(row.refused),
        }
    }
}

/// Stores the result of an attempt. Returns whether the claim was still valid.
pub fn settle_of_any_account(
    conn: &mut Connection,
    id: i64,
    claim: &str,
    outcome: &AttemptOutcome,
) -> db::Result<bool> {
    let now = db::stamp(conn)?;
    let json = |list: serde_json::Result<String>| list.expect("a list of strings");
    let refused =
        (!outcome.refused.is_empty()).then(|| json(serde_json::to_string(&outcome.refused)));
    let count = diesel::update(claimed(id, claim))
        .set((
            emails::status.eq(outcome.status.as_str()),
            emails::attempts.eq(outcome.attempts),
            emails::first_attempt_at.eq(outcome.first_attempt_at),
            emails::next_attempt_at.eq(now + outcome.retry_in.unwrap_or_default()),
            emails::claim.eq(None::<String>),
            emails::ended_at.eq(outcome.retry_in.is_none().then_some(now)),
            emails::remaining.eq(json(serde_json::to_string(&outcome.remaining))),
            emails::refused.eq(refused),
            emails::reply.eq(&outcome.reply),
        ))
        .execute(conn)?;
    Ok(count == 1)
}

/// Corrects emails whose next attempt is so far ahead that only a wrong clock can have set it: an
/// email that would wait longer than `longest` is due now, or when its lease would end. Returns how
/// many.
pub fn pull_back_of_any_account(
    conn: &mut Connection,
    longest: TimeDelta,
    lease: TimeDelta,
) -> db::Result<usize> {
    let now = db::stamp(conn)?;
    let far = emails::table
        .filter(emails::ended_at.is_null())
        .filter(emails::next_attempt_at.gt(now + longest));
    let claimed = diesel::update(far.filter(emails::claim.is_not_null()))
        .set(emails::next_attempt_at.eq(now + lease))
        .execute(conn)?;
    let waiting = diesel::update(far)
        .set(emails::next_attempt_at.eq(now))
        .execute(conn)?;
    Ok(claimed + waiting)
}

/// Releases an email unchanged, to be tried again later.
pub fn put_off_of_any_account(
    conn: &mut Connection,
    id: i64,
    claim: &str,
    rest: TimeDelta,
    why: &str,
) -> db::Result<()> {
    let now = db::stamp(conn)?;
    diesel::update(claimed(id, claim))
        .set((
            emails::status.eq(EmailStatus::Deferred.as_str()),
            emails::claim.eq(None::<String>),
            emails::next_attempt_at.eq(now + rest),
            emails::reply.eq(why),
        ))
        .execute(conn)?;
    Ok(())
}

/// Releases an email unchanged, for the next node.
pub fn give_back_of_any_account(conn: &mut Connection, id: i64, claim: &str) -> db::Result<()> {
    let now = db::stamp(conn)?;
    diesel::update(claimed(id, claim))
        .set((
            emails::claim.eq(None::<String>),
            emails::next_attempt_at.eq(now),
        ))
        .execute(conn)?;
    Ok(())
}

/// Deletes the content of some emails that ended more than this many days ago. Returns of how many.
pub fn forget_content_of_any_account(
    conn: &mut Connection,
    days: i64,
    most: i64,
) -> db::Result<usize> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(0);
    };
    let before = now - TimeDelta::days(days);
    let old: Vec<i64> = emails::table
        .filter(emails::ended_at.lt(before))
        .filter(emails::message.is_not_null())
        .order(emails::ended_at)
        .limit(most)
        .select(emails::id)
        .load(conn)?;
    Ok(diesel::update(emails::table.filter(emails::id.eq_any(old)))
        .set(emails::message.eq(None::<String>))
        .execute(conn)?)
}

/// Some emails that ended more than this many days ago and are not needed for the totals; none
/// while the clock is in doubt.
pub fn find_old_of_any_account(
    conn: &mut Connection,
    days: i64,
    most: i64,
) -> db::Result<Vec<i64>> {
    let needed = outbox_store::needed_since_of_any_account(conn)?;
    let (Some(now), Some(needed)) = (db::trusted_now(conn)?, needed) else {
        return Ok(Vec::new());
    };
    let before = now - TimeDelta::days(days);
    let old = || {
        emails::table
            .filter(emails::ended_at.lt(before))
            .filter(emails::created_at.lt(needed))
            .order(emails::ended_at)
            .limit(most)
            .select(emails::id)
    };
    // Each of the two has an index.
    let mut ids: Vec<i64> = old().filter(emails::message.is_null()).load(conn)?;
    if ids.is_empty() {
        ids = old().filter(emails::message.is_not_null()).load(conn)?;
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Deletes the rows of these emails, except those that are tried again meanwhile or are needed for
/// the totals. Returns how many.
pub fn forget_of_any_account(conn: &mut Connection, ids: &[i64]) -> db::Result<usize> {
    let Some(needed) = outbox_store::needed_since_of_any_account(conn)? else {
        return Ok(0);
    };
    let old = emails::table
        .filter(emails::id.eq_any(ids))
        .filter(emails::ended_at.is_not_null())
        .filter(emails::created_at.lt(needed));
    Ok(diesel::delete(old).execute(conn)?)
}

/// The emails of an account, newest first; only those after the email `before`, if given.
pub fn list(
    conn: &mut Connection,
    account: AccountId,
    status: Option<EmailStatus>,
    before: Option<i64>,
    limit: i64,
) -> db::Result<Vec<Sent>> {
    let mut query = emails::table
        .inner_join(api_keys::table)
        .filter(emails::account_id.eq(account.0))
        .order((emails::created_at.desc(), emails::id.desc()))
        .limit(limit)
        .select((
            emails::id,
            emails::status,
            emails::created_at,
            emails::next_attempt_at,
            emails::sender,
            emails::recipient,
            emails::recipients,
            api_keys::id,
            api_keys::name,
            emails::refused,
            emails::reply,
            emails::attempts,
            emails::message.is_not_null(),
            emails::claim.is_not_null(),
        ))
        .into_boxed();
    if let Some(status) = status {
        query = query.filter(emails::status.eq(status.as_str()));
    }
    if let Some(id) = before {
        let Some(at) = find_time(conn, account, id)? else {
            return Ok(Vec::new());
        };
        query = query
            .filter(emails::created_at.le(at))
            .filter(emails::created_at.lt(at).or(emails::id.lt(id)));
    }
    let rows: Vec<SentRow> = query.load(conn)?;
    Ok(rows.into_iter().map(Sent::from).collect())
}

/// What is kept of an email besides its content.
#[derive(Debug, Queryable)]
pub struct Kept {
    pub id: i64,
    pub message_id: String,
    pub api_key_id: i64,
    pub domain_id: Option<i64>,
    pub status: String,
    pub created_at: NaiveDateTime,
    pub ended_at: Option<NaiveDateTime>,
    pub attempts: i64,
    pub sender: Option<String>,
    pub recipient: Option<String>,
    pub recipients: Option<i64>,
    pub reply: Option<String>,
}

/// The emails of an account, newest first; only those after the email `before`, if given.
pub fn list_kept(
    conn: &mut Connection,
    account: AccountId,
    before: Option<i64>,
    limit: i64,
) -> db::Result<Vec<Kept>> {
    let mut query = emails::table
        .filter(emails::account_id.eq(account.0))
        .order((emails::created_at.desc(), emails::id.desc()))
        .limit(limit)
        .select((
            emails::id,
            emails::message_id,
            emails::api_key_id,
            emails::domain_id,
            emails::status,
            emails::created_at,
            emails::ended_at,
            emails::attempts,
            emails::sender,
            emails::recipient,
            emails::recipients,
            emails::reply,
        ))
        .into_boxed();
    if let Some(id) = before {
        let Some(at) = find_time(conn, account, id)? else {
            return Ok(Vec::new());
        };
        query = query
            .filter(emails::created_at.le(at))
            .filter(emails::created_at.lt(at).or(emails::id.lt(id)));
    }
    Ok(query.load(conn)?)
}

/// When an email of an account was accepted.
fn find_time(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
) -> db::Result<Option<NaiveDateTime>> {
    Ok(emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::id.eq(id))
        .select(emails::created_at)
        .first(conn)
        .optional()?)
}

/// Deletes some of an account's emails. Returns how many.
pub fn remove_some(conn: &mut Connection, account: AccountId, most: i64) -> db::Result<usize> {
    let mut some: Vec<i64> = emails::table
        .filter(emails::account_id.eq(account.0))
        .order(emails::created_at)
        .limit(most)
        .select(emails::id)
        .load(conn)?;
    some.sort_unstable();
    Ok(diesel::delete(emails::table.filter(emails::id.eq_any(some))).execute(conn)?)
}

#[derive(Queryable)]
struct SentRow {
    id: i64,
    status: String,
    created_at: NaiveDateTime,
    next_attempt_at: NaiveDateTime,
    sender: Option<String>,
    recipient: Option<String>,
    recipients: Option<i64>,
    key_id: i64,
    key_name: String,
    refused: Option<String>,
    reply: Option<String>,
    attempts: i64,
    has_content: bool,
    is_claimed: bool,
}

impl From<SentRow> for Sent {
    fn from(row: SentRow) -> Self {
        let status = EmailStatus::parse(&row.status).unwrap_or(EmailStatus::Held);
        let refused = refused_of(row.refused);
        let state = State {
            status,
            is_under_way: row.is_claimed,
            is_cut_off: false,
            attempts: row.attempts,
            has_content: row.has_content,
            remaining: None,
            refused: refused.clone(),
            is_needed: false,
        };
        Self {
            id: row.id,
            can_be_retried: Task::Retry.verdict(&state).is_done(),
            status,
            created_at: row.created_at,
            next_attempt_at: row.next_attempt_at,
            sender: row.sender,
            recipient: row.recipient,
            recipients: row.recipients,
            key_id: row.key_id,
            key_name: row.key_name,
            refused,
            reply: row.reply,
        }
    }
}

#[diesel::dsl::auto_type]
fn claimed<'a>(id: i64, claim: &'a str) -> _ {
    emails::table
        .filter(emails::id.eq(id))
        .filter(emails::claim.eq(claim))
}

fn refused_of(json: Option<String>) -> Vec<RefusedRecipient> {
    json.and_then(|json| serde_json::from_str(&json).ok())
        .unwrap_or_default()
}

/// The reason shown for an email that may have gone out although an older database does not know it.
const WITHHELD: &str = "Withheld: the database was restored from a backup, and this email may have been sent since. It can be sent again.";

/// Gives up all emails that are not sent yet. Returns how many.
pub fn withhold_unsent_of_any_account(conn: &mut Connection) -> db::Result<usize> {
    let now = db::stamp(conn)?;
    Ok(
        diesel::update(emails::table.filter(emails::ended_at.is_null()))
            .set((
                emails::status.eq(EmailStatus::Failed.as_str()),
                emails::ended_at.eq(now),
                emails::claim.eq(None::<String>),
                emails::reply.eq(WITHHELD),
            ))
            .execute(conn)?,
    )
}
