//! `GET /v2/openapi.json`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::document;
use crate::http::Context;
use crate::http::page::origin;

/// The description of `/v2`, of this server; public.
pub async fn openapi(context: web::Data<Context>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(document::of(&origin(&request, &context.config)))
}
