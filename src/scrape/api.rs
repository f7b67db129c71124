//! The listener for Prometheus: `GET /metrics`, and nothing else.

use std::net::TcpListener;

use actix_web::dev::Server;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use actix_web::web::{self, Data};
use actix_web::{App, HttpResponse, HttpServer};

use super::Scrape;

/// Whoever may reach the listener must not use up the server's files.
const MOST_CONNECTIONS: usize = 16;

/// Answers on this listener once the returned server runs.
///
/// # Errors
/// If the listener cannot be used.
pub fn server(listener: TcpListener, scrape: Scrape) -> std::io::Result<Server> {
    let scrape = Data::new(scrape);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(scrape.clone())
            .route("/metrics", web::get().to(metrics))
    });
    Ok(server
        .workers(1)
        .max_connections(MOST_CONNECTIONS)
        .disable_signals()
        .listen(listener)?
        .run())
}

async fn metrics(scrape: Data<Scrape>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(scrape.text())
}
