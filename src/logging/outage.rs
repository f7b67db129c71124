//! What is tried again and again and fails: its first failure is logged, then a line a minute with
//! how often it failed, and its end.

use std::time::{Duration, Instant};

const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub struct Outage {
    told: Option<Instant>,
    /// Failures since then.
    failures: u64,
}

impl Outage {
    /// Counts a failure. If a line is due, returns how many failures it stands for.
    pub fn goes_on(&mut self) -> Option<u64> {
        self.goes_on_at(Instant::now())
    }

    fn goes_on_at(&mut self, now: Instant) -> Option<u64> {
        self.failures += 1;
        let is_due = self
            .told
            .is_none_or(|told| now.duration_since(told) >= MINUTE);
        if !is_due {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.failures))
    }

    /// Notes a success. Returns whether there was an outage.
    pub fn ends(&mut self) -> bool {
        let was = self.told.is_some();
        *self = Self::default();
        was
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_told_at_once_every_minute_and_at_its_end() {
        let (mut outage, start) = (Outage::default(), Instant::now());
        for _ in 0..2 {
            assert!(!outage.ends());
            assert_eq!(outage.goes_on_at(start), Some(1));
            for second in 1..60 {
                assert_eq!(outage.goes_on_at(start + Duration::from_secs(second)), None);
            }
            assert_eq!(outage.goes_on_at(start + MINUTE), Some(60));
            assert_eq!(outage.goes_on_at(start + MINUTE), None);
            assert!(outage.ends());
        }
    }
}
