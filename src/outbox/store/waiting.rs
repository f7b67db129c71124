//! Undelivered emails.

use diesel::prelude::*;

use crate::accounts::store::AccountId;
use crate::db::{self, Connection};
use crate::outbox::status::Status;
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
        .filter(emails::status.eq(Status::Deferred.as_str()))
        .order((emails::created_at.desc(), emails::id.desc()))
        .limit(LOOKED_AT)
        .select(emails::reply)
        .load(conn)?;
    let refused = |reply: &String| reply.starts_with(RELAY_REFUSES);
    Ok(replies.into_iter().flatten().find(refused))
}

/// How many emails are still to be delivered, counted up to a maximum.
pub fn count_waiting_emails(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let ids: Vec<i64> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::status.eq_any([Status::Held.as_str(), Status::Deferred.as_str()]))
        .limit(most)
        .select(emails::id)
        .load(conn)?;
    Ok(ids.len())
}
