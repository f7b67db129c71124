//! The journal of ends: a file outside the database with every change that narrows what a key may do,
//! or takes such a change back. An older copy of the database learns from it what ended since.
//!
//! A change is numbered, written here and synced before its COMMIT, and confirmed afterwards. This
//! module knows how the file is kept; what a change says is up to those who [`note`] it.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{
    BufReader, Error as IoError, ErrorKind, Read, Result as IoResult, Seek, SeekFrom, Write,
};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::NaiveDateTime;
use diesel::prelude::*;
use rustix::fs::{Access, access};
use serde::Serialize;
use serde_json::Value;

use super::journal_lines::{self as lines, Line};
use super::{Connection, Error, Purpose, Result, has_column, serialize};
use crate::schema::{ends_journal, ends_unwritten};
use crate::{clock, token};

pub use super::journal_lines::{Contents, Damage, JournalChange};

const THE_ROW: i64 = 1;
/// Lines about commits and rollbacks that are kept in memory while the file cannot be written. A change
/// whose line is lost counts as one that was interrupted.
const MOST_WAITING: usize = 10_000;
/// Changes that could not be written, written later at a time.
const MOST_AT_ONCE: i64 = 1_000;
/// Read at a time to find the end of the last line.
const BLOCK: u64 = 4096;

/// Identifies a change.
#[derive(Debug, Clone, Copy)]
pub(super) struct ChangeId {
    n: i64,
    at: i64,
    /// Whether it is in the file.
    is_written: bool,
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
    waiting: Mutex<Waiting>,
}

/// What is written as soon as the file can be.
#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<String>,
    is_failing: bool,
}

/// A change that was committed while the file could not be written.
#[derive(Debug, Queryable)]
pub(super) struct Unwritten {
    n: i64,
    line: String,
}

impl Unwritten {
    fn at(&self) -> Option<i64> {
        match serde_json::from_str(&self.line) {
            Ok(Line::Change { n, at, .. }) if n == self.n => Some(at),
            _ => None,
        }
    }
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

/// The same as two values of another statement, so that it holds for the same moment.
#[diesel::dsl::auto_type]
pub fn belonging_as_values() -> _ {
    let id = ends_journal::table.select(ends_journal::journal_id);
    let last = ends_journal::table.select(ends_journal::last);
    (id.single_value(), last.single_value())
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
    diesel::delete(ends_unwritten::table).execute(conn)?;
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

/// The numbers and instants of the changes that could not be written to the file yet; none before the
/// tables are up to date.
pub fn find_unwritten(conn: &mut Connection) -> Result<BTreeMap<i64, i64>> {
    if !has_column(conn, "ends_unwritten", "line")? {
        return Ok(BTreeMap::new());
    }
    let rows: Vec<Unwritten> = ends_unwritten::table.load(conn)?;
    let known = rows.iter().filter_map(|row| Some((row.n, row.at()?)));
    Ok(known.collect())
}

/// Writes them to the journal in this file. Returns which journal belongs to the database.
///
/// # Errors
/// If the database fails; what cannot be written stays where it is.
pub(super) fn write_out(conn: &mut Connection, path: &Path) -> Result<Option<Belonging>> {
    let belonging = find(conn)?;
    if let Some(Belonging { journal_id, last }) = belonging.clone()
        && !find_unwritten(conn)?.is_empty()
    {
        let rows: Vec<Unwritten> = ends_unwritten::table.order(ends_unwritten::n).load(conn)?;
        // The failure is logged.
        let _ = Journal::open(path, journal_id, last).write_late(&rows);
    }
    Ok(belonging)
}

/// The first of them.
pub(super) fn list_unwritten(conn: &mut Connection) -> Result<Vec<Unwritten>> {
    let rows = ends_unwritten::table
        .order(ends_unwritten::n)
        .limit(MOST_AT_ONCE);
    Ok(rows.load(conn)?)
}

/// Deletes those that are in the file now.
pub(super) fn forget_unwritten(conn: &mut Connection, rows: &[Unwritten]) -> Result<()> {
    let numbers = rows.iter().map(|row| row.n);
    let written = ends_unwritten::table.filter(ends_unwritten::n.eq_any(numbers));
    diesel::delete(written).execute(conn)?;
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
        file.write_all(line.text().as_bytes())?;
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
            waiting: Mutex::default(),
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
        self.compare(find_now(conn)?.as_ref(), known)
    }

    /// The same with what was found in the database, after `known` was.
    pub fn compare(&self, found: Option<&Belonging>, known: i64) -> Result<()> {
        match found {
            Some(found) if found.journal_id == self.id && found.last >= known => Ok(()),
            _ => Err(Error::Unavailable(
                "it is older than its journal of ends, or another one".into(),
            )),
        }
    }

    /// The content of the file, with the entries of the changes after this number.
    pub fn read_after(&self, last: i64) -> IoResult<Contents> {
        read_after(&self.path, last)
    }

    /// Numbers and writes what a transaction does, just before its COMMIT. If the file cannot be
    /// written, the database keeps it until then: a revocation must not fail.
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
        let line = Line::Change { n, at, entries }.text();
        let is_written = self.write_out(&mut self.lock(), &line, true).is_ok();
        if !is_written {
            diesel::insert_into(ends_unwritten::table)
                .values((ends_unwritten::n.eq(n), ends_unwritten::line.eq(line)))
                .execute(conn)?;
        }
        Ok(ChangeId { n, at, is_written })
    }

