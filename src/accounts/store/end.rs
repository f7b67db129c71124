//! The end of an account, which is final. What is left of it is removed later, in small steps.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::account::AccountLine;
use super::id::{AccountId, AccountStatus};
use super::sessions;
use crate::clock;
use crate::db::{self, Connection};
use crate::schema::{accounts, events, users};

/// In the columns that must not be empty. No address and no hash of a password looks like it.
const DELETED: &str = "deleted";
/// Nothing is removed before this time has passed: until then, servers write down how the keys were
/// used.
const UNTIL_WRITTEN: TimeDelta = TimeDelta::minutes(1);

/// Ends an account: from the COMMIT on, its keys are refused, its people are signed out and cannot
/// sign in again, and their email addresses are free. Returns whether it had not ended before.
pub fn end(conn: &mut Connection, account: AccountId) -> db::Result<bool> {
    // People come before their account wherever both are locked.
    for person in list_ids(conn, account)? {
        diesel::update(users::table.find(person))
            .set((
                users::email.eq(format!("{DELETED} {person}")),
                users::password_hash.eq(DELETED),
            ))
            .execute(conn)?;
        sessions::delete_all(conn, person)?;
    }
    let ended: Option<NaiveDateTime> = diesel::update(accounts::table.find(account.0))
        .filter(accounts::deleted_at.is_null())
        .set((
            accounts::title.eq(DELETED),
            accounts::status.eq(AccountStatus::Paused.as_str()),
            accounts::deleted_at.eq(db::stamp(conn)?),
        ))
        .returning(accounts::created_at)
        .get_result(conn)
        .optional()?;
    let Some(created_at) = ended else {
        return Ok(false);
    };
    let line = AccountLine {
        id: account.0,
        created: clock::micros(&created_at),
        is_paused: true,
        is_deleted: true,
    };
    db::journal::note(AccountLine::KIND, &line);
    Ok(true)
}

/// The account that the journal says has ended, if it is there and has not.
pub fn find_to_end_again_of_any_account(
    conn: &mut Connection,
    line: &AccountLine,
) -> db::Result<Option<AccountId>> {
    if !line.is_deleted {
        return Ok(None);
    }
    let id: Option<i64> = accounts::table
        .find(line.id)
        .filter(accounts::created_at.eq(clock::from_micros(line.created)))
        .filter(accounts::deleted_at.is_null())
        .select(accounts::id)
        .first(conn)
        .optional()?;
    Ok(id.map(AccountId))
}

/// An account that has ended and is to be removed; `None`: there is none.
pub fn find_ended_of_any_account(conn: &mut Connection) -> db::Result<Option<AccountId>> {
    let before = db::stamp(conn)? - UNTIL_WRITTEN;
    let id: Option<i64> = accounts::table
        .filter(accounts::deleted_at.is_not_null())
        .filter(accounts::deleted_at.lt(before))
        .order(accounts::id)
        .select(accounts::id)
        .first(conn)
        .optional()?;
    Ok(id.map(AccountId))
}

/// Deletes some of an account's activity. Returns how much.
pub fn remove_some_events(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let some: Vec<i64> = events::table
        .filter(events::account_id.eq(account.0))
        .order((events::at, events::id))
        .limit(most)
        .select(events::id)
        .load(conn)?;
    Ok(diesel::delete(events::table.filter(events::id.eq_any(some))).execute(conn)?)
}

/// Deletes an account that has ended, and its people. Nothing else may be left of it.
pub fn remove(conn: &mut Connection, account: AccountId) -> db::Result<()> {
    for person in list_ids(conn, account)? {
        diesel::delete(users::table.find(person)).execute(conn)?;
    }
    diesel::delete(accounts::table.find(account.0))
        .filter(accounts::deleted_at.is_not_null())
        .execute(conn)?;
    Ok(())
}

fn list_ids(conn: &mut Connection, account: AccountId) -> db::Result<Vec<i64>> {
    Ok(users::table
        .filter(users::account_id.eq(account.0))
        .order(users::id)
        .select(users::id)
        .load(conn)?)
}
