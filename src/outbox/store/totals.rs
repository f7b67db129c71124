//! How many emails were accepted with keys, for delivery, the API and the key pages.
//!
//! They are counted in the transaction that stores them: by day for ever, and by hour for the last
//! 24 hours. Of the hour in which those begin, the emails themselves are counted.

use std::collections::{BTreeMap, HashMap};

use chrono::{Datelike, DurationRound, NaiveDateTime, TimeDelta};
use diesel::dsl::{count_star, sql};
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel::upsert::excluded;

use crate::accounts::store::AccountId;
use crate::clock;
use crate::db::{self, Connection};
use crate::outbox::volume::Volume;
use crate::schema::{email_hours, email_totals, emails};

/// Stands for all keys of an account together, in the place of a key's id.
const ALL_KEYS: i64 = 0;
/// How long emails are needed for the totals: those of the last 24 hours begin within an hour, whose
/// emails are counted themselves. With room for clocks that differ.
const NEEDED: TimeDelta = TimeDelta::hours(48);
/// How long the counts of hours are kept: longer than they are needed, for clocks that differ.
const HOURS_KEPT: TimeDelta = TimeDelta::days(3);

/// All emails that an account has submitted.
pub fn volume_of_account(conn: &mut Connection, account: AccountId) -> db::Result<Volume> {
    let (now, since) = (clock::now(), day_before(clock::now()));
    let begun: i64 = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::created_at.ge(since))
        .filter(emails::created_at.lt(next_hour(since)))
        .count()
        .get_result(conn)?;
    let whole = count_of_hours(conn, account, &[ALL_KEYS], next_hour(since))?;
    Ok(Volume {
        last_24_hours: begun + whole.get(&ALL_KEYS).copied().unwrap_or_default(),
        this_month: count_since(conn, account, ALL_KEYS, month_of(now))?,
    })
}

pub fn volume_of_key(conn: &mut Connection, account: AccountId, id: i64) -> db::Result<Volume> {
    let of_key = count_emails_of_keys(conn, account, &[id])?;
    Ok(Volume {
        last_24_hours: of_key.get(&id).copied().unwrap_or_default(),
        this_month: count_since(conn, account, id, month_of(clock::now()))?,
    })
}

/// How many emails each of these keys had in the last 24 hours, in a fixed number of queries; keys
/// without any are left out.
pub fn count_emails_of_keys(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
) -> db::Result<HashMap<i64, i64>> {
    let since = day_before(clock::now());
    let mut counts = count_of_hours(conn, account, ids, next_hour(since))?;
    let begun: Vec<(i64, i64)> = emails::table
        .filter(emails::account_id.eq(account.0))
        .filter(emails::api_key_id.eq_any(ids))
        .filter(emails::created_at.ge(since))
        .filter(emails::created_at.lt(next_hour(since)))
        .group_by(emails::api_key_id)
        .select((emails::api_key_id, count_star()))
        .load(conn)?;
    for (id, number) in begun {
        *counts.entry(id).or_default() += number;
    }
    Ok(counts)
}

/// How many emails were ever accepted from each of the account's domains.
pub fn count_emails_of_domains(
    conn: &mut Connection,
    account: AccountId,
) -> db::Result<HashMap<i64, i64>> {
    let rows: Vec<(i64, i64)> = email_totals::table
        .filter(email_totals::account_id.eq(account.0))
        .filter(email_totals::api_key_id.eq(ALL_KEYS))
        .group_by(email_totals::domain_id)
        .select((email_totals::domain_id, all_accepted()))
        .load(conn)?;
    Ok(rows.into_iter().collect())
}

/// From this hour on, for each of these keys that had any.
fn count_of_hours(
    conn: &mut Connection,
    account: AccountId,
    ids: &[i64],
    first: NaiveDateTime,
) -> QueryResult<HashMap<i64, i64>> {
    let rows: Vec<(i64, i64)> = email_hours::table
        .filter(email_hours::account_id.eq(account.0))
        .filter(email_hours::api_key_id.eq_any(ids))
        .filter(email_hours::hour.ge(first))
        .group_by(email_hours::api_key_id)
        .select((email_hours::api_key_id, all_accepted()))
        .load(conn)?;
    Ok(rows.into_iter().collect())
}

/// From this day on.
fn count_since(
    conn: &mut Connection,
    account: AccountId,
    id: i64,
    first: NaiveDateTime,
) -> QueryResult<i64> {
    email_totals::table
        .filter(email_totals::account_id.eq(account.0))
        .filter(email_totals::api_key_id.eq(id))
        .filter(email_totals::day.ge(first))
        .select(all_accepted())
        .get_result(conn)
}

