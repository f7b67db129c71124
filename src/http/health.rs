//! For whoever watches the server: is it alive, and can it work?

use actix_web::http::header::CACHE_CONTROL;
use actix_web::{HttpResponse, web};

use crate::app::State;
use crate::db::migrations;

/// `GET /healthz`: the process answers. Does not touch the database.
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CACHE_CONTROL, "no-store"))
        .body("ok\n")
}

/// `GET /readyz`: the database answers and has all migrations, and every part of the server runs;
/// else 503.
pub async fn ready(state: web::Data<State>) -> HttpResponse {
    let problems = match migrations::are_complete(&state.db).await {
        Ok(true) => state.parts.list_down(),
        Ok(false) => vec!["migrations are missing".to_owned()],
        Err(error) => {
            tracing::warn!(%error, "not ready");
            vec!["the database does not answer".to_owned()]
        }
    };
    let (mut response, text) = match problems.is_empty() {
        true => (HttpResponse::Ok(), "ready".to_owned()),
        false => (HttpResponse::ServiceUnavailable(), problems.join("\n")),
    };
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text + "\n")
}
