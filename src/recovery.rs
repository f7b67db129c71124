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
use crate::db::journal::{self, Belonging, Contents, Damage, Journal, JournalChange};
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

const UNNAMED: &str = "this database is used with a journal of ends: name it in TOSEND_JOURNAL";

/// Why a database could not be brought up to date.
#[derive(Debug)]
enum Fault {
    Database(db::Error),
    Damaged {
        damage: Damage,
        /// Whether the database lacks changes that the journal still has.
        is_older: bool,
    },
    /// A change that this program does not know.
    Unknown(i64),
}

impl From<db::Error> for Fault {
    fn from(error: db::Error) -> Self {
        Self::Database(error)
    }
}

impl Fault {
    fn into_error(self) -> db::Error {
        match self {
            Self::Database(error) => error,
            Self::Damaged { damage, .. } => {
                unavailable(format!("its journal of ends is damaged: {damage}"))
            }
            Self::Unknown(n) => unavailable(format!(
                "the change {n} in its journal of ends is not understood"
            )),
        }
    }

    /// One sentence for who starts the program.
    fn explain(self, path: &Path) -> String {
        match self {
            Self::Database(error) => describe(error),
            Self::Damaged { damage, .. } => lost(&format!("is damaged ({damage})"), path),
            Self::Unknown(n) => lost(&format!("has a change that is not understood ({n})"), path),
        }
    }
}

/// Opens the journal of ends, creates it for a database that has none, and brings the database up to
/// date from it. The tables must be up to date.
///
/// # Errors
/// One sentence if the journal is not the one of the database, is damaged, or cannot be used.
pub fn attach(db: Db, config: &Config) -> Result<Db, String> {
    let db = open_journal(db, config)?;
    match recover_now(&db, false) {
        Ok(_) => Ok(db),
        Err(fault) => Err(explain(fault, &db)),
    }
}

/// The same for a command, which must be able to end a key beside a running server even if the journal is
/// missing or damaged: unless the database is an older copy, as far as can be seen, it goes on.
///
/// # Errors
/// As above.
pub fn attach_for_command(db: Db, config: &Config) -> Result<Db, String> {
    if let Some(path) = &config.journal
        && let Some(of_database) = db.read_blocking(journal::find).map_err(describe)?
        && is_missing(path)
    {
        let Belonging { journal_id, last } = of_database;
        return Ok(db.with_journal(Journal::open(path, journal_id, last)));
    }
    let db = open_journal(db, config)?;
    match recover_now(&db, false) {
        Ok(_) => Ok(db),
        Err(
            fault @ Fault::Damaged {
                is_older: false, ..
            },
        ) => {
            tracing::warn!("{}", explain(fault, &db));
            Ok(db)
        }
        Err(fault) => Err(explain(fault, &db)),
    }
}

/// The same for a database that was restored from a backup. Also returns what was done. `present`: what
/// the database that it replaces knew of its journal.
///
/// # Errors
/// As above.
pub fn attach_restored(
    db: Db,
    config: &Config,
    present: Option<&Belonging>,
) -> Result<(Db, Recovered), String> {
    let db = open_journal(db, config)?;
    if let (Some(journal), Some(present)) = (db.journal(), present)
        && present.journal_id == journal.id()
    {
        journal.knows(present.last);
    }
    match recover_now(&db, true) {
        Ok(recovered) => Ok((db, recovered.unwrap_or_default())),
        Err(fault) => Err(explain(fault, &db)),
    }
}

/// For a database that was restored from a backup, where there is no journal: emails that are not sent
/// yet may have been sent since, and sessions may have ended.
///
/// # Errors
/// One sentence: the database is used with a journal, or fails.
pub fn without_journal(db: Db, config: &Config) -> Result<(Db, Recovered), String> {
    let db = open_journal(db, config)?;
    let withheld = db.write_urgently_blocking(Share::All, withhold);
    let recovered = Recovered {
        was_older: true,
        withheld: withheld.map_err(describe)?,
        ..Recovered::default()
    };
    Ok((db, recovered))
}

