//! The end of a key, which is final.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;

use super::lock::{end, lock_and_end_if_due};
use super::{EndedHow, Found, Key};
use crate::accounts::event::Actor;
use crate::accounts::store::{self as accounts_store, AccountId, AccountStatus};
use crate::db::{self, Connection};
use crate::keys::name::KeyName;
use crate::schema::api_keys;

/// Uses are written with a short delay.
const UNTIL_WRITTEN: TimeDelta = TimeDelta::minutes(1);

/// Deletes a key. Returns the key as it was.
pub fn delete(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    actor: &Actor,
) -> db::Result<Found> {
    let found = lock_and_end_if_due(conn, account, id)?;
    if let Found::Live(key) = &found {
        let now = db::stamp(conn)?;
        end(conn, account, key, EndedHow::Deleted, now, actor)?;
    }
    Ok(found)
}

/// Some of the keys that have expired or are due to stop: they are refused already, but their end
/// is not recorded yet. None while the clock is in doubt.
pub fn find_due_of_any_account(
    conn: &mut Connection,
    most: i64,
) -> db::Result<Vec<(AccountId, i64)>> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(Vec::new());
    };
    // Two queries, because SQLite uses neither index for an "or" of both conditions.
    let mut due: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::expires_at.le(now))
        .order(api_keys::expires_at)
        .limit(most)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    let stopped: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::ended_at.is_null())
        .filter(api_keys::stops_at.le(now))
        .order(api_keys::stops_at)
        .limit(most)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    due.extend(stopped);
    let ids = due
        .into_iter()
        .map(|(account, id)| (AccountId(account), id));
    Ok(ids.collect())
}

/// The replaced keys that stop when they are quiet; none while the clock is in doubt.
pub fn find_quiet_of_any_account(conn: &mut Connection) -> db::Result<Vec<(AccountId, i64)>> {
    if db::trusted_now(conn)?.is_none() {
        return Ok(Vec::new());
    }
    let waiting: Vec<(i64, i64)> = api_keys::table
        .filter(api_keys::stops_when_quiet.is_not_null())
        .filter(api_keys::ended_at.is_null())
        .order(api_keys::id)
        .select((api_keys::account_id, api_keys::id))
        .load(conn)?;
    let ids = waiting
        .into_iter()
        .map(|(account, id)| (AccountId(account), id));
    Ok(ids.collect())
}

/// Ends a key that is due, or was replaced and has been quiet for long enough. `since`: the
/// earliest time at which calls were possible; before it, the key could not be used. Returns
/// whether it ended.
pub fn end_if_due(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    since: NaiveDateTime,
) -> db::Result<bool> {
    let key = match lock_and_end_if_due(conn, account, id)? {
        Found::Live(key) => key,
        Found::Ended(_) => return Ok(true),
        Found::Nothing => return Ok(false),
    };
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(false);
    };
    if !is_quiet(&key, since, now)
        || accounts_store::find(conn, account)?.status == AccountStatus::Paused
    {
        return Ok(false);
    }
    let server = Actor::server();
    end(conn, account, &key, EndedHow::Stopped, now, &server)?;
    Ok(true)
}

/// Whether a replaced key has been unused long enough to be stopped. Never while it is paused,
/// because it cannot be used then.
fn is_quiet(key: &Key, since: NaiveDateTime, now: NaiveDateTime) -> bool {
    let (Some(quiet), Some(successor)) = (key.stops_when_quiet, &key.successor) else {
        return false;
    };
    let begun = since.max(successor.created_at);
    let last = key.last_used_at().map_or(begun, |used| used.max(begun));
    key.paused.is_none() && last + quiet + UNTIL_WRITTEN <= now
}

/// Whether a key of this name expired at this instant.
pub fn has_expired(
    conn: &mut Connection,
    account: AccountId,
    name: &KeyName,
    expires_at: NaiveDateTime,
) -> db::Result<bool> {
    let expired = api_keys::table
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_keys::ended_at.eq(expires_at))
        .filter(api_keys::expires_at.eq(expires_at))
        .filter(api_keys::name.eq(name.as_ref()));
    Ok(diesel::select(diesel::dsl::exists(expired.select(api_keys::id))).get_result(conn)?)
}

/// Deletes the hashes of some of the keys that ended so long ago that they are no longer shown.
pub fn forget_ended_of_any_account(conn: &mut Connection, most: i64) -> db::Result<usize> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(0);
    };
    let since = now - super::SHOWN_AFTER_END;
    let old: Vec<i64> = api_keys::table
        .filter(api_keys::ended_hash.is_not_null())
        .filter(api_keys::ended_at.lt(since))
        .order(api_keys::ended_at)
        .limit(most)
        .select(api_keys::id)
        .load(conn)?;
    Ok(
        diesel::update(api_keys::table.filter(api_keys::id.eq_any(old)))
            .set(api_keys::ended_hash.eq(None::<Vec<u8>>))
            .execute(conn)?,
    )
}
