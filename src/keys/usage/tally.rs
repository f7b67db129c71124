//! The rows that calls are recorded as.

use std::net::IpAddr;

use chrono::NaiveDateTime;

use super::outcome::Outcome;
use crate::keys::secret::KeyHash;

/// The latest use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub at: NaiveDateTime,
    pub address: IpAddr,
    /// As the client calls itself, cut to 200 bytes; empty if it does not.
    pub user_agent: String,
}

/// Calls that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Calls {
    pub key_id: i64,
    /// When it began, in UTC.
    pub hour: NaiveDateTime,
    pub outcome: Outcome,
}

/// Calls with a key that did not work. Which one it was, and why, is looked up when they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Refused {
    pub hash: KeyHash,
    pub hour: NaiveDateTime,
}
