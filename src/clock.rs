//! The one clock. Every instant the program stores is made here.

use chrono::{DateTime, NaiveDateTime, SubsecRound, Utc};

/// The present instant in UTC, cut to microseconds: PostgreSQL stores no finer ones, and an
/// instant must read back as it was written.
pub fn now() -> NaiveDateTime {
    Utc::now().naive_utc().trunc_subsecs(6)
}

/// RFC 3339 in UTC with seconds, as in `2026-01-15T10:30:00Z`.
pub fn rfc3339(instant: &NaiveDateTime) -> String {
    utc(instant).format("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// What people read on a page: `15 Jan 2026, 10:30 UTC`.
pub fn for_people(instant: &NaiveDateTime) -> String {
    utc(instant).format("%-d %b %Y, %H:%M UTC").to_string()
}

/// The form of instants in the email API: `2026-01-15 10:30:00`.
pub fn for_api(instant: &NaiveDateTime) -> String {
    utc(instant).format("%Y-%m-%d %H:%M:%S").to_string()
}

fn utc(instant: &NaiveDateTime) -> DateTime<Utc> {
    instant.and_utc()
}
