//! The name of a key, and the description that people give it.

use std::fmt;

use super::secret::holds_key;

const MAX_CHARS: usize = 64;
const MAX_DESCRIPTION_CHARS: usize = 200;

/// 1–64 characters after trimming, none of which hides or reorders other characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyName(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    #[error("Enter a name, for example “Production server”.")]
    Empty,
    #[error("Use at most 64 characters.")]
    TooLong,
    #[error("Remove the invisible control characters.")]
    Control,
    #[error("Remove the key: everyone who sees the list would see it.")]
    Secret,
}

impl KeyName {
    pub fn parse(text: &str) -> Result<Self, InvalidName> {
        let name = text.trim();
        if name.is_empty() {
            return Err(InvalidName::Empty);
        }
        if name.chars().count() > MAX_CHARS {
            return Err(InvalidName::TooLong);
        }
        if name.chars().any(|c| c.is_control() || reorders_or_hides(c)) {
            return Err(InvalidName::Control);
        }
        if holds_key(name) {
            return Err(InvalidName::Secret);
        }
        // A name made only of invisible characters would show as an empty row.
        if name.chars().all(is_blank) {
            return Err(InvalidName::Empty);
        }
        Ok(Self(name.to_owned()))
    }

    /// A name that was parsed when it was stored.
    pub fn known(stored: &str) -> Self {
        Self(stored.to_owned())
    }
}

/// At most 200 characters after trimming, possibly none; none of them hides or reorders others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Description(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDescription {
    #[error("Use at most 200 characters.")]
    TooLong,
    #[error("Remove the invisible control characters.")]
    Control,
    #[error("Remove the key: everyone who sees the list would see it.")]
    Secret,
}

impl Description {
    pub fn parse(text: &str) -> Result<Self, InvalidDescription> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        if text.chars().count() > MAX_DESCRIPTION_CHARS {
            return Err(InvalidDescription::TooLong);
        }
        if text.chars().any(|c| c.is_control() || reorders_or_hides(c)) {
            return Err(InvalidDescription::Control);
        }
        if holds_key(&text) {
            return Err(InvalidDescription::Secret);
        }
        Ok(Self(text))
    }

    /// A description that was parsed when it was stored.
    pub fn known(stored: &str) -> Self {
        Self(stored.to_owned())
    }
}

impl AsRef<str> for Description {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Bidirectional controls (Unicode UAX #9) and line separators.
fn reorders_or_hides(c: char) -> bool {
    matches!(c,
        '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}')
}

/// White space, and characters that show as nothing; joiners are still allowed between letters.
fn is_blank(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '\u{00AD}' | '\u{034F}' | '\u{115F}' | '\u{1160}'
        | '\u{180E}' | '\u{200B}'..='\u{200D}' | '\u{2060}'..='\u{2064}' | '\u{3164}' | '\u{FFA0}')
}

impl AsRef<str> for KeyName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_otherwise_kept() {
        assert_eq!(
            KeyName::parse("  Production – 本番 🚀 ").unwrap().as_ref(),
            "Production – 本番 🚀"
        );
        assert!(KeyName::parse("\"><script>alert(1)</script>").is_ok());
        assert!(KeyName::parse("=cmd|' /C calc'!A0").is_ok());
        assert!(KeyName::parse("👩\u{200D}💻 laptop").is_ok());
    }

    #[test]
    fn characters_are_counted_not_bytes() {
        assert!(KeyName::parse(&"ü".repeat(64)).is_ok());
        assert_eq!(KeyName::parse(&"ü".repeat(65)), Err(InvalidName::TooLong));
        assert_eq!(
            KeyName::parse(&"a".repeat(10_000)),
            Err(InvalidName::TooLong)
        );
    }

    #[test]
    fn an_empty_or_invisible_name_is_refused() {
        for blank in ["", "   ", "\t\n", "\u{200B}\u{200B}", "\u{3164}"] {
            assert_eq!(KeyName::parse(blank), Err(InvalidName::Empty), "{blank:?}");
        }
    }

    #[test]
    fn a_description_is_one_line_and_may_be_empty() {
        assert_eq!(Description::parse(" \n ").unwrap().as_ref(), "");
        let lines = Description::parse(" for the shop\r\nsince 2024 ");
        assert_eq!(lines.unwrap().as_ref(), "for the shop since 2024");
        assert!(Description::parse(&"ü".repeat(200)).is_ok());
        let long = Description::parse(&"ü".repeat(201));
        assert_eq!(long, Err(InvalidDescription::TooLong));
        let hidden = Description::parse("a\u{202E}b");
        assert_eq!(hidden, Err(InvalidDescription::Control));
    }

    #[test]
    fn a_key_is_no_name_nor_part_of_one() {
        let key = "tsend_abcdefghijklmnopqrstuvwxyzABCDEF4b12qQ";
        for text in [key, &format!("é {key}x"), &format!("tsend_{key}")] {
            assert_eq!(KeyName::parse(text), Err(InvalidName::Secret));
            let description = Description::parse(text);
            assert_eq!(description, Err(InvalidDescription::Secret));
        }
        assert!(KeyName::parse("replaces tsend_ab…12qQ").is_ok());
    }

    #[test]
    fn control_and_bidirectional_characters_are_refused() {
        for hidden in [
            "a\0b",
            "a\nb",
            "a\u{202E}b",
            "a\u{2066}b",
            "a\u{200F}b",
            "a\u{2028}b",
        ] {
            assert_eq!(
                KeyName::parse(hidden),
                Err(InvalidName::Control),
                "{hidden:?}"
            );
        }
    }
}
