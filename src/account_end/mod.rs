//! The end of an account: what its people or the operator take along, and what becomes of it.
//!
//! It ends at once, in one short transaction. What is left is removed by [`removal`] in small steps,
//! so that nobody else waits for a large account.

pub mod export;
pub mod pages;
pub mod removal;

use crate::accounts::store::{self as accounts_store, AccountId, AccountLine};
use crate::db::{self, Connection};
use crate::domains::store as domains_store;
use crate::outbox::store as outbox_store;

/// Waiting emails are counted up to this number.
pub const MOST_COUNTED: usize = 1_000;

/// What ends with an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consequences {
    pub domains: usize,
    /// Emails that are not delivered yet, up to `MOST_COUNTED`.
    pub waiting: usize,
}

pub fn consequences(conn: &mut Connection, account: AccountId) -> db::Result<Consequences> {
    Ok(Consequences {
        domains: domains_store::list(conn, account)?.len(),
        waiting: outbox_store::count_waiting_emails(conn, account, MOST_COUNTED as i64)?,
    })
}

/// Ends an account. From the COMMIT on, its keys are refused, its people are signed out, none of its
/// emails is tried again, and its domains and email addresses are free. Returns whether it had not
/// ended before.
pub fn end(conn: &mut Connection, account: AccountId) -> db::Result<bool> {
    let is_ended = accounts_store::end(conn, account)?;
    domains_store::release_all(conn, account)?;
    Ok(is_ended)
}

/// Ends an account in an older copy of the database if the journal says that it has ended. Returns
/// whether it had not.
pub fn end_again_of_any_account(conn: &mut Connection, line: &AccountLine) -> db::Result<bool> {
    match accounts_store::find_to_end_again_of_any_account(conn, line)? {
        Some(account) => end(conn, account),
        None => Ok(false),
    }
}
