//! The rows in which calls are recorded.

use std::net::IpAddr;

use chrono::NaiveDateTime;

use super::outcome::Outcome;
use crate::keys::secret::KeyHash;

/// The latest use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub at: NaiveDateTime,
    pub address: IpAddr,
    /// The client's User-Agent, cut to 200 bytes; empty if it sends none.
    pub user_agent: String,
}

/// Calls that are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Calls {
    pub key_id: i64,
    /// The start of the hour, in UTC.
    pub hour: NaiveDateTime,
    pub outcome: Outcome,
}

/// Calls with a key that did not work. The key and the reason are looked up when the calls are
/// written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RefusedKey {
    pub hash: KeyHash,
    pub hour: NaiveDateTime,
}
