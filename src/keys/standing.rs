//! Whether a key works, and if not, why.

use std::fmt;

use chrono::NaiveDateTime;

use crate::accounts::event::actor_label;
use crate::accounts::store::AccountStatus;
use crate::clock;

/// How the status column spells an active key, and a paused one.
pub const ACTIVE: &str = "active";
pub const PAUSED: &str = "paused";

/// Whether a key works, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Active,
    Paused(Paused),
    /// The key can be verified, but none of its domains can be sent from.
    DomainNotVerified,
    AccountPaused,
    Ended(End),
}

impl Standing {
    /// The first of these that applies. `can_send`: whether one of the key's domains is verified, or
    /// its scope is all domains.
    pub fn of(
        end: Option<End>,
        paused: Option<Paused>,
        account: AccountStatus,
        can_send: bool,
    ) -> Self {
        if let Some(end) = end {
            Self::Ended(end)
        } else if let Some(paused) = paused {
            Self::Paused(paused)
        } else if account == AccountStatus::Paused {
            Self::AccountPaused
        } else if !can_send {
            Self::DomainNotVerified
        } else {
            Self::Active
        }
    }

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

    /// Since when and by whom, for people, shown after the status.
    pub fn since(&self) -> Option<String> {
        let (at, by) = match self {
            Self::Paused(paused) => (paused.at.as_ref(), paused.by.as_deref()),
            // An expiry has no actor: time ran out.
            Self::Ended(end) if end.how == EndedHow::Expired => (Some(&end.at), None),
            Self::Ended(end) => (Some(&end.at), end.by.as_deref()),
            Self::Active | Self::DomainNotVerified | Self::AccountPaused => (None, None),
        };
        let by = by.map(|by| format!("by {}", actor_label(by)));
        let parts: Vec<String> = by.into_iter().chain(at.map(clock::ago)).collect();
        (!parts.is_empty()).then(|| parts.join(" · "))
    }

    /// The style of the badge on a page.
    pub fn badge(&self) -> &'static str {
        if self.is_active() { "active" } else { "paused" }
    }

    pub fn is_active(&self) -> bool {
        *self == Self::Active
    }
}

/// The one word for a key's state, wherever it is shown: badges, filters, the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Active,
    Paused,
    DomainNotVerified,
    AccountPaused,
    Deleted,
    Expired,
    /// After a rotation.
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

    /// The spelling on the command line and in its JSON; pages capitalize it.
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

/// The wording on pages.
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

/// The end of a key, which is final.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    pub how: EndedHow,
    pub at: NaiveDateTime,
    pub by: Option<String>,
}

impl End {
    /// How a key has ended by `now`: as it is recorded, or because its time is over.
    pub fn by(
        now: NaiveDateTime,
        recorded: Option<Self>,
        expires_at: Option<NaiveDateTime>,
        stops_at: Option<NaiveDateTime>,
    ) -> Option<Self> {
        let over = |at: Option<NaiveDateTime>, how| {
            at.filter(|at| *at <= now)
                .map(|at| Self { how, at, by: None })
        };
        recorded
            .or_else(|| over(expires_at, EndedHow::Expired))
            .or_else(|| over(stops_at, EndedHow::Stopped))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedHow {
    Deleted,
    Expired,
    /// After a rotation.
    Stopped,
}

impl EndedHow {
    /// The spelling in the column and on the command line.
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
