//! A key as pages show it. The wording is decided here, not in the templates.

use chrono::NaiveDateTime;

use super::super::advice::Advice;
use super::super::scope::ScopedDomain;
use super::super::store::{Key, Peer, Standing};
use super::emails::Emails;
use crate::accounts::store::AccountStatus;
use crate::clock;
use crate::keys::usage::sparkline::Sparkline;
use crate::outbox::daily_label;

pub struct ShownKey<'a> {
    pub key: &'a Key,
    pub standing: Standing,
    pub has_ended: bool,
    pub advice: Option<Advice>,
}

/// A domain of a key, and whether to mark it as not verified.
pub struct ShownDomain<'a> {
    pub name: &'a str,
    pub is_unverified: bool,
}

/// The table cell with a key's last use.
pub struct UseCell {
    pub id: i64,
    pub is_waiting: bool,
    pub last_used_at: Option<NaiveDateTime>,
    /// What the key sent in the last 24 hours; empty if nothing.
    pub sent: String,
}

/// A key as a row of the list.
pub struct ListedKey<'a> {
    pub shown: ShownKey<'a>,
    pub use_cell: UseCell,
    /// Its calls in the last 24 hours, if there were any.
    pub line: Option<&'a Sparkline>,
}

/// The key that this one replaces or replaced.
pub struct Replaced<'a> {
    pub verb: &'static str,
    pub old: &'a Peer,
}

impl<'a> ShownKey<'a> {
    pub fn new(key: &'a Key, account: &AccountStatus) -> Self {
        let standing = key.standing(account);
        Self {
            has_ended: matches!(standing, Standing::Ended(_)),
            advice: key.advice(),
            standing,
            key,
        }
    }

    /// All of its domains; empty if its scope is all domains.
    pub fn domains(&self) -> Vec<ShownDomain<'a>> {
        self.show(self.key.scope.domains())
    }

    /// The domains that a row names, and how many more there are.
    pub fn few_domains(&self) -> (Vec<ShownDomain<'a>>, usize) {
        let (few, more) = self.key.scope.shown();
        (self.show(few), more)
    }

    fn show(&self, domains: &'a [ScopedDomain]) -> Vec<ShownDomain<'a>> {
        let shown = domains.iter().map(|domain| ShownDomain {
            name: &domain.name,
            is_unverified: !self.has_ended && !domain.is_verified,
        });
        shown.collect()
    }

    pub fn replaced(&self) -> Option<Replaced<'a>> {
        let verb = match self.has_ended {
            true => "Replaced",
            false => "Replaces",
        };
        let old = self.key.predecessor.as_ref()?;
        Some(Replaced { verb, old })
    }

    /// How long the key still works, unless its status says so already.
    pub fn expires_in(&self) -> Option<String> {
        let is_told = self.has_ended || matches!(self.standing, Standing::Expiring(_));
        let at = self.key.expires_at.as_ref();
        at.filter(|_| !is_told).map(clock::left)
    }

    pub fn can_be_rotated(&self) -> bool {
        !self.has_ended && self.key.successor.is_none()
    }

    pub fn can_be_paused(&self) -> bool {
        !self.has_ended && self.key.paused.is_none()
    }
}

impl<'a> ListedKey<'a> {
    pub fn new(key: &'a Key, account: &AccountStatus, emails: &'a Emails) -> Self {
        Self {
            line: emails.calls_of_keys.get(&key.id),
            shown: ShownKey::new(key, account),
            use_cell: UseCell::new(key, emails),
        }
    }
}

impl UseCell {
    pub fn new(key: &Key, emails: &Emails) -> Self {
        Self {
            id: key.id,
            is_waiting: key.awaits_first_use(),
            last_used_at: key.last_used_at(),
            sent: daily_label(emails.of_keys.get(&key.id).copied().unwrap_or_default()),
        }
    }
}
