//! Whether the clock can be trusted. The database records the latest time it has seen, and while
//! the clock disagrees with it, nothing is deleted, ended or given up by age. The server accepts a
//! clock that disagrees once it has run steadily for seven days, or when the operator confirms it.

use std::fmt;

use chrono::{NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::prelude::*;

use super::{Connection, Result, is_unique_violation, now};
use crate::clock;
use crate::schema::clock_seen;

const THE_ROW: i64 = 1;
/// How far the clock may jump, forwards or backwards.
const STEP: TimeDelta = TimeDelta::hours(1);
/// How long a server may have been off before it doubts the clock at its start.
const OFF: TimeDelta = TimeDelta::days(1);
/// How long a server must run with a steady clock before it trusts that clock.
const STEADY: TimeDelta = TimeDelta::days(7);
/// The maximum age of the recorded time while the server runs.
const FRESH: TimeDelta = TimeDelta::minutes(1);

/// What the database has recorded about the time.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
struct Seen {
    /// The last trusted time; while the clock disagrees, this plus the time the server has run
    /// since.
    believed_at: NaiveDateTime,
    /// While the clock disagrees: its last reading, and how long it has been steady.
    odd_at: Option<NaiveDateTime>,
    steady_seconds: i64,
}

/// A clock that is not trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doubt {
    pub clock: NaiveDateTime,
    pub expected: NaiveDateTime,
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the clock is in doubt: it says {}, and about {} was expected; nothing is deleted, ended or \
             given up by age until it has run steadily for {} days, is in line again, or “clock accept” \
             says that it is right",
            clock::for_people(&self.clock),
            clock::for_people(&self.expected),
            STEADY.num_days()
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClockChange {
    Doubted(Doubt),
    InLineAgain,
    /// The clock was steady for long enough.
    Accepted,
}

/// The time to record for something that happens now. It is never long before a time already seen:
/// otherwise the record would count as old once the clock is right again.
pub fn stamp(conn: &mut Connection) -> QueryResult<NaiveDateTime> {
    let now = now(conn)?;
    Ok(match find(conn)? {
        Some(seen) if now + STEP < seen.believed_at => seen.believed_at,
        _ => now,
    })
}

/// The time that decides what may be deleted, ended or given up. `None` while the clock is in
/// doubt.
pub fn trusted_now(conn: &mut Connection) -> QueryResult<Option<NaiveDateTime>> {
    let now = now(conn)?;
    let seen = find(conn)?;
    Ok(seen.is_none_or(|seen| seen.allows(now)).then_some(now))
}

/// Why nothing is deleted by age now, or `None` if the clock is trusted.
pub fn find_doubt(conn: &mut Connection) -> Result<Option<Doubt>> {
    let clock = now(conn)?;
    let seen = find(conn)?.filter(|seen| !seen.allows(clock));
    Ok(seen.map(|seen| Doubt {
        clock,
        expected: seen.believed_at,
    }))
}

/// Compares the clock with the recorded time and updates the record. `ran`: how long this server
/// has run since its last comparison; `None` at its start.
pub fn watch(conn: &mut Connection, ran: Option<TimeDelta>) -> Result<Option<ClockChange>> {
    let now = now(conn)?;
    let Some(seen) = find(conn)? else {
        believe(conn, now)?;
        return Ok(None);
    };
    let (after, change) = seen.after(now, ran);
    let is_fresh = after.odd_at.is_none() && (now - seen.believed_at).abs() < FRESH;
    if change.is_none() && is_fresh {
        return Ok(None);
    }
    // Unless another node was faster.
    let unchanged = clock_seen::table
        .filter(clock_seen::id.eq(THE_ROW))
        .filter(clock_seen::believed_at.eq(seen.believed_at))
        .filter(clock_seen::steady_seconds.eq(seen.steady_seconds));
    let written = diesel::update(unchanged)
        .set((
            clock_seen::believed_at.eq(after.believed_at),
            clock_seen::odd_at.eq(after.odd_at),
            clock_seen::steady_seconds.eq(after.steady_seconds),
        ))
        .execute(conn)?;
    Ok(change.filter(|_| written == 1))
}

/// Writes the recorded time as it is, to learn whether the database takes writes.
pub(super) fn touch(conn: &mut Connection) -> Result<()> {
    diesel::update(clock_seen::table)
        .set(clock_seen::believed_at.eq(clock_seen::believed_at))
        .execute(conn)?;
    Ok(())
}

/// Trusts the clock as it is now. Returns the time.
pub fn accept(conn: &mut Connection) -> Result<NaiveDateTime> {
    let now = now(conn)?;
    diesel::delete(clock_seen::table).execute(conn)?;
    believe(conn, now)?;
    Ok(now)
}

fn find(conn: &mut Connection) -> QueryResult<Option<Seen>> {
    clock_seen::table
        .filter(clock_seen::id.eq(THE_ROW))
        .select((
            clock_seen::believed_at,
            clock_seen::odd_at,
            clock_seen::steady_seconds,
        ))
        .first(conn)
        .optional()
}

/// Records the time in a new database, or replaces the recorded time.
fn believe(conn: &mut Connection, now: NaiveDateTime) -> QueryResult<()> {
    let inserted = conn.transaction(|conn| {
        diesel::insert_into(clock_seen::table)
            .values((
                clock_seen::id.eq(THE_ROW),
                clock_seen::believed_at.eq(now),
                clock_seen::steady_seconds.eq(0),
            ))
            .execute(conn)
    });
    match inserted {
        // Another node was faster.
        Err(error) if is_unique_violation(&error) => Ok(()),
        inserted => inserted.map(drop),
    }
}

impl Seen {
    fn allows(&self, now: NaiveDateTime) -> bool {
        self.odd_at.is_none() && (now - self.believed_at).abs() <= STEP
    }

    fn after(&self, now: NaiveDateTime, ran: Option<TimeDelta>) -> (Self, Option<ClockChange>) {
        let may_pass = ran.map_or(OFF, |ran| ran + STEP);
        let ran = ran.unwrap_or_default();
        let follows = |at: NaiveDateTime| (-STEP..=may_pass).contains(&(now - at));
        if follows(self.believed_at) {
            let change = self.odd_at.map(|_| ClockChange::InLineAgain);
            return (Self::believing(now), change);
        }
        let Some(odd_at) = self.odd_at.filter(|at| follows(*at)) else {
            let after = Self {
                believed_at: self.believed_at + ran,
                odd_at: Some(now),
                steady_seconds: 0,
            };
            let doubt = Doubt {
                clock: now,
                expected: after.believed_at,
            };
            return (after, Some(ClockChange::Doubted(doubt)));
        };
        // Other nodes add their running time, too.
        let passed = (now - odd_at).clamp(TimeDelta::zero(), ran);
        let steady_seconds = self.steady_seconds + passed.num_seconds();
        if steady_seconds >= STEADY.num_seconds() {
            return (Self::believing(now), Some(ClockChange::Accepted));
        }
        let after = Self {
            believed_at: self.believed_at + passed,
            odd_at: Some(now),
            steady_seconds,
        };
        (after, None)
    }

    fn believing(now: NaiveDateTime) -> Self {
        Self {
            believed_at: now,
            odd_at: None,
            steady_seconds: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: TimeDelta = TimeDelta::minutes(1);
    const DAY: TimeDelta = TimeDelta::days(1);

    fn start() -> NaiveDateTime {
        NaiveDateTime::default() + TimeDelta::days(20_000)
    }

    /// The result of a clock that is trusted at the start and then jumps by `step`.
    fn after(step: TimeDelta, ran: Option<TimeDelta>) -> (Seen, Option<ClockChange>) {
        Seen::believing(start()).after(start() + step, ran)
    }

    #[test]
    fn a_clock_that_runs_is_believed() {
        for (step, ran) in [
            (MINUTE, Some(MINUTE)),
            (TimeDelta::minutes(59), Some(MINUTE)),
            (-TimeDelta::minutes(59), Some(MINUTE)),
            // The database was unavailable, or the machine slept.
            (DAY * 3, Some(DAY * 3)),
            // The server was off.
            (TimeDelta::hours(23), None),
        ] {
            let believed = (Seen::believing(start() + step), None);
            assert_eq!(after(step, ran), believed, "{step} {ran:?}");
        }
    }

    #[test]
    fn a_clock_that_jumps_is_not() {
        for (step, ran) in [
            (TimeDelta::hours(2), Some(MINUTE)),
            (-TimeDelta::hours(2), Some(MINUTE)),
            (DAY * 8, Some(MINUTE)),
            (DAY * 730, None),
            (-DAY * 730, None),
            (TimeDelta::hours(25), None),
        ] {
            let (seen, change) = after(step, ran);
            assert!(!seen.allows(start() + step), "{step} {ran:?}");
            assert!(
                matches!(change, Some(ClockChange::Doubted(_))),
                "{step} {ran:?}"
            );
        }
    }

    #[test]
    fn it_is_believed_when_it_comes_back_also_after_days() {
        let (mut seen, _) = after(DAY * 8, Some(MINUTE));
        for minutes in 1..3 * 24 * 60 {
            let now = start() + DAY * 8 + MINUTE * minutes;
            let change;
            (seen, change) = seen.after(now, Some(MINUTE));
            assert_eq!(change, None);
            assert!(!seen.allows(now));
        }
        let now = start() + DAY * 3 + MINUTE;
        let believed = (Seen::believing(now), Some(ClockChange::InLineAgain));
        assert_eq!(seen.after(now, Some(MINUTE)), believed);
    }

    #[test]
    fn it_is_believed_after_seven_steady_days_of_running() {
        for step in [DAY * 90, -DAY * 90] {
            let (mut seen, _) = after(step, None);
            let mut now = start() + step;
            for minutes in 1..=7 * 24 * 60 {
                now += MINUTE;
                let change;
                (seen, change) = seen.after(now, Some(MINUTE));
                let is_last = minutes == 7 * 24 * 60;
                assert_eq!(
                    change,
                    is_last.then_some(ClockChange::Accepted),
                    "{minutes}"
                );
                // A restart loses nothing, and adds nothing.
                if minutes == 5_000 {
                    now += TimeDelta::hours(20);
                    (seen, _) = seen.after(now, None);
                }
            }
            assert!(seen.allows(now));
        }
    }

    #[test]
    fn another_jump_begins_the_seven_days_anew() {
        let (mut seen, _) = after(DAY * 8, Some(MINUTE));
        let mut now = start() + DAY * 8;
        for _ in 0..1_000 {
            now += MINUTE;
            (seen, _) = seen.after(now, Some(MINUTE));
        }
        assert_eq!(seen.steady_seconds, 60_000);
        let (seen, change) = seen.after(now + DAY * 8, Some(MINUTE));
        assert!(matches!(change, Some(ClockChange::Doubted(_))));
        assert_eq!(seen.steady_seconds, 0);
    }
}
