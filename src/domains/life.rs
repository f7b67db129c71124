//! How DNS answers change a domain's status, and when the domain is checked again.

use chrono::{NaiveDateTime, TimeDelta};

use super::records::RecordState;
use super::status::DomainStatus;

/// How long a new domain may take to publish its record.
pub const PROOF: TimeDelta = TimeDelta::hours(72);
/// How long the record of a verified domain may be missing.
pub const GRACE: TimeDelta = TimeDelta::hours(24);

const MINUTE: TimeDelta = TimeDelta::minutes(1);
const HOUR: TimeDelta = TimeDelta::hours(1);
const DAY: TimeDelta = TimeDelta::days(1);
/// After a check of a verified domain that DNS did not answer.
const RETRY: TimeDelta = TimeDelta::minutes(5);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainStanding {
    pub status: DomainStatus,
    /// By the operator: DNS answers do not change the status.
    pub is_attested: bool,
    pub pending_since: NaiveDateTime,
    /// When the record of a verified domain was first found missing.
    pub missing_since: Option<NaiveDateTime>,
}

impl DomainStanding {
    /// The state after an answer about the key's record. Without an answer, nothing changes.
    pub fn after(&self, dkim: Option<RecordState>, now: NaiveDateTime) -> Self {
        let mut after = self.clone();
        match (dkim, self.status) {
            (None | Some(RecordState::Unknown), _) => {}
            _ if self.is_attested => after.missing_since = None,
            (Some(RecordState::Found), _) => {
                after.status = DomainStatus::Verified;
                after.missing_since = None;
            }
            (_, DomainStatus::Verified) => {
                let since = self.missing_since.unwrap_or(now);
                after.missing_since = Some(since);
                if since + GRACE <= now {
                    after.status = DomainStatus::Failed;
                }
            }
            (_, DomainStatus::Pending) if self.pending_since + PROOF <= now => {
                after.status = DomainStatus::Failed;
            }
            (_, DomainStatus::Pending | DomainStatus::Failed) => {}
        }
        after
    }

    /// How long until the next check: for a pending domain, a minute at first and an hour in the
    /// end; for a failed one, an hour and later a day.
    pub fn rest(&self, is_answered: bool, now: NaiveDateTime) -> TimeDelta {
        let growing = |since: NaiveDateTime| (now - since) / 10;
        match (self.status, self.missing_since) {
            (DomainStatus::Pending, _) => growing(self.pending_since).clamp(MINUTE, HOUR),
            (DomainStatus::Verified, _) if !is_answered => RETRY,
            (DomainStatus::Verified, None) => HOUR,
            (DomainStatus::Verified, Some(since)) => (since + GRACE - now).clamp(MINUTE, HOUR),
            (DomainStatus::Failed, since) => {
                growing(since.unwrap_or(self.pending_since)).clamp(HOUR, DAY)
            }
        }
    }
}

/// Up to a tenth more or less, so that checks that started together spread out.
pub fn jittered(span: TimeDelta) -> TimeDelta {
    let tenths = i32::from(rand::random::<u8>() % 201) + 900;
    span * tenths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;
    use DomainStatus::{Failed, Pending, Verified};
    use RecordState::{Different, Found, Missing, Unknown};

    fn at(hours: i64) -> NaiveDateTime {
        NaiveDateTime::default() + TimeDelta::hours(hours)
    }

    fn standing(status: DomainStatus, missing_since: Option<i64>) -> DomainStanding {
        DomainStanding {
            status,
            is_attested: false,
            pending_since: at(0),
            missing_since: missing_since.map(at),
        }
    }

    #[test]
    fn a_domain_moves_by_what_dns_says_for_long_enough() {
        for (before, dkim, hour, after) in [
            (
                standing(Pending, None),
                Some(Found),
                1,
                standing(Verified, None),
            ),
            (
                standing(Pending, None),
                Some(Missing),
                71,
                standing(Pending, None),
            ),
            (
                standing(Pending, None),
                Some(Missing),
                72,
                standing(Failed, None),
            ),
            (
                standing(Pending, None),
                Some(Different),
                72,
                standing(Failed, None),
            ),
            (
                standing(Pending, None),
                Some(Found),
                100,
                standing(Verified, None),
            ),
            (
                standing(Failed, None),
                Some(Found),
                100,
                standing(Verified, None),
            ),
            (
                standing(Failed, Some(5)),
                Some(Found),
                100,
                standing(Verified, None),
            ),
            (
                standing(Failed, Some(5)),
                Some(Missing),
                100,
                standing(Failed, Some(5)),
            ),
            (
                standing(Verified, None),
                Some(Found),
                100,
                standing(Verified, None),
            ),
            (
                standing(Verified, None),
                Some(Missing),
                100,
                standing(Verified, Some(100)),
            ),
            (
                standing(Verified, Some(100)),
                Some(Different),
                123,
                standing(Verified, Some(100)),
            ),
            (
                standing(Verified, Some(100)),
                Some(Different),
                124,
                standing(Failed, Some(100)),
            ),
            (
                standing(Verified, Some(100)),
                Some(Found),
                200,
                standing(Verified, None),
            ),
        ] {
            assert_eq!(
                before.after(dkim, at(hour)),
                after,
                "{before:?} {dkim:?} {hour}"
            );
        }
    }

    #[test]
    fn no_answer_moves_nothing() {
        for before in [
            standing(Pending, None),
            standing(Verified, None),
            standing(Verified, Some(1)),
            standing(Failed, Some(1)),
        ] {
            for dkim in [None, Some(Unknown)] {
                assert_eq!(before.after(dkim, at(10_000)), before);
            }
        }
    }

    #[test]
    fn what_the_operator_attests_is_not_moved() {
        let attested = DomainStanding {
            is_attested: true,
            ..standing(Verified, None)
        };
        for dkim in [Some(Found), Some(Missing), Some(Different), None] {
            assert_eq!(attested.after(dkim, at(10_000)), attested);
        }
    }

    #[test]
    fn it_rests_longer_and_longer() {
        let minutes = |standing: DomainStanding, hour| standing.rest(true, at(hour)).num_minutes();
        let pending: Vec<i64> = [0, 1, 5, 10, 60]
            .map(|hour| minutes(standing(Pending, None), hour))
            .into();
        assert_eq!(pending, [1, 6, 30, 60, 60]);
        let failed: Vec<i64> = [0, 72, 240, 10_000]
            .map(|hour| minutes(standing(Failed, None), hour))
            .into();
        assert_eq!(failed, [60, 432, 1440, 1440]);
        assert_eq!(minutes(standing(Failed, Some(72)), 96), 144);
        assert_eq!(minutes(standing(Verified, None), 10_000), 60);
        assert_eq!(minutes(standing(Verified, Some(100)), 100), 60);
        // It is checked when its time runs out, not up to an hour later.
        assert_eq!(minutes(standing(Verified, Some(100)), 124), 1);
        assert_eq!(standing(Verified, None).rest(false, at(1)), RETRY);
        assert_eq!(standing(Verified, Some(100)).rest(false, at(200)), RETRY);
        assert_eq!(standing(Pending, None).rest(false, at(0)), MINUTE);
    }

    #[test]
    fn jitter_is_a_tenth() {
        for _ in 0..1000 {
            let span = jittered(HOUR);
            assert!(span >= HOUR * 9 / 10 && span <= HOUR * 11 / 10, "{span}");
        }
    }
}
