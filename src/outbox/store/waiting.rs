//! Undelivered emails.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Text};

use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::outbox::status::EmailStatus;
use crate::schema::emails;

/// The beginning of the reply stored with an email that waits because the relay refuses this
/// server.
pub const RELAY_REFUSES: &str = "The relay refuses this server: ";

/// How many of an account's newest deferred emails are searched for such a reply.
const LOOKED_AT: i64 = 100;

/// The relay's message to this server, if it refuses the account's emails. It may name recipients,
/// so it is taken only from the account's own emails.
pub fn refusal_by_relay(conn: &mut Connection, account: AccountId) -> db::Result<Option<String>> {
    let replies: Vec<Option<String>> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::status.eq(EmailStatus::Deferred.as_str()))
        .order((emails::created_at.desc(), emails::id.desc()))
        .limit(LOOKED_AT)
        .select(emails::reply)
        .load(conn)?;
    let refused = |reply: &String| reply.starts_with(RELAY_REFUSES);
    Ok(replies.into_iter().flatten().find(refused))
}

/// The undelivered emails of all accounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub held: i64,
    pub deferred: i64,
    /// For how long the one that is due first has been due; zero if none is.
    pub oldest_due: TimeDelta,
}

#[derive(QueryableByName)]
struct OfStatus {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = BigInt)]
    number: i64,
}

/// Counts undelivered emails up to `most` in all: the cost does not grow with their number. In the
/// order of an index, so that no table is scanned for them.
pub fn count_waiting_of_any_account(conn: &mut Connection, most: i64) -> db::Result<Waiting> {
    let now = db::stamp(conn)?;
    let counted: Vec<OfStatus> = sql_query(
        "SELECT status, COUNT(*) AS number
         FROM (SELECT status FROM emails WHERE ended_at IS NULL ORDER BY account_id LIMIT $1) AS waiting
         GROUP BY status",
    )
    .bind::<BigInt, _>(most)
    .load(conn)?;
    let due_first: Option<NaiveDateTime> = emails::table
        .filter(emails::ended_at.is_null())
        .filter(emails::next_attempt_at.le(now))
        .order(emails::next_attempt_at)
        .select(emails::next_attempt_at)
        .first(conn)
        .optional()?;
    let number = |status: EmailStatus| {
        let of_status = counted.iter().find(|of| of.status == status.as_str());
        of_status.map_or(0, |of| of.number)
    };
    Ok(Waiting {
        held: number(EmailStatus::Held),
        deferred: number(EmailStatus::Deferred),
        oldest_due: due_first.map_or(TimeDelta::zero(), |at| now - at),
    })
}

/// How many emails are still to be delivered, counted up to a maximum.
pub fn count_waiting_emails(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let ids: Vec<i64> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::status.eq_any([EmailStatus::Held.as_str(), EmailStatus::Deferred.as_str()]))
        .limit(most)
        .select(emails::id)
        .load(conn)?;
    Ok(ids.len())
}