/// Cast so that both databases return the same type: PostgreSQL's sum is a decimal.
fn all_accepted() -> SqlLiteral<BigInt> {
    sql("CAST(COALESCE(SUM(accepted), 0) AS BIGINT)")
}

fn day_before(at: NaiveDateTime) -> NaiveDateTime {
    at - TimeDelta::hours(24)
}

/// The first whole hour that begins then or later.
fn next_hour(at: NaiveDateTime) -> NaiveDateTime {
    let hour = hour_of(at);
    match hour == at {
        true => hour,
        false => hour + TimeDelta::hours(1),
    }
}

fn hour_of(at: NaiveDateTime) -> NaiveDateTime {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

fn month_of(at: NaiveDateTime) -> NaiveDateTime {
    let first = at.date().with_day(1).unwrap_or(at.date());
    first.and_time(Default::default())
}

/// Emails that are stored with a key in the same transaction.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    pub account: AccountId,
    pub api_key_id: i64,
    pub domain_id: i64,
}

#[derive(Debug, Clone, PartialEq, Insertable)]
#[diesel(table_name = email_hours)]
struct HourRow {
    account_id: i64,
    api_key_id: i64,
    hour: NaiveDateTime,
    accepted: i64,
}

#[derive(Debug, Clone, PartialEq, Insertable)]
#[diesel(table_name = email_totals)]
struct DayRow {
    account_id: i64,
    api_key_id: i64,
    day: NaiveDateTime,
    domain_id: i64,
    accepted: i64,
}

/// Counts emails that are stored at this time, one entry for each. Transactions that count the same
/// keys wait for each other; all of them lock the rows in the same order, so that none waits in a
/// circle.
pub fn count_in_of_any_account(
    conn: &mut Connection,
    at: NaiveDateTime,
    accepted: &[Accepted],
) -> db::Result<()> {
    let (hours, days) = sums(at, accepted);
    match conn {
        // One statement each, because a statement is a round trip.
        Connection::Postgres(conn) => {
            diesel::insert_into(email_hours::table)
                .values(&hours)
                .on_conflict(email_hours::table.primary_key())
                .do_update()
                .set(
                    email_hours::accepted
                        .eq(email_hours::accepted + excluded(email_hours::accepted)),
                )
                .execute(conn)?;
            diesel::insert_into(email_totals::table)
                .values(&days)
                .on_conflict(email_totals::table.primary_key())
                .do_update()
                .set(
                    email_totals::accepted
                        .eq(email_totals::accepted + excluded(email_totals::accepted)),
                )
                .execute(conn)?;
        }
        Connection::Sqlite(conn) => {
            for row in &hours {
                diesel::insert_into(email_hours::table)
                    .values(row)
                    .on_conflict(email_hours::table.primary_key())
                    .do_update()
                    .set(
                        email_hours::accepted
                            .eq(email_hours::accepted + excluded(email_hours::accepted)),
                    )
                    .execute(conn)?;
            }
            for row in &days {
                diesel::insert_into(email_totals::table)
                    .values(row)
                    .on_conflict(email_totals::table.primary_key())
                    .do_update()
                    .set(
                        email_totals::accepted
                            .eq(email_totals::accepted + excluded(email_totals::accepted)),
                    )
                    .execute(conn)?;
            }
        }
    }
    Ok(())
}

/// What to add, each kind of row in the order of its key.
fn sums(at: NaiveDateTime, accepted: &[Accepted]) -> (Vec<HourRow>, Vec<DayRow>) {
    let mut of_hour: BTreeMap<(i64, i64), i64> = BTreeMap::new();
    let mut of_day: BTreeMap<(i64, i64, i64), i64> = BTreeMap::new();
    for email in accepted {
        for api_key_id in [ALL_KEYS, email.api_key_id] {
            let account_id = email.account.0;
            *of_hour.entry((account_id, api_key_id)).or_default() += 1;
            let day = (account_id, api_key_id, email.domain_id);
            *of_day.entry(day).or_default() += 1;
        }
    }
    let hour = |((account_id, api_key_id), accepted)| HourRow {
        account_id,
        api_key_id,
        hour: hour_of(at),
        accepted,
    };
    let day = |((account_id, api_key_id, domain_id), accepted)| DayRow {
        account_id,
        api_key_id,
        day: at.date().and_time(Default::default()),
        domain_id,
        accepted,
    };
    (
        of_hour.into_iter().map(hour).collect(),
        of_day.into_iter().map(day).collect(),
    )
}

