//! The server's background chores: it records the end of expired keys, counts the emails of each
//! hour, and deletes old data. Any number of nodes may do this at once.

use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use chrono::{NaiveDateTime, TimeDelta};

use crate::accounts::store::{AccountId, events, sessions};
use crate::clock;
use crate::config::Config;
use crate::db::clock_watch::{self, ClockChange};
use crate::db::{self, Db, journal, space};
use crate::domains::store as domains_store;
use crate::keys::store;
use crate::keys::usage::store as usage_store;
use crate::logging::Outage;
use crate::mail::{store as mail_store, worker};
use crate::outbox::store as outbox_store;
use crate::recovery;

const TICK: Duration = Duration::from_secs(1);
/// How often the clock is compared with the time recorded in the database.
const WATCH: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// Keys looked up at a time.
const KEYS: i64 = 1_000;
/// Rows deleted per transaction, so that a change on a page waits for no more than that.
const ROWS: i64 = 1_000;
/// Hours of emails counted at a time, in a database where none have been counted yet.
const HOURS: usize = 100;
/// Contents of emails deleted per transaction: each may have 16 MB.
const CONTENTS: i64 = 50;
/// Rows of emails deleted per transaction: each is in ten indexes.
const EMAILS: i64 = 100;
/// Pages of SQLite's file given back to the disk per transaction.
const PAGES: i64 = 100;
/// How long rows of emails are deleted, and space is given back, before other chores have their turn.
const STINT: Duration = Duration::from_secs(2);
/// The pause after such a transaction: as long as the transaction took, and at least this. Otherwise
/// this thread could take SQLite's only writing connection again and again.
const SHORTEST_REST: Duration = Duration::from_millis(5);

