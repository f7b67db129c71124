//! Removes what is left of accounts that have ended.

use crate::accounts::store::{self as accounts_store, AccountId};
use crate::db::{self, Connection};
use crate::domains::store as domains_store;
use crate::keys::store as keys_store;
use crate::keys::usage::store as usage_store;
use crate::mail::store as mail_store;
use crate::outbox::store as outbox_store;

/// Rows per transaction, so that a change on a page waits for no more than that: each email is in ten
/// indexes and may have 16 MB.
const EMAILS: i64 = 100;
const ROWS: i64 = 500;

/// Removes some of what is left of an account that has ended, and at last the account. Returns whether
/// nothing is left.
pub fn remove_some(conn: &mut Connection, account: AccountId) -> db::Result<bool> {
    // What refers to something else goes first.
    let removed = match mail_store::remove_some(conn, account, EMAILS)? {
        0 => outbox_store::remove_some_counts(conn, account, ROWS)?,
        emails => emails,
    };
    let removed = match removed {
        0 => usage_store::remove_some_calls(conn, account, ROWS)?,
        rows => rows,
    };
    let removed = match removed {
        0 => keys_store::remove_some(conn, account, ROWS)?,
        rows => rows,
    };
    let removed = match removed {
        0 => domains_store::remove_some(conn, account, ROWS)?,
        rows => rows,
    };
    let removed = match removed {
        0 => accounts_store::remove_some_events(conn, account, ROWS)?,
        rows => rows,
    };
    if removed == 0 {
        accounts_store::remove(conn, account)?;
    }
    Ok(removed == 0)
}
