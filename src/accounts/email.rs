//! The email address a person signs in with.

use std::fmt;

use lettre::Address;

const MAX_CHARS: usize = 254;

/// A valid address, in lower case: no two people can have addresses that differ only in case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Enter an email address, for example you@acme.com.")]
pub struct InvalidEmail;

impl Email {
    pub fn parse(text: &str) -> Result<Self, InvalidEmail> {
        let text = text.trim();
        if text.chars().count() > MAX_CHARS {
            return Err(InvalidEmail);
        }
        let address: Address = text.parse().map_err(|_| InvalidEmail)?;
        Ok(Self(address.to_string().to_lowercase()))
    }
}

impl AsRef<str> for Email {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Email {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_trimmed_and_lower_case() {
        assert_eq!(
            Email::parse(" Ada@Acme.COM ").unwrap().as_ref(),
            "ada@acme.com"
        );
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let too_long = format!("{}@acme.com", "a".repeat(300));
        for wrong in [
            "",
            "ada",
            "ada@",
            "@acme.com",
            "a b@acme.com",
            "a\0@acme.com",
            &too_long,
        ] {
            assert_eq!(Email::parse(wrong), Err(InvalidEmail), "{wrong:?}");
        }
    }
}
