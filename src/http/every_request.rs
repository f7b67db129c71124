//! What happens to every request that reaches routing, in one middleware without an allocation of
//! its own.

use actix_web::Error;
use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Service, ServiceRequest, ServiceResponse};
use actix_web::error::InternalError;
use actix_web::http::{ConnectionType, Method};

use super::{Context, headers, log, panics, part};
use crate::ending::Ending;
use crate::open_files::Connections;

/// Middleware, around everything that answers requests: routes HEAD, adds the headers of every
/// answer, also to the one after a panic, and closes connections while they are scarce and when the server is
/// about to end.
pub fn answered<S, B>(
    mut request: ServiceRequest,
    app: &S,
) -> impl Future<Output = Result<ServiceResponse<BoxBody>, Error>> + use<S, B>
where
    S: Service<ServiceRequest, Response = ServiceResponse<B>, Error = Error>,
    B: MessageBody + 'static,
{
    let is_https = Context::of(request.request()).config.is_https();
    let is_of_api = log::is_of_api(request.path());
    route_head_as_get(&mut request);
    let answer = panics::caught(app.call(request));
    async move {
        match answer.await {
            Ok(answer) => {
                let mut answer = answer.map_into_boxed_body();
                let for_programs = is_of_api || headers::is_error_in_json(answer.response());
                headers::insert(answer.headers_mut(), for_programs, is_https);
                close_if_due(&mut answer);
                Ok(answer)
            }
            // If a middleware fails, the request is lost, but not the answer.
            Err(error) => {
                let mut answer = error.error_response();
                headers::insert(answer.headers_mut(), is_of_api, is_https);
                Err(InternalError::from_response(error.to_string(), answer).into())
            }
        }
    }
}

/// HEAD for every route that has GET (RFC 9110, 9.1); the connection omits the body of the answer.
fn route_head_as_get(request: &mut ServiceRequest) {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
}

/// Closes idle connections before new ones have to wait, and before the server ends: the answer says
/// `Connection: close`. A client that was told so sends no further request on that connection; one
/// whose connection is closed while it is idle may just be sending one.
fn close_if_due(answer: &mut ServiceResponse) {
    let request = answer.request();
    if part::<Connections>(request).are_scarce() || part::<Ending>(request).has_begun() {
        let head = answer.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
}