    pub(super) fn committed(&self, ChangeId { n, is_written, .. }: ChangeId) {
        self.knows(n);
        if is_written {
            // Not synced: without this line, a change counts as one that was interrupted.
            self.append(&Line::Done(n), false);
        }
    }

    pub(super) fn rolled_back(&self, ChangeId { n, at, .. }: ChangeId) {
        self.append(&Line::Undone { n, at }, true);
    }

    /// Whether something waits because the file cannot be written.
    pub fn is_failing(&self) -> bool {
        self.lock().is_failing
    }

    /// Tries again to write what could not be written.
    pub(super) fn retry(&self) {
        let mut waiting = self.lock();
        if waiting.is_failing || !waiting.lines.is_empty() {
            // The failure is logged, and remembered.
            let _ = self.write_out(&mut waiting, "", true);
        }
    }

    /// Writes changes that were committed while the file could not be written.
    pub(super) fn write_late(&self, rows: &[Unwritten]) -> IoResult<()> {
        let mut waiting = self.lock();
        let lines = self.late_lines(rows);
        let written = lines.and_then(|lines| self.write(&lines, true));
        self.note(&mut waiting, &written);
        written
    }

    /// Without those that are there, or were forgotten, already.
    fn late_lines(&self, rows: &[Unwritten]) -> IoResult<String> {
        let found = self.read_after(i64::MAX)?;
        let unwritten = rows.iter().filter_map(|row| Some((row.n, row.at()?)));
        let numbers: BTreeMap<i64, i64> = unwritten.collect();
        found.check_places(&numbers).map_err(damaged)?;
        let lacks = |n: &i64| *n >= found.from && !found.changes.get(n).is_some_and(|c| c.is_done);
        let missing = rows.iter().filter(|row| lacks(&row.n));
        Ok(missing
            .map(|row| row.line.clone() + &Line::Done(row.n).text())
            .collect())
    }

    /// Deletes the changes from before `since`.
    pub fn forget(&self, since: NaiveDateTime) -> IoResult<()> {
        let since = clock::micros(&since);
        let file = self.locked()?;
        let contents = lines::read_from(BufReader::new(&file), 0)?;
        // Otherwise nothing would show that lines were lost.
        contents.check_lines().map_err(damaged)?;
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
        let head = Line::Journal {
            id: contents.id,
            from,
        };
        new.write_all(head.text().as_bytes())?;
        for (n, change) in contents.changes.into_iter().filter(|(n, _)| *n >= from) {
            let JournalChange {
                entries,
                is_done,
                at,
                ..
            } = change;
            new.write_all(Line::Change { n, at, entries }.text().as_bytes())?;
            if is_done {
                new.write_all(Line::Done(n).text().as_bytes())?;
            }
        }
        new.sync_all()?;
        std::fs::rename(&name, &self.path)?;
        sync_folder(&self.path)
    }

