//! `tosend-dashboard restore`

use std::path::PathBuf;

use clap::Args;

use super::database::{make_folder, migrate, open};
use super::outcome::{Outcome, one_line, print};
use crate::config::Config;
use crate::db::DatabaseUrl;
use crate::db::backup::replace;
use crate::keys::store as keys_store;
use crate::listener::ReservedAddress;
use crate::recovery;

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup, for SQLite. Without it, the present database is taken for one that was restored, as
    /// with pg_restore
    file: Option<PathBuf>,
    /// If the journal of ends is lost: begin a new one, and pause all keys
    #[arg(long, conflicts_with = "trust_backup")]
    pause_keys: bool,
    /// If the journal of ends is lost: begin a new one, and leave all keys as they are in the backup,
    /// also those that were deleted since
    #[arg(long)]
    trust_backup: bool,
}

pub fn run(args: &RestoreArgs, config: &Config) -> Outcome {
    // Nobody may write to a database that is being replaced.
    let _reserved = ReservedAddress::reserve(config.listen).map_err(|_| {
        format!(
            "{} is in use: stop the server first, on all nodes",
            config.listen
        )
    })?;
    if let Some(backup) = &args.file {
        let DatabaseUrl::Sqlite(file) = &config.database else {
            return Err("a file is for SQLite: restore PostgreSQL with pg_restore, then run “restore” without a file".into());
        };
        make_folder(file.folder())?;
        let kept = replace(file, backup)
            .map_err(|why| format!("{} cannot be restored: {why}", backup.display()))?;
        if let Some(kept) = kept {
            print(format_args!(
                "The database from before is kept as {}.",
                kept.display()
            ))?;
        }
    }
    let db = open(config)?;
    migrate(&db)?;
    let (db, recovered) = match args.pause_keys || args.trust_backup {
        true => recovery::begin_anew(db, config)?,
        false => recovery::attach_restored(db, config)?,
    };
    let mut paused = 0;
    if args.pause_keys {
        paused = db
            .write_blocking(keys_store::pause_all_of_any_account)
            .map_err(|e| one_line(&e.to_string()))?;
    }
    recovery::mark(&db).map_err(|e| one_line(&e.to_string()))?;
    let paused = match paused {
        0 => String::new(),
        count => format!(" Keys paused because nobody knows whether they ended: {count}."),
    };
    print(format_args!(
        "The database is restored, and everybody is signed out. By the journal of ends: {recovered}.{paused}"
    ))
}
