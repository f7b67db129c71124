//! The set-up code: the first visitor must enter it if strangers could come first.

use sha2::{Digest, Sha256};

/// 80 bits derived from the server's secret, so that the code is the same after a restart and on
/// every node: four groups of four characters from an alphabet of 32 that are not easily confused.
#[derive(Clone)]
pub struct SetupCode(String);

const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

impl SetupCode {
    pub fn derive(secret: &[u8]) -> Self {
        let digest = Sha256::new()
            .chain_update(b"set-up code\0")
            .chain_update(secret)
            .finalize();
        let chars: Vec<char> = digest[..16]
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]))
            .collect();
        let groups: Vec<String> = chars
            .chunks(4)
            .map(|group| group.iter().collect())
            .collect();
        Self(groups.join("-"))
    }

    /// The code, for the terminal in which the server is started.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Compares hashes, so that the time taken does not reveal how much was right.
    pub fn matches(&self, typed: &str) -> bool {
        Sha256::digest(plain(typed)) == Sha256::digest(plain(&self.0))
    }
}

/// Ignores case, hyphens and spaces, for people who copy the code by hand.
fn plain(code: &str) -> String {
    code.chars()
        .filter(|c| c.is_ascii_alphanumeric())
        .map(|c| c.to_ascii_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_follows_from_the_secret() {
        let code = SetupCode::derive(b"one");
        assert_eq!(code.expose().len(), 19);
        assert!(code.matches(code.expose()));
        assert!(code.matches(&code.expose().to_uppercase().replace('-', " ")));
        assert!(!code.matches(""));
        assert!(!code.matches(SetupCode::derive(b"two").expose()));
    }
}
