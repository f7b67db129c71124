//! Whether SQLite's file is still in its place. Connections go on with a file that was deleted or
//! replaced as if nothing had happened, and what they write is lost with it.

use std::sync::atomic::{AtomicBool, Ordering};

use super::sqlite_file::{SqliteFile, SqliteIdentity};
use super::{Error, Result};

/// The file that the connections have open.
#[derive(Debug)]
pub(super) struct Place {
    file: SqliteFile,
    identity: SqliteIdentity,
    is_lost: AtomicBool,
}

impl Place {
    /// Of the file that has the name now.
    pub fn of(file: &SqliteFile) -> std::io::Result<Self> {
        Ok(Self {
            file: file.clone(),
            identity: file.identity()?,
            is_lost: AtomicBool::new(false),
        })
    }

    /// Fails while the name leads nowhere or to another file.
    pub fn check(&self) -> Result<()> {
        let file = &self.file;
        // Any failure to look: what cannot be seen cannot be relied on.
        let is_lost = !file.identity().is_ok_and(|now| now == self.identity);
        if self.is_lost.swap(is_lost, Ordering::Relaxed) != is_lost {
            match is_lost {
                true => tracing::error!(
                    "the database {file} was deleted or replaced: nothing is accepted; put the file back, or stop the server and restore a backup"
                ),
                false => tracing::info!("the database {file} is back"),
            }
        }
        match is_lost {
            true => Err(Error::Unavailable(format!(
                "the file {file} was deleted or replaced"
            ))),
            false => Ok(()),
        }
    }
}
