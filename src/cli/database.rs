//! Opens the database for commands, and finds accounts in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::outcome::{CommandFailure, CommandResult, one_line};
use crate::accounts::email::Email;
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::config::Config;
use crate::db::{self, Connection, DatabaseUrl, Db, migrations};

/// Opens a database that exists. Its tables may be out of date.
pub fn open(config: &Config) -> Result<Db, String> {
    if config.database.is_missing() {
        return Err(format!(
            "there is no database {}: run this in the folder of the server, or name its database in TOSEND_DATABASE_URL",
            config.database
        ));
    }
    open_with(config, Db::open)
}

/// The same, and creates it if it is a missing file.
pub fn open_or_make(config: &Config) -> Result<Db, String> {
    make_with(config, Db::open)
}

/// The same for a server.
pub fn open_for_server(config: &Config) -> Result<Db, String> {
    make_with(config, Db::open_for_server)
}

type Open = fn(&DatabaseUrl) -> Result<Db, String>;

/// A journal of ends without its database is what is left of one that was lost: a new one in its place
/// would hide that.
fn make_with(config: &Config, open: Open) -> Result<Db, String> {
    let left = config.journal.as_deref();
    let left = left.filter(|journal| journal.try_exists().unwrap_or(true));
    if let Some(journal) = left
        && config.database.is_missing()
    {
        return Err(lost(config, journal, "is not there"));
    }
    if let DatabaseUrl::Sqlite(file) = &config.database {
        make_folder(file.folder())?;
    }
    let db = open_with(config, open)?;
    if let Some(journal) = left
        && is_empty(&db)?
    {
        return Err(lost(config, journal, "is empty"));
    }
    Ok(db)
}

fn open_with(config: &Config, open: Open) -> Result<Db, String> {
    open(&config.database).map_err(|why| {
        let why = one_line(&why);
        format!("the database {} cannot be opened: {why}", config.database)
    })
}

/// Whether it has no tables yet.
pub fn is_empty(db: &Db) -> Result<bool, String> {
    let has_keys = |conn: &mut Connection| db::has_column(conn, "api_keys", "hash");
    let has_keys = db.read_blocking(|conn| has_keys(conn).map_err(db::Error::from));
    has_keys
        .map(|has_keys| !has_keys)
        .map_err(|e| one_line(&e.to_string()))
}

/// What to do with a journal that was left behind by a database.
pub fn lost(config: &Config, journal: &Path, how: &str) -> String {
    format!(
        "the database {} {how}, but its journal of ends {} is: put the database back, or restore a backup with “restore”; to begin anew, without any account or key, move the journal away",
        config.database,
        journal.display()
    )
}

/// Brings the tables up to date.
pub fn migrate(db: &Db) -> CommandResult {
    let ran = migrations::run(db).map_err(|e| one_line(&e.to_string()))?;
    if ran > 0 {
        tracing::info!(
            migrations = ran,
            "the database's tables were brought up to date"
        );
    }
    Ok(())
}

/// Creates a folder that only its owner can access. An existing folder is not changed; an empty
/// name means the current one.
pub fn make_folder(folder: &Path) -> CommandResult {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|e| format!("the folder {} cannot be created: {e}", folder.display()))
}

/// The account of the person with this email address.
pub fn find_account(conn: &mut Connection, email: &Email) -> Result<AccountId, CommandFailure> {
    accounts_store::find_id_by_email(conn, email)?
        .ok_or_else(|| CommandFailure(format!("there is no account for {email}")))
}
