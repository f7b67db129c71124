//! `tosend-dashboard backup`

use std::path::{Path, PathBuf};

use clap::Args;

use super::outcome::{CommandResult, one_line, print};
use crate::config::Config;
use crate::db::{DatabaseUrl, Db};
use crate::recovery;

#[derive(Debug, Args)]
pub struct BackupArgs {
    /// File for the copy, which must not exist yet
    file: PathBuf,
}

pub fn run(args: &BackupArgs, config: &Config, db: &Db) -> CommandResult {
    if let DatabaseUrl::Postgres(_) = config.database {
        return Err("this is for SQLite: make backups of PostgreSQL with pg_dump, and keep the secret and the journal of ends, too".into());
    }
    let file = args.file.display();
    db.back_up(&args.file)
        .map_err(|e| format!("the backup {file} cannot be made: {}", one_line(&e)))?;
    // So that the copy can be told from the database even if nothing changes from now on.
    recovery::mark(db).map_err(|e| one_line(&e.to_string()))?;
    let secret = config.secret_file.display();
    let journal = config.journal.as_deref().unwrap_or(Path::new(""));
    print(format_args!(
        "The database is in {file}. Keep a copy of the secret {secret}, too, in another place. Never restore the journal of ends {} with it: the present one knows which keys have ended since.",
        journal.display()
    ))
}
