//! The delivery status of an email.

/// The delivery status of an email.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmailStatus {
    /// Not tried yet.
    Held,
    /// To be retried.
    Deferred,
    /// The relay accepted it for at least one recipient.
    Delivered,
    Failed,
}

impl EmailStatus {
    pub const ALL: [Self; 4] = [Self::Held, Self::Deferred, Self::Delivered, Self::Failed];

    /// The spelling in the column and in page addresses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Deferred => "deferred",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// The wording on pages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Held => "Held",
            Self::Deferred => "Deferred",
            Self::Delivered => "Delivered",
            Self::Failed => "Failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}
