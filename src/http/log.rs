//! What a request leaves in the log: method, route and status. Never the path or the query, in
//! which people put keys.

use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use tracing::{Instrument, Span};

/// Middleware: puts what is logged during a request into a span of its own.
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

/// None, by default, for the API: it has thousands of requests where the pages have one.
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
