//! The journal of ends: a file outside the database with every change that narrows what a key may do,
//! or takes such a change back. An older copy of the database learns from it what ended since.
//!
//! A change is numbered, written here and synced before its COMMIT, and confirmed afterwards. This
//! module knows how the file is kept; what a change says is up to those who [`note`] it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Result as IoResult, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{NaiveDateTime, TimeDelta};
use diesel::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Connection, Error, Purpose, Result, has_column, serialize};
use crate::schema::ends_journal;
use crate::{clock, token};

const THE_ROW: i64 = 1;
/// Lines kept in memory while the file cannot be written.
const MOST_UNWRITTEN: usize = 10_000;

/// One line of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    /// The first line. Changes before `from` are no longer in the file.
    Journal { id: String, from: i64 },
    /// `at`: in microseconds since 1970. Written before the COMMIT.
    Change {
        n: i64,
        at: i64,
        entries: Vec<Value>,
    },
    /// The change with this number was committed.
    Done(i64),
    /// The change with this number and instant was rolled back. Another process may have written a
    /// change with the same number before this line.
    Undone { n: i64, at: i64 },
}

/// A change that a database may have missed.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub entries: Vec<Value>,
    /// Whether a database is known to have had it.
    pub is_done: bool,
    at: i64,
}

/// The content of the file.
#[derive(Debug, Default, PartialEq)]
pub struct Contents {
    pub id: String,
    /// The number of the first change that it can have.
    pub from: i64,
    pub changes: BTreeMap<i64, Change>,
}

/// Identifies a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeId {
    n: i64,
    at: i64,
}

/// The row that says which journal belongs to the database.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct Belonging {
    pub journal_id: String,
    /// The number of the last change that was committed.
    pub last: i64,
}

/// An open journal. Any number of processes may use the file at once.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    id: String,
    /// The highest number that is known to be committed.
    known: AtomicI64,
    unwritten: Mutex<Unwritten>,
}

#[derive(Debug, Default)]
struct Unwritten {
    lines: VecDeque<String>,
    is_failing: bool,
}

thread_local! {
    /// What the transaction on this thread has noted so far.
    static NOTED: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
}

/// Notes what the transaction on this thread does, for the journal. `kind`: what the line is about.
pub fn note(kind: &str, line: &impl Serialize) {
    let mut entry = serde_json::Map::new();
    entry.insert(kind.to_owned(), serde_json::json!(line));
    NOTED.with_borrow_mut(|noted| noted.push(Value::Object(entry)));
}

/// Takes what was noted on this thread since the last call.
pub(super) fn take_noted() -> Vec<Value> {
    NOTED.with_borrow_mut(std::mem::take)
}

/// Which journal belongs to the database; `None` if none does. Found even before the tables are up to
/// date.
pub fn find(conn: &mut Connection) -> Result<Option<Belonging>> {
    match has_column(conn, "ends_journal", "last")? {
        true => find_now(conn),
        false => Ok(None),
    }
}

/// Which journal belongs to the database, whose tables are up to date.
pub fn find_now(conn: &mut Connection) -> Result<Option<Belonging>> {
    Ok(ends_journal::table
        .select((ends_journal::journal_id, ends_journal::last))
        .first(conn)
        .optional()?)
}

/// The same, and makes other transactions that write to the journal wait until this one ends.
pub fn lock(conn: &mut Connection) -> Result<Option<Belonging>> {
    serialize(conn, Purpose::Journal)?;
    diesel::update(ends_journal::table)
        .set(ends_journal::last.eq(ends_journal::last))
        .execute(conn)?;
    find_now(conn)
}

/// Makes this journal the one of the database, which knows its changes up to `last`.
pub fn adopt(conn: &mut Connection, id: &str, last: i64) -> Result<()> {
    diesel::delete(ends_journal::table).execute(conn)?;
    diesel::insert_into(ends_journal::table)
        .values((
            ends_journal::id.eq(THE_ROW),
            ends_journal::journal_id.eq(id),
            ends_journal::last.eq(last),
        ))
        .execute(conn)?;
    Ok(())
}