/// What nobody can know of an older copy of the database.
fn withhold(conn: &mut Connection) -> db::Result<usize> {
    sessions::end_all_of_any_account(conn)?;
    mail_store::withhold_unsent_of_any_account(conn)
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
    let begun = Journal::create(path).map_err(cannot).and_then(|id| {
        let adopt = |conn: &mut Connection| journal::adopt(conn, &id, 0);
        db.write_urgently_blocking(Share::All, adopt)
            .map_err(describe)?;
        attach_restored(db, config, None)
    });
    if begun.is_err() {
        // Without it, the present database could not be used either.
        let _ = std::fs::rename(&old, path);
    }
    begun
}

/// What the server would say of its journal of ends at its start. Changes nothing. `None`: there is
/// nothing wrong, or the server makes it.
///
/// # Errors
/// If the database fails.
pub fn find_fault(db: &Db, config: &Config) -> db::Result<Option<String>> {
    let belonging = db.read_blocking(journal::find)?;
    let Some(path) = &config.journal else {
        return Ok(belonging.map(|_| UNNAMED.to_owned()));
    };
    let last = belonging.as_ref().map_or(0, |found| found.last);
    let file = match journal::read(path, i64::MAX) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(belonging.map(|_| lost("is missing", path))),
        Err(error) => return Ok(Some(unusable(path, "used", &error))),
    };
    if let Some(how) = mismatch(&file, belonging.as_ref()) {
        return Ok(Some(lost(how, path)));
    }
    // A change that is under way may be in the file and not in the database, but not the other way round.
    let unwritten = db.read_blocking(journal::find_unwritten)?;
    let damage = file.check(last, &unwritten).err();
    Ok(damage
        .map(|damage| lost(&format!("is damaged ({damage})"), path))
        .or_else(|| journal::check_access(path).err()))
}

fn open_journal(db: Db, config: &Config) -> Result<Db, String> {
    let belonging = db.read_blocking(journal::find).map_err(describe)?;
    let Some(path) = &config.journal else {
        return match belonging {
            None => Ok(db),
            Some(_) => Err(UNNAMED.to_owned()),
        };
    };
    let cannot = |error| unusable(path, "used", &error);
    let file = journal::read(path, i64::MAX).map_err(cannot)?;
    let file = match (file, &belonging) {
        (Some(file), _) => file,
        (None, Some(_)) => return Err(lost("is missing", path)),
        (None, None) => create(path).map_err(cannot)?,
    };
    if let Some(how) = mismatch(&file, belonging.as_ref()) {
        return Err(lost(how, path));
    }
    let last = belonging.map_or(0, |of_database| of_database.last);
    let adopt = |conn: &mut Connection| match journal::lock(conn)? {
        Some(_) => Ok(()),
        None => journal::adopt(conn, &file.id, 0),
    };
    db.write_urgently_blocking(Share::All, adopt)
        .map_err(describe)?;
    Ok(db.with_journal(Journal::open(path, file.id, last)))
}

/// Why this is not a journal for this database.
fn mismatch(file: &Contents, belonging: Option<&Belonging>) -> Option<&'static str> {
    let last = belonging.map_or(0, |of_database| of_database.last);
    match belonging {
        Some(of_database) if of_database.journal_id != file.id => {
            Some("is not the one that this database is used with")
        }
        _ if last + 1 < file.from => {
            Some("has forgotten what happened since this copy of the database")
        }
        _ => None,
    }
}

fn unusable(path: &Path, how: &str, error: &std::io::Error) -> String {
    format!(
        "the journal of ends {} cannot be {how}: {error}; the user of the server must be able to read and write it",
        path.display()
    )
}

