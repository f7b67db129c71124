//! What the log records of a request: method, route and status. Never the path or the query, which
//! may contain keys that people put there.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use tracing::{Instrument, Span};

/// Middleware: runs each request in its own tracing span.
pub async fn in_a_span<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let span = span_of(&request);
    if span.is_disabled() {
        return next.call(request).await;
    }
    let outcome = next.call(request).instrument(span.clone()).await;
    let status = match &outcome {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    span.record("status", status.as_u16());
    span.in_scope(|| tracing::debug!("answered"));
    outcome
}

/// By default none for the API, which has thousands of requests for each request of a page.
fn span_of(request: &ServiceRequest) -> Span {
    macro_rules! span {
        ($level:ident) => {
            tracing::span!(
                tracing::Level::$level,
                "request",
                method = request.method().as_str(),
                route = request.match_pattern(),
                status = tracing::field::Empty
            )
        };
    }
    match request.path().starts_with("/v2/") {
        true => span!(DEBUG),
        false => span!(INFO),
    }
}