/// Emails accepted before this time may be deleted without changing any total. `None`: none may,
/// while the clock is in doubt.
pub fn needed_since_of_any_account(conn: &mut Connection) -> db::Result<Option<NaiveDateTime>> {
    Ok(db::trusted_now(conn)?.map(|now| now - NEEDED))
}

/// Deletes some counts of hours that are no longer needed. Returns how many.
pub fn forget_hours_of_any_account(conn: &mut Connection, most: i64) -> db::Result<usize> {
    let Some(now) = db::trusted_now(conn)? else {
        return Ok(0);
    };
    let old: Vec<(NaiveDateTime, i64, i64)> = email_hours::table
        .filter(email_hours::hour.lt(now - HOURS_KEPT))
        .order((
            email_hours::hour,
            email_hours::account_id,
            email_hours::api_key_id,
        ))
        .limit(most)
        .select((
            email_hours::hour,
            email_hours::account_id,
            email_hours::api_key_id,
        ))
        .load(conn)?;
    let mut forgotten = 0;
    for same in old.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1)) {
        let (hour, account, _) = same[0];
        // SQLite limits a statement to some thousand values.
        for some in same.chunks(1_000) {
            let keys = some.iter().map(|(_, _, key)| *key);
            forgotten += diesel::delete(email_hours::table)
                .filter(email_hours::hour.eq(hour))
                .filter(email_hours::account_id.eq(account))
                .filter(email_hours::api_key_id.eq_any(keys))
                .execute(conn)?;
        }
    }
    Ok(forgotten)
}

/// Deletes some of an account's counts. Returns how many.
pub fn remove_some_counts(
    conn: &mut Connection,
    account: AccountId,
    most: i64,
) -> db::Result<usize> {
    let hours: Vec<NaiveDateTime> = email_hours::table
        .filter(email_hours::account_id.eq(account.0))
        .order(email_hours::hour)
        .limit(most)
        .select(email_hours::hour)
        .load(conn)?;
    if let Some(last) = hours.last() {
        let some = email_hours::table
            .filter(email_hours::account_id.eq(account.0))
            .filter(email_hours::hour.le(last));
        return Ok(diesel::delete(some).execute(conn)?);
    }
    let keys: Vec<i64> = email_totals::table
        .filter(email_totals::account_id.eq(account.0))
        .order(email_totals::api_key_id)
        .limit(most)
        .select(email_totals::api_key_id)
        .load(conn)?;
    let Some(last) = keys.last() else {
        return Ok(0);
    };
    let some = email_totals::table
        .filter(email_totals::account_id.eq(account.0))
        .filter(email_totals::api_key_id.le(last));
    Ok(diesel::delete(some).execute(conn)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
    }

    #[test]
    fn every_instant_of_a_day_is_in_a_whole_hour_or_before_the_first() {
        for (since, first) in [
            ("2026-03-01 10:20", "2026-03-01 11:00"),
            ("2026-03-01 10:00", "2026-03-01 10:00"),
            ("2026-03-01 23:59", "2026-03-02 00:00"),
        ] {
            assert_eq!(next_hour(at(since)), at(first));
        }
    }

    #[test]
    fn a_month_begins_in_utc() {
        assert_eq!(month_of(at("2026-03-31 23:59")), at("2026-03-01 00:00"));
        assert_eq!(month_of(at("2026-03-01 00:00")), at("2026-03-01 00:00"));
    }

    #[test]
    fn each_email_counts_for_its_key_and_for_its_account() {
        let email = |account, api_key_id, domain_id| Accepted {
            account: AccountId(account),
            api_key_id,
            domain_id,
        };
        let emails = [
            email(2, 8, 5),
            email(1, 9, 4),
            email(2, 7, 5),
            email(2, 8, 6),
        ];
        let (hours, days) = sums(at("2026-03-31 23:59"), &emails);
        let hours: Vec<_> = hours
            .iter()
            .map(|row| (row.account_id, row.api_key_id, row.accepted))
            .collect();
        assert_eq!(
            hours,
            [(1, 0, 1), (1, 9, 1), (2, 0, 3), (2, 7, 1), (2, 8, 2)]
        );
        let days: Vec<_> = days
            .iter()
            .map(|row| (row.account_id, row.api_key_id, row.domain_id, row.accepted))
            .collect();
        assert_eq!(
            days,
            [
                (1, 0, 4, 1),
                (1, 9, 4, 1),
                (2, 0, 5, 2),
                (2, 0, 6, 1),
                (2, 7, 5, 1),
                (2, 8, 5, 1),
                (2, 8, 6, 1)
            ]
        );
    }
}
