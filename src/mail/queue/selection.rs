//! Which emails are meant.

use chrono::NaiveDateTime;

use crate::accounts::store::AccountId;
use crate::outbox::EmailStatus;

/// What is true of the emails that are meant; what is empty says nothing.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    pub ids: Vec<i64>,
    pub account: Option<AccountId>,
    pub statuses: Vec<EmailStatus>,
    /// In lower case: one of its recipients.
    pub recipient: Option<String>,
    pub key_id: Option<i64>,
    /// When it was accepted.
    pub before: Option<NaiveDateTime>,
    pub after: Option<NaiveDateTime>,
}

impl Selection {
    pub fn allows(&self, status: EmailStatus) -> bool {
        self.statuses.is_empty() || self.statuses.contains(&status)
    }
}
