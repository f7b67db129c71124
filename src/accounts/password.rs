//! Passwords: minimum strength, and hashing with argon2id.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::Semaphore;
use unicode_normalization::UnicodeNormalization;
use zxcvbn::Score;

// ASVS 5.0, appendix C.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// NIST SP 800-63B-4: 15 where the password is the only factor.
const MIN_CHARS: usize = 15;
const MAX_CHARS: usize = 128;

/// How long a sign-in waits to be hashed before it is answered 503.
const WAIT: Duration = Duration::from_secs(5);

/// A password in Unicode's NFC form, so that it is the same from every keyboard.
#[derive(Debug, Clone)]
pub struct Password(SecretString);

impl Password {
    /// Accepts any input, for comparing.
    pub fn typed(text: &SecretString) -> Self {
        Self(text.expose_secret().nfc().collect::<String>().into())
    }

    pub fn is(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }

    /// Accepts a password that is strong enough to be set.
    pub fn choose(text: &SecretString, email: &str, title: &str) -> Result<Self, WeakPassword> {
        let password = Self::typed(text);
        let chars = password.0.expose_secret().chars().count();
        if chars < MIN_CHARS {
            return Err(WeakPassword::Short);
        }
        if chars > MAX_CHARS {
            return Err(WeakPassword::Long);
        }
        let text = password.0.expose_secret();
        let entropy = zxcvbn::zxcvbn(text, &[email, title, "tosend"]);
        if entropy.score() < Score::Three || is_made_of(text, &[email, title]) {
            return Err(WeakPassword::Guessable);
        }
        Ok(password)
    }
}

/// Whether little of a password remains without what everyone knows about its owner. (zxcvbn finds
/// these words, but rates a sequence of them as strong.)
fn is_made_of(password: &str, known: &[&str]) -> bool {
    let mut rest = password.to_lowercase();
    for text in known {
        let text = text.to_lowercase();
        let words = text.split(|c: char| !c.is_alphanumeric());
        for word in words.filter(|word| word.chars().count() >= 3) {
            rest = rest.replace(word, "");
        }
    }
    rest.chars().filter(|c| c.is_alphanumeric()).count() < MIN_CHARS / 2
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    #[error("Use at least 15 characters. A few unrelated words are easy to remember.")]
    Short,
    #[error("Use at most 128 characters.")]
    Long,
    #[error("This password is easy to guess. A few unrelated words are better.")]
    Guessable,
}

/// Runs argon2id outside the async threads, on all cores but one at a time.
#[derive(Clone)]
pub struct Hasher {
    permits: Arc<Semaphore>,
    runs: Arc<AtomicU64>,
    /// A hash to compare with when there is no such user, so that this takes as long as a wrong
    /// password.
    nobody: Arc<str>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many passwords are being checked at once")]
pub struct Busy;

/// The result of a comparison.
#[derive(Debug, PartialEq, Eq)]
pub enum Match {
    No,
    Yes,
    /// Right, but hashed with weaker parameters than today's: this is the new hash.
    Rehashed(String),
}

impl Hasher {
    pub fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let nobody = hash_blocking(&Password(crate::token::random().into()));
        Self {
            permits: Arc::new(Semaphore::new((cores - 1).max(1))),
            runs: Arc::default(),
            nobody: nobody.into(),
        }
    }

    /// How often requests ran argon2, for tests about enumeration and guessing.
    pub fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    /// The PHC string of a new password.
    pub async fn hash(&self, password: Password) -> Result<String, Busy> {
        self.run(move || hash_blocking(&password)).await
    }

    /// Compares a password with a stored PHC string. With `None`, for an unknown user, it takes as
    /// long.
    pub async fn compare(&self, password: Password, phc: Option<String>) -> Result<Match, Busy> {
        let nobody = self.nobody.clone();
        self.run(move || match phc {
            Some(phc) => compare_blocking(&password, &phc),
            None => {
                compare_blocking(&password, &nobody);
                Match::No
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Busy> {
        let permit = tokio::time::timeout(WAIT, self.permits.clone().acquire_owned())
            .await
            .map_err(|_| Busy)?
            .map_err(|_| Busy)?;
        self.runs.fetch_add(1, Ordering::SeqCst);
        tokio::task::spawn_blocking(move || {
            // Held by the work, not by the request: a client that disconnects must not free the
            // core early.
            let _permit = permit;
            f()
        })
        .await
        .map_err(|_| Busy)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// For the command line; requests use [`Hasher::hash`].
pub fn hash_blocking(password: &Password) -> String {
    argon2()
        .hash_password(password.0.expose_secret().as_bytes())
        .expect("the parameters and a random salt are valid")
        .to_string()
}

fn compare_blocking(password: &Password, phc: &str) -> Match {
    let Ok(stored) = PasswordHash::new(phc) else {
        return Match::No;
    };
    let bytes = password.0.expose_secret().as_bytes();
    if argon2().verify_password(bytes, &stored).is_err() {
        return Match::No;
    }
    let is_todays = Params::try_from(&stored).is_ok_and(|params| {
        (params.m_cost(), params.t_cost(), params.p_cost()) == (MEMORY_KIB, PASSES, LANES)
    });
    if is_todays {
        Match::Yes
    } else {
        Match::Rehashed(hash_blocking(password))
    }
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the parameters are valid");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(text: &str) -> Result<Password, WeakPassword> {
        Password::choose(&text.to_owned().into(), "ada@acme.com", "Acme Inc")
    }

    #[test]
    fn weak_passwords_are_refused() {
        assert_eq!(choose("short").unwrap_err(), WeakPassword::Short);
        assert_eq!(choose(&"long ".repeat(30)).unwrap_err(), WeakPassword::Long);
        for guessable in [
            "aaaaaaaaaaaaaaaaaaaa",
            "passwordpassword",
            "ada@acme.com Acme Inc",
            "acme INC acme inc",
        ] {
            assert_eq!(
                choose(guessable).unwrap_err(),
                WeakPassword::Guessable,
                "{guessable}"
            );
        }
        assert!(choose("four unrelated grey lamps").is_ok());
        assert!(choose("ein schöner Tag für Übermut").is_ok());
    }

    #[test]
    fn a_hash_is_argon2id_with_the_decided_parameters() {
        let phc = hash_blocking(&choose("four unrelated grey lamps").unwrap());
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    }

    #[test]
    fn the_same_password_in_another_normal_form_matches() {
        let phc = hash_blocking(&Password::typed(
            &"caf\u{e9} caf\u{e9} caf\u{e9}".to_owned().into(),
        ));
        let decomposed = Password::typed(&"cafe\u{301} cafe\u{301} cafe\u{301}".to_owned().into());
        assert_eq!(compare_blocking(&decomposed, &phc), Match::Yes);
    }

    #[test]
    fn weaker_parameters_are_hashed_anew() {
        let password = Password::typed(&"x".to_owned().into());
        let weak = Argon2::new(
            Algorithm::Argon2id,
            Version::V0x13,
            Params::new(8, 1, 1, None).unwrap(),
        )
        .hash_password(b"x")
        .unwrap()
        .to_string();
        let Match::Rehashed(phc) = compare_blocking(&password, &weak) else {
            panic!("not rehashed");
        };
        assert_eq!(compare_blocking(&password, &phc), Match::Yes);
    }

    #[test]
    fn debug_does_not_show_the_password() {
        assert!(
            !format!("{:?}", Password::typed(&"hunter2".to_owned().into())).contains("hunter2")
        );
    }
}
