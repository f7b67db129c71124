//! Keeps the database and its journal of ends together. A database that is older than its journal, such
//! as a restored backup, is brought up to date before any key in it is believed.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

use serde::Deserialize;

use crate::account_end;
use crate::accounts::store::{self as accounts_store, AccountLine, sessions};
use crate::clock;
use crate::config::Config;
use crate::db::journal::{self, Belonging, Change, Contents, Journal};
use crate::db::{self, Connection, Db, Share};
use crate::domains::store::{self as domains_store, DeletedDomain};
use crate::keys::store::{self as keys_store, Again, KeyLine};
use crate::mail::store as mail_store;

/// One entry of a change in the journal.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Key(KeyLine),
    Account(AccountLine),
    /// It was deleted.
    Domain(DeletedDomain),
    /// Nothing changed: only the number tells an older database from a newer one.
    Mark(()),
}

/// What was done with a database that had missed changes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// Whether it was an older copy; otherwise only the last change had been interrupted.
    pub was_older: bool,
    pub ended: usize,
    pub narrowed: usize,
    pub accounts: usize,
    pub domains: usize,
    /// Emails that may have gone out already.
    pub withheld: usize,
}

impl fmt::Display for Recovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "keys ended again: {}; keys paused or restricted again: {}; accounts paused or deleted again: {}; domains deleted again: {}; emails withheld because they may have been sent: {}",
            self.ended, self.narrowed, self.accounts, self.domains, self.withheld
        )
    }
}

/// Opens the journal of ends, creates it for a database that has none, and brings the database up to
/// date from it. The tables must be up to date.
///
/// # Errors
/// One sentence if the journal is not the one of the database, or cannot be used.
pub fn attach(db: Db, config: &Config) -> Result<Db, String> {
    let db = open_journal(db, config)?;
    recover(&db, false).map_err(describe)?;
    Ok(db)
}

/// The same for a database that was restored from a backup. Also returns what was done.
///
/// # Errors
/// As above.
pub fn attach_restored(db: Db, config: &Config) -> Result<(Db, Recovered), String> {
    let db = open_journal(db, config)?;
    let recovered = recover(&db, true).map_err(describe)?;
    Ok((db, recovered.unwrap_or_default()))
}

/// Begins a new journal for this database; a file that is there is kept under another name. Keys that
/// the old journal knew to have ended work if the database says so.
///
/// # Errors
/// One sentence if a file cannot be written, or no journal is configured.
pub fn begin_anew(db: Db, config: &Config) -> Result<(Db, Recovered), String> {
    let Some(path) = &config.journal else {
        return Err("there is no journal of ends: name one in TOSEND_JOURNAL".into());
    };
    let cannot = |error| unusable(path, "made", &error);
    let mut old = path.clone().into_os_string();
    old.push(format!(".before-{}", clock::micros(&clock::now())));
    match std::fs::rename(path, &old) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(cannot(error)),
        _ => {}
    }
    let id = Journal::create(path).map_err(cannot)?;
    let adopt = |conn: &mut Connection| journal::adopt(conn, &id, 0);
    db.write_blocking(adopt).map_err(describe)?;
    attach_restored(db, config)
}

fn open_journal(db: Db, config: &Config) -> Result<Db, String> {
    let belonging = db.read_blocking(journal::find).map_err(describe)?;
    let Some(path) = &config.journal else {
        return match belonging {
            None => Ok(db),
            Some(_) => Err(
                "this database is used with a journal of ends: name it in TOSEND_JOURNAL".into(),
            ),
        };
    };
    let cannot = |error| unusable(path, "used", &error);
    let file = journal::read(path, i64::MAX).map_err(cannot)?;
    let file = match (file, &belonging) {
        (Some(file), _) => file,
        (None, Some(_)) => return Err(lost("is missing", path)),
        (None, None) => create(path).map_err(cannot)?,
    };
    let last = match belonging {
        Some(of_database) if of_database.journal_id != file.id => {
            return Err(lost("is not the one that this database is used with", path));
        }
        Some(of_database) => of_database.last,
        None => 0,
    };
    if last + 1 < file.from {
        return Err(lost(
            "has forgotten what happened since this copy of the database",
            path,
        ));
    }
    let adopt = |conn: &mut Connection| match journal::lock(conn)? {
        Some(_) => Ok(()),
        None => journal::adopt(conn, &file.id, 0),
    };
    db.write_urgently_blocking(Share::All, adopt)
        .map_err(describe)?;
    Ok(db.with_journal(Journal::open(path, file.id, last)))
}

/// Two processes may try at the same time.
fn create(path: &Path) -> std::io::Result<Contents> {
    match Journal::create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let read = journal::read(path, i64::MAX)?;
    read.ok_or_else(|| ErrorKind::NotFound.into())
}

fn unusable(path: &Path, how: &str, error: &std::io::Error) -> String {
    format!(
        "the journal of ends {} cannot be {how}: {error}",
        path.display()
    )
}

