//! How a call with a key ended: accepted, or why not.

macro_rules! outcomes {
    ($($(#[$doc:meta])* $name:ident, $text:literal, $label:literal;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Outcome {
            $($(#[$doc])* $name,)*
        }

        impl Outcome {
            const ALL: &[Self] = &[$(Self::$name,)*];

            /// The spelling in the column, and in the API where it is an error code.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }

            /// The wording on pages.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$name => $label,)*
                }
            }
        }
    };
}

outcomes! {
    Accepted, "accepted", "Accepted";
    Paused, "paused", "The key was paused";
    AccountPaused, "account_paused", "The account was paused";
    Expired, "expired", "The key had expired";
    /// After a rotation.
    Stopped, "stopped", "The key had been replaced and stopped";
    Deleted, "deleted", "The key had been deleted";
    DomainNotFound, "domain_not_found", "The sender's domain is not one of the account";
    DomainNotVerified, "domain_not_verified", "The sender's domain was not verified";
    DomainNotAllowed, "domain_not_allowed", "The domain is not allowed for this key";
    AddressNotAllowed, "address_not_allowed", "The sender's address is not allowed for this key";
    RecipientNotAllowed, "recipient_not_allowed", "A recipient is not allowed for this key";
    /// To the client it looks like an unknown key.
    NetworkNotAllowed, "network_not_allowed", "The client was outside the networks of this key";
    /// For any other reason.
    InvalidRequest, "invalid_request", "The request was not valid";
}

impl Outcome {
    pub fn refusals() -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|outcome| *outcome != Self::Accepted)
    }

    /// `None`: an outcome that this version does not know.
    pub fn from_column(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|o| o.as_str() == text)
    }

    /// Why a request was refused, by the error codes of its answer.
    pub fn of_refusal(mut codes: impl Iterator<Item = &'static str>) -> Self {
        codes
            .find_map(Self::from_column)
            .unwrap_or(Self::InvalidRequest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_says_is_read_back() {
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_column(outcome.as_str()), Some(*outcome));
        }
        assert_eq!(Outcome::from_column("of a newer version"), None);
    }

    #[test]
    fn a_refusal_is_told_by_the_first_code_that_is_known() {
        let of = |codes: &[&'static str]| Outcome::of_refusal(codes.iter().copied());
        assert_eq!(of(&["domain_not_verified"]), Outcome::DomainNotVerified);
        assert_eq!(
            of(&["x", "address_not_allowed"]),
            Outcome::AddressNotAllowed
        );
        assert_eq!(of(&["required", "max_limit"]), Outcome::InvalidRequest);
        assert_eq!(of(&[]), Outcome::InvalidRequest);
    }
}
