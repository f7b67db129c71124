//! Requests for addresses that do not exist.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue,
};
use actix_web::middleware::Next;
use actix_web::{Error as ActixError, ResponseError};

use super::{ApiError, Error};

/// Middleware: answers 404 if no route has this path, before anything else is checked, whatever the
/// method, the body and the origin of the request. Programs get the API's envelope.
pub async fn answer_first(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, ActixError> {
    // The decoded path, as the router sees it.
    let path = request.match_info().as_str();
    if request.resource_map().has_resource(path) {
        return Ok(next.call(request).await?.map_into_boxed_body());
    }
    let (request, _) = request.into_parts();
    if !is_of_program(request.headers()) {
        return Ok(ServiceResponse::from_err(Error::NotFound, request));
    }
    let mut answer = ApiError::of_status(StatusCode::NOT_FOUND).error_response();
    answer
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(ServiceResponse::new(request, answer))
}

/// Whether a request carries a key, sends JSON, or has an Accept header without HTML.
fn is_of_program(headers: &HeaderMap) -> bool {
    let says = |name: HeaderName, is_so: fn(&str) -> bool| {
        let mut values = headers
            .get_all(name)
            .filter_map(|value| value.to_str().ok());
        values.any(|value| is_so(&value.trim().to_ascii_lowercase()))
    };
    if headers.contains_key("hx-request") {
        return false;
    }
    says(AUTHORIZATION, |value| {
        value.split_ascii_whitespace().next() == Some("bearer")
    }) || says(CONTENT_TYPE, |value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence == "application/json" || essence.ends_with("+json")
    }) || headers.contains_key(ACCEPT)
        && !says(ACCEPT, |value| {
            ["text/html", "text/*", "*/*"]
                .iter()
                .any(|html| value.contains(html))
        })
}
