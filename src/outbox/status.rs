//! How far an email is.

/// How far an email is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not tried yet.
    Held,
    /// To be tried again.
    Deferred,
    /// The relay has it, for one recipient at least.
    Delivered,
    Failed,
}

impl Status {
    pub const ALL: [Self; 4] = [Self::Held, Self::Deferred, Self::Delivered, Self::Failed];

    /// As the column and addresses of pages spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Deferred => "deferred",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    /// As a page says it.
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
