//! What the server does by itself: it writes down the end of keys whose time is over, and forgets
//! what is old. Any number of nodes may do it at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use chrono::TimeDelta;

use crate::accounts::store::events;
use crate::clock;
use crate::db::{self, Db};
use crate::keys::store;

const TICK: Duration = Duration::from_secs(1);
/// How often what is old is forgotten.
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Keys that end in one transaction, and rows that go in one: who changes something on a page
/// waits for no more than that.
const KEYS: i64 = 100;
const ROWS: i64 = 1_000;

/// Goes on until `stop` is dropped.
pub fn run(db: &Db, activity_days: i64, stop: &Receiver<()>) {
    let mut forget_at = Instant::now();
    let mut is_failing = false;
    loop {
        let done = end_due(db, stop).and_then(|()| {
            if Instant::now() >= forget_at {
                forget(db, activity_days, stop)?;
                forget_at = Instant::now() + HOUR;
            }
            Ok(())
        });
        match (&done, is_failing) {
            (Err(error), false) => tracing::error!(%error, "the upkeep fails, and is tried again"),
            (Ok(()), true) => tracing::info!("the upkeep works again"),
            _ => {}
        }
        is_failing = done.is_err();
        if stop.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

/// Reads first: SQLite has one writer, who is not to be taken up every second for nothing.
fn end_due(db: &Db, stop: &Receiver<()>) -> db::Result<()> {
    while !is_told(stop) && db.read_blocking(store::has_due_of_any_account)? {
        let ended = db.write_blocking(|conn| store::end_due_of_any_account(conn, KEYS))?;
        if ended == 0 {
            break;
        }
    }
    Ok(())
}

fn forget(db: &Db, activity_days: i64, stop: &Receiver<()>) -> db::Result<()> {
    db.write_blocking(store::forget_ended_of_any_account)?;
    let before = clock::now() - TimeDelta::days(activity_days);
    repeat(stop, || {
        db.write_blocking(|conn| events::forget_of_any_account(conn, before, ROWS))
    })?;
    repeat(stop, || {
        db.write_blocking(|conn| store::forget_calls_of_any_account(conn, ROWS))
    })
}

/// Until nothing is left to forget.
fn repeat(stop: &Receiver<()>, forget: impl Fn() -> db::Result<usize>) -> db::Result<()> {
    while !is_told(stop) && forget()? > 0 {}
    Ok(())
}

fn is_told(stop: &Receiver<()>) -> bool {
    stop.try_recv() != Err(TryRecvError::Empty)
}
