//! Protection against guessing: a limit per client address, here, and a delay per account, in the
//! database. A device on which a person signed in before has its own limit and delay, so that
//! guesses by strangers do not lock the person out, and guesses on a stolen device are slowed down
//! too.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::email::Email;
use crate::token;

const BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// How many keys a limit remembers. At most once a second, keys that may try again anyway are
/// forgotten; if that is not enough, all are: an attacker with so many addresses is not held back
/// by a limit per address, and the delay per account still applies.
const MOST: usize = 100_000;
const BETWEEN_SWEEPS: Duration = Duration::from_secs(1);

/// Wrong passwords allowed before sign-in is delayed; people mistype.
const FREE_FAILURES: i64 = 5;
const LONGEST_DELAY_SECONDS: i64 = 60;
pub const LONGEST_DELAY: TimeDelta = TimeDelta::seconds(LONGEST_DELAY_SECONDS);

/// Limits how often each of many keys may do something, in bounded memory. Each node counts
/// separately.
pub struct Limit<K: Hash + Eq + Clone> {
    quota: Quota,
    inner: Mutex<Inner<K>>,
}

struct Inner<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    swept: Instant,
}

impl<K: Hash + Eq + Clone> Limit<K> {
    pub fn new(quota: Quota) -> Self {
        Self {
            quota,
            inner: Mutex::new(Inner {
                limiter: RateLimiter::keyed(quota),
                swept: Instant::now(),
            }),
        }
    }

    /// # Errors
    /// With the seconds to wait.
    pub fn admit(&self, key: &K) -> Result<(), u64> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.limiter.len() >= MOST && inner.swept.elapsed() >= BETWEEN_SWEEPS {
            inner.swept = Instant::now();
            inner.limiter.retain_recent();
        }
        if inner.limiter.len() >= MOST {
            inner.limiter = RateLimiter::keyed(self.quota);
        }
        inner.limiter.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

/// How often the forms that run argon2 may be submitted.
fn of_forms() -> Quota {
    Quota::per_minute(PER_MINUTE).allow_burst(BURST)
}

/// How often one address may submit them. IPv6 counts by /64, the network of one customer.
pub struct PerAddress(Limit<IpAddr>);

impl PerAddress {
    pub fn new() -> Self {
        Self(Limit::new(of_forms()))
    }

    /// # Errors
    /// With the seconds to wait.
    pub fn admit(&self, address: IpAddr) -> Result<(), u64> {
        self.0.admit(&network(address))
    }
}

impl Default for PerAddress {
    fn default() -> Self {
        Self::new()
    }
}

/// How often they may be submitted, from any address, by a device on which this person signed in
/// before, or in a session.
pub struct PerDevice(Limit<ThrottleCounter>);

impl PerDevice {
    pub fn new() -> Self {
        Self(Limit::new(of_forms()))
    }

    /// # Errors
    /// With the seconds to wait.
    pub fn admit(&self, device: ThrottleCounter) -> Result<(), u64> {
        self.0.admit(&device)
    }
}

impl Default for PerDevice {
    fn default() -> Self {
        Self::new()
    }
}

/// Identifies what wrong passwords count against, as a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ThrottleCounter([u8; 32]);

impl ThrottleCounter {
    /// For a client that knows only the email address, which may be nobody's.
    pub fn of_email(email: &Email) -> Self {
        Self(token::hash(email.as_ref()))
    }

    /// No email address can begin like the text hashed here and below.
    pub fn of_device(user_id: i64, token: &str) -> Self {
        Self(token::hash(&format!("\0device {user_id} {token}")))
    }

    /// For a session in which the current password must be entered again.
    pub fn of_session(id: &impl std::fmt::Display) -> Self {
        Self(token::hash(&format!("\0session {id}")))
    }
}

impl AsRef<[u8]> for ThrottleCounter {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// How long sign-in is blocked after this many failures in a row.
pub fn delay_after(failures: i64) -> TimeDelta {
    let seconds = match failures - FREE_FAILURES {
        ..0 => 0,
        over => (1_i64 << over.min(20)).min(LONGEST_DELAY_SECONDS),
    };
    TimeDelta::seconds(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_grows_to_a_minute() {
        let seconds: Vec<i64> = [0, 1, 4, 5, 6, 7, 10, 11, 12, 1_000_000]
            .map(|n| delay_after(n).num_seconds())
            .into();
        assert_eq!(seconds, [0, 0, 0, 1, 2, 4, 32, 60, 60, 60]);
    }

    #[test]
    fn an_address_is_stopped_after_a_burst_and_others_are_not() {
        let limit = PerAddress::new();
        let address = "192.0.2.1".parse().unwrap();
        let admitted = (0..100).filter(|_| limit.admit(address).is_ok()).count();
        // One more may be admitted if the machine takes seconds for this loop.
        assert!((20..30).contains(&admitted), "{admitted}");
        assert!(limit.admit("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_limit_remembers_so_many_and_no_more() {
        let limit = Limit::new(of_forms());
        for key in 0..MOST + 10 {
            assert!(limit.admit(&key).is_ok());
        }
        assert!(limit.inner.lock().unwrap().limiter.len() <= MOST);
    }

    #[test]
    fn what_is_counted_is_kept_apart() {
        let email = Email::parse("ada@acme.test").unwrap();
        let all = [
            ThrottleCounter::of_email(&email),
            ThrottleCounter::of_device(1, "a"),
            ThrottleCounter::of_device(11, "a"),
            ThrottleCounter::of_device(1, "b"),
            ThrottleCounter::of_session(&1),
        ];
        let kinds: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(kinds.len(), all.len());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
