//! How many emails were accepted with keys, for delivery, the API and the key pages.
//!
//! Each completed hour is counted once, into `email_counts`; all hours before the frontier are
//! counted, and later emails are counted directly. The frontier is read first: the counts before it
//! never change, and no email that is stored later has an earlier time, so the sum is exact
//! whatever happens meanwhile.

use std::collections::HashMap;

use chrono::{DateTime, Datelike, DurationRound, NaiveDate, NaiveDateTime, TimeDelta};
use diesel::Connection as _;
use diesel::dsl::{count_star, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::BigInt;

use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection, is_unique_violation};
use crate::outbox::volume::Volume;
use crate::schema::{email_counts, email_counts_frontier, emails};

/// How long a completed hour may still receive emails: `created_at` is set by the node's clock
/// before the commit. A write is abandoned after seconds, and clocks that differ by minutes are
/// broken.
const LATE: TimeDelta = TimeDelta::minutes(10);
/// How long emails are needed for the totals: those of the last 24 hours begin within an hour, whose
/// emails are counted directly. With room for clocks that differ.
const NEEDED: TimeDelta = TimeDelta::hours(48);
const THE_ROW: i64 = 1;
/// Rows per statement.
const ROWS: usize = 1_000;

/// All emails that an account has submitted.
pub fn volume_of_account(conn: &mut Connection, account: AccountId) -> db::Result<Volume> {
    let now = clock::now();
    let frontier = frontier(conn)?;
    let mut count = |since| count_of_account(conn, account, &Spans::of(since, frontier));
    Ok(Volume {
        last_24_hours: count(now - TimeDelta::hours(24))?,
        this_month: count(month_of(now))?,
    })
}

pub fn volume_of_key(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Volume> {
    let now = clock::now();
    let frontier = frontier(conn)?;
    let mut count = |since| count_of_keys(conn, account, &[id], &Spans::of(since, frontier));
    let of_key = |counts: HashMap<i64, i64>| counts.get(&id).copied().unwrap_or_default();
    Ok(Volume {
        last_24_hours: of_key(count(now - TimeDelta::hours(24))?),
        this_month: of_key(count(month_of(now))?),
    })
}

/// How many emails each of these keys had in the last 24 hours, in a fixed number of queries; keys
/// without any are left out.
pub fn count_emails_of_keys(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
) -> db::Result<HashMap<i64, i64>> {
    let since = clock::now() - TimeDelta::hours(24);
    let spans = Spans::of(since, frontier(conn)?);
    Ok(count_of_keys(conn, account, ids, &spans)?)
}

/// How many emails were ever accepted from each of the account's domains.
pub fn count_emails_of_domains(
    conn: &mut Connection,
    account: AccountId,
) -> db::Result<HashMap<i64, i64>> {
    let counted_before = frontier(conn)?.unwrap_or(EVER);
    let mut rows: Vec<(i64, i64)> = email_counts::table
        .filter(email_counts::account_id.eq(account.0))
        .filter(email_counts::hour.lt(counted_before))
        .group_by(email_counts::domain_id)
        .select((email_counts::domain_id, all_accepted()))
        .load(conn)?;
    let uncounted: Vec<(Option<i64>, i64)> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::created_at.ge(counted_before))
        .group_by(emails::domain_id)
        .select((emails::domain_id, count_star()))
        .load(conn)?;
    rows.extend(uncounted.into_iter().filter_map(|(id, n)| Some((id?, n))));
    Ok(added_up(rows))
}

/// A half-open range of acceptance times: `[from, before)`.
type TimeRange = (NaiveDateTime, NaiveDateTime);

/// The first instant, and one that is never reached.
const EVER: NaiveDateTime = DateTime::UNIX_EPOCH.naive_utc();
const NEVER: NaiveDateTime = NaiveDate::from_ymd_opt(9999, 1, 1)
    .expect("a day")
    .and_time(chrono::NaiveTime::MIN);

/// The time since an instant, split into whole counted hours and the rest.
#[derive(Debug, PartialEq)]
struct Spans {
    counted: Option<TimeRange>,
    uncounted: Vec<TimeRange>,
}

impl Spans {
    /// `frontier`: emails before this hour are counted; none if nothing has been counted yet.
    fn of(since: NaiveDateTime, frontier: Option<NaiveDateTime>) -> Self {
        let hour = hour_of(since);
        let first = match hour == since {
            true => hour,
            false => hour + TimeDelta::hours(1),
        };
        match frontier {
            Some(frontier) if frontier > first => Self {
                counted: Some((first, frontier)),
                uncounted: vec![(since, first), (frontier, NEVER)],
            },
            _ => Self {
                counted: None,
                uncounted: vec![(since, NEVER)],
            },
        }
    }
}

