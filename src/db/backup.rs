//! Backups of SQLite: a copy is made while others use the database, and put in its place while nobody
//! does.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{Connection as _, SqliteConnection};

use super::journal::{self, Belonging};
use super::sqlite_file::SqliteFile;
use super::{Connection, DatabaseUrl, Error, has_column};
use crate::clock;

/// What SQLite keeps beside the file.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// Copies the database of this connection to a new file, readable only by its owner.
///
/// # Errors
/// One sentence.
pub(super) fn copy_to(conn: &mut Connection, to: &Path) -> std::result::Result<(), String> {
    let sentence = |error: std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => "the file exists already".to_owned(),
        _ => error.to_string(),
    };
    // An empty file, which SQLite fills; it would make the file readable by everyone.
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(sentence)?;
    let copied = diesel::sql_query("VACUUM INTO ?")
        .bind::<Text, _>(to.to_string_lossy())
        .execute(conn);
    if let Err(error) = copied {
        // Half a copy must not be taken for a backup.
        let _ = std::fs::remove_file(to);
        return Err(error.to_string());
    }
    File::open(to)
        .and_then(|file| file.sync_all())
        .map_err(sentence)
}

/// A copy of a backup beside the database that it is to replace. Removed when it is dropped.
pub struct Restoring {
    file: SqliteFile,
    copy: PathBuf,
}

impl Restoring {
    /// Copies the backup, if it is one.
    ///
    /// # Errors
    /// One sentence.
    pub fn prepare(file: &SqliteFile, backup: &Path) -> std::result::Result<Self, String> {
        let copy = file.beside(".restoring");
        let restoring = Self {
            file: file.clone(),
            copy,
        };
        // What an earlier attempt may have left.
        restoring.remove();
        copy_backup(backup, &restoring.copy)?;
        Ok(restoring)
    }

    pub fn url(&self) -> DatabaseUrl {
        DatabaseUrl::Sqlite(SqliteFile::new(&self.copy))
    }

    /// Puts the copy, which [`Db::into_the_file`](super::Db::into_the_file) has made whole, in the place of
    /// the database. Nothing may use either meanwhile. Returns where the database from before is kept, if there was one.
    ///
    /// # Errors
    /// One sentence. The database is left as it was.
    pub fn put_in_place(self) -> std::result::Result<Option<PathBuf>, String> {
        let moved = move_away(&self.file).map_err(|e| e.to_string())?;
        if let Err(error) = std::fs::rename(&self.copy, self.file.path()) {
            if let Some(kept) = &moved {
                move_back(&self.file, kept).map_err(|e| e.to_string())?;
            }
            return Err(error.to_string());
        }
        let folder = self.file.folder();
        let folder = Some(folder).filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))
            .and_then(|folder| folder.sync_all())
            .map_err(|e| e.to_string())?;
        Ok(moved)
    }

    fn remove(&self) {
        for end in [&[""], &COMPANIONS[..], &[".reserve"]].concat() {
            let mut name = self.copy.clone().into_os_string();
            name.push(end);
            let _ = std::fs::remove_file(name);
        }
    }
}

impl Drop for Restoring {
    fn drop(&mut self) {
        self.remove();
    }
}

fn copy_backup(backup: &Path, to: &Path) -> std::result::Result<(), String> {
    let backup = SqliteFile::new(backup);
    if !backup.path().try_exists().map_err(|e| e.to_string())? {
        return Err("there is no such file".into());
    }
    let mut conn = SqliteConnection::establish(&backup.uri())
        .map(Connection::Sqlite)
        .map_err(|e| e.to_string())?;
    let checked: Checked = diesel::sql_query("PRAGMA quick_check(1)")
        .get_result(&mut conn)
        .map_err(|e| e.to_string())?;
    if checked.quick_check != "ok" {
        return Err(format!("it is damaged: {}", checked.quick_check));
    }
    if !has_column(&mut conn, "api_keys", "hash").map_err(|e| e.to_string())? {
        return Err("it is not a database of this dashboard".into());
    }
    copy_to(&mut conn, to)
}

/// Writes what is in the WAL to the file, so that the file alone is the database.
pub(super) fn into_the_file(conn: &mut Connection) -> super::Result<()> {
    let done: Checkpointed =
        diesel::sql_query("PRAGMA wal_checkpoint(TRUNCATE)").get_result(conn)?;
    match done.busy {
        0 => Ok(()),
        _ => Err(Error::Unavailable("the copy is in use".into())),
    }
}

/// What the database of this file, which is about to be replaced, knows of its journal of ends, whose
/// file is at `journal`. What it alone knows is written to the journal.
///
/// # Errors
/// One sentence: the database cannot be read.
pub fn read_present(
    file: &SqliteFile,
    journal: &Path,
) -> std::result::Result<Option<Belonging>, String> {
    if !file.exists().map_err(|e| e.to_string())? {
        return Ok(None);
    }
    let mut conn = SqliteConnection::establish(&file.uri())
        .map(Connection::Sqlite)
        .map_err(|e| e.to_string())?;
    journal::write_out(&mut conn, journal).map_err(|e| e.to_string())
}

/// Gives the database another name, together with what SQLite keeps beside it.
fn move_away(file: &SqliteFile) -> Result<Option<PathBuf>> {
    if !file.path().try_exists()? {
        return Ok(None);
    }
    let kept = file.beside(&format!(".before-{}", clock::micros(&clock::now())));
    let moved = move_all(file, &SqliteFile::new(&kept));
    if moved.is_err() {
        move_back(file, &kept)?;
    }
    moved.map(|()| Some(kept))
}

fn move_back(file: &SqliteFile, kept: &Path) -> Result<()> {
    move_all(&SqliteFile::new(kept), file)
}

/// The database goes last: without it, nobody takes the rest for its own.
fn move_all(from: &SqliteFile, to: &SqliteFile) -> Result<()> {
    for end in COMPANIONS.iter().chain(&[""]) {
        match std::fs::rename(from.beside(end), to.beside(end)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[derive(diesel::QueryableByName)]
struct Checkpointed {
    #[diesel(sql_type = diesel::sql_types::Integer)]
    busy: i32,
}

#[derive(diesel::QueryableByName)]
struct Checked {
    #[diesel(sql_type = Text)]
    quick_check: String,
}