    fn append(&self, line: &Line, sync: bool) {
        let mut waiting = self.lock();
        waiting.lines.push_back(line.text());
        if waiting.lines.len() > MOST_WAITING {
            waiting.lines.pop_front();
        }
        // The failure is logged, and remembered.
        let _ = self.write_out(&mut waiting, "", sync);
    }

    /// Writes what waits, and then this line, which does not wait if that fails.
    fn write_out(&self, waiting: &mut Waiting, line: &str, sync: bool) -> IoResult<()> {
        let all = waiting.lines.iter().map(String::as_str);
        let all: String = all.chain([line]).collect();
        let written = self.write(&all, sync);
        if written.is_ok() {
            waiting.lines.clear();
        }
        self.note(waiting, &written);
        written
    }

    fn note(&self, waiting: &mut Waiting, written: &IoResult<()>) {
        let path = self.path.display();
        match written {
            Ok(()) => {
                if std::mem::take(&mut waiting.is_failing) {
                    tracing::info!("the journal of ends {path} can be written again");
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut waiting.is_failing, true) {
                    tracing::error!(
                        %error,
                        "the journal of ends {path} cannot be written: until it can, only the database knows which keys end, and after a restore they would work again; make room, or put the file back"
                    );
                }
            }
        }
    }

    fn write(&self, lines: &str, sync: bool) -> IoResult<()> {
        let mut file = self.locked()?;
        if lines::read_id(BufReader::new(&file))? != self.id {
            return Err(damaged("it is another journal"));
        }
        end_last_line(&mut file)?;
        file.write_all(lines.as_bytes())?;
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

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The content of a journal's file, with the entries of the changes after this number. `None`: there is
/// no file.
pub fn read(path: &Path, last: i64) -> IoResult<Option<Contents>> {
    match read_after(path, last) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Whether this user may write the journal in this file.
///
/// # Errors
/// One sentence.
pub fn check_access(path: &Path) -> std::result::Result<(), String> {
    access(path, Access::READ_OK | Access::WRITE_OK).map_err(|error| {
        let (path, error) = (path.display(), IoError::from(error));
        format!("the journal of ends {path} may not be written: {error}; give it to the user of the server with chown")
    })
}

fn read_after(path: &Path, last: i64) -> IoResult<Contents> {
    let file = File::open(path)?;
    file.lock_shared()?;
    lines::read_from(BufReader::new(file), last)
}

fn damaged(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> IoError {
    IoError::new(ErrorKind::InvalidData, why)
}

/// Cuts off a line that was not written to its end: of that, nothing was committed. A line of which only
/// the end of the line is missing is kept.
fn end_last_line(file: &mut File) -> IoResult<()> {
    let length = file.seek(SeekFrom::End(0))?;
    let (mut tail, mut start) = (Vec::new(), length);
    while start > 0 && !tail.contains(&b'\n') {
        let before = start.saturating_sub(BLOCK);
        let mut block = vec![0; (start - before) as usize];
        file.seek(SeekFrom::Start(before))?;
        file.read_exact(&mut block)?;
        block.append(&mut tail);
        (tail, start) = (block, before);
    }
    let torn = tail.rsplit(|byte| *byte == b'\n').next();
    let torn = torn.unwrap_or_default();
    match serde_json::from_slice::<Line>(torn) {
        Ok(_) => file.write_all(b"\n"),
        Err(_) if torn.is_empty() => Ok(()),
        Err(_) => file.set_len(length - torn.len() as u64),
    }
}

fn sync_folder(path: &Path) -> IoResult<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
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
        let contents = journal.read_after(last).unwrap();
        let numbers = contents.after(last).map(|(n, change)| (n, change.is_done));
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