fn lost(how: &str, path: &Path) -> String {
    format!(
        "the journal of ends {} {how}, so keys that were deleted since a backup could work again: put the right file there, or accept this database with “restore --pause-keys”, which pauses all keys, or “restore --trust-backup”, which leaves them as they are",
        path.display()
    )
}

fn describe(error: db::Error) -> String {
    error.to_string()
}

/// Adds a change that says nothing, after which an older copy of the database can be told from the
/// present one.
pub fn mark(db: &Db) -> db::Result<()> {
    if db.journal().is_none() {
        return Ok(());
    }
    db.write_urgently_blocking(Share::Half, |_| {
        journal::note("mark", &());
        Ok(())
    })
}

/// Checks whether the database is still the one that this server knows, and brings it up to date if it
/// is an older copy.
pub fn watch(db: &Db) -> db::Result<()> {
    let Some(journal) = db.journal() else {
        return Ok(());
    };
    journal.retry();
    let known = journal.known();
    match db.read_blocking(journal::find_now)? {
        Some(found) if found.journal_id == journal.id() && found.last >= known => {
            journal.knows(found.last);
            Ok(())
        }
        _ => recover(db, false).map(drop),
    }
}

/// Brings the database up to date. `is_restored`: it is known to be an older copy. Returns what was
/// done; `None` if it had missed nothing.
///
/// # Errors
/// If the database belongs to another journal, or the journal cannot be read or does not go back far
/// enough.
pub fn recover(db: &Db, is_restored: bool) -> db::Result<Option<Recovered>> {
    let Some(journal) = db.journal() else {
        return Ok(None);
    };
    let mut newest = 0;
    let recovered = db.write_urgently_blocking(Share::All, |conn| {
        let of_database = belonging(conn, journal)?;
        let file = journal.read_after(of_database.last);
        let file = file.map_err(|e| unavailable(format!("its journal of ends: {e}")))?;
        newest = file
            .changes
            .keys()
            .next_back()
            .copied()
            .unwrap_or(of_database.last);
        if of_database.last + 1 < file.from {
            return Err(unavailable(
                "its journal of ends does not go back far enough".into(),
            ));
        }
        let mut recovered = do_again(conn, &file.changes)?;
        recovered.was_older = is_restored || file.changes.values().any(|change| change.is_done);
        if recovered.was_older {
            recovered.withheld = mail_store::withhold_unsent_of_any_account(conn)?;
            sessions::end_all_of_any_account(conn)?;
        }
        if recovered.was_older || newest > of_database.last {
            let since = recovered.was_older.then(clock::now);
            journal::catch_up(conn, newest, since)?;
            return Ok(Some(recovered));
        }
        Ok(None)
    })?;
    journal.knows(newest);
    match &recovered {
        Some(done) if done.was_older => tracing::warn!(
            "the database was an older copy: it was brought up to date from the journal of ends, and everybody was signed out; {done}"
        ),
        Some(done) => tracing::warn!("the last change was interrupted, and was done again; {done}"),
        None => {}
    }
    Ok(recovered)
}

fn belonging(conn: &mut Connection, journal: &Journal) -> db::Result<Belonging> {
    match journal::lock(conn)? {
        Some(found) if found.journal_id == journal.id() => Ok(found),
        Some(_) => Err(unavailable("it belongs to another journal of ends".into())),
        // A copy from before it had one.
        None => {
            journal::adopt(conn, journal.id(), 0)?;
            Ok(Belonging {
                journal_id: journal.id().to_owned(),
                last: 0,
            })
        }
    }
}

fn unavailable(why: String) -> db::Error {
    db::Error::Unavailable(why)
}

/// Applies the newest entry about each key and account, and all about domains.
fn do_again(conn: &mut Connection, changes: &BTreeMap<i64, Change>) -> db::Result<Recovered> {
    let (mut keys, mut accounts, mut domains) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for entry in changes.values().flat_map(|change| &change.entries) {
        match Entry::deserialize(entry) {
            Ok(Entry::Key(line)) => drop(keys.insert(line.identity(), line)),
            Ok(Entry::Account(line)) => drop(accounts.insert((line.id, line.created), line)),
            Ok(Entry::Domain(line)) => domains.push(line),
            Ok(Entry::Mark(())) => {}
            Err(error) => {
                tracing::error!(%error, "an entry of the journal of ends is not understood")
            }
        }
    }
    let mut recovered = Recovered::default();
    for line in accounts.values() {
        let has_ended = account_end::end_again_of_any_account(conn, line)?
            || accounts_store::pause_again_of_any_account(conn, line)?;
        recovered.accounts += usize::from(has_ended);
    }
    for line in keys.values() {
        match keys_store::narrow_again_of_any_account(conn, line)? {
            Again::Ended => recovered.ended += 1,
            Again::Narrowed => recovered.narrowed += 1,
            Again::Nothing => {}
        }
    }
    for line in &domains {
        let is_deleted = domains_store::delete_again_of_any_account(conn, line)?;
        recovered.domains += usize::from(is_deleted);
    }
    Ok(recovered)
}
