//! `GET /v2/openapi.json`.

use actix_web::{HttpRequest, HttpResponse, web};

use super::document;
use crate::app::State;
use crate::http::page::origin;

/// The description of `/v2`, of this server; public.
pub async fn openapi(state: web::Data<State>, request: HttpRequest) -> HttpResponse {
    HttpResponse::Ok().json(document::of(&origin(&request, &state.config)))
}
