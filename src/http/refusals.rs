//! Logs refused requests: one line each, or a total if there are many, so that an attack can
//! neither go unseen nor fill the disk.
//!
//! A line contains the address and the reason, and nothing that was sent: people enter their
//! password into the email field by mistake. The activity of the account shows which one was meant.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of each kind per minute; the rest of the minute is summed up.
const SINGLE: u64 = 5;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    WrongPassword,
    /// Too many attempts.
    Throttled,
    /// The request may have come from another site.
    CrossSite,
}

impl RefusalKind {
    const COUNT: usize = 3;

    fn as_str(self) -> &'static str {
        match self {
            Self::WrongPassword => "wrong password",
            Self::Throttled => "too many attempts",
            Self::CrossSite => "not sent by this site",
        }
    }

    const ALL: [Self; Self::COUNT] = [Self::WrongPassword, Self::Throttled, Self::CrossSite];
}

/// The refusals logged in the current minute, by kind.
#[derive(Default)]
pub struct Refusals([Mutex<Option<Minute>>; RefusalKind::COUNT]);

struct Minute {
    begun: Instant,
    refused: u64,
}

impl Minute {
    fn unlogged(&self) -> u64 {
        self.refused.saturating_sub(SINGLE)
    }
}

impl Refusals {
    pub fn note(&self, refusal: RefusalKind, address: IpAddr) {
        if self.count(refusal, Instant::now()) {
            tracing::warn!(%address, reason = refusal.as_str(), "a request was refused");
        }
    }

    /// Logs the totals of finished minutes; must be called about every second.
    pub fn sum_up(&self) {
        for refusal in RefusalKind::ALL {
            if let Some(more) = self.end_minute(refusal, Instant::now()) {
                tracing::warn!(
                    reason = refusal.as_str(),
                    more,
                    "more requests were refused in the last minute"
                );
            }
        }
    }

    /// Returns whether this refusal gets its own line.
    fn count(&self, refusal: RefusalKind, now: Instant) -> bool {
        let mut minute = self.minute(refusal);
        let minute = minute.get_or_insert(Minute {
            begun: now,
            refused: 0,
        });
        minute.refused += 1;
        minute.refused <= SINGLE
    }

    /// Returns how many had no line of their own, once their minute is over.
    fn end_minute(&self, refusal: RefusalKind, now: Instant) -> Option<u64> {
        let mut minute = self.minute(refusal);
        let over = minute.take_if(|minute| now.duration_since(minute.begun) >= MINUTE)?;
        Some(over.unlogged()).filter(|more| *more > 0)
    }

    fn minute(&self, refusal: RefusalKind) -> std::sync::MutexGuard<'_, Option<Minute>> {
        let minute = self.0[refusal as usize].lock();
        minute.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attack_is_a_few_lines_a_minute() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        let lines = |kind, at| (0..1_209).filter(|_| refusals.count(kind, at)).count();
        assert_eq!(lines(RefusalKind::WrongPassword, start), 5);
        // One kind must not hide another.
        assert_eq!(lines(RefusalKind::CrossSite, start), 5);
        let soon = start + Duration::from_secs(59);
        assert_eq!(refusals.end_minute(RefusalKind::WrongPassword, soon), None);
        let later = start + MINUTE;
        let sum = |kind| refusals.end_minute(kind, later);
        assert_eq!(sum(RefusalKind::WrongPassword), Some(1_204));
        assert_eq!(sum(RefusalKind::WrongPassword), None);
        assert_eq!(sum(RefusalKind::CrossSite), Some(1_204));
        assert_eq!(sum(RefusalKind::Throttled), None);
        assert_eq!(lines(RefusalKind::WrongPassword, later), 5);
    }

    #[test]
    fn few_are_not_summed_up() {
        let (refusals, start) = (Refusals::default(), Instant::now());
        assert!(refusals.count(RefusalKind::Throttled, start));
        assert_eq!(
            refusals.end_minute(RefusalKind::Throttled, start + MINUTE),
            None
        );
    }
}
