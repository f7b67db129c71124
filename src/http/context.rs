//! What nearly every handler needs, and how code that has only a request finds a part of the server.

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

/// A part of the server that took a request. Handlers name it as an argument instead.
///
/// # Panics
/// If the server was built without it: `server.rs` registers every part.
pub fn part<T: 'static>(request: &HttpRequest) -> &T {
    match request.app_data::<web::Data<T>>() {
        Some(part) => part,
        None => panic!("{} is not registered", std::any::type_name::<T>()),
    }
}
