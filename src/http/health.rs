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

/// `GET /readyz`: the database answers and has all migrations; else 503.
pub async fn ready(state: web::Data<State>) -> HttpResponse {
    let (mut response, text) = match migrations::are_complete(&state.db).await {
        Ok(true) => (HttpResponse::Ok(), "ready\n"),
        Ok(false) => (
            HttpResponse::ServiceUnavailable(),
            "migrations are missing\n",
        ),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (
                HttpResponse::ServiceUnavailable(),
                "the database does not answer\n",
            )
        }
    };
    response
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(text)
}
