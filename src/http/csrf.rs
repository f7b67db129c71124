//! Protects cookie routes against requests that other sites make a browser send.

use actix_web::HttpRequest;
use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, ORIGIN};
use actix_web::middleware::Next;

use super::refusals::{RefusalKind, Refusals};
use super::{Context, Error, client_address, page, part};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets an unsafe method pass only if the browser confirms that the request comes from this site.
pub async fn protect<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<actix_web::body::EitherBody<B>>, actix_web::Error> {
    if request.method().is_safe() || is_same_origin(request.request()) {
        return next.call(request).await.map(|r| r.map_into_left_body());
    }
    let (request, _) = request.into_parts();
    let address = client_address(&request);
    part::<Refusals>(&request).note(RefusalKind::CrossSite, address);
    Ok(ServiceResponse::from_err(Error::CrossSite, request).map_into_right_body())
}

/// `Sec-Fetch-Site` decides if the browser sends it (on https and localhost); otherwise `Origin`
/// must be ours. Without either, the request is refused.
fn is_same_origin(request: &HttpRequest) -> bool {
    if let Some(site) = request.headers().get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    request.headers().get(ORIGIN).is_some_and(|origin| {
        origin == page::origin(request, &Context::of(request).config).as_str()
    })
}
