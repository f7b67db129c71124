//! What goes wrong on a page.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};

use crate::db;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not found")]
    NotFound,
    /// Nobody is signed in, or no longer.
    #[error("sign-in needed")]
    SignInNeeded,
    /// The request may come from another site.
    #[error("cross-site request")]
    CrossSite,
    /// Refused for a reason that only the caller knows, which brings its own text.
    #[error("forbidden: {}", .0.title)]
    Forbidden(Explanation),
    #[error("too many attempts")]
    TooMany { retry_after_seconds: u64 },
    #[error("unavailable: {0}")]
    Unavailable(String),
    #[error("internal: {0}")]
    Internal(String),
}

/// What a person reads: what happened, and what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explanation {
    pub title: &'static str,
    pub advice: &'static str,
    /// Whether signing in is what to do.
    pub leads_to_login: bool,
}

impl From<db::Error> for Error {
    fn from(error: db::Error) -> Self {
        match error {
            db::Error::Unavailable(why) => Self::Unavailable(why),
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
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Bare: [`super::render_errors`] gives it a face, for which the request is needed.
    fn error_response(&self) -> HttpResponse {
        HttpResponse::new(self.status_code())
    }
}
