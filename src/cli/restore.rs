//! `tosend-dashboard restore`

use std::path::{Path, PathBuf};

use clap::Args;

use super::database::{make_folder, migrate, open};
use super::outcome::{CommandResult, one_line, print};
use crate::config::Config;
use crate::db::backup::{Restoring, read_present};
use crate::db::journal::Belonging;
use crate::db::{Alone, DatabaseUrl, Db, Share, SqliteFile};
use crate::keys::store as keys_store;
use crate::listener::ReservedAddress;
use crate::recovery::{self, Recovered};

#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// The backup, for SQLite. Without it, the present database is taken for one that was restored, as
    /// with pg_restore
    file: Option<PathBuf>,
    /// If the journal of ends is lost, or there is none: begin a new one, and pause all keys
    #[arg(long, conflicts_with = "trust_backup")]
    pause_keys: bool,
    /// If the journal of ends is lost, or there is none: begin a new one, and leave all keys as they are
    /// in the backup, also those that were deleted since
    #[arg(long)]
    trust_backup: bool,
}

pub fn run(args: &RestoreArgs, config: &Config) -> CommandResult {
    match (&args.file, &config.database) {
        (Some(backup), DatabaseUrl::Sqlite(file)) => restore(args, config, file, backup),
        (Some(_), DatabaseUrl::Postgres(_)) => Err(
            "a file is for SQLite: restore PostgreSQL with pg_restore, then run “restore” without a file".into(),
        ),
        (None, _) => take_present(args, config),
    }
}

/// Everything is done on a copy of the backup, so that the database stays as it is if anything fails.
fn restore(args: &RestoreArgs, config: &Config, file: &SqliteFile, backup: &Path) -> CommandResult {
    make_folder(file.folder())?;
    let _alone = be_alone(config)?;
    let cannot = |why: String| {
        let why = one_line(&why);
        format!("{} cannot be restored: {why}", backup.display())
    };
    let present = match &config.journal {
        Some(journal) => read_present(file, journal).unwrap_or_else(|why| {
            tracing::warn!("the present database {file} cannot be read: {why}");
            None
        }),
        None => None,
    };
    let copy = Restoring::prepare(file, backup).map_err(cannot)?;
    let db = Db::open(&copy.url()).map_err(cannot)?;
    migrate(&db).map_err(cannot)?;
    let (db, done) = bring_up_to_date(args, config, db, present.as_ref())?;
    db.into_the_file().map_err(|e| cannot(e.to_string()))?;
    drop(db);
    let kept = copy.put_in_place().map_err(cannot)?;
    if let Some(kept) = kept {
        print(format_args!(
            "The database from before is kept as {}.",
            kept.display()
        ))?;
    }
    print(done)
}

fn take_present(args: &RestoreArgs, config: &Config) -> CommandResult {
    let db = open(config)?;
    let _alone = be_alone(config)?;
    migrate(&db)?;
    let (db, done) = bring_up_to_date(args, config, db, None)?;
    recovery::mark(&db).map_err(|e| one_line(&e.to_string()))?;
    print(done)
}

/// Nobody may write to a database that is being replaced. A server of an earlier version is noticed by its
/// address only.
fn be_alone(config: &Config) -> Result<(ReservedAddress, Alone), String> {
    let alone = Alone::with(&config.database).map_err(|e| one_line(&e))?;
    let reserved = ReservedAddress::reserve(config.listen).map_err(|_| {
        format!(
            "{} is in use: stop the server first, on all nodes",
            config.listen
        )
    })?;
    Ok((reserved, alone))
}

/// Returns what was done, in a sentence. `present`: what the database that is replaced knows.
fn bring_up_to_date(
    args: &RestoreArgs,
    config: &Config,
    db: Db,
    present: Option<&Belonging>,
) -> Result<(Db, String), String> {
    let is_accepted = args.pause_keys || args.trust_backup;
    let (db, recovered) = match (&config.journal, is_accepted) {
        (Some(_), false) => recovery::attach_restored(db, config, present)?,
        (Some(_), true) => recovery::begin_anew(db, config)?,
        (None, true) => recovery::without_journal(db, config)?,
        (None, false) => {
            return Err("there is no journal of ends, so nobody knows which keys have ended since this copy of the database: accept it with “restore --pause-keys”, which pauses all keys, or “restore --trust-backup”, which leaves them as they are; for the next time, name a journal in TOSEND_JOURNAL".into());
        }
    };
    let mut paused = 0;
    if args.pause_keys {
        paused = db
            .write_urgently_blocking(Share::All, keys_store::pause_all_of_any_account)
            .map_err(|e| one_line(&e.to_string()))?;
    }
    Ok((db, describe(args, &recovered, is_accepted, paused)))
}

fn describe(args: &RestoreArgs, recovered: &Recovered, is_accepted: bool, paused: usize) -> String {
    let done = match is_accepted {
        false => format!("By the journal of ends: {recovered}."),
        true => format!(
            "Emails withheld because they may have been sent: {}.",
            recovered.withheld
        ),
    };
    let keys = match args.pause_keys {
        true => format!(" Keys paused because nobody knows whether they ended: {paused}."),
        false => String::new(),
    };
    format!("The database is restored, and everybody is signed out. {done}{keys}")
}
