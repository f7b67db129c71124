//! Counts of calls with keys, by hour and by outcome.

use std::collections::HashMap;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::upsert::excluded;

use crate::accounts::store::{AccountId, AccountStatus};
use crate::clock;
use crate::db::{self, Connection};
use crate::keys::standing::{ACTIVE, EndedHow};
use crate::keys::usage::history::{self, History, Span};
use crate::keys::usage::outcome::Outcome;
use crate::keys::usage::tally::{Calls, RefusedKey};
use crate::schema::{accounts, api_key_calls, api_keys};

const KEPT: TimeDelta = TimeDelta::days(90);

#[derive(Insertable)]
#[diesel(table_name = api_key_calls)]
struct CallsRow {
    api_key_id: i64,
    hour: NaiveDateTime,
    outcome: &'static str,
    calls: i64,
}

impl From<&(Calls, i64)> for CallsRow {
    fn from((calls, number): &(Calls, i64)) -> Self {
        Self {
            api_key_id: calls.key_id,
            hour: calls.hour,
            outcome: calls.outcome.as_str(),
            calls: *number,
        }
    }
}

/// Adds calls to the stored counts. If the answer to a COMMIT is lost, they are counted twice.
pub fn count_calls_of_any_account(conn: &mut Connection, calls: &[(Calls, i64)]) -> db::Result<()> {
    match conn {
        // Many rows per statement, because each statement is a round trip.
        Connection::Postgres(conn) => {
            // As for the last uses: a crash may lose them.
            conn.batch_execute("SET LOCAL synchronous_commit = off")?;
            for calls in calls.chunks(1_000) {
                diesel::insert_into(api_key_calls::table)
                    .values(calls.iter().map(CallsRow::from).collect::<Vec<_>>())
                    .on_conflict((
                        api_key_calls::api_key_id,
                        api_key_calls::hour,
                        api_key_calls::outcome,
                    ))
                    .do_update()
                    .set(
                        api_key_calls::calls
                            .eq(api_key_calls::calls + excluded(api_key_calls::calls)),
                    )
                    .execute(conn)?;
            }
        }
        // Two statements that Diesel keeps prepared; it keeps none prepared that contains ON
        // CONFLICT.
        Connection::Sqlite(conn) => {
            for calls in calls {
                let mut row = CallsRow::from(calls);
                let known: Vec<i64> = api_key_calls::table
                    .filter(api_key_calls::api_key_id.eq(row.api_key_id))
                    .filter(api_key_calls::hour.eq(row.hour))
                    .filter(api_key_calls::outcome.eq(row.outcome))
                    .select(api_key_calls::calls)
                    .load(conn)?;
                row.calls += known.first().copied().unwrap_or_default();
                diesel::replace_into(api_key_calls::table)
                    .values(row)
                    .execute(conn)?;
            }
        }
    }
    Ok(())
}

/// Counts calls with keys that did not work, by the reason why they do not work now. Hashes that
/// never belonged to a key are dropped. Returns how many calls there were for each reason; `None`:
/// the key never was one.
pub fn count_refused_of_any_account(
    conn: &mut Connection,
    refused: &[(RefusedKey, i64)],
) -> db::Result<Vec<(Option<Outcome>, i64)>> {
    let mut hashes: Vec<&[u8]> = refused.iter().map(|(of, _)| of.hash.as_ref()).collect();
    hashes.dedup();
    let mut known = refused_with_a_hash(conn, &hashes)?;
    known.extend(ended(conn, &hashes)?);
    let mut calls: Vec<(Calls, i64)> = refused
        .iter()
        .filter_map(|(of, number)| {
            let &(key_id, outcome) = known.get(of.hash.as_ref())?;
            let hour = of.hour;
            let calls = Calls {
                key_id,
                hour,
                outcome,
            };
            Some((calls, *number))
        })
        .collect();
    calls.sort_unstable();
    count_calls_of_any_account(conn, &calls)?;
    let why = |(of, number): &(RefusedKey, i64)| {
        let known = known.get(of.hash.as_ref());
        (known.map(|(_, outcome)| *outcome), *number)
    };
    Ok(refused.iter().map(why).collect())
}

type Why = HashMap<Vec<u8>, (i64, Outcome)>;

/// Keys that have not ended, or whose end is not recorded yet.
fn refused_with_a_hash(conn: &mut Connection, hashes: &[&[u8]]) -> QueryResult<Why> {
    type Row = (
        Option<Vec<u8>>,
        i64,
        Option<NaiveDateTime>,
        Option<NaiveDateTime>,
        String,
        String,
    );
    let rows: Vec<Row> = api_keys::table
        .inner_join(accounts::table)
        .filter(api_keys::hash.eq_any(hashes.iter().copied()))
        .select((
            api_keys::hash,
            api_keys::id,
            api_keys::expires_at,
            api_keys::stops_at,
            api_keys::status,
            accounts::status,
        ))
        .load(conn)?;
    let now = db::now(conn)?;
    let is_over = |at: Option<NaiveDateTime>| at.is_some_and(|at| at <= now);
    let why = |(hash, id, expires_at, stops_at, status, account_status): Row| {
        let outcome = if is_over(expires_at) {
            Outcome::Expired
        } else if is_over(stops_at) {
            Outcome::Stopped
        } else if status == ACTIVE && account_status != AccountStatus::Active.as_str() {
            Outcome::AccountPaused
        } else {
            // Also if it works again because it was resumed meanwhile.
            Outcome::Paused
        };
        Some((hash?, (id, outcome)))
    };
    Ok(rows.into_iter().filter_map(why).collect())
}

