//! Errors under `/v2`: all have the same JSON envelope.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpResponse, ResponseError};
use serde::{Serialize, Serializer};

use super::panics;
use crate::db;

/// Field → code → sentence.
pub type FieldErrors = BTreeMap<String, BTreeMap<&'static str, Cow<'static, str>>>;

#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    message: Cow<'static, str>,
    errors: FieldErrors,
}

#[derive(Serialize)]
struct Envelope<'a> {
    status_code: u16,
    error_type: &'static str,
    message: &'a str,
    errors: &'a FieldErrors,
}

impl ApiError {
    pub fn bad_request(message: impl Into<Cow<'static, str>>) -> Self {
        Self::plain(StatusCode::BAD_REQUEST, message)
    }

    pub fn unprocessable(message: impl Into<Cow<'static, str>>, errors: FieldErrors) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            message: message.into(),
            errors,
        }
    }

    /// The framework's own errors (404, 405, 413 …) in our envelope.
    pub fn of_status(status: StatusCode) -> Self {
        let message = match status {
            StatusCode::NOT_FOUND => "There is no such endpoint.",
            StatusCode::METHOD_NOT_ALLOWED => "This endpoint does not take this method.",
            StatusCode::REQUEST_TIMEOUT => "The request body took too long to arrive.",
            StatusCode::PAYLOAD_TOO_LARGE => "The request body is too large.",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                "Send the body as JSON in UTF-8, with Content-Type: application/json."
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                "The service is not available right now. Try again in a few seconds."
            }
            status if status.is_client_error() => "The request could not be understood.",
            _ => "Something went wrong on the server.",
        };
        Self::plain(status, message)
    }

    pub fn field(
        status: StatusCode,
        message: &'static str,
        field: &str,
        code: &'static str,
        sentence: &'static str,
    ) -> Self {
        let sentences = BTreeMap::from([(code, sentence.into())]);
        Self {
            status,
            message: message.into(),
            errors: BTreeMap::from([(field.to_owned(), sentences)]),
        }
    }

    fn plain(status: StatusCode, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            message: message.into(),
            errors: FieldErrors::new(),
        }
    }

    /// The error codes of all fields.
    pub fn codes(&self) -> impl Iterator<Item = &'static str> {
        self.errors.values().flat_map(|codes| codes.keys().copied())
    }

    fn error_type(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "unauthorized",
            StatusCode::FORBIDDEN => "forbidden",
            StatusCode::NOT_FOUND => "not_found",
            StatusCode::METHOD_NOT_ALLOWED => "method_not_allowed",
            StatusCode::PAYLOAD_TOO_LARGE => "payload_too_large",
            StatusCode::UNSUPPORTED_MEDIA_TYPE => "unsupported_media_type",
            StatusCode::UNPROCESSABLE_ENTITY => "validation_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_exceeded",
            StatusCode::SERVICE_UNAVAILABLE => "service_unavailable",
            status if status.is_client_error() => "bad_request",
            _ => "internal_error",
        }
    }
}

/// The envelope.
impl Serialize for ApiError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let envelope = Envelope {
            status_code: self.status.as_u16(),
            error_type: self.error_type(),
            message: &self.message,
            errors: &self.errors,
        };
        envelope.serialize(serializer)
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.status.as_u16(), self.message)
    }
}

impl From<db::Error> for ApiError {
    fn from(error: db::Error) -> Self {
        tracing::error!(%error, "a request could not be answered");
        match error {
            db::Error::Unavailable(_) | db::Error::DiskFull(_) => {
                Self::of_status(StatusCode::SERVICE_UNAVAILABLE)
            }
            db::Error::Refused(_) => Self::of_status(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

impl ResponseError for ApiError {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status);
        match self.status {
            // RFC 6750, 3.
            StatusCode::UNAUTHORIZED => {
                response.insert_header((WWW_AUTHENTICATE, r#"Bearer realm="tosend""#));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                response.insert_header((RETRY_AFTER, HeaderValue::from_static("1")));
            }
            _ => {}
        }
        response.json(self)
    }
}

/// Middleware of `/v2`: gives every error the envelope, including those from routing and
/// extractors.
pub async fn shape_errors(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let response = panics::caught(next.call(request)).await;
    // Without its request, an error cannot become a response here; the outer layers convert it.
    let response = response.map_err(|e| ApiError::of_status(e.as_response_error().status_code()));
    let mut response = response?.map_into_boxed_body();
    let status = response.status();
    let is_ours = response
        .response()
        .error()
        .is_some_and(|error| error.as_error::<ApiError>().is_some());
    if (status.is_client_error() || status.is_server_error()) && !is_ours {
        let allow = response.headers().get(ALLOW).cloned();
        let mut shaped = ApiError::of_status(status).error_response();
        if let Some(allow) = allow {
            shaped.headers_mut().insert(ALLOW, allow);
        }
        response = response.into_response(shaped);
    }
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
