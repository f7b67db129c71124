//! The usage section of a key's page: two bar charts, and why calls were refused.

use chrono::NaiveDateTime;

use super::history::{History, RefusedCalls, Span};
use crate::clock;

/// The distance between bars, in the chart's own units.
const STEP: usize = 10;
/// The chart's height, in the chart's own units.
const HEIGHT: i64 = 100;
/// A minimum height, so that one call is visible beside thousands.
const LOWEST: i64 = 2;
/// A label below every sixth bar: the bars are 24 hours or 30 days.
const BARS_PER_TICK: usize = 6;

/// The data for `keys/_usage.html`.
pub struct UsageChart {
    pub charts: [Chart; 2],
    pub refusals: Vec<RefusalRow>,
}

/// Bars of accepted calls, with the refused ones on top.
pub struct Chart {
    /// Part of its element ids.
    pub id: &'static str,
    pub title: &'static str,
    /// Its name in the switch.
    pub period: &'static str,
    /// The period of a bar.
    pub unit: &'static str,
    /// Whether a bar is an hour, which pages show in the visitor's time zone; otherwise it is a day
    /// in UTC.
    pub is_hourly: bool,
    pub accepted: i64,
    pub refused: i64,
    /// The calls at the top of the scale; an even number.
    pub top: i64,
    pub width: usize,
    pub bars: Vec<Bar>,
}

pub struct Bar {
    pub from: NaiveDateTime,
    /// Its period for people, in UTC.
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
    /// The start of the hour of the last one.
    pub last_hour: NaiveDateTime,
}

impl From<&History> for UsageChart {
    fn from(history: &History) -> Self {
        let hour = |span: &Span| span.from.format("%-d %b, %H:%M UTC").to_string();
        let day = |span: &Span| span.from.format("%-d %b").to_string();
        let hours = Chart {
            id: "24h",
            title: "Last 24 hours",
            period: "24 hours",
            unit: "Hour",
            is_hourly: true,
            ..Chart::of(&history.hours, hour)
        };
        let days = Chart {
            id: "30d",
            title: "Last 30 days",
            period: "30 days",
            unit: "Day (UTC)",
            ..Chart::of(&history.days, day)
        };
        Self {
            charts: [hours, days],
            refusals: history.refusals.iter().map(RefusalRow::from).collect(),
        }
    }
}

impl UsageChart {
    pub fn is_empty(&self) -> bool {
        self.charts.iter().all(Chart::is_empty)
    }

    /// The chart to show at first: the last day, or the month if nothing was called in that day.
    pub fn shown(&self) -> &'static str {
        let [day, month] = &self.charts;
        if day.is_empty() { month.id } else { day.id }
    }
}

impl Chart {
    /// Without its names.
    fn of(spans: &[Span], when: impl Fn(&Span) -> String) -> Self {
        let most = spans.iter().map(|span| span.accepted + span.refused).max();
        let top = top_of_scale(most.unwrap_or_default());
        let bars = spans.iter().enumerate().map(|(place, span)| Bar {
            from: span.from,
            when: when(span),
            accepted: span.accepted,
            refused: span.refused,
            x: place * STEP,
            accepted_height: height(span.accepted, top),
            refused_height: height(span.refused, top),
        });
        Self {
            id: "",
            title: "",
            period: "",
            unit: "",
            is_hourly: false,
            accepted: spans.iter().map(|span| span.accepted).sum(),
            refused: spans.iter().map(|span| span.refused).sum(),
            top,
            width: spans.len() * STEP,
            bars: bars.collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.accepted + self.refused == 0
    }

    /// The bars that have a label below them.
    pub fn ticks(&self) -> impl Iterator<Item = &Bar> {
        self.bars.iter().step_by(BARS_PER_TICK)
    }
}

/// A round number at least as high as the highest bar: 2, 4, 6, 8, 10, 20, 40 and so on, so that half
/// of it is a whole number.
fn top_of_scale(most: i64) -> i64 {
    let mut power: i64 = 1;
    loop {
        for factor in [2, 4, 6, 8, 10] {
            let top = power.saturating_mul(factor);
            // What would be higher than any number cannot be rounded up.
            if top >= most || top == i64::MAX {
                return top;
            }
        }
        power = power.saturating_mul(10);
    }
}

fn height(calls: i64, top: i64) -> i64 {
    match calls {
        0 => 0,
        // The product of two counts could overflow.
        _ => ((calls as f64 / top as f64 * HEIGHT as f64) as i64).max(LOWEST),
    }
}

impl Bar {
    pub fn is_empty(&self) -> bool {
        self.accepted + self.refused == 0
    }

    pub fn accepted_y(&self) -> i64 {
        HEIGHT - self.accepted_height
    }

    /// Not above the top, even if both parts have their minimum height.
    pub fn refused_y(&self) -> i64 {
        (self.accepted_y() - self.refused_height).max(0)
    }

    /// Its start, for programs.
    pub fn instant(&self) -> String {
        clock::rfc3339(&self.from)
    }

    /// Its start for people: `14:00`.
    pub fn clock(&self) -> String {
        self.from.format("%H:%M").to_string()
    }
}

impl From<&RefusedCalls> for RefusalRow {
    fn from(refused: &RefusedCalls) -> Self {
        Self {
            why: refused.why.label(),
            calls: refused.calls,
            last_hour: refused.last_hour,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::usage::outcome::Outcome;
    use askama::Template;

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
            "<title>1 Mar, 10:00 UTC: 120 accepted, 3 refused</title>",
            "<span>200</span><span>100</span><span>0</span>",
            r#"<th scope="row">1 Mar</th>"#,
            "<td>120</td><td>3</td>",
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
    fn a_scale_ends_at_a_round_number_of_which_there_is_a_half() {
        for (most, top) in [
            (0, 2),
            (1, 2),
            (3, 4),
            (5, 6),
            (10, 10),
            (11, 20),
            (40, 40),
            (41, 60),
            (1_894, 2_000),
        ] {
            assert_eq!(top_of_scale(most), top, "{most}");
        }
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
                assert!((0..=60).contains(&top), "{accepted} {refused}: {top}");
                assert!(
                    chart.top >= accepted + refused && chart.top % 2 == 0 || chart.top == i64::MAX
                );
                assert!(bar.x + STEP <= chart.width);
            }
        }
    }
}
