//! The usage section of a key's page: two bar charts, and why calls were refused.

use super::history::{History, RefusedCalls, Span};
use crate::clock;

/// The distance between bars, in the chart's own units.
const STEP: usize = 10;
/// The chart's height is 100; a little space stays free at the top.
const HIGHEST: i64 = 96;
/// A minimum height, so that one call is visible beside thousands.
const LOWEST: i64 = 2;

/// The data for `keys/_usage.html`.
pub struct UsageChart {
    pub charts: [Chart; 2],
    pub refusals: Vec<RefusalRow>,
}

/// Bars of accepted calls, with the refused ones on top.
pub struct Chart {
    pub title: &'static str,
    /// The period of a bar.
    pub unit: &'static str,
    pub accepted: i64,
    pub refused: i64,
    pub width: usize,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub when: String,
    pub accepted: i64,
    pub refused: i64,
    pub x: usize,
    pub accepted_height: i64,
    pub refused_height: i64,
}

pub struct RefusalRow {
    pub why: &'static str,
    pub calls: i64,
    /// The start of the hour of the last one, for people and for programs.
    pub last: String,
    pub last_instant: String,
}

impl From<&History> for UsageChart {
    fn from(history: &History) -> Self {
        let hour = |span: &Span| span.from.format("%-d %b, %H:%M").to_string();
        let day = |span: &Span| span.from.format("%-d %b").to_string();
        Self {
            charts: [
                Chart::new("Last 24 hours", "Hour (UTC)", &history.hours, hour),
                Chart::new("Last 30 days", "Day (UTC)", &history.days, day),
            ],
            refusals: history.refusals.iter().map(RefusalRow::from).collect(),
        }
    }
}

impl UsageChart {
    pub fn is_empty(&self) -> bool {
        self.charts.iter().all(Chart::is_empty)
    }
}

impl Chart {
    fn new(
        title: &'static str,
        unit: &'static str,
        spans: &[Span],
        when: impl Fn(&Span) -> String,
    ) -> Self {
        let most = spans.iter().map(|span| span.accepted + span.refused).max();
        let height = |calls| height(calls, most.unwrap_or_default());
        let bars = spans.iter().enumerate().map(|(place, span)| Bar {
            when: when(span),
            accepted: span.accepted,
            refused: span.refused,
            x: place * STEP,
            accepted_height: height(span.accepted),
            refused_height: height(span.refused),
        });
        Self {
            title,
            unit,
            accepted: spans.iter().map(|span| span.accepted).sum(),
            refused: spans.iter().map(|span| span.refused).sum(),
            width: spans.len() * STEP,
            bars: bars.collect(),
        }
    }

    fn is_empty(&self) -> bool {
        self.accepted + self.refused == 0
    }

    /// The times of the first and the last bar.
    pub fn ends(&self) -> [&str; 2] {
        [self.bars.first(), self.bars.last()].map(|bar| bar.map_or("", |bar| &bar.when))
    }
}

fn height(calls: i64, most: i64) -> i64 {
    match calls {
        0 => 0,
        // The product of two counts could overflow.
        _ => ((calls as f64 / most as f64 * HIGHEST as f64) as i64).max(LOWEST),
    }
}

impl Bar {
    pub fn is_empty(&self) -> bool {
        self.accepted + self.refused == 0
    }

    pub fn accepted_y(&self) -> i64 {
        100 - self.accepted_height
    }

    pub fn refused_y(&self) -> i64 {
        self.accepted_y() - self.refused_height
    }
}

impl From<&RefusedCalls> for RefusalRow {
    fn from(refused: &RefusedCalls) -> Self {
        Self {
            why: refused.why.label(),
            calls: refused.calls,
            last: clock::for_people(&refused.last_hour),
            last_instant: clock::rfc3339(&refused.last_hour),
        }
    }
}

#[cfg(test)]
mod tests {
    use askama::Template;
    use chrono::NaiveDateTime;

    use super::*;
    use crate::keys::usage::outcome::Outcome;

    #[derive(Template)]
    #[template(source = r#"{% include "keys/_usage.html" %}"#, ext = "html")]
    struct Page {
        usage: UsageChart,
    }

    fn now() -> NaiveDateTime {
        NaiveDateTime::parse_from_str("2026-03-01 10:30", "%Y-%m-%d %H:%M").unwrap()
    }

    fn usage(calls: &[(Outcome, i64)]) -> UsageChart {
        let calls = calls
            .iter()
            .map(|(outcome, calls)| (now(), *outcome, *calls));
        UsageChart::from(&History::of(calls, now()))
    }

    fn page(calls: &[(Outcome, i64)]) -> String {
        let page = Page {
            usage: usage(calls),
        };
        page.render().unwrap()
    }

    #[test]
    fn a_chart_is_told_in_words_too() {
        let page = page(&[
            (Outcome::Accepted, 120),
            (Outcome::Paused, 2),
            (Outcome::InvalidRequest, 1),
        ]);
        for told in [
            r#"aria-label="Last 24 hours: 120 accepted, 3 refused""#,
            r#"aria-label="Last 30 days: 120 accepted, 3 refused""#,
            "<title>1 Mar, 10:00: 120 accepted, 3 refused</title>",
            r#"<th scope="row">1 Mar</th><td>120</td><td>3</td>"#,
            "The key was paused",
            "The request was not valid",
            "1 Mar 2026, 10:30 UTC",
        ] {
            assert!(page.contains(told), "{told} in {page}");
        }
        assert_eq!(page.matches("<svg ").count(), 2);
        // The content security policy forbids them.
        assert!(!page.contains("style") && !page.contains("<script"));
    }

    #[test]
    fn without_calls_there_is_no_chart() {
        let page = page(&[]);
        assert!(page.contains("No calls in the last 30 days."));
        assert!(!page.contains("<svg") && !page.contains("Refused"));
    }

    #[test]
    fn bars_stay_within_the_chart_however_many_calls_there_are() {
        for (accepted, refused) in [
            (1, 0),
            (0, 1),
            (1, 1),
            (1_000_000, 1),
            (1, 1_000_000),
            (999, 1_000),
            (i64::MAX / 2, 1),
        ] {
            let usage = usage(&[(Outcome::Accepted, accepted), (Outcome::Expired, refused)]);
            for chart in &usage.charts {
                let bar = chart.bars.last().unwrap();
                assert_eq!(bar.accepted_height > 0, accepted > 0);
                assert_eq!(bar.refused_height > 0, refused > 0);
                let top = bar.refused_y();
                assert!((0..=10).contains(&top), "{accepted} {refused}: {top}");
                assert!(bar.x + STEP <= chart.width);
            }
        }
    }
}
