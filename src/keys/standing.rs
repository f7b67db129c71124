//! Whether a key works, and if not, why.

use std::fmt;

use chrono::{NaiveDateTime, TimeDelta};

use crate::accounts::event::actor_label;
use crate::accounts::store::AccountStatus;
use crate::clock;

/// How the status column spells an active key, and a paused one.
pub const ACTIVE: &str = "active";
pub const PAUSED: &str = "paused";

/// How long before its expiry a key is called expiring.
pub const SOON: TimeDelta = TimeDelta::days(14);

/// Whether a key works, and if not, why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    Active,
    /// It works, and stops at this time because it was replaced.
    Stopping(NaiveDateTime),
    /// It works, and expires at this time, within the next two weeks.
    Expiring(NaiveDateTime),
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

    /// For a key that works: whether it stops or expires soon.
    pub fn until(
        self,
        now: NaiveDateTime,
        expires_at: Option<NaiveDateTime>,
        stops_at: Option<NaiveDateTime>,
    ) -> Self {
        match (self, stops_at, expires_at) {
            (Self::Active, Some(stops), expiry) if expiry.is_none_or(|expiry| stops < expiry) => {
                Self::Stopping(stops)
            }
            (Self::Active, _, Some(expiry)) if expiry <= now + SOON => Self::Expiring(expiry),
            (standing, ..) => standing,
        }
    }

    pub fn status(&self) -> KeyStatus {
        match self {
            Self::Active => KeyStatus::Active,
            Self::Stopping(_) => KeyStatus::Stopping,
            Self::Expiring(_) => KeyStatus::Expiring,
            Self::Paused(_) => KeyStatus::Paused,
            Self::DomainNotVerified => KeyStatus::DomainNotVerified,
            Self::AccountPaused => KeyStatus::AccountPaused,
            Self::Ended(end) => match end.how {
                EndedHow::Deleted => KeyStatus::Deleted,
                EndedHow::Expired => KeyStatus::Expired,
                EndedHow::Stopped => KeyStatus::Stopped,
            },
        }
    }

    /// Since when and by whom, or until when, for people; shown after the status.
    pub fn detail(&self) -> Option<String> {
        let (at, by) = match self {
            Self::Stopping(at) => return Some(format!("in {}", clock::left(at))),
            Self::Expiring(at) => return Some(format!("in {}", clock::left(at))),
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
        match self {
            Self::Active => "active",
            Self::Stopping(_) | Self::Expiring(_) => "pending",
            Self::DomainNotVerified | Self::AccountPaused => "failed",
            Self::Paused(_) | Self::Ended(_) => "paused",
        }
    }

    /// Whether requests with the key are accepted.
    pub fn works(&self) -> bool {
        matches!(self, Self::Active | Self::Stopping(_) | Self::Expiring(_))
    }
}

/// The one word for a key's state, wherever it is shown: badges, filters, the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    Active,
    /// It works until a set time, because it was replaced.
    Stopping,
    /// It works, and expires within two weeks.
    Expiring,
    Paused,
    DomainNotVerified,
    AccountPaused,
    Deleted,
    Expired,
    /// After a rotation.
    Stopped,
}

impl KeyStatus {
    pub const ALL: [Self; 9] = [
        Self::Active,
        Self::Stopping,
        Self::Expiring,
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
            Self::Stopping => "stopping",
            Self::Expiring => "expiring",
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
impl fmt::Display for KeyStatus {
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
