//! What has changed that can alter whether a key works, or for what. The database itself records it, by
//! triggers, in the transaction that makes the change. A reader that has seen all changes up to a number
//! learns with one small query whether there are more.

mod query;
mod triggers;

use chrono::NaiveDateTime;
use diesel::prelude::*;

use self::query::{MOST, Row, Since};
use super::journal::Belonging;
use super::{Connection, Purpose, Result, serialize};
use crate::clock;
use crate::schema::verdict_changes;

pub use triggers::make_way;

/// Stands in the place of an account: the keys of all accounts.
const EVERY_ACCOUNT: i64 = 0;

/// The last change that a reader has seen. The mark is random, so that another database, or an older copy
/// that has moved on since, is told from this one although the number fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub n: i64,
    pub mark: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub position: Position,
    /// Whose keys; `None`: those of all accounts.
    pub account_id: Option<i64>,
}

/// The answer to one question, as of one moment.
#[derive(Debug)]
pub struct Changes {
    /// From the reader's position on, which is the first one as long as the database is what it was; or
    /// only the newest one.
    pub rows: Vec<Change>,
    /// Whether there are no more.
    pub are_all: bool,
    /// Whether all triggers are in place, so that every change is recorded.
    pub are_recorded: bool,
    /// By the clock that decides when keys end: PostgreSQL's, or this machine's with SQLite.
    pub now: NaiveDateTime,
    /// Which journal of ends belongs to the database.
    pub journal: Option<Belonging>,
}

/// Reads changes on one connection, and notices when they are no longer recorded.
#[derive(Debug)]
pub struct Reader {
    /// What every question must find again ([`triggers::schema`]).
    schema: i64,
}

impl Reader {
    /// `None`: not every change is recorded, because a trigger is missing, altered or disabled.
    pub fn begin(conn: &mut Connection) -> Result<Option<Self>> {
        let schema = triggers::schema(conn)?;
        Ok(triggers::are_in_place(conn)?.then_some(Self { schema }))
    }

    /// The changes from this position on, in one statement; a second one if there are none.
    pub fn read(&self, conn: &mut Connection, since: Option<&Position>) -> Result<Changes> {
        let since = Since(since.map_or(i64::MAX, |since| since.n));
        let rows: Vec<Row> = match conn {
            Connection::Postgres(conn) => since.load(conn)?,
            Connection::Sqlite(conn) => since.load(conn)?,
        };
        let mut changes = self.gather(rows);
        if changes.rows.is_empty() {
            changes.rows.extend(newest(conn)?);
        }
        Ok(changes)
    }

    fn gather(&self, found: Vec<Row>) -> Changes {
        let mut changes = Changes {
            rows: Vec::with_capacity(found.len()),
            are_all: found.len() <= MOST,
            are_recorded: false,
            now: clock::now(),
            journal: None,
        };
        for (row, journal, schema, now) in found {
            changes.are_recorded = schema == self.schema;
            changes.now = now.unwrap_or(changes.now);
            if let (Some(journal_id), Some(last)) = journal {
                changes.journal = Some(Belonging { journal_id, last });
            }
            if let (Some(n), Some(mark), Some(account_id)) = row {
                changes.rows.push(Change {
                    position: Position { n, mark },
                    account_id: Some(account_id).filter(|id| *id != EVERY_ACCOUNT),
                });
            }
        }
        changes
    }
}

/// The last change.
pub fn newest(conn: &mut Connection) -> Result<Option<Change>> {
    let newest: Option<(i64, Vec<u8>, i64)> = verdict_changes::table
        .order(verdict_changes::n.desc())
        .first(conn)
        .optional()?;
    Ok(newest.map(|(n, mark, account_id)| Change {
        position: Position { n, mark },
        account_id: Some(account_id).filter(|id| *id != EVERY_ACCOUNT),
    }))
}

/// Puts all triggers in place, unless they are, and records then that everything may have changed: nobody
/// knows what happened without them. The tables must be up to date.
pub fn install(conn: &mut Connection) -> Result<()> {
    if triggers::are_in_place(conn)? {
        return Ok(());
    }
    triggers::apply(conn)?;
    record_all(conn)
}

/// Records that everything may have changed.
fn record_all(conn: &mut Connection) -> Result<()> {
    serialize(conn, Purpose::VerdictChanges)?;
    let n = newest(conn)?.map_or(0, |newest| newest.position.n) + 1;
    diesel::insert_into(verdict_changes::table)
        .values((
            verdict_changes::n.eq(n),
            verdict_changes::mark.eq(rand::random::<[u8; 8]>().to_vec()),
            verdict_changes::account_id.eq(EVERY_ACCOUNT),
        ))
        .execute(conn)?;
    Ok(())
}
