//! The calls of one key, summed by hour and by day.

use std::collections::{BTreeMap, HashMap};

use chrono::{DurationRound, NaiveDateTime, TimeDelta};

use super::outcome::Outcome;

pub const HOURS: i32 = 24;
const DAYS: i32 = 30;

/// Hours and days are in UTC and include the current ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The last 24, the earliest first.
    pub hours: Vec<Span>,
    /// The last 30, the earliest first.
    pub days: Vec<Span>,
    /// In those days, the most frequent first.
    pub refusals: Vec<RefusedCalls>,
}

/// An hour or a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: NaiveDateTime,
    pub accepted: i64,
    pub refused: i64,
}

/// Calls that were refused for the same reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedCalls {
    pub why: Outcome,
    pub calls: i64,
    /// The start of the hour of the last one.
    pub last_hour: NaiveDateTime,
}

impl History {
    /// Calls before this instant are left out.
    pub fn since(now: NaiveDateTime) -> NaiveDateTime {
        begin(now, TimeDelta::days(1)) - TimeDelta::days(1) * (DAYS - 1)
    }

    pub fn of(
        calls: impl Iterator<Item = (NaiveDateTime, Outcome, i64)>,
        now: NaiveDateTime,
    ) -> Self {
        let mut hours = spans(now, TimeDelta::hours(1), HOURS);
        let mut days = spans(now, TimeDelta::days(1), DAYS);
        let mut refusals: BTreeMap<Outcome, RefusedCalls> = BTreeMap::new();
        for (hour, outcome, calls) in calls {
            count(&mut hours, begin(hour, TimeDelta::hours(1)), outcome, calls);
            count(&mut days, begin(hour, TimeDelta::days(1)), outcome, calls);
            if outcome != Outcome::Accepted {
                let known = refusals.entry(outcome).or_insert(RefusedCalls {
                    why: outcome,
                    calls: 0,
                    last_hour: hour,
                });
                known.calls += calls;
                known.last_hour = known.last_hour.max(hour);
            }
        }
        let mut refusals: Vec<RefusedCalls> = refusals.into_values().collect();
        refusals.sort_by_key(|refused| std::cmp::Reverse(refused.calls));
        Self {
            hours,
            days,
            refusals,
        }
    }
}

/// The last 24 hours of several keys.
pub fn days_of_keys(
    calls: impl Iterator<Item = (i64, NaiveDateTime, Outcome, i64)>,
    now: NaiveDateTime,
) -> HashMap<i64, Vec<Span>> {
    let hour = TimeDelta::hours(1);
    let mut days: HashMap<i64, Vec<Span>> = HashMap::new();
    for (key_id, from, outcome, calls) in calls {
        let spans = days
            .entry(key_id)
            .or_insert_with(|| spans(now, hour, HOURS));
        count(spans, begin(from, hour), outcome, calls);
    }
    days
}

/// Calls before this instant are not in the last 24 hours.
pub fn day_since(now: NaiveDateTime) -> NaiveDateTime {
    begin(now, TimeDelta::hours(1)) - TimeDelta::hours(1) * (HOURS - 1)
}

/// This many spans of one length, up to the current one.
fn spans(now: NaiveDateTime, length: TimeDelta, number: i32) -> Vec<Span> {
    let last = begin(now, length);
    (0..number)
        .rev()
        .map(|back| Span {
            from: last - length * back,
            accepted: 0,
            refused: 0,
        })
        .collect()
}

fn count(spans: &mut [Span], from: NaiveDateTime, outcome: Outcome, calls: i64) {
    if let Some(span) = spans.iter_mut().find(|span| span.from == from) {
        match outcome {
            Outcome::Accepted => span.accepted += calls,
            _ => span.refused += calls,
        }
    }
}

/// The start of the span of this length that contains an instant.
fn begin(at: NaiveDateTime, length: TimeDelta) -> NaiveDateTime {
    at.duration_trunc(length).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> NaiveDateTime {
        NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap()
    }

    fn history(calls: &[(&str, Outcome, i64)]) -> History {
        let calls = calls
            .iter()
            .map(|(hour, why, calls)| (at(hour), *why, *calls));
        History::of(calls, at("2026-03-01 10:30"))
    }

    fn totals(spans: &[Span]) -> (i64, i64) {
        let sum = |of: fn(&Span) -> i64| spans.iter().map(of).sum();
        (sum(|span| span.accepted), sum(|span| span.refused))
    }

    #[test]
    fn spans_end_with_the_present_one() {
        let history = history(&[]);
        assert_eq!((history.hours.len(), history.days.len()), (24, 30));
        assert_eq!(history.hours[0].from, at("2026-02-28 11:00"));
        assert_eq!(history.hours[23].from, at("2026-03-01 10:00"));
        assert_eq!(history.days[0].from, at("2026-01-31 00:00"));
        assert_eq!(history.days[29].from, at("2026-03-01 00:00"));
        assert_eq!(History::since(at("2026-03-01 10:30")), history.days[0].from);
    }

    #[test]
    fn each_call_is_in_its_hour_and_its_day() {
        let history = history(&[
            ("2026-03-01 10:00", Outcome::Accepted, 5),
            ("2026-03-01 10:00", Outcome::Paused, 2),
            ("2026-03-01 00:00", Outcome::Accepted, 1),
            ("2026-02-28 11:00", Outcome::InvalidRequest, 1),
            ("2026-02-28 10:00", Outcome::Accepted, 100),
            ("2026-01-31 00:00", Outcome::Accepted, 1_000),
        ]);
        let now = history.hours[23];
        assert_eq!((now.accepted, now.refused), (5, 2));
        assert_eq!(totals(&history.hours), (6, 3));
        let today = history.days[29];
        assert_eq!((today.accepted, today.refused), (6, 2));
        assert_eq!(history.days[28].accepted, 100);
        assert_eq!(totals(&history.days), (1_106, 3));
    }

    #[test]
    fn refusals_are_told_by_reason_the_commonest_first() {
        let history = history(&[
            ("2026-02-20 10:00", Outcome::Deleted, 2),
            ("2026-02-28 09:00", Outcome::DomainNotFound, 1),
            ("2026-02-27 10:00", Outcome::DomainNotFound, 4),
            ("2026-02-27 10:00", Outcome::Accepted, 4),
        ]);
        let of = |why, calls, last: &str| RefusedCalls {
            why,
            calls,
            last_hour: at(last),
        };
        assert_eq!(
            history.refusals,
            [
                of(Outcome::DomainNotFound, 5, "2026-02-28 09:00"),
                of(Outcome::Deleted, 2, "2026-02-20 10:00"),
            ]
        );
    }
}
