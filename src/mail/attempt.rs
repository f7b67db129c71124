//! What follows an attempt to deliver an email: a retry at some time, or the end.

use std::time::Duration;

use chrono::{NaiveDateTime, TimeDelta};
use lettre::Address;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::mime::Unsendable;
use super::relay::{Fate, Trouble, refuses};
use crate::outbox::EmailStatus;

/// Minutes until the second attempt, the third, and so on; then always the last value.
const DELAYS: [i64; 7] = [1, 5, 15, 30, 60, 120, 240];
/// How much longer a delay may be, in percent, so that emails that failed together are not retried
/// together.
const JITTER: i64 = 20;
/// How long after the first attempt retries continue. RFC 5321, 4.5.4.1 says four or five days, but
/// emails from programs are stale by then.
const PATIENCE: TimeDelta = TimeDelta::hours(48);

/// A recipient that will not get the email, and the relay's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedRecipient {
    pub email: String,
    pub reply: String,
}

/// The result of the earlier attempts.
#[derive(Debug, Clone)]
pub struct Before {
    pub attempts: i64,
    pub first_attempt_at: Option<NaiveDateTime>,
    pub refused: Vec<RefusedRecipient>,
    /// How many recipients have it already.
    pub delivered: usize,
}

/// The result of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptOutcome {
    pub status: EmailStatus,
    pub attempts: i64,
    /// The start of the time allowed for retries. `None` until there was an attempt while the clock
    /// was trusted.
    pub first_attempt_at: Option<NaiveDateTime>,
    /// The time until the next attempt, if there is one.
    pub retry_in: Option<TimeDelta>,
    /// The recipients that still have to get it.
    pub remaining: Vec<String>,
    pub refused: Vec<RefusedRecipient>,
    pub reply: String,
}

impl Before {
    /// After the relay answered for each recipient. `now`: none while the clock is in doubt, when
    /// no email is given up.
    pub fn then(
        self,
        now: Option<NaiveDateTime>,
        recipients: &[Address],
        fates: &[Fate],
    ) -> AttemptOutcome {
        let is_over = self.is_over(now);
        let (mut refused, mut remaining, mut delivered) =
            (self.refused, Vec::new(), self.delivered);
        let mut reply = String::new();
        for (recipient, fate) in recipients.iter().zip(fates) {
            let email = recipient.to_string();
            let fate = match fate {
                Fate::PutOff(words) => &Fate::Deferred(refuses(words)),
                fate => fate,
            };
            match fate {
                Fate::Delivered(words) => {
                    delivered += 1;
                    reply.clone_from(words);
                }
                Fate::Deferred(words) if !is_over => {
                    remaining.push(email);
                    reply.clone_from(words);
                }
                Fate::Deferred(words) | Fate::Refused(words) | Fate::PutOff(words) => {
                    reply.clone_from(words);
                    refused.push(RefusedRecipient {
                        email,
                        reply: words.clone(),
                    });
                }
            }
        }
        let status = match (remaining.is_empty(), delivered) {
            (false, _) => EmailStatus::Deferred,
            (true, 0) => EmailStatus::Failed,
            (true, _) => EmailStatus::Delivered,
        };
        AttemptOutcome {
            status,
            attempts: self.attempts + 1,
            first_attempt_at: self.first_attempt_at.or(now),
            retry_in: (!remaining.is_empty()).then(|| delay(self.attempts)),
            remaining,
            refused,
            reply,
        }
    }

    /// After the relay could not be used: this does not count as an attempt, and no email fails
    /// because the login is wrong or the relay refuses this server.
    pub fn then_trouble(
        self,
        now: Option<NaiveDateTime>,
        recipients: &[Address],
        trouble: &Trouble,
        retry_in: Duration,
    ) -> AttemptOutcome {
        let words = trouble.sentence();
        let is_away = matches!(trouble, Trouble::Unreachable(_));
        if is_away && self.is_over(now) {
            let fates = vec![Fate::Deferred(words); recipients.len()];
            return self.then(now, recipients, &fates);
        }
        AttemptOutcome {
            status: EmailStatus::Deferred,
            attempts: self.attempts,
            // The time during which this server was refused does not count.
            first_attempt_at: self.first_attempt_at.or(now).filter(|_| is_away),
            retry_in: Some(TimeDelta::from_std(retry_in).unwrap_or(TimeDelta::minutes(1))),
            remaining: recipients.iter().map(ToString::to_string).collect(),
            refused: self.refused,
            reply: words,
        }
    }

    /// When the email cannot become a message at all.
    pub fn then_never(self, why: &Unsendable) -> AttemptOutcome {
        AttemptOutcome {
            status: EmailStatus::Failed,
            attempts: self.attempts,
            first_attempt_at: self.first_attempt_at,
            retry_in: None,
            remaining: Vec::new(),
            refused: self.refused,
            reply: why.to_string(),
        }
    }

