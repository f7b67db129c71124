//! Whether a key works, and if not, why.

use std::fmt;

use chrono::NaiveDateTime;

use crate::accounts::event::actor_label;
use crate::clock;

/// How the status column spells a key that is not paused, and one that is.
pub const ACTIVE: &str = "active";
pub const PAUSED: &str = "paused";

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
    pub fn status(&self) -> Status {
        match self {
            Self::Active => Status::Active,
            Self::Paused(_) => Status::Paused,
            Self::DomainNotVerified => Status::DomainNotVerified,
            Self::AccountPaused => Status::AccountPaused,
            Self::Ended(end) => match end.how {
                EndedHow::Deleted => Status::Deleted,
                EndedHow::Expired => Status::Expired,
                EndedHow::Stopped => Status::Stopped,
            },
        }
    }

    /// Since when it is so and by whom, as people read it behind the status.
    pub fn since(&self) -> Option<String> {
        let (at, by) = match self {
            Self::Paused(paused) => (paused.at.as_ref(), paused.by.as_deref()),
            // Nobody does it: its time is over.
            Self::Ended(end) if end.how == EndedHow::Expired => (Some(&end.at), None),
            Self::Ended(end) => (Some(&end.at), end.by.as_deref()),
            Self::Active | Self::DomainNotVerified | Self::AccountPaused => (None, None),
        };
        let by = by.map(|by| format!("by {}", actor_label(by)));
        let parts: Vec<String> = by.into_iter().chain(at.map(clock::ago)).collect();
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    /// The kind of badge that a page says it in.
    pub fn badge(&self) -> &'static str {
        if self.is_active() { "active" } else { "paused" }
    }

    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// The one word for how a key stands, wherever it is told: badges, filters, the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Paused,
    DomainNotVerified,
    AccountPaused,
    Deleted,
    Expired,
    /// After it was replaced.
    Stopped,
}

impl Status {
    pub const ALL: [Self; 7] = [
        Self::Active,
        Self::Paused,
        Self::DomainNotVerified,
        Self::AccountPaused,
        Self::Deleted,
        Self::Expired,
        Self::Stopped,
    ];

    /// As the command line and its JSON spell it; pages begin it with a capital.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::DomainNotVerified => "domain not verified",
            Self::AccountPaused => "account paused",
            Self::Deleted => "deleted",
            Self::Expired => "expired",
            Self::Stopped => "stopped",
        }
    }
}

/// As pages say it.
impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, rest) = self.as_str().split_at(1);
        write!(f, "{}{rest}", first.to_ascii_uppercase())
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
