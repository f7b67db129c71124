//! `GET /v2/openapi.json`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::document;
use crate::http::Context;
use crate::http::page::origin;

/// The description of this server's `/v2`; public.
pub async fn openapi(context: web::Data<Context>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(document::of(&origin(&request, &context.config)))
}
