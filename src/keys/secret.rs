//! The secret: `PlainKey` lives only for one request, `KeyHash` is what is stored.

use std::fmt;

use rand::distr::{Alphanumeric, SampleString};
use rand::rand_core::UnwrapErr;
use rand::rngs::SysRng;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

const PREFIX: &str = "tsend_";
/// 32 Base62 characters are 190 bits: no slow hash is needed (ASVS 5.0, 6.5.2).
const RANDOM_CHARS: usize = 32;
const CHECKSUM_CHARS: usize = 6;
const LENGTH: usize = PREFIX.len() + RANDOM_CHARS + CHECKSUM_CHARS;
const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A whole key: `tsend_`, 32 random Base62 characters, and 6 characters of CRC-32 over everything
/// before them. `Debug` does not print it, and there is no `Display`.
#[derive(Clone)]
pub struct PlainKey(SecretString);

impl PlainKey {
    /// A new key from the operating system's generator, each character equally likely.
    pub fn generate() -> Self {
        let mut key = PREFIX.to_owned();
        Alphanumeric.append_string(&mut UnwrapErr(SysRng), &mut key, RANDOM_CHARS);
        let checksum = checksum(key.as_bytes());
        key.extend(checksum.map(char::from));
        Self(key.into())
    }

    /// Parses a presented key. `None` unless format and checksum are right, so that typos and
    /// garbage never reach the database.
    pub fn parse(presented: &[u8]) -> Option<Self> {
        whole_key(presented).map(|text| Self(text.to_owned().into()))
    }

    /// The hash of a presented key, without a copy of it. `None` as in [`parse`](Self::parse).
    pub fn hash_of(presented: &[u8]) -> Option<KeyHash> {
        whole_key(presented).map(KeyHash::of)
    }

    pub fn hash(&self) -> KeyHash {
        KeyHash::of(self.expose())
    }

    pub fn truncated(&self) -> Truncated {
        let key = self.expose();
        Truncated {
            first8: key[..8].to_owned(),
            last4: key[LENGTH - 4..].to_owned(),
        }
    }

    /// The key in clear, for the only answer that shows it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The text, if its format and checksum are those of a key.
fn whole_key(presented: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(presented).ok()?;
    let random = text.strip_prefix(PREFIX)?;
    if text.len() != LENGTH || !random.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let (body, tail) = text.split_at(LENGTH - CHECKSUM_CHARS);
    (checksum(body.as_bytes()) == tail.as_bytes()).then_some(text)
}

/// Whether a text about to be shown contains a whole key.
pub fn holds_key(text: &str) -> bool {
    first_key(text).is_some()
}

/// Truncates the whole keys in a text, as lists show them.
pub fn shorten_keys(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some((start, key)) = first_key(&text) {
        text.replace_range(start..start + LENGTH, &key.truncated().to_string());
    }
    text
}

/// The first whole key in a text, and its position.
fn first_key(text: &str) -> Option<(usize, PlainKey)> {
    text.match_indices(PREFIX).find_map(|(start, _)| {
        let bytes = text.as_bytes().get(start..start + LENGTH)?;
        Some((start, PlainKey::parse(bytes)?))
    })
}

impl fmt::Debug for PlainKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PlainKey")
    }
}

/// SHA-256 of a whole key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    fn of(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }
}

impl AsRef<[u8]> for KeyHash {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The part of a key that may always be shown: its first 8 and last 4 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncated {
    pub first8: String,
    pub last4: String,
}

impl fmt::Display for Truncated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}…{}", self.first8, self.last4)
    }
}

/// CRC-32/ISO-HDLC in Base62, most significant digit first, padded with `0`.
fn checksum(body: &[u8]) -> [u8; CHECKSUM_CHARS] {
    let mut rest = crc32fast::hash(body) as usize;
    let mut digits = [b'0'; CHECKSUM_CHARS];
    for digit in digits.iter_mut().rev() {
        *digit = BASE62[rest % 62];
        rest /= 62;
    }
    digits
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_checksum_is_the_contracts() {
        assert_eq!(
            checksum(b"tsend_abcdefghijklmnopqrstuvwxyzABCDEF"),
            *b"4b12qQ"
        );
        assert_eq!(
            checksum(format!("tsend_{}", "0".repeat(32)).as_bytes()),
            *b"14YzhA"
        );
    }

    #[test]
    fn a_generated_key_has_the_documented_shape_and_reads_back() {
        let key = PlainKey::generate();
        let text = key.expose();
        assert_eq!(text.len(), 44);
        assert!(text.starts_with("tsend_"));
        assert!(text[6..].bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(PlainKey::parse(text.as_bytes()).unwrap().hash(), key.hash());
        assert_ne!(PlainKey::generate().expose(), text);
    }

    #[test]
    fn every_base62_character_comes_up() {
        let sample: String = (0..200)
            .map(|_| PlainKey::generate().expose()[6..38].to_owned())
            .collect();
        for &c in BASE62 {
            assert!(sample.contains(char::from(c)), "{}", char::from(c));
        }
    }

    #[test]
    fn the_hash_is_sha_256_of_the_whole_key() {
        let key = PlainKey::parse(b"tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ").unwrap();
        let hex: String = key
            .hash()
            .as_ref()
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        // printf tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ | sha256sum
        assert_eq!(
            hex,
            "ab9e5095998d4c8e6c2513fafa1e9c4899536cb45cf0426dd41a253415e567b3"
        );
    }

    #[test]
    fn truncation_keeps_the_first_8_and_the_last_4() {
        let key = PlainKey::parse(b"tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ").unwrap();
        assert_eq!(key.truncated().to_string(), "tsend_ab…12qQ");
    }

    #[test]
    fn debug_does_not_show_the_key() {
        assert_eq!(format!("{:?}", PlainKey::generate()), "PlainKey");
    }

    #[test]
    fn one_wrong_character_is_refused() {
        let key = PlainKey::generate();
        let mut bytes = key.expose().as_bytes().to_vec();
        for i in 0..bytes.len() {
            let right = bytes[i];
            bytes[i] = if right == b'x' { b'y' } else { b'x' };
            assert!(PlainKey::parse(&bytes).is_none(), "position {i}");
            bytes[i] = right;
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = PlainKey::parse(&bytes);
        }

        #[test]
        fn parsing_never_panics_behind_the_prefix(tail in "\\PC{0,60}") {
            let _ = PlainKey::parse(format!("tsend_{tail}").as_bytes());
        }
    }
}
