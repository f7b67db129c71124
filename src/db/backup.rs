//! Backups of SQLite: a copy is made while others use the database, and put in its place while nobody
//! does.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Result};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel::{Connection as _, SqliteConnection};

use super::sqlite_file::SqliteFile;
use super::{Connection, has_column};
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

/// Puts a copy of this backup in the place of the database, which nothing may use meanwhile.
/// Returns where the database from before is kept, if there was one.
///
/// # Errors
/// One sentence. The database is left as it was, unless the last step failed half way.
pub fn replace(file: &SqliteFile, backup: &Path) -> std::result::Result<Option<PathBuf>, String> {
    let backup = SqliteFile::new(backup);
    if !backup.path().try_exists().map_err(|e| e.to_string())? {
        return Err("there is no such file".into());
    }
    let new = file.beside(".restoring");
    let _ = std::fs::remove_file(&new);
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
    copy_to(&mut conn, &new)?;
    drop(conn);
    let kept = move_away(file).map_err(|e| e.to_string())?;
    std::fs::rename(&new, file.path()).map_err(|e| e.to_string())?;
    let folder = Some(file.folder()).filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))
        .and_then(|folder| folder.sync_all())
        .map_err(|e| e.to_string())?;
    Ok(kept)
}

/// Gives the database another name, together with what SQLite keeps beside it.
fn move_away(file: &SqliteFile) -> Result<Option<PathBuf>> {
    if !file.path().try_exists()? {
        return Ok(None);
    }
    let kept = file.beside(&format!(".before-{}", clock::micros(&clock::now())));
    std::fs::rename(file.path(), &kept)?;
    for companion in COMPANIONS {
        let mut name = kept.clone().into_os_string();
        name.push(companion);
        match std::fs::rename(file.beside(companion), name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(Some(kept))
}

#[derive(diesel::QueryableByName)]
struct Checked {
    #[diesel(sql_type = Text)]
    quick_check: String,
}
