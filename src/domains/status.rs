//! Whether a domain can be sent from.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainStatus {
    Pending,
    Verified,
    Failed,
}

impl DomainStatus {
    /// The spelling in the column and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Verified => "verified",
            Self::Failed => "failed",
        }
    }

    /// The wording on pages.
    pub fn label(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Verified => "Verified",
            Self::Failed => "Failed",
        }
    }

    pub fn from_column(text: &str) -> Self {
        match text {
            "verified" => Self::Verified,
            "failed" => Self::Failed,
            _ => Self::Pending,
        }
    }

    pub fn is_verified(self) -> bool {
        self == Self::Verified
    }
}

impl From<String> for DomainStatus {
    fn from(column: String) -> Self {
        Self::from_column(&column)
    }
}
