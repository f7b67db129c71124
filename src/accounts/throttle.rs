//! Against guessing: a limit for each address, here, and a delay for each account, in the database.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use chrono::TimeDelta;
use governor::clock::Clock;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

const BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();
const PER_MINUTE: NonZeroU32 = NonZeroU32::new(10).unwrap();

/// Above this many remembered addresses, those that may try again anyway are forgotten.
const MANY: usize = 10_000;

/// Failures that cost nothing: people mistype.
const FREE_FAILURES: i64 = 5;
const LONGEST_DELAY_SECONDS: i64 = 60;
pub const LONGEST_DELAY: TimeDelta = TimeDelta::seconds(LONGEST_DELAY_SECONDS);

/// How often an address may submit the forms that run argon2. IPv6 counts by /64, which is what
/// one customer has. Each node counts for itself.
pub struct PerAddress(DefaultKeyedRateLimiter<IpAddr>);

impl PerAddress {
    pub fn new() -> Self {
        Self(RateLimiter::keyed(
            Quota::per_minute(PER_MINUTE).allow_burst(BURST),
        ))
    }

    /// # Errors
    /// How many seconds to wait.
    pub fn admit(&self, address: IpAddr) -> Result<(), u64> {
        if self.0.len() > MANY {
            self.0.retain_recent();
        }
        self.0.check_key(&network(address)).map_err(|not_until| {
            let wait = not_until.wait_time_from(governor::clock::DefaultClock::default().now());
            wait.as_secs() + 1
        })
    }
}

impl Default for PerAddress {
    fn default() -> Self {
        Self::new()
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

/// How long an account's sign-in stays shut after so many failures in a row.
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
        // One more may drip in if the machine takes seconds for this loop.
        assert!((20..30).contains(&admitted), "{admitted}");
        assert!(limit.admit("192.0.2.2".parse().unwrap()).is_ok());
    }

    #[test]
    fn an_ipv6_customer_is_one_address() {
        let at = |text: &str| network(text.parse().unwrap());
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("::ffff:192.0.2.1"), at("192.0.2.1"));
    }
}
