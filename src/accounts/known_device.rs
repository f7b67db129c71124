//! Devices on which a person has signed in before, recognized by a cookie that reveals nothing to
//! others.
//!
//! It proves only that. Whoever has the cookie must still know the password, and has a separate
//! limit and delay for guessing it. The cookie is bound to the password at that sign-in, so that a
//! person who knew an old one has no advantage any more, and shares the public limits.

use sha2::{Digest, Sha256};

use super::store::Credentials;
use super::throttle::ThrottleCounter;
use crate::secret::{SecretRing, ServerSecret};
use crate::token;

/// How many people a browser is remembered for, the most recent first.
const MOST_PEOPLE: usize = 4;
/// A random token, and the proof in hexadecimal digits.
const TOKEN_CHARS: usize = 32;
const ENTRY_CHARS: usize = TOKEN_CHARS + 64;
const SEPARATOR: char = '.';

/// As long as the hash of a password, so that an unknown address takes as long as a known one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

pub struct KnownDevices {
    secrets: SecretRing,
}

impl KnownDevices {
    pub fn new(secrets: &SecretRing) -> Self {
        Self {
            secrets: secrets.clone(),
        }
    }

    /// The counter for wrong passwords of this person on a device with this cookie; `None` unless
    /// they signed in there with their current password.
    pub fn find(&self, cookie: &str, person: Option<&Credentials>) -> Option<ThrottleCounter> {
        let nobody = Credentials {
            user_id: 0,
            password_hash: NOBODY.to_owned(),
        };
        let (user, is_somebody) = match person {
            Some(person) => (person, true),
            None => (&nobody, false),
        };
        let token = self.token_in(cookie, user)?;
        is_somebody.then(|| ThrottleCounter::of_device(user.user_id, token))
    }

    /// The cookie after a sign-in: this person comes first, on the same device as before if it is
    /// known.
    pub fn remember(&self, cookie: &str, person: &Credentials) -> String {
        let token = match self.token_in(cookie, person) {
            Some(token) => token.to_owned(),
            None => token::random(),
        };
        let proof = proof(self.secrets.current(), &token, person);
        let own = format!("{token}{proof}");
        let others = entries(cookie).filter(|entry| !entry.starts_with(&token));
        let all = std::iter::once(own.as_str()).chain(others);
        let kept: Vec<&str> = all.take(MOST_PEOPLE).collect();
        kept.join(&SEPARATOR.to_string())
    }

    fn token_in<'a>(&self, cookie: &'a str, person: &Credentials) -> Option<&'a str> {
        let entries: Vec<_> = entries(cookie)
            .map(|entry| entry.split_at(TOKEN_CHARS))
            .collect();
        self.secrets.find_map(|secret| {
            let proven = entries.iter().find(|(token, given)| {
                // Compares hashes, so that the time taken does not reveal how much was right.
                token::hash(given) == token::hash(&proof(secret, token, person))
            });
            proven.map(|(token, _)| *token)
        })
    }
}

/// Computed over parts of fixed length.
fn proof(secret: &ServerSecret, token: &str, person: &Credentials) -> String {
    let proof = Sha256::new()
        .chain_update(secret.key_for("devices on which people have signed in"))
        .chain_update(token::hash(token))
        .chain_update(person.user_id.to_be_bytes())
        .chain_update(token::hash(&person.password_hash))
        .finalize();
    proof.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(cookie: &str) -> impl Iterator<Item = &str> {
    let is_entry = |entry: &&str| {
        entry.len() == ENTRY_CHARS && entry.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    cookie.split(SEPARATOR).filter(is_entry).take(MOST_PEOPLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn devices() -> KnownDevices {
        let folder = tempfile::tempdir().unwrap();
        let ring = SecretRing::read_or_make(&folder.path().join("secret"));
        KnownDevices::new(&ring.unwrap())
    }

    fn person(user_id: i64, password_hash: &str) -> Credentials {
        Credentials {
            user_id,
            password_hash: password_hash.to_owned(),
        }
    }

    #[test]
    fn a_device_is_known_for_its_person_and_their_password_only() {
        let (devices, ada) = (devices(), person(1, "one"));
        let cookie = devices.remember("", &ada);
        assert!(devices.find(&cookie, Some(&ada)).is_some());
        assert!(devices.find(&cookie, Some(&person(2, "one"))).is_none());
        assert!(devices.find(&cookie, Some(&person(1, "two"))).is_none());
        assert!(devices.find(&cookie, None).is_none());
        assert!(self::devices().find(&cookie, Some(&ada)).is_none());
        for (at, _) in cookie.char_indices() {
            let mut forged = cookie.clone();
            let other = if &cookie[at..=at] == "0" { "1" } else { "0" };
            forged.replace_range(at..=at, other);
            assert!(devices.find(&forged, Some(&ada)).is_none(), "{forged}");
        }
    }

    #[test]
    fn a_device_stays_known_when_the_secret_is_rotated() {
        let folder = tempfile::tempdir().unwrap();
        let ring = || SecretRing::read_or_make(&folder.path().join("secret")).unwrap();
        let (before, ada) = (KnownDevices::new(&ring()), person(1, "one"));
        let cookie = before.remember("", &ada);
        ring().add_new().unwrap();
        let after = KnownDevices::new(&ring());
        assert!(after.find(&cookie, Some(&ada)).is_some());
        let again = after.remember(&cookie, &ada);
        assert_eq!(
            after.find(&again, Some(&ada)),
            before.find(&cookie, Some(&ada))
        );
        assert!(before.find(&again, Some(&ada)).is_some());
        ring().keep_only(ring().current()).unwrap();
        let last = KnownDevices::new(&ring());
        assert!(last.find(&cookie, Some(&ada)).is_none());
        assert!(last.find(&again, Some(&ada)).is_some());
    }

    #[test]
    fn to_sign_in_again_makes_no_other_device() {
        let (devices, ada) = (devices(), person(1, "one"));
        let first = devices.remember("", &ada);
        let again = devices.remember(&first, &ada);
        assert_eq!(first, again);
        let elsewhere = devices.remember("", &ada);
        assert_ne!(
            devices.find(&first, Some(&ada)),
            devices.find(&elsewhere, Some(&ada))
        );
    }

    #[test]
    fn a_browser_is_remembered_for_a_few_people() {
        let devices = devices();
        let people: Vec<_> = (1..=6).map(|id| person(id, "one")).collect();
        let cookie = people.iter().fold(String::new(), |cookie, person| {
            devices.remember(&cookie, person)
        });
        let known = |person| devices.find(&cookie, Some(person)).is_some();
        let known: Vec<bool> = people.iter().map(known).collect();
        assert_eq!(known, [false, false, true, true, true, true]);
        assert!(cookie.len() < 400);
    }

    #[test]
    fn odd_cookies_are_no_devices() {
        let (devices, ada) = (devices(), person(1, "one"));
        let long = "a".repeat(ENTRY_CHARS);
        for odd in [
            "",
            ".",
            "....",
            "a",
            &long,
            &long.replace('a', "é"),
            &format!("{long}."),
        ] {
            assert!(devices.find(odd, Some(&ada)).is_none(), "{odd}");
            assert!(
                devices
                    .find(&devices.remember(odd, &ada), Some(&ada))
                    .is_some()
            );
        }
    }
}