fn ended(conn: &mut Connection, hashes: &[&[u8]]) -> QueryResult<Why> {
    type Row = (Option<Vec<u8>>, i64, Option<String>);
    let rows: Vec<Row> = api_keys::table
        .filter(api_keys::ended_hash.eq_any(hashes.iter().copied()))
        .select((api_keys::ended_hash, api_keys::id, api_keys::ended_how))
        .load(conn)?;
    let why = |(hash, id, how): Row| {
        let outcome = match EndedHow::from_column(&how?) {
            EndedHow::Deleted => Outcome::Deleted,
            EndedHow::Expired => Outcome::Expired,
            EndedHow::Stopped => Outcome::Stopped,
        };
        Some((hash?, (id, outcome)))
    };
    Ok(rows.into_iter().filter_map(why).collect())
}

/// The calls of a key in the last 24 hours and 30 days, also after its end.
pub fn history(conn: &mut Connection, account: AccountId, key_id: i64) -> db::Result<History> {
    let now = clock::now();
    let rows: Vec<(NaiveDateTime, String, i64)> = api_key_calls::table
        .inner_join(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_key_calls::api_key_id.eq(key_id))
        .filter(api_key_calls::hour.ge(History::since(now)))
        .select((
            api_key_calls::hour,
            api_key_calls::outcome,
            api_key_calls::calls,
        ))
        .load(conn)?;
    let known = |(hour, outcome, calls): (_, String, _)| {
        Some((hour, Outcome::from_column(&outcome)?, calls))
    };
    Ok(History::of(rows.into_iter().filter_map(known), now))
}

/// Deletes some of the counts of an account's keys. Returns how many.
pub fn remove_some_calls(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let mut some: Vec<(i64, NaiveDateTime)> = api_key_calls::table
        .inner_join(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .limit(most)
        .select((api_key_calls::api_key_id, api_key_calls::hour))
        .load(conn)?;
    some.sort_unstable();
    let mut removed = 0;
    for of_key in some.chunk_by(|a, b| a.0 == b.0) {
        let hours = of_key.iter().map(|(_, hour)| *hour);
        removed += diesel::delete(api_key_calls::table)
            .filter(api_key_calls::api_key_id.eq(of_key[0].0))
            .filter(api_key_calls::hour.eq_any(hours))
            .execute(conn)?;
    }
    Ok(removed)
}

/// The calls of these keys in the last 24 hours, for those that had any.
pub fn days_of_keys(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
) -> db::Result<HashMap<i64, Vec<Span>>> {
    let now = clock::now();
    let rows: Vec<(i64, NaiveDateTime, String, i64)> = api_key_calls::table
        .inner_join(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_key_calls::api_key_id.eq_any(ids))
        .filter(api_key_calls::hour.ge(history::day_since(now)))
        .select((
            api_key_calls::api_key_id,
            api_key_calls::hour,
            api_key_calls::outcome,
            api_key_calls::calls,
        ))
        .load(conn)?;
    let known = |(key_id, hour, outcome, calls): (_, _, String, _)| {
        Some((key_id, hour, Outcome::from_column(&outcome)?, calls))
    };
    let rows = rows.into_iter().filter_map(known);
    Ok(history::days_of_keys(rows, now))
}

/// Whether a request with a key of the account was accepted, as far as calls are kept.
pub fn has_accepted_calls(conn: &mut Connection, account: AccountId) -> db::Result<bool> {
    let accepted = api_key_calls::table
        .inner_join(api_keys::table)
        .filter(api_keys::account_id.eq(account.0))
        .filter(api_key_calls::outcome.eq(Outcome::Accepted.as_str()));
    Ok(diesel::select(diesel::dsl::exists(accepted)).get_result(conn)?)
}

/// Deletes calls older than 90 days, for a limited number of keys and hours. Returns how many rows
/// were deleted.
pub fn forget_calls_of_any_account(conn: &mut Connection, most: i64) -> db::Result<usize> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(0);
    };
    let old: Vec<(NaiveDateTime, i64)> = api_key_calls::table
        .filter(api_key_calls::hour.lt(now - KEPT))
        .order((api_key_calls::hour, api_key_calls::api_key_id))
        .limit(most)
        .select((api_key_calls::hour, api_key_calls::api_key_id))
        .load(conn)?;
    let mut forgotten = 0;
    for of_hour in old.chunk_by(|a, b| a.0 == b.0) {
        // SQLite limits a statement to some thousand values.
        for some in of_hour.chunks(1_000) {
            let keys = some.iter().map(|(_, key_id)| *key_id);
            forgotten += diesel::delete(api_key_calls::table)
                .filter(api_key_calls::hour.eq(some[0].0))
                .filter(api_key_calls::api_key_id.eq_any(keys))
                .execute(conn)?;
        }
    }
    Ok(forgotten)
}
