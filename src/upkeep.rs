//! What the server does by itself: it writes down the end of keys whose time is over and how many
//! emails an hour had, and forgets what is old. Any number of nodes may do it at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use chrono::{NaiveDateTime, TimeDelta};

use crate::accounts::store::{AccountId, events};
use crate::clock;
use crate::config::Config;
use crate::db::{self, Db};
use crate::keys::store;
use crate::mail::store as mail_store;

const TICK: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Keys that are looked up at a time.
const KEYS: i64 = 1_000;
/// Rows that go in one transaction: who changes something on a page waits for no more than that.
const ROWS: i64 = 1_000;
/// Hours of emails that are counted at a time, of a database in which none ever were.
const HOURS: usize = 100;
/// Contents of emails that go in one transaction: each may have 16 MB.
const CONTENTS: i64 = 50;

/// Goes on until `stop` is dropped.
pub fn run(db: &Db, config: &Config, stop: &Receiver<()>) {
    let upkeep = Upkeep {
        db,
        config,
        since: clock::now(),
        stop,
    };
    let (mut quiet_at, mut count_at, mut forget_at) =
        (Instant::now(), Instant::now(), Instant::now());
    let mut is_failing = false;
    loop {
        let mut done = upkeep.end_due();
        if done.is_ok() && Instant::now() >= quiet_at {
            quiet_at = Instant::now() + MINUTE;
            done = upkeep.end_quiet();
        }
        if done.is_ok() && Instant::now() >= count_at {
            let counted = upkeep.count_emails();
            if !matches!(counted, Ok(HOURS)) {
                count_at = Instant::now() + MINUTE;
            }
            done = counted.map(drop);
        }
        if done.is_ok() && Instant::now() >= forget_at {
            forget_at = Instant::now() + HOUR;
            done = upkeep.forget();
        }
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

struct Upkeep<'a> {
    db: &'a Db,
    config: &'a Config,
    /// When this server began: before, nobody may have been able to call.
    since: NaiveDateTime,
    stop: &'a Receiver<()>,
}

impl Upkeep<'_> {
    /// Reads first: SQLite has one writer, who is not to be taken up every second for nothing.
    fn end_due(&self) -> db::Result<()> {
        let due = |conn: &mut _| store::find_due_of_any_account(conn, KEYS);
        self.end(self.db.read_blocking(due)?)
    }

    fn end_quiet(&self) -> db::Result<()> {
        let waiting = self.db.read_blocking(store::find_quiet_of_any_account)?;
        self.end(waiting)
    }

    /// Each in a transaction of its own, so that nobody waits for many; one that cannot end keeps
    /// no other from it.
    fn end(&self, keys: Vec<(AccountId, i64)>) -> db::Result<()> {
        let mut failed = None;
        for (account, id) in keys {
            if self.is_told() {
                break;
            }
            let end = |conn: &mut _| store::end_if_due(conn, account, id, self.since);
            match self.db.write_blocking(end) {
                Ok(_) => {}
                Err(error @ db::Error::Unavailable(_)) => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Gives how many hours were counted.
    fn count_emails(&self) -> db::Result<usize> {
        for counted in 0..HOURS {
            let hour = match self.is_told() {
                true => None,
                false => self.db.read_blocking(store::find_hour_of_any_account)?,
            };
            let Some(hour) = hour else {
                return Ok(counted);
            };
            let write = |conn: &mut _| store::write_hour_of_any_account(conn, &hour);
            self.db.write_blocking(write)?;
        }
        Ok(HOURS)
    }

    fn forget(&self) -> db::Result<()> {
        let before = clock::now() - TimeDelta::days(self.config.activity_days);
        let ended_before = clock::now() - TimeDelta::days(self.config.retention_days);
        let hashes = self.repeat(|conn| store::forget_ended_of_any_account(conn, ROWS));
        let calls = self.repeat(|conn| store::forget_calls_of_any_account(conn, ROWS));
        let events = self.repeat(|conn| events::forget_of_any_account(conn, before, ROWS));
        let contents = self
            .repeat(|conn| mail_store::forget_content_of_any_account(conn, ended_before, CONTENTS));
        hashes.and(calls).and(events).and(contents)
    }

    /// Until nothing is left to forget.
    fn repeat(&self, forget: impl Fn(&mut db::Connection) -> db::Result<usize>) -> db::Result<()> {
        while !self.is_told() && self.db.write_blocking(&forget)? > 0 {}
        Ok(())
    }

    fn is_told(&self) -> bool {
        self.stop.try_recv() != Err(TryRecvError::Empty)
    }
}
