//! Counts sign-in attempts, to slow down guessing.

use chrono::{NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::prelude::*;

use crate::accounts::throttle::{self, ThrottleCounter};
use crate::clock;
use crate::db::{self, Connection, is_unique_violation};
use crate::schema::login_attempts;

/// Failures are forgotten after this long without another one.
const FORGIVEN: TimeDelta = TimeDelta::days(1);
/// The maximum number of failure counters.
const MOST_COUNTERS: i64 = 100_000;

/// Counts a password check before it is made, so that parallel guesses count too. Returns the
/// seconds to wait if there were too many.
pub fn begin_attempt(conn: &mut Connection, counter: &ThrottleCounter) -> db::Result<Option<i64>> {
    let now = clock::now();
    if let Some(now) = db::trusted_now(conn)? {
        diesel::delete(login_attempts::table.filter(login_attempts::next_at.lt(now - FORGIVEN)))
            .execute(conn)?;
    }
    let counter = counter.as_ref();
    let inserted = conn.transaction(|conn| {
        diesel::insert_into(login_attempts::table)
            .values((
                login_attempts::counter_hash.eq(counter),
                login_attempts::failures.eq(1),
                login_attempts::next_at.eq(now),
            ))
            .execute(conn)
    });
    match inserted {
        Ok(_) => return Ok(None),
        Err(error) if is_unique_violation(&error) => {}
        Err(error) => return Err(error.into()),
    }
    // A delay beyond the longest possible was set by a wrong clock.
    let is_open = login_attempts::next_at
        .le(now)
        .or(login_attempts::next_at.gt(now + throttle::LONGEST_DELAY));
    let failures: Option<i64> = diesel::update(login_attempts::table)
        .filter(login_attempts::counter_hash.eq(counter))
        .filter(is_open)
        .set(login_attempts::failures.eq(login_attempts::failures + 1))
        .returning(login_attempts::failures)
        .get_result(conn)
        .optional()?;
    let attempt = login_attempts::table.filter(login_attempts::counter_hash.eq(counter));
    match failures {
        Some(failures) => {
            diesel::update(attempt)
                .set(login_attempts::next_at.eq(now + throttle::delay_after(failures)))
                .execute(conn)?;
            Ok(None)
        }
        None => {
            let next_at: Option<NaiveDateTime> = attempt
                .select(login_attempts::next_at)
                .first(conn)
                .optional()?;
            Ok(next_at.map(|at| (at - now).num_seconds().max(0) + 1))
        }
    }
}

/// Forgets failures, because the password was right or was reset.
pub fn forget_attempts(conn: &mut Connection, counter: &ThrottleCounter) -> db::Result<()> {
    diesel::delete(login_attempts::table.filter(login_attempts::counter_hash.eq(counter.as_ref())))
        .execute(conn)?;
    Ok(())
}

/// Removes counters beyond `MOST_COUNTERS`, those with the fewest failures first, so that creating
/// very many cannot remove one that is blocked.
pub fn bound_attempts(conn: &mut Connection) -> db::Result<()> {
    loop {
        let count: i64 = login_attempts::table.count().get_result(conn)?;
        let most = (count - MOST_COUNTERS).min(1_000);
        if most <= 0 {
            return Ok(());
        }
        let fewest: Vec<Vec<u8>> = login_attempts::table
            .order((login_attempts::failures, login_attempts::next_at))
            .limit(most)
            .select(login_attempts::counter_hash)
            .load(conn)?;
        diesel::delete(login_attempts::table.filter(login_attempts::counter_hash.eq_any(fewest)))
            .execute(conn)?;
    }
}
