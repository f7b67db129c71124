//! The only clock: every instant the program stores is made here.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chrono::{DateTime, Datelike, NaiveDateTime, SubsecRound, TimeDelta, Timelike, Utc};

/// The present instant in UTC, cut to microseconds: PostgreSQL stores no finer ones, and an
/// instant must read back as it was written.
pub fn now() -> NaiveDateTime {
    to_microseconds(Utc::now().naive_utc())
}

/// Cuts an instant to what the database can store.
pub fn to_microseconds(instant: NaiveDateTime) -> NaiveDateTime {
    instant.trunc_subsecs(6)
}

/// Microseconds since 1970, for files that programs read.
pub fn micros(instant: &NaiveDateTime) -> i64 {
    instant.and_utc().timestamp_micros()
}

pub fn from_micros(micros: i64) -> NaiveDateTime {
    DateTime::from_timestamp_micros(micros)
        .unwrap_or_default()
        .naive_utc()
}

/// How long the machine has been up, including time asleep, which `Instant` leaves out.
pub fn since_boot() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    let uptime = std::fs::read_to_string("/proc/uptime").ok();
    let seconds = uptime.and_then(|text| text.split_whitespace().next()?.parse().ok());
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.unwrap_or_else(|| START.elapsed())
}

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

// Written by hand, because a list formats a hundred instants: a format string would be parsed again
// for each, which takes as long as the rest of the row.

/// RFC 3339 in UTC with seconds, as in `2026-01-15T10:30:00Z`.
pub fn rfc3339(instant: &NaiveDateTime) -> String {
    let (date, time) = (instant.date(), instant.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        date.month(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The format for people, on pages: `15 Jan 2026, 10:30 UTC`.
pub fn for_people(instant: &NaiveDateTime) -> String {
    let time = instant.time();
    format!(
        "{}, {:02}:{:02} UTC",
        day(instant),
        time.hour(),
        time.minute()
    )
}

/// Only the day: `15 Jan 2026`.
pub fn day(instant: &NaiveDateTime) -> String {
    let month = MONTHS[instant.month0() as usize];
    format!("{} {month} {}", instant.day(), instant.year())
}

/// A past instant, for people: `5 minutes ago`, or the day after a month.
pub fn ago(instant: &NaiveDateTime) -> String {
    ago_at(instant, now())
}

fn ago_at(instant: &NaiveDateTime, now: NaiveDateTime) -> String {
    let past = now - *instant;
    let (count, unit) = match (past.num_minutes(), past.num_hours(), past.num_days()) {
        // The clocks of several nodes may differ a little.
        (..1, _, _) => return "just now".to_owned(),
        (minutes, 0, _) => (minutes, "minute"),
        (_, hours, 0) => (hours, "hour"),
        (_, _, days @ ..=30) => (days, "day"),
        _ => return day(instant),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// The time left until a future instant, for people: `3 days`.
pub fn left(instant: &NaiveDateTime) -> String {
    left_at(instant, now())
}

fn left_at(instant: &NaiveDateTime, now: NaiveDateTime) -> String {
    let seconds = (*instant - now).num_seconds();
    let (count, unit) = match seconds {
        ..60 => return "less than a minute".to_owned(),
        60..3570 => (rounded(seconds, 60), "minute"),
        3570..171_000 => (rounded(seconds, 3600), "hour"),
        _ => (rounded(seconds, 86_400), "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// A duration in whole hours: `an hour`, `24 hours`.
pub fn hours(span: &TimeDelta) -> String {
    match span.num_hours() {
        1 => "an hour".to_owned(),
        hours => format!("{hours} hours"),
    }
}

fn rounded(seconds: i64, unit: i64) -> i64 {
    (seconds + unit / 2) / unit
}

/// The format of instants in the email API: `2026-01-15 10:30:00`.
pub fn for_api(instant: &NaiveDateTime) -> String {
    utc(instant).format("%Y-%m-%d %H:%M:%S").to_string()
}

fn utc(instant: &NaiveDateTime) -> DateTime<Utc> {
    instant.and_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_told_in_full() {
        let at = DateTime::from_timestamp(1_768_473_005, 0)
            .unwrap()
            .naive_utc();
        assert_eq!(rfc3339(&at), "2026-01-15T10:30:05Z");
        assert_eq!(for_people(&at), "15 Jan 2026, 10:30 UTC");
        assert_eq!(day(&at), "15 Jan 2026");
    }

    #[test]
    fn the_past_is_told_as_people_do() {
        let now = DateTime::from_timestamp(1_800_000_000, 0)
            .unwrap()
            .naive_utc();
        for (seconds, told) in [
            (-5, "just now"),
            (59, "just now"),
            (60, "1 minute ago"),
            (59 * 60 + 59, "59 minutes ago"),
            (3600, "1 hour ago"),
            (86_399, "23 hours ago"),
            (86_400, "1 day ago"),
            (30 * 86_400, "30 days ago"),
            (31 * 86_400, "15 Dec 2026"),
        ] {
            assert_eq!(ago_at(&(now - TimeDelta::seconds(seconds)), now), told);
        }
    }

    #[test]
    fn what_is_left_is_told_as_people_do() {
        let now = DateTime::from_timestamp(1_800_000_000, 0)
            .unwrap()
            .naive_utc();
        for (seconds, told) in [
            (-5, "less than a minute"),
            (59, "less than a minute"),
            (60, "1 minute"),
            (3569, "59 minutes"),
            (3599, "1 hour"),
            (24 * 3600 - 1, "24 hours"),
            (47 * 3600, "47 hours"),
            (47 * 3600 + 1800, "2 days"),
            (7 * 86_400 - 1, "7 days"),
        ] {
            assert_eq!(left_at(&(now + TimeDelta::seconds(seconds)), now), told);
        }
    }
}
