//! The name of an account.

use std::fmt;

const MAX_CHARS: usize = 64;

/// 1–64 characters after trimming, on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTitle {
    #[error("Enter the name of your company or project.")]
    Empty,
    #[error("Use at most 64 characters.")]
    TooLong,
    #[error("Remove the invisible control characters.")]
    Control,
}

impl Title {
    pub fn parse(text: &str) -> Result<Self, InvalidTitle> {
        let title = text.trim();
        if title.is_empty() {
            Err(InvalidTitle::Empty)
        } else if title.chars().count() > MAX_CHARS {
            Err(InvalidTitle::TooLong)
        } else if title.chars().any(char::is_control) {
            Err(InvalidTitle::Control)
        } else {
            Ok(Self(title.to_owned()))
        }
    }
}

impl AsRef<str> for Title {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Title {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_trimmed_and_on_one_line() {
        assert_eq!(Title::parse(" Acme Inc ").unwrap().as_ref(), "Acme Inc");
        assert_eq!(Title::parse("  "), Err(InvalidTitle::Empty));
        assert_eq!(Title::parse(&"ü".repeat(65)), Err(InvalidTitle::TooLong));
        assert_eq!(Title::parse("a\nb"), Err(InvalidTitle::Control));
    }
}
