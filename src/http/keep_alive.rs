//! Closes idle connections before new ones have to wait, and before the server ends.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::ConnectionType;
use actix_web::middleware::Next;
use actix_web::{Error, web};

use crate::ending::Ending;
use crate::open_files::Connections;

/// Middleware: answers with `Connection: close` while connections are scarce, and when the server is
/// about to end. A client that was told so sends no further request on that connection; one whose
/// connection is closed while it is idle may just be sending one.
pub async fn while_there_is_room<B: MessageBody>(
    connections: web::Data<Connections>,
    ending: web::Data<Ending>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, Error> {
    let mut response = next.call(request).await?;
    if connections.are_scarce() || ending.has_begun() {
        let head = response.response_mut().head_mut();
        head.set_connection_type(ConnectionType::Close);
    }
    Ok(response)
}
