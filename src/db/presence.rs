//! Keeps `restore`, which replaces the database, and running servers apart. With SQLite by a lock on a
//! file beside the database, never on the database itself; with PostgreSQL by a lock that each connection
//! of a server holds.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;

use super::connection::{Access, RESTORING, establish, keep_servers_away};
use super::sqlite_file::SqliteFile;
use super::{Connection, DatabaseUrl};

const SUFFIX: &str = ".lock";

/// Keeps servers of a database away until it is dropped.
pub struct Alone {
    _held: Held,
}

#[expect(dead_code, reason = "held for their locks")]
enum Held {
    File(File),
    Connection(Connection),
}

impl Alone {
    /// # Errors
    /// One sentence: a server runs, or it cannot be told.
    pub fn with(url: &DatabaseUrl) -> Result<Self, String> {
        let in_use = || "a server uses the database: stop it first, on all nodes".to_owned();
        let held = match url {
            DatabaseUrl::Sqlite(file) => {
                let lock = open(file)?;
                match lock.try_lock() {
                    Ok(()) => Held::File(lock),
                    Err(TryLockError::WouldBlock) => return Err(in_use()),
                    Err(TryLockError::Error(error)) => return Err(explain(file, &error)),
                }
            }
            DatabaseUrl::Postgres(_) => {
                let mut conn = establish(url, Access::Write).map_err(|e| e.to_string())?;
                match keep_servers_away(&mut conn) {
                    Ok(true) => Held::Connection(conn),
                    Ok(false) => return Err(in_use()),
                    Err(error) => return Err(error.to_string()),
                }
            }
        };
        Ok(Self { _held: held })
    }
}

/// Tells of a server, of which several may run, until it is dropped.
pub(super) struct Told {
    _lock: File,
}

/// # Errors
/// One sentence: the database is being restored, or it cannot be told.
pub(super) fn tell_of_server(file: &SqliteFile) -> Result<Told, String> {
    let lock = open(file)?;
    match lock.try_lock_shared() {
        Ok(()) => Ok(Told { _lock: lock }),
        Err(TryLockError::WouldBlock) => Err(RESTORING.to_owned()),
        Err(TryLockError::Error(error)) => Err(explain(file, &error)),
    }
}

fn open(file: &SqliteFile) -> Result<File, String> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        // A link could lead to the database, which only SQLite may open.
        .custom_flags(OFlags::NOFOLLOW.bits() as i32)
        .open(file.beside(SUFFIX))
        .map_err(|error| explain(file, &error))
}

fn explain(file: &SqliteFile, error: &std::io::Error) -> String {
    let path = file.beside(SUFFIX);
    format!("the file {} cannot be locked: {error}", path.display())
}
