//! Whether a key works, and if not, why.

use chrono::NaiveDateTime;

use crate::accounts::event::actor_label;
use crate::clock;

/// Whether a key works, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Active,
    Paused(Paused),
    /// It verifies, but none of its domains can be sent from.
    DomainNotVerified,
    AccountPaused,
    Ended(End),
}

impl Standing {
    /// As people read it.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Active => "Active",
            _ => "Inactive",
        }
    }

    /// Why a key is not active, as the command line spells it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused(_) => "paused",
            Self::DomainNotVerified => "domain not verified",
            Self::AccountPaused => "account paused",
            Self::Ended(end) => end.how.as_str(),
        }
    }

    /// Why a key is not active, as people read it.
    pub fn reason(&self) -> Option<String> {
        let told = |what: &str, by: Option<&str>, at: Option<&NaiveDateTime>| {
            let by = by.map(|by| format!(" by {}", actor_label(by)));
            let at = at.map(|at| format!(" · {}", clock::ago(at)));
            Some([what, &by.unwrap_or_default(), &at.unwrap_or_default()].concat())
        };
        match self {
            Self::Active => None,
            Self::Paused(paused) => told("Paused", paused.by.as_deref(), paused.at.as_ref()),
            Self::DomainNotVerified => told("Domain not verified", None, None),
            Self::AccountPaused => told("The account is paused", None, None),
            Self::Ended(end) => match end.how {
                EndedHow::Deleted => told("Deleted", end.by.as_deref(), Some(&end.at)),
                EndedHow::Stopped => told("Stopped", end.by.as_deref(), Some(&end.at)),
                EndedHow::Expired => told("Expired", None, Some(&end.at)),
            },
        }
    }

    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// Unknown for keys that were paused before this was recorded.
    pub at: Option<NaiveDateTime>,
    pub by: Option<String>,
}

/// The end of a key, which is for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub how: EndedHow,
    pub at: NaiveDateTime,
    pub by: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedHow {
    Deleted,
    Expired,
    /// After it was replaced.
    Stopped,
}

impl EndedHow {
    /// As the column and the command line spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }

    pub fn from_column(text: &str) -> Self {
        match text {
            "expired" => Self::Expired,
            "stopped" => Self::Stopped,
            _ => Self::Deleted,
        }
    }
}