fn is_missing(path: &Path) -> bool {
    matches!(path.try_exists(), Ok(false))
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

fn lost(how: &str, path: &Path) -> String {
    format!(
        "the journal of ends {} {how}, so keys that were deleted since a backup could work again: put the right file there, or accept this database with “restore --pause-keys”, which pauses all keys, or “restore --trust-backup”, which leaves them as they are",
        path.display()
    )
}

fn describe(error: db::Error) -> String {
    // PostgreSQL says some things in several lines.
    let words = error.to_string();
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn explain(fault: Fault, db: &Db) -> String {
    let path = db.journal().map_or(Path::new(""), |journal| journal.path());
    fault.explain(path)
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
    let known = journal.known();
    match db.read_blocking(journal::find_now)? {
        Some(found) if found.journal_id == journal.id() && found.last >= known => {
            journal.knows(found.last);
            db.write_out_journal()
        }
        _ => recover(db, false).map(drop),
    }
}

/// Brings the database up to date. `is_restored`: it is known to be an older copy. Returns what was
/// done; `None` if it had missed nothing.
///
/// # Errors
/// If the database belongs to another journal, or the journal cannot be read, is damaged, or does not go
/// back far enough.
pub fn recover(db: &Db, is_restored: bool) -> db::Result<Option<Recovered>> {
    recover_now(db, is_restored).map_err(Fault::into_error)
}

fn recover_now(db: &Db, is_restored: bool) -> Result<Option<Recovered>, Fault> {
    let Some(journal) = db.journal() else {
        return Ok(None);
    };
    let mut newest = 0;
    let recovered = db.write_urgently_blocking(Share::All, |conn| {
        let of_database = belonging(conn, journal)?;
        let file = read_whole(conn, journal, of_database.last)?;
        newest = file.newest().max(of_database.last);
        let mut recovered = do_again(conn, file.after(of_database.last))?;
        let mut missed = file.after(of_database.last);
        recovered.was_older = is_restored || missed.any(|(_, change)| change.is_done);
        if recovered.was_older {
            recovered.withheld = withhold(conn)?;
        }
        if recovered.was_older || newest > of_database.last {
            let since = recovered.was_older.then(clock::now);
            journal::catch_up(conn, newest, since)?;
            return Ok(Some(recovered));
        }
        Ok::<_, Fault>(None)
    })?;
    journal.knows(newest);
    match &recovered {
        // The command tells what it did.
        Some(_) if is_restored => {}
        Some(done) if done.was_older => tracing::warn!(
            "the database was an older copy: it was brought up to date from the journal of ends, and everybody was signed out; {done}"
        ),
        Some(done) => tracing::warn!("the last change was interrupted, and was done again; {done}"),
        None => {}
    }
    Ok(recovered)
}

/// The journal, if nothing of it is missing. `last`: the last change that the database knows.
fn read_whole(conn: &mut Connection, journal: &Journal, last: i64) -> Result<Contents, Fault> {
    let file = journal.read_after(last);
    let file = file.map_err(|e| unavailable(format!("its journal of ends: {e}")))?;
    if last + 1 < file.from {
        let why = "its journal of ends does not go back far enough";
        return Err(unavailable(why.into()).into());
    }
    let unwritten = journal::find_unwritten(conn)?;
    // This process may have seen changes that an older copy of the database does not know.
    let known = journal.known().max(last);
    match file.check(known, &unwritten) {
        Ok(()) => Ok(file),
        Err(damage) => Err(Fault::Damaged {
            damage,
            is_older: file.newest().max(journal.known()) > last,
        }),
    }
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
fn do_again<'a>(
    conn: &mut Connection,
    changes: impl Iterator<Item = (i64, &'a JournalChange)>,
) -> Result<Recovered, Fault> {
    let (mut keys, mut accounts, mut domains) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
    for (n, change) in changes {
        for entry in &change.entries {
            match Entry::deserialize(entry) {
                Ok(Entry::Key(line)) => drop(keys.insert(line.identity(), line)),
                Ok(Entry::Account(line)) => drop(accounts.insert((line.id, line.created), line)),
                Ok(Entry::Domain(line)) => domains.push(line),
                Ok(Entry::Mark(())) => {}
                Err(error) => {
                    tracing::error!(%error, n, "an entry of the journal of ends is not understood");
                    return Err(Fault::Unknown(n));
                }
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
