//! The calls of a key in the last 24 hours as a small picture for lists: a bar for each hour, without a
//! scale.

use std::fmt::Write;

use super::history::{HOURS, Span};

/// The distance between bars, in the picture's own units.
const STEP: usize = 4;
const HEIGHT: i64 = 20;
/// A minimum height, so that one call is visible beside thousands.
const LOWEST: i64 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sparkline {
    pub accepted: i64,
    pub refused: i64,
    /// What the lines of the bars are drawn by (SVG path data).
    pub accepted_path: String,
    pub refused_path: String,
}

impl Sparkline {
    pub const WIDTH: usize = HOURS as usize * STEP;

    /// `None`: there were no calls.
    pub fn of(hours: &[Span]) -> Option<Self> {
        let most = hours.iter().map(|hour| hour.accepted + hour.refused).max();
        let most = most.filter(|most| *most > 0)?;
        let height = |calls: i64| match calls {
            0 => 0,
            _ => ((calls as f64 / most as f64 * HEIGHT as f64) as i64).max(LOWEST),
        };
        let mut line = Self {
            accepted: 0,
            refused: 0,
            accepted_path: String::new(),
            refused_path: String::new(),
        };
        for (place, hour) in hours.iter().enumerate() {
            let x = place * STEP + STEP / 2;
            let (accepted, refused) = (height(hour.accepted), height(hour.refused));
            line.accepted += hour.accepted;
            line.refused += hour.refused;
            bar(&mut line.accepted_path, x, HEIGHT, accepted);
            bar(&mut line.refused_path, x, HEIGHT - accepted, refused);
        }
        Some(line)
    }

    pub fn calls(&self) -> i64 {
        self.accepted + self.refused
    }
}

/// Upwards from `bottom`.
fn bar(path: &mut String, x: usize, bottom: i64, height: i64) {
    if height > 0 {
        // Nothing that is written to a string can fail.
        let _ = write!(path, "M{x} {bottom}v-{height}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(calls: &[(i64, i64)]) -> Vec<Span> {
        let from = crate::clock::now();
        let span = |(accepted, refused): &(i64, i64)| Span {
            from,
            accepted: *accepted,
            refused: *refused,
        };
        calls.iter().map(span).collect()
    }

    #[test]
    fn refused_calls_stand_on_the_accepted_ones_of_their_hour() {
        let line = Sparkline::of(&spans(&[(10, 10), (0, 0), (0, 20), (1, 0)])).unwrap();
        assert_eq!(line.accepted_path, "M2 20v-10M14 20v-2");
        assert_eq!(line.refused_path, "M2 10v-10M10 20v-20");
        assert_eq!((line.accepted, line.refused, line.calls()), (11, 30, 41));
    }

    #[test]
    fn without_calls_there_is_no_picture() {
        assert_eq!(Sparkline::of(&spans(&[(0, 0); 24])), None);
    }
}
