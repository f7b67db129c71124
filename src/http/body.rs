//! A request body has to arrive in time, or a few slow clients would hold all connections.

use std::time::Duration;

use actix_web::body::MessageBody;
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::ErrorRequestTimeout;
use actix_web::middleware::Next;
use actix_web::web::Bytes;
use actix_web::{Error, FromRequest, HttpRequest};

const DEADLINE: Duration = Duration::from_secs(30);

/// Reads a whole body, within the route's limit of size: else an error of 413, or 408.
pub async fn read(request: &HttpRequest, payload: &mut Payload) -> Result<Bytes, Error> {
    tokio::time::timeout(DEADLINE, Bytes::from_request(request, payload))
        .await
        .unwrap_or_else(|_| Err(ErrorRequestTimeout("the body took too long to arrive")))
}

/// The middleware of pages: has the form before its handler asks for it.
pub async fn read_first(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse, Error> {
    let (http_request, mut payload) = request.into_parts();
    match read(&http_request, &mut payload).await {
        Ok(bytes) => {
            let request = ServiceRequest::from_parts(http_request, Payload::from(bytes));
            Ok(next.call(request).await?.map_into_boxed_body())
        }
        // As an answer, not as an `Err`, which would be taken for a session store that fails.
        Err(error) => Ok(ServiceResponse::from_err(error, http_request)),
    }
}