fn count_of_account(conn: &mut Connection, account: AccountId, spans: &Spans) -> QueryResult<i64> {
    let mut number = 0;
    if let Some((from, before)) = &spans.counted {
        number += email_counts::table
            .filter(email_counts::account_id.eq(account.0))
            .filter(email_counts::hour.ge(from))
            .filter(email_counts::hour.lt(before))
            .select(all_accepted())
            .get_result::<i64>(conn)?;
    }
    for (from, before) in &spans.uncounted {
        number += emails::table
            .filter(emails::account_id.eq(account.0))
            .filter(emails::created_at.ge(from))
            .filter(emails::created_at.lt(before))
            .count()
            .get_result::<i64>(conn)?;
    }
    Ok(number)
}

fn count_of_keys(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
    spans: &Spans,
) -> QueryResult<HashMap<i64, i64>> {
    let mut rows: Vec<(i64, i64)> = Vec::new();
    if let Some((from, before)) = &spans.counted {
        rows.extend(
            email_counts::table
                .filter(email_counts::account_id.eq(account.0))
                .filter(email_counts::api_key_id.eq_any(ids))
                .filter(email_counts::hour.ge(from))
                .filter(email_counts::hour.lt(before))
                .group_by(email_counts::api_key_id)
                .select((email_counts::api_key_id, all_accepted()))
                .load::<(i64, i64)>(conn)?,
        );
    }
    for (from, before) in &spans.uncounted {
        rows.extend(
            emails::table
                .filter(emails::account_id.eq(account.0))
                .filter(emails::api_key_id.eq_any(ids))
                .filter(emails::created_at.ge(from))
                .filter(emails::created_at.lt(before))
                .group_by(emails::api_key_id)
                .select((emails::api_key_id, count_star()))
                .load::<(i64, i64)>(conn)?,
        );
    }
    Ok(added_up(rows))
}

/// Cast so that both databases return the same type: PostgreSQL's sum is a decimal.
fn all_accepted() -> SqlLiteral<BigInt> {
    sql("CAST(COALESCE(SUM(email_counts.accepted), 0) AS BIGINT)")
}

fn added_up(rows: Vec<(i64, i64)>) -> HashMap<i64, i64> {
    let mut sums = HashMap::new();
    for (id, number) in rows {
        *sums.entry(id).or_default() += number;
    }
    sums
}

fn hour_of(at: NaiveDateTime) -> NaiveDateTime {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

fn month_of(at: NaiveDateTime) -> NaiveDateTime {
    let first = at.date().with_day(1).unwrap_or(at.date());
    first.and_time(Default::default())
}

fn frontier(conn: &mut Connection) -> QueryResult<Option<NaiveDateTime>> {
    email_counts_frontier::table
        .select(email_counts_frontier::counted_before)
        .first(conn)
        .optional()
}

/// The earliest time at which an email may be accepted: the hours before are already counted.
pub fn countable_from_of_any_account(conn: &mut Connection) -> db::Result<NaiveDateTime> {
    Ok(frontier(conn)?.map_or(EVER, |frontier| frontier + LATE))
}

/// Whether the frontier is in the future: a wrong clock moved it past hours whose emails came
/// later.
pub fn is_counted_ahead_of_any_account(conn: &mut Connection) -> db::Result<bool> {
    let now = db::trusted_now(conn)?;
    let ahead = frontier(conn)?.zip(now);
    Ok(ahead.is_some_and(|(frontier, now)| frontier > now + TimeDelta::hours(1)))
}

/// Takes the frontier back to the present if it is in the future. Returns whether it was. The hours
/// before the present stay as they were counted: emails have been deleted since.
pub fn recount_of_any_account(conn: &mut Connection) -> db::Result<bool> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(false);
    };
    if !is_counted_ahead_of_any_account(conn)? {
        return Ok(false);
    }
    let present = hour_of(now - LATE);
    diesel::update(email_counts_frontier::table)
        .set(email_counts_frontier::counted_before.eq(present))
        .execute(conn)?;
    diesel::delete(email_counts::table.filter(email_counts::hour.ge(present))).execute(conn)?;
    Ok(true)
}

/// Emails accepted before this time may be deleted without changing any total. `None`: none may.
pub fn counted_for_good_of_any_account(conn: &mut Connection) -> db::Result<Option<NaiveDateTime>> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(None);
    };
    Ok(frontier(conn)?.map(|frontier| frontier.min(now - NEEDED)))
}

/// Deletes some of an account's counts. Returns how many.
pub fn remove_some_counts(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let hours: Vec<NaiveDateTime> = email_counts::table
        .filter(email_counts::account_id.eq(account.0))
        .order(email_counts::hour)
        .limit(most)
        .select(email_counts::hour)
        .load(conn)?;
    let Some(last) = hours.last() else {
        return Ok(0);
    };
    let some = email_counts::table
        .filter(email_counts::account_id.eq(account.0))
        .filter(email_counts::hour.le(last));
    Ok(diesel::delete(some).execute(conn)?)
}

/// The emails of one hour, about to be stored; empty if only the frontier has to move.
#[derive(Debug)]
pub struct HourOfEmails {
    /// The frontier before and after.
    from: Option<NaiveDateTime>,
    before: NaiveDateTime,
    counts: Vec<CountRow>,
}

