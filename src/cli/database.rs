//! Opens the database for commands, and finds accounts in it.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::outcome::{Failure, Outcome, one_line};
use crate::accounts::email::Email;
use crate::accounts::store::{self as accounts_store, AccountId};
use crate::config::Config;
use crate::db::{Connection, DatabaseUrl, Db, migrations};

/// Opens the database, and creates it if it is a missing file. Its tables may be out of date.
pub fn open(config: &Config) -> Result<Db, String> {
    if let DatabaseUrl::Sqlite(file) = &config.database {
        make_folder(file.folder())?;
    }
    Db::open(&config.database).map_err(|why| {
        let why = one_line(&why);
        format!("the database {} cannot be opened: {why}", config.database)
    })
}

/// Brings the tables up to date.
pub fn migrate(db: &Db) -> Outcome {
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
pub fn make_folder(folder: &Path) -> Outcome {
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
pub fn find_account(conn: &mut Connection, email: &Email) -> Result<AccountId, Failure> {
    accounts_store::find_id_by_email(conn, email)?
        .ok_or_else(|| Failure(format!("there is no account for {email}")))
}
