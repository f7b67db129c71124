//! Values that only the database knows. They are read on a thread of their own, over a connection of
//! their own, so that a scrape never waits for a database, and no page for a scrape.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::db::{self, Connection, Db, clock_watch};
use crate::outbox::store::{self as outbox_store, Waiting};

/// How often they are read.
const EVERY: Duration = Duration::from_secs(10);
/// How often it is tried while the database is away.
const RETRY: Duration = Duration::from_secs(2);
/// A database that takes longer counts as away.
const PATIENCE: Duration = Duration::from_secs(3);
/// Undelivered emails are counted up to here, so that a scrape costs the same however many there
/// are.
const MOST_WAITING: i64 = 100_000;

#[derive(Debug, Clone, PartialEq)]
pub struct Known {
    pub waiting: Waiting,
    pub database_bytes: i64,
    pub is_clock_in_doubt: bool,
}

/// The latest values.
#[derive(Default)]
pub struct Figures(Mutex<State>);

#[derive(Default)]
struct State {
    /// While the database is being asked.
    asked: Option<Instant>,
    known: Option<Known>,
}

impl Figures {
    /// `None`: the database does not answer.
    pub fn known(&self) -> Option<Known> {
        let state = self.lock();
        let is_stuck = state.asked.is_some_and(|asked| asked.elapsed() >= PATIENCE);
        state.known.clone().filter(|_| !is_stuck)
    }

    /// Reads until `stop` is dropped.
    pub fn keep_reading(&self, db: &Db, stop: &Receiver<()>) {
        let mut conn = None;
        loop {
            self.lock().asked = Some(Instant::now());
            let read = read(db, &mut conn);
            if read.is_err() {
                conn = None;
            }
            let pause = if read.is_ok() { EVERY } else { RETRY };
            *self.lock() = State {
                asked: None,
                known: read.ok(),
            };
            if stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(db: &Db, conn: &mut Option<Connection>) -> db::Result<Known> {
    let conn = match conn {
        Some(conn) => conn,
        none => none.insert(db.connect()?),
    };
    Ok(Known {
        waiting: outbox_store::count_waiting_of_any_account(conn, MOST_WAITING)?,
        database_bytes: db::size(conn)?,
        is_clock_in_doubt: clock_watch::find_doubt(conn)?.is_some(),
    })
}
