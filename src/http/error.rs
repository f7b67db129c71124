//! The errors of pages.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::db;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not found")]
    NotFound,
    /// No one is signed in, or the session has ended.
    #[error("sign-in needed")]
    SignInNeeded,
    /// The request may come from another site.
    #[error("cross-site request")]
    CrossSite,
    /// Refused for a reason that only the caller knows; it provides the text.
    #[error("forbidden: {}", .0.title)]
    Forbidden(Explanation),
    #[error("too many attempts")]
    TooMany { retry_after_seconds: u64 },
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("the disk is full: {0}")]
    DiskFull(String),
    #[error("internal: {0}")]
    Internal(String),
}

/// The text for the person: what happened, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub title: &'static str,
    pub advice: &'static str,
    /// Whether the person should sign in.
    pub leads_to_login: bool,
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Unavailable(why) => Self::Unavailable(why),
            db::Error::DiskFull(why) => Self::DiskFull(why),
            db::Error::Refused(source) => Self::Internal(source.to_string()),
        }
    }
}

impl From<askama::Error> for Error {
    fn from(error: askama::Error) -> Self {
        Self::Internal(error.to_string())
    }
}

impl ResponseError for Error {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::SignInNeeded => StatusCode::UNAUTHORIZED,
            Self::CrossSite | Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(_) | Self::DiskFull(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// An empty response: [`super::render_errors`] fills it in, because that requires the request.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}
