//! Advice about a key that needs attention.

use chrono::{NaiveDateTime, TimeDelta};

use super::store::Key;

/// A key that has not been used for this long is probably forgotten.
pub const UNUSED: TimeDelta = TimeDelta::days(30);
/// A key of this age should be replaced by a new one.
pub const OLD: TimeDelta = TimeDelta::days(90);

/// How long pages wait for the first use of a new key.
const AWAITED: TimeDelta = TimeDelta::hours(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Delete it: an unused key is an open door without a purpose.
    Unused,
    /// Rotate it.
    Old,
}

impl Advice {
    /// Advice for a key that was created and last used at these times, or None if it needs nothing.
    pub fn on(
        created_at: NaiveDateTime,
        used_at: Option<NaiveDateTime>,
        now: NaiveDateTime,
    ) -> Option<Self> {
        if used_at.unwrap_or(created_at).max(created_at) <= now - UNUSED {
            Some(Self::Unused)
        } else if created_at <= now - OLD {
            Some(Self::Old)
        } else {
            None
        }
    }
}

/// The wording on pages.
impl Advice {
    pub fn text(self) -> &'static str {
        match self {
            Self::Unused => "Unused for 30 days.",
            Self::Old => "Older than 90 days.",
        }
    }

    /// The text of the link to the advised action.
    pub fn question(self) -> &'static str {
        match self {
            Self::Unused => "Delete it?",
            Self::Old => "Rotate it?",
        }
    }

    pub fn path(self, id: &i64) -> String {
        match self {
            Self::Unused => format!("/api-keys/{id}/delete"),
            Self::Old => format!("/api-keys/{id}/rotate"),
        }
    }

    /// The dialog in which the link opens.
    pub fn dialog(self) -> &'static str {
        match self {
            Self::Unused => "#alert-dialog",
            Self::Old => "#dialog",
        }
    }
}

impl Key {
    /// Whether a program used the key recently and would fail without it.
    pub fn is_in_use(&self) -> bool {
        let since = crate::clock::now() - UNUSED;
        self.last_used_at().is_some_and(|at| at > since)
    }

    /// Whether a person may still be setting up the program that the key was made for.
    pub fn awaits_first_use(&self) -> bool {
        let since = crate::clock::now() - AWAITED;
        self.last_use.is_none() && self.end.is_none() && self.created_at > since
    }

    /// None for a key that has ended or is being replaced.
    pub fn advice(&self) -> Option<Advice> {
        let is_ending = self.end.is_some() || self.successor.is_some() || self.stops_at.is_some();
        match is_ending {
            true => None,
            false => Advice::on(self.created_at, self.last_used_at(), crate::clock::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unused_keys_are_to_be_deleted_and_old_ones_rotated() {
        let now = crate::clock::now();
        let ago = |days| now - TimeDelta::days(days);
        for (created, used, advice) in [
            (0, None, None),
            (29, None, None),
            (30, None, Some(Advice::Unused)),
            (89, Some(29), None),
            (90, Some(0), Some(Advice::Old)),
            (90, Some(30), Some(Advice::Unused)),
            (400, None, Some(Advice::Unused)),
        ] {
            assert_eq!(
                Advice::on(ago(created), used.map(ago), now),
                advice,
                "created {created}, used {used:?} days ago"
            );
        }
    }
}
