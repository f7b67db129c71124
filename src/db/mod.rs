//! The database: SQLite in a file, or PostgreSQL. Knows no noun and nothing of HTTP.

mod connection;
mod error;
pub mod migrations;
pub mod nodes;
mod pool;
mod sqlite_file;

use connection::without_timeouts;
pub use connection::{AnyConnection as Connection, DatabaseUrl, Purpose, now, serialize, timezone};
pub use error::{Error, Result, is_foreign_key_violation, is_unique_violation};
pub use pool::Db;