/// Records that the database knows the changes up to `last` now. `since`: if it was an older copy.
pub fn catch_up(conn: &mut Connection, last: i64, since: Option<NaiveDateTime>) -> Result<()> {
    diesel::update(ends_journal::table)
        .set(ends_journal::last.eq(last))
        .execute(conn)?;
    if let Some(since) = since {
        diesel::update(ends_journal::table)
            .set(ends_journal::recovered_at.eq(since))
            .execute(conn)?;
    }
    Ok(())
}

/// When an older copy of the database was last brought up to date.
pub fn find_recovery(conn: &mut Connection) -> Result<Option<NaiveDateTime>> {
    let at = ends_journal::table
        .select(ends_journal::recovered_at)
        .first(conn)
        .optional()?;
    Ok(at.flatten())
}

impl Journal {
    /// Creates the file. Returns its id.
    ///
    /// # Errors
    /// If it exists already, or cannot be written.
    pub fn create(path: &Path) -> IoResult<String> {
        let id = token::random();
        let line = Line::Journal {
            id: id.clone(),
            from: 1,
        };
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(text(&line).as_bytes())?;
        file.sync_all()?;
        sync_folder(path)?;
        Ok(id)
    }

    /// The journal in this file, for a database that knows its changes up to `known`.
    pub fn open(path: &Path, id: String, known: i64) -> Arc<Self> {
        Arc::new(Self {
            path: path.to_owned(),
            id,
            known: AtomicI64::new(known),
            unwritten: Mutex::default(),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// The highest number that is known to be committed.
    pub fn known(&self) -> i64 {
        self.known.load(Ordering::Acquire)
    }

    /// From now on, a database that does not know this change is an older one.
    pub fn knows(&self, last: i64) {
        self.known.fetch_max(last, Ordering::AcqRel);
    }

    /// Fails if the database is an older one than was seen before, or another one. `known`: from
    /// before the statements whose answers are in question.
    pub fn expect(&self, conn: &mut Connection, known: i64) -> Result<()> {
        match find_now(conn)? {
            Some(found) if found.journal_id == self.id && found.last >= known => Ok(()),
            _ => Err(Error::Unavailable(
                "it is older than its journal of ends, or another one".into(),
            )),
        }
    }

    /// The file's changes after this number, without those that were rolled back.
    pub fn read_after(&self, last: i64) -> IoResult<Contents> {
        read_after(&self.path, last)
    }

    /// Numbers and writes what a transaction does, just before its COMMIT. If the file cannot be
    /// written, the change goes on nevertheless: a revocation must not fail.
    pub(super) fn before_commit(
        &self,
        conn: &mut Connection,
        entries: Vec<Value>,
    ) -> Result<ChangeId> {
        let known = self.known();
        let n: Option<i64> = diesel::update(ends_journal::table)
            .filter(ends_journal::journal_id.eq(&self.id))
            .set(ends_journal::last.eq(ends_journal::last + 1))
            .returning(ends_journal::last)
            .get_result(conn)
            .optional()?;
        let n = n.filter(|n| *n > known).ok_or_else(|| {
            Error::Unavailable("it is older than its journal of ends, or another one".into())
        })?;
        let at = clock::micros(&clock::now());
        self.append(&Line::Change { n, at, entries }, true);
        Ok(ChangeId { n, at })
    }

    pub(super) fn committed(&self, ChangeId { n, .. }: ChangeId) {
        self.knows(n);
        // Not synced: without this line, a change counts as one that was interrupted.
        self.append(&Line::Done(n), false);
    }

    pub(super) fn rolled_back(&self, ChangeId { n, at }: ChangeId) {
        self.append(&Line::Undone { n, at }, true);
    }

    /// Whether lines wait because the file cannot be written.
    pub fn is_failing(&self) -> bool {
        self.lock().is_failing
    }

    /// Tries again to write what could not be written.
    pub fn retry(&self) {
        let mut unwritten = self.lock();
        if unwritten.is_failing {
            self.write_out(&mut unwritten, true);
        }
    }

    /// Deletes the changes from before `since`.
    pub fn forget(&self, since: NaiveDateTime) -> IoResult<()> {
        let since = clock::micros(&since);
        let file = self.locked()?;
        let contents = read_from(BufReader::new(&file), 0)?;
        let kept = contents.changes.iter().find(|(_, c)| c.at >= since);
        let newest = contents.changes.last_key_value().map(|(n, _)| n + 1);
        let Some(from) = kept.map(|(n, _)| *n).or(newest) else {
            return Ok(());
        };
        if from <= contents.from {
            return Ok(());
        }
        let name = self.path.with_extension("new");
        let mut new = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&name)?;
        new.write_all(
            text(&Line::Journal {
                id: contents.id,
                from,
            })
            .as_bytes(),
        )?;
        for (n, change) in contents.changes.into_iter().filter(|(n, _)| *n >= from) {
            let Change {
                entries,
                is_done,
                at,
            } = change;
            new.write_all(text(&Line::Change { n, at, entries }).as_bytes())?;
            if is_done {
                new.write_all(text(&Line::Done(n)).as_bytes())?;
            }
        }
        new.sync_all()?;
        std::fs::rename(&name, &self.path)?;
        sync_folder(&self.path)
    }

    fn append(&self, line: &Line, sync: bool) {
        let mut unwritten = self.lock();
        unwritten.lines.push_back(text(line));
        if unwritten.lines.len() > MOST_UNWRITTEN {
            unwritten.lines.pop_front();
        }
        self.write_out(&mut unwritten, sync);
    }

    fn write_out(&self, unwritten: &mut Unwritten, sync: bool) {
        let lines: String = unwritten.lines.iter().map(String::as_str).collect();
        let path = self.path.display();
        match self.write(&lines, sync) {
            Ok(()) => {
                unwritten.lines.clear();
                if std::mem::take(&mut unwritten.is_failing) {
                    tracing::info!("the journal of ends {path} can be written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut unwritten.is_failing, true) {
                    tracing::error!(
                        %error,
                        "the journal of ends {path} cannot be written: keys that end now would work again after a restore; make room, or put the file back"
                    );
                }
            }
        }
    }

    fn write(&self, lines: &str, sync: bool) -> IoResult<()> {
        let mut file = self.locked()?;
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        // After a line that a crash cut off.
        let separator = if last == [b'\n'] { "" } else { "\n" };
        file.write_all(format!("{separator}{lines}").as_bytes())?;
        if sync { file.sync_data() } else { Ok(()) }
    }

    /// The file, which no other process can write or replace until it is closed.
    fn locked(&self) -> IoResult<File> {
        use std::os::unix::fs::MetadataExt;
        loop {
            let file = OpenOptions::new()
                .read(true)
                .append(true)
                .open(&self.path)?;
            file.lock()?;
            // It may have been replaced meanwhile.
            if file.metadata()?.ino() == std::fs::metadata(&self.path)?.ino() {
                return Ok(file);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a journal's file, with the changes after this number that were not rolled back.
/// `None`: there is no file.
pub fn read(path: &Path, last: i64) -> IoResult<Option<Contents>> {
    match read_after(path, last) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

fn read_after(path: &Path, last: i64) -> IoResult<Contents> {
    let file = File::open(path)?;
    file.lock_shared()?;
    read_from(BufReader::new(file), last)
}

fn read_from(file: impl BufRead, last: i64) -> IoResult<Contents> {
    let mut contents = Contents::default();
    for (number, line) in file.split(b'\n').enumerate() {
        let line = line?;
        let parsed = serde_json::from_slice(&line);
        match parsed {
            Ok(Line::Journal { id, from }) if number == 0 => {
                (contents.id, contents.from) = (id, from);
            }
            _ if contents.id.is_empty() => {
                let why = "it is not a journal of ends";
                return Err(std::io::Error::new(ErrorKind::InvalidData, why));
            }
            Ok(Line::Change { n, at, entries }) if n > last => {
                let is_done = false;
                contents.changes.insert(
                    n,
                    Change {
                        entries,
                        is_done,
                        at,
                    },
                );
            }
            Ok(Line::Done(n)) => {
                if let Some(change) = contents.changes.get_mut(&n) {
                    change.is_done = true;
                }
            }
            Ok(Line::Undone { n, at }) => {
                if contents.changes.get(&n).is_some_and(|c| c.at == at) {
                    contents.changes.remove(&n);
                }
            }
            Ok(_) => {}
            Err(_) if line.is_empty() => {}
            // Of a line that a crash cut off, nothing was committed.
            Err(_) => tracing::debug!(number, "a line of the journal of ends is cut off"),
        }
    }
    match contents.id.is_empty() {
        true => Err(std::io::Error::new(ErrorKind::InvalidData, "it is empty")),
        false => Ok(contents),
    }
}

fn text(line: &Line) -> String {
    serde_json::json!(line).to_string() + "\n"
}

fn sync_folder(path: &Path) -> IoResult<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

/// The instant before which changes are forgotten.
pub fn horizon(now: NaiveDateTime, days: i64) -> NaiveDateTime {
    now - TimeDelta::days(days)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(folder: &tempfile::TempDir) -> Arc<Journal> {
        let path = folder.path().join("ends");
        let id = Journal::create(&path).unwrap();
        Journal::open(&path, id, 0)
    }

    fn change(n: i64, at: i64) -> Line {
        let entries = vec![serde_json::json!({ "mark": n })];
        Line::Change { n, at, entries }
    }

    fn numbers(journal: &Journal, last: i64) -> Vec<(i64, bool)> {
        let changes = journal.read_after(last).unwrap().changes;
        let numbers = changes.iter().map(|(n, change)| (*n, change.is_done));
        numbers.collect()
    }

    #[test]
    fn what_was_rolled_back_or_cut_off_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder);
        let undone = |n, at| Line::Undone { n, at };
        for line in [change(1, 0), Line::Done(1), change(2, 0), undone(2, 0)] {
            journal.append(&line, true);
        }
        journal.append(&change(2, 0), true);
        assert_eq!(numbers(&journal, 0), [(1, true), (2, false)]);
        assert_eq!(numbers(&journal, 1), [(2, false)]);
        let mut file = OpenOptions::new()
            .append(true)
            .open(journal.path())
            .unwrap();
        file.write_all(b"{\"change\":{\"n\":3,").unwrap();
        journal.append(&change(3, 0), true);
        assert_eq!(numbers(&journal, 1), [(2, false), (3, false)]);
    }

    #[test]
    fn a_rollback_that_is_told_late_takes_nothing_from_who_got_the_number_next() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder);
        let undone = Line::Undone { n: 1, at: 7 };
        for line in [change(1, 7), change(1, 8), undone, Line::Done(1)] {
            journal.append(&line, true);
        }
        assert_eq!(numbers(&journal, 0), [(1, true)]);
    }

    #[test]
    fn old_changes_are_forgotten_and_later_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder);
        for n in 1..=4 {
            journal.append(&change(n, n), true);
            journal.append(&Line::Done(n), false);
        }
        journal.forget(clock::from_micros(3)).unwrap();
        let left = journal.read_after(0).unwrap();
        assert_eq!((left.id.as_str(), left.from), (journal.id(), 3));
        assert_eq!(numbers(&journal, 0), [(3, true), (4, true)]);
        journal.append(&change(5, 5), true);
        journal.forget(clock::from_micros(9)).unwrap();
        assert_eq!(journal.read_after(0).unwrap().from, 6);
    }

    #[test]
    fn what_cannot_be_written_is_written_later_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let journal = journal(&folder);
        let away = folder.path().join("away");
        std::fs::rename(journal.path(), &away).unwrap();
        journal.append(&change(1, 0), true);
        assert!(journal.is_failing());
        journal.append(&change(2, 0), true);
        std::fs::rename(&away, journal.path()).unwrap();
        journal.retry();
        assert!(!journal.is_failing());
        assert_eq!(numbers(&journal, 0), [(1, false), (2, false)]);
    }
}
