//! What nearly every handler needs, and access to parts of the server for middleware and
//! extractors.

use actix_web::{HttpRequest, web};

use crate::config::Config;
use crate::db::Db;

/// The configuration and the database.
pub struct Context {
    pub config: Config,
    pub db: Db,
}

impl Context {
    pub fn of(request: &HttpRequest) -> &Self {
        part(request)
    }
}

/// A part of the server, for code that has only the request. Handlers take parts as arguments
/// instead.
///
/// # Panics
/// If the part was not registered, which `server.rs` does for all of them.
pub fn part<T: 'static>(request: &HttpRequest) -> &T {
    match request.app_data::<web::Data<T>>() {
        Some(part) => part,
        None => panic!("{} is not registered", std::any::type_name::<T>()),
    }
}
