//! The database: SQLite in a file, or PostgreSQL. This module knows nothing of the domain or of
//! HTTP.

pub mod backup;
pub mod clock_watch;
mod connection;
pub mod copy;
mod error;
mod full_disk;
pub mod journal;
mod journal_lines;
pub mod migrations;
pub mod nodes;
mod place;
mod pool;
mod presence;
mod progress;
mod reserve;
pub mod space;
mod sqlite_file;
pub mod verdict_changes;

pub use clock_watch::{stamp, trusted_now};
use connection::for_migrations;
pub use connection::{
    AnyConnection as Connection, DatabaseUrl, Purpose, has_column, limit_lock_waits, now,
    serialize, size, timezone,
};
pub use error::{Error, Result, is_foreign_key_violation, is_unique_violation};
pub use full_disk::WriteFault;
pub use pool::{Db, PoolState, name_of, watched};
pub use presence::Alone;
pub use reserve::Share;
pub use sqlite_file::SqliteFile;

use diesel::prelude::*;
use diesel::sqlite::Sqlite;

/// The columns of a row, for `RETURNING`: `as_returning` does not compile for two databases. Both
/// have the same columns.
pub fn columns<T: Selectable<Sqlite>>() -> T::SelectExpression {
    T::construct_selection()
}
