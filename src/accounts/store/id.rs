//! The id and the status of an account.

use serde::{Deserialize, Serialize};

/// The account whose data a statement may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct AccountId(pub i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccountStatus {
    Active,
    Paused,
}

impl AccountStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
        }
    }

    pub(super) fn from_column(text: &str) -> Self {
        match text {
            "active" => Self::Active,
            _ => Self::Paused,
        }
    }
}
