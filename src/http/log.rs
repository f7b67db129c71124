//! What the log records of a request: method, route and status, and an id by which one request's
//! lines are found. Never the path or the query, which may contain keys that people put there.

use std::net::IpAddr;
use std::time::Instant;

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpRequest};
use tracing::Instrument;

use super::Context;
use super::address::{client_address, is_from_proxy};

pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids are not taken over.
const LONGEST_ID: usize = 100;

/// A request's id: the proxy's, or one that was made for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(String);

/// Who sent a request, for the access log.
#[derive(Debug, Clone, Copy)]
struct Caller {
    key: Option<i64>,
    account: i64,
}

macro_rules! span {
    ($level:ident, $request:ident) => {
        tracing::span!(
            tracing::Level::$level,
            "request",
            id = tracing::field::Empty,
            method = method_name($request.method()),
            route = $request.match_pattern(),
            status = tracing::field::Empty
        )
    };
}

/// Runs each request in its own tracing span, and writes the access log.
pub async fn in_a_span<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let config = &Context::of(request.request()).config;
    let given = RequestId::given(request.request(), &config.trusted_proxies);
    let is_api = is_of_api(request.path());
    let is_page = !is_api && !is_for_machines(request.path());
    // By default the API has no span, because it has thousands of requests for each request of a
    // page, unless a proxy has named the request.
    let span = match is_api && given.is_none() {
        true => span!(DEBUG, request),
        false => span!(INFO, request),
    };
    let access = config.access_log.then(|| Access::of(&request));
    if span.is_disabled() && access.is_none() && !is_page {
        return next.call(request).await;
    }
    let id = given.unwrap_or_else(RequestId::make);
    span.record("id", id.as_str());
    request.extensions_mut().insert(id.clone());
    let mut outcome = next.call(request).instrument(span.clone()).await;
    let status = status_of(&outcome);
    span.record("status", status.as_u16());
    span.in_scope(|| tracing::debug!("answered"));
    if let Some(access) = access {
        let response = outcome.as_ref().ok();
        access.write(&id, status, response.and_then(|r| caller_of(r.request())));
    }
    if is_page {
        outcome = with_header(outcome, &id);
    }
    outcome
}

fn is_of_api(path: &str) -> bool {
    path.strip_prefix("/v2")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Assets, which caches keep, and what monitoring asks.
fn is_for_machines(path: &str) -> bool {
    path.starts_with("/static/") || matches!(path, "/healthz" | "/readyz")
}

/// A client may send any word as a method.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

pub(super) fn status_of<B>(outcome: &Result<ServiceResponse<B>, Error>) -> StatusCode {
    match outcome {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    }
}

fn with_header<B: MessageBody>(
    outcome: Result<ServiceResponse<B>, Error>,
    id: &RequestId,
) -> Result<ServiceResponse<B>, Error> {
    let Ok(value) = HeaderValue::from_str(id.as_str()) else {
        return outcome;
    };
    match outcome {
        Ok(mut response) => {
            response.headers_mut().insert(REQUEST_ID, value);
            Ok(response)
        }
        Err(error) => {
            let mut response = error.error_response();
            response.headers_mut().insert(REQUEST_ID, value);
            Err(InternalError::from_response(error.to_string(), response).into())
        }
    }
}

impl RequestId {
    /// The id of a request that is being logged.
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get().cloned()
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id in the header, if a trusted proxy sent it: others could write into the log.
    fn given(request: &HttpRequest, trusted: &[ipnet::IpNet]) -> Option<Self> {
        if !is_from_proxy(request, trusted) {
            return None;
        }
        let id = request.headers().get(REQUEST_ID)?.to_str().ok()?;
        Self::parse(id)
    }

    fn parse(id: &str) -> Option<Self> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:=+/@".contains(&b);
        let is_sound = (1..=LONGEST_ID).contains(&id.len())
            && id.bytes().all(is_plain)
            // The proxy may have it from a client, whose mistake must not put a key into the log.
            && !id.contains("tsend_");
        is_sound.then(|| Self(id.to_owned()))
    }

    /// Of the form that nginx gives its own: 32 hexadecimal digits.
    fn make() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }
}

/// Notes who sent a request, if there is an access log.
pub fn note_caller(request: &HttpRequest, key: Option<i64>, account: i64) {
    if Context::of(request).config.access_log {
        request.extensions_mut().insert(Caller { key, account });
    }
}

fn caller_of(request: &HttpRequest) -> Option<Caller> {
    request.extensions().get().copied()
}

/// A line of the access log, begun when the request arrives.
struct Access {
    begun: Instant,
    method: &'static str,
    route: Option<String>,
    client: IpAddr,
}

impl Access {
    fn of(request: &ServiceRequest) -> Self {
        Self {
            begun: Instant::now(),
            method: method_name(request.method()),
            route: request.match_pattern(),
            client: client_address(request.request()),
        }
    }

    fn write(&self, id: &RequestId, status: StatusCode, caller: Option<Caller>) {
        tracing::info!(
            target: "access",
            id = id.as_str(),
            method = self.method,
            route = self.route.as_deref().unwrap_or("none"),
            status = status.as_u16(),
            milliseconds = self.begun.elapsed().as_micros() as f64 / 1_000.0,
            client = %self.client,
            key = caller.and_then(|caller| caller.key),
            account = caller.map(|caller| caller.account),
            "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_plain() {
        for good in ["7", "7f9c-1b.2:3=4+5/6@7", &"a".repeat(LONGEST_ID)] {
            assert_eq!(RequestId::parse(good).unwrap().as_str(), good);
        }
        for bad in [
            "",
            "a b",
            "a\tb",
            "é",
            "\"",
            "<b>",
            "tsend_abc",
            &"a".repeat(LONGEST_ID + 1),
        ] {
            assert_eq!(RequestId::parse(bad), None, "{bad}");
        }
        let made = RequestId::make();
        assert_eq!(
            (made.as_str().len(), RequestId::parse(made.as_str())),
            (32, Some(made.clone()))
        );
        assert_ne!(made, RequestId::make());
    }
}