    fn is_over(&self, now: Option<NaiveDateTime>) -> bool {
        let since = self.first_attempt_at.zip(now);
        since.is_some_and(|(first, now)| now - first >= PATIENCE)
    }
}

/// The delay before the next attempt, after this many earlier ones.
fn delay(attempts: i64) -> TimeDelta {
    let at = usize::try_from(attempts).map_or(0, |at| at.min(DELAYS.len() - 1));
    let usual = TimeDelta::minutes(DELAYS[at]);
    usual + usual * rand::rng().random_range(0..=JITTER as i32) / 100
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn before(attempts: i64, hours: i64) -> Before {
        Before {
            attempts,
            first_attempt_at: Some(clock::now() - TimeDelta::hours(hours)),
            refused: Vec::new(),
            delivered: 0,
        }
    }

    fn addresses<const N: usize>() -> [Address; N] {
        std::array::from_fn(|n| format!("bob{n}@example.org").parse().unwrap())
    }

    #[test]
    fn delays_grow_and_are_not_all_the_same() {
        let mut sum = TimeDelta::zero();
        for attempts in 0..40 {
            let delay = delay(attempts);
            let usual = TimeDelta::minutes(DELAYS[(attempts as usize).min(6)]);
            assert!(delay >= usual && delay <= usual * 6 / 5, "{delay}");
            sum += delay;
        }
        assert!(sum > PATIENCE);
    }

    #[test]
    fn a_recipient_that_is_put_off_is_the_only_one_tried_again() {
        let to: [Address; 3] = addresses();
        let fates = [
            Fate::Delivered("250 ok".into()),
            Fate::Refused("550 no such user".into()),
            Fate::Deferred("450 later".into()),
        ];
        let outcome = before(2, 1).then(Some(clock::now()), &to, &fates);
        assert_eq!(
            (outcome.status, outcome.attempts),
            (EmailStatus::Deferred, 3)
        );
        assert_eq!(outcome.remaining, ["bob2@example.org"]);
        assert_eq!(outcome.refused.len(), 1);
        assert_eq!(outcome.reply, "450 later");
        assert!(outcome.retry_in.unwrap() >= TimeDelta::minutes(15));
    }

    #[test]
    fn after_two_days_it_ends_with_the_reason() {
        let to: [Address; 1] = addresses();
        let fates = [Fate::Deferred("450 later".into())];
        let outcome = before(3, 47).then(Some(clock::now()), &to, &fates);
        assert_eq!(outcome.status, EmailStatus::Deferred);
        let outcome = before(3, 48).then(Some(clock::now()), &to, &fates);
        assert_eq!(
            (outcome.status, outcome.retry_in),
            (EmailStatus::Failed, None)
        );
        assert_eq!(outcome.reply, "450 later");
        assert_eq!(outcome.refused[0].reply, "450 later");

        // Other recipients have it.
        let late = Before {
            delivered: 1,
            ..before(3, 48)
        };
        assert_eq!(
            late.then(Some(clock::now()), &to, &fates).status,
            EmailStatus::Delivered
        );
    }

    #[test]
    fn nothing_ends_by_a_clock_that_is_in_doubt() {
        let to: [Address; 1] = addresses();
        let fates = [Fate::Deferred("450 later".into())];
        let outcome = before(3, 1_000).then(None, &to, &fates);
        assert_eq!(outcome.status, EmailStatus::Deferred);
        let away = Trouble::Unreachable("no connection".into());
        let first = Before {
            first_attempt_at: None,
            ..before(3, 1_000)
        };
        let outcome = first.then_trouble(None, &to, &away, Duration::from_secs(1));
        assert_eq!(
            (outcome.status, outcome.first_attempt_at),
            (EmailStatus::Deferred, None)
        );
    }

    #[test]
    fn a_relay_that_is_away_costs_no_attempt_and_a_wrong_login_ends_nothing() {
        let to: [Address; 1] = addresses();
        let wait = Duration::from_secs(30);
        let away = Trouble::Unreachable("no connection".into());
        let outcome = before(3, 1).then_trouble(Some(clock::now()), &to, &away, wait);
        assert_eq!(
            (outcome.status, outcome.attempts),
            (EmailStatus::Deferred, 3)
        );
        assert_eq!(outcome.retry_in, Some(TimeDelta::seconds(30)));
        let outcome = before(3, 48).then_trouble(Some(clock::now()), &to, &away, wait);
        assert_eq!(outcome.status, EmailStatus::Failed);
        for refusal in [Trouble::NotLetIn, Trouble::Refuses("554 no".into())] {
            let outcome = before(3, 1_000).then_trouble(Some(clock::now()), &to, &refusal, wait);
            assert_eq!(
                (outcome.status, outcome.attempts),
                (EmailStatus::Deferred, 3)
            );
            // Once the relay accepts this server, there is time for more attempts.
            assert_eq!(outcome.first_attempt_at, None);
        }
    }
}