/// Runs until `stop` is dropped.
pub fn run(db: &Db, config: &Config, stop: &Receiver<()>) {
    let mut upkeep = Upkeep {
        db,
        config,
        since: clock::now(),
        watched: None,
        stop,
    };
    let now = Instant::now();
    let mut check_at = now;
    let (mut watch_at, mut quiet_at, mut count_at, mut forget_at) = (now, now, now, now);
    let mut emails_at = now;
    let mut outage = Outage::default();
    loop {
        // Which says so itself.
        if db.check_place().is_err() {
            match stop.recv_timeout(TICK) {
                Err(RecvTimeoutError::Timeout) => continue,
                _ => return,
            }
        }
        let mut done = recovery::watch(db);
        if done.is_ok() && (Instant::now() >= check_at || db.write_fault().is_some()) {
            check_at = Instant::now() + MINUTE;
            done = db.check_writes();
        }
        if done.is_ok() && Instant::now() >= watch_at {
            watch_at = Instant::now() + WATCH;
            done = upkeep.watch_clock();
        }
        if done.is_ok() {
            done = upkeep.end_due();
        }
        if done.is_ok() && Instant::now() >= quiet_at {
            quiet_at = Instant::now() + MINUTE;
            done = upkeep.end_quiet().and(upkeep.pull_back());
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
        if done.is_ok() && Instant::now() >= emails_at {
            let has_more = upkeep.forget_emails();
            if !matches!(has_more, Ok(true)) {
                emails_at = Instant::now() + HOUR;
            }
            done = has_more.map(drop);
        }
        match &done {
            Err(error) => {
                if let Some(times) = outage.goes_on() {
                    tracing::error!(%error, times, "the upkeep fails, and is tried again");
                }
            }
            Ok(()) if outage.ends() => tracing::info!("the upkeep works again"),
            Ok(()) => {}
        }
        if stop.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}

struct Upkeep<'a> {
    db: &'a Db,
    config: &'a Config,
    /// When this server started: before that, possibly no server was accepting calls.
    since: NaiveDateTime,
    /// When the clock was last compared, as time since the machine's boot.
    watched: Option<Duration>,
    stop: &'a Receiver<()>,
}

impl Upkeep<'_> {
    fn watch_clock(&mut self) -> db::Result<()> {
        let since_boot = clock::since_boot();
        let ran = self.watched.map(|before| since_boot.saturating_sub(before));
        let ran = ran.map(|ran| TimeDelta::from_std(ran).unwrap_or(TimeDelta::MAX / 2));
        let watch = |conn: &mut _| clock_watch::watch(conn, ran);
        let change = self.db.write_blocking(watch)?;
        let is_first = self.watched.replace(since_boot).is_none();
        let doubt = match change {
            Some(ClockChange::Doubted(doubt)) => Some(doubt),
            None if is_first => self.db.read_blocking(clock_watch::find_doubt)?,
            Some(ClockChange::InLineAgain | ClockChange::Accepted) => {
                tracing::info!("the clock is trusted again");
                self.since = clock::now();
                self.db.write_blocking(|conn| {
                    usage_store::pull_back_uses_of_any_account(conn)?;
                    sessions::pull_back_of_any_account(conn)
                })?;
                None
            }
            None => None,
        };
        if let Some(doubt) = doubt {
            tracing::warn!("{doubt}");
        }
        Ok(())
    }

    /// Corrects what a wrong clock put off.
    fn pull_back(&self) -> db::Result<()> {
        let emails = self.db.write_blocking(worker::pull_back)?;
        let domains = self
            .db
            .write_blocking(domains_store::pull_back_of_any_account)?;
        if emails + domains > 0 {
            tracing::info!(emails, domains, "what a wrong clock had put off is due now");
        }
        Ok(())
    }

    /// Reads first: SQLite has a single writer, which must not be occupied every second for
    /// nothing.
    fn end_due(&self) -> db::Result<()> {
        let due = |conn: &mut _| store::find_due_of_any_account(conn, KEYS);
        self.end(self.db.read_blocking(due)?)
    }

    fn end_quiet(&self) -> db::Result<()> {
        let waiting = self.db.read_blocking(store::find_quiet_of_any_account)?;
        self.end(waiting)
    }

    /// Ends each key in its own transaction, so that no other writer waits for many; a key that
    /// cannot be ended does not hold up the others.
    fn end(&self, keys: Vec<(AccountId, i64)>) -> db::Result<()> {
        let mut failed = None;
        for (account, id) in keys {
            if self.is_told() {
                break;
            }
            let end = |conn: &mut _| store::end_if_due(conn, account, id, self.since);
            match self.db.write_blocking(end) {
                Ok(_) => {}
                Err(error @ (db::Error::Unavailable(_) | db::Error::DiskFull(_))) => {
                    return Err(error);
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Returns how many hours were counted.
    fn count_emails(&self) -> db::Result<usize> {
        let is_ahead = self
            .db
            .read_blocking(outbox_store::is_counted_ahead_of_any_account)?;
        if is_ahead
            && self
                .db
                .write_blocking(outbox_store::recount_of_any_account)?
        {
            tracing::warn!("emails are counted anew: a wrong clock had led the counts astray");
        }
        for counted in 0..HOURS {
            let hour = match self.is_told() {
                true => None,
                false => self
                    .db
                    .read_blocking(outbox_store::find_hour_of_any_account)?,
            };
            let Some(hour) = hour else {
                return Ok(counted);
            };
            let write = |conn: &mut _| outbox_store::write_hour_of_any_account(conn, &hour);
            self.db.write_blocking(write)?;
        }
        Ok(HOURS)
    }

    fn forget(&self) -> db::Result<()> {
        recovery::mark(self.db)?;
        self.forget_journal();
        let (activity_days, retention_days) =
            (self.config.activity_days, self.config.retention_days);
        let hashes = self.repeat(|conn| store::forget_ended_of_any_account(conn, ROWS));
        let calls = self.repeat(|conn| usage_store::forget_calls_of_any_account(conn, ROWS));
        let events = self.repeat(|conn| events::forget_of_any_account(conn, activity_days, ROWS));
        let contents = self.repeat(|conn| {
            mail_store::forget_content_of_any_account(conn, retention_days, CONTENTS)
        });
        hashes.and(calls).and(events).and(contents)
    }

    /// A failure is no reason to stop the rest.
    fn forget_journal(&self) {
        let trusted = self
            .db
            .read_blocking(|conn| Ok::<_, db::Error>(db::trusted_now(conn)?));
        if let (Some(journal), Ok(Some(now))) = (self.db.journal(), trusted) {
            let since = journal::horizon(now, self.config.journal_days);
            if let Err(error) = journal.forget(since) {
                tracing::warn!(%error, "the journal of ends cannot be shortened");
            }
        }
    }

    /// Deletes old rows of emails, and then gives back space, for a while. Returns whether there is
    /// more to do.
    fn forget_emails(&self) -> db::Result<bool> {
        let end = Instant::now() + STINT;
        while Instant::now() < end && !self.is_told() {
            let started = Instant::now();
            if !self.forget_some_emails()? && !self.give_back_some_space()? {
                return Ok(false);
            }
            let rest = started.elapsed().max(SHORTEST_REST);
            let _ = self.stop.recv_timeout(rest);
        }
        Ok(true)
    }

    /// Returns whether there were any.
    fn forget_some_emails(&self) -> db::Result<bool> {
        let days = self.config.email_days;
        let find = |conn: &mut _| mail_store::find_old_of_any_account(conn, days, EMAILS);
        let old = self.db.read_blocking(find)?;
        if old.is_empty() {
            return Ok(false);
        }
        let forget = |conn: &mut _| mail_store::forget_of_any_account(conn, &old);
        Ok(self.db.write_blocking(forget)? > 0)
    }

    /// Returns whether there was any.
    fn give_back_some_space(&self) -> db::Result<bool> {
        let spare = self.db.read_blocking(space::count_spare)?;
        if spare > 0 {
            let give_back = |conn: &mut _| space::give_back(conn, spare.min(PAGES));
            self.db.write_blocking(give_back)?;
        }
        Ok(spare > 0)
    }

    /// Repeats until nothing is left to delete.
    fn repeat(&self, forget: impl Fn(&mut db::Connection) -> db::Result<usize>) -> db::Result<()> {
        while !self.is_told() && self.db.write_blocking(&forget)? > 0 {}
        Ok(())
    }

    fn is_told(&self) -> bool {
        self.stop.try_recv() != Err(TryRecvError::Empty)
    }
}