#[derive(Debug, Queryable)]
struct Counted {
    account_id: i64,
    api_key_id: i64,
    domain_id: Option<i64>,
    accepted: i64,
}

#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = email_counts)]
struct CountRow {
    account_id: i64,
    api_key_id: i64,
    domain_id: i64,
    hour: NaiveDateTime,
    accepted: i64,
}

/// Counts the first hour that ended long enough ago and is not stored yet, beginning with the first
/// email if no hour is. No other transaction waits for it, because it reads before anything is
/// locked.
pub fn find_hour_of_any_account(conn: &mut Connection) -> db::Result<Option<HourOfEmails>> {
    let from = frontier(conn)?;
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(None);
    };
    let end = hour_of(now - LATE);
    if from.is_some_and(|from| from >= end) {
        return Ok(None);
    }
    let first: Option<NaiveDateTime> = emails::table
        .filter(emails::created_at.ge(from.unwrap_or(EVER)))
        .order(emails::created_at)
        .select(emails::created_at)
        .first(conn)
        .optional()?;
    let Some(hour) = first.map(hour_of).filter(|hour| *hour < end) else {
        let counts = Vec::new();
        return Ok(Some(HourOfEmails {
            from,
            before: end,
            counts,
        }));
    };
    let before = hour + TimeDelta::hours(1);
    let counted: Vec<Counted> = emails::table
        .filter(emails::created_at.ge(hour))
        .filter(emails::created_at.lt(before))
        .group_by((emails::account_id, emails::api_key_id, emails::domain_id))
        .select((
            emails::account_id,
            emails::api_key_id,
            emails::domain_id,
            count_star(),
        ))
        .load(conn)?;
    let row = |counted: Counted| CountRow {
        account_id: counted.account_id,
        api_key_id: counted.api_key_id,
        domain_id: counted.domain_id.unwrap_or_default(),
        hour,
        accepted: counted.accepted,
    };
    Ok(Some(HourOfEmails {
        from,
        before,
        counts: counted.into_iter().map(row).collect(),
    }))
}

/// Stores an hour, unless another node did meanwhile. The frontier moves first: other nodes wait
/// for its row, and then see that it has moved.
pub fn write_hour_of_any_account(conn: &mut Connection, hour: &HourOfEmails) -> db::Result<()> {
    if !move_frontier(conn, hour.from, hour.before)? {
        return Ok(());
    }
    match conn {
        // Many rows per statement, because each statement is a round trip.
        Connection::Postgres(conn) => {
            for rows in hour.counts.chunks(ROWS) {
                diesel::insert_into(email_counts::table)
                    .values(rows)
                    .execute(conn)?;
            }
        }
        Connection::Sqlite(conn) => {
            for row in &hour.counts {
                diesel::insert_into(email_counts::table)
                    .values(row)
                    .execute(conn)?;
            }
        }
    }
    Ok(())
}

/// Returns whether the frontier was where it was expected.
fn move_frontier(
    conn: &mut Connection,
    from: Option<NaiveDateTime>,
    to: NaiveDateTime,
) -> QueryResult<bool> {
    let to = email_counts_frontier::counted_before.eq(to);
    let Some(from) = from else {
        let first = conn.transaction(|conn| {
            diesel::insert_into(email_counts_frontier::table)
                .values((email_counts_frontier::id.eq(THE_ROW), to))
                .execute(conn)
        });
        return match first {
            Err(error) if is_unique_violation(&error) => Ok(false),
            inserted => inserted.map(|rows| rows > 0),
        };
    };
    let there = email_counts_frontier::table.filter(email_counts_frontier::counted_before.eq(from));
    let moved = diesel::update(there).set(to).execute(conn)?;
    Ok(moved > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
    }

    #[test]
    fn every_instant_since_is_in_one_span() {
        let since = at("2026-03-01 10:20");
        let all = Spans {
            counted: None,
            uncounted: vec![(since, NEVER)],
        };
        assert_eq!(Spans::of(since, None), all);
        for early in ["2026-03-01 09:00", "2026-03-01 10:00", "2026-03-01 11:00"] {
            assert_eq!(Spans::of(since, Some(at(early))), all, "{early}");
        }
        let first = at("2026-03-01 11:00");
        let frontier = at("2026-03-02 09:00");
        assert_eq!(
            Spans::of(since, Some(frontier)),
            Spans {
                counted: Some((first, frontier)),
                uncounted: vec![(since, first), (frontier, NEVER)],
            }
        );
        let whole = Spans::of(first, Some(frontier));
        assert_eq!(whole.counted, Some((first, frontier)));
    }

    #[test]
    fn a_month_begins_in_utc() {
        assert_eq!(month_of(at("2026-03-31 23:59")), at("2026-03-01 00:00"));
        assert_eq!(month_of(at("2026-03-01 00:00")), at("2026-03-01 00:00"));
    }
}
