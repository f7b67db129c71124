//! When, from where and by which client each key was last used, and how many calls were made with
//! it. The data is gathered in memory and written in batches, so requests never wait for it. A
//! crash loses the last few seconds.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DurationRound, NaiveDateTime, TimeDelta};

use super::outcome::Outcome;
use super::store;
use super::tally::{Calls, RefusedKey, Use};
use crate::clock;
use crate::db::{self, Db};
use crate::http::keep_user_agent;
use crate::keys::secret::KeyHash;
use crate::metrics::Metrics;

const TICK: Duration = Duration::from_secs(1);
/// With up to this many keys in use, their uses are written at every tick; with more, at every
/// tenth, so that a busy server spends little time on it.
const FEW: usize = 1_000;
const TICKS_OF_MANY: u32 = 10;
/// Counts are written at every fifth tick, because no request waits for them.
const TICKS_OF_CALLS: u32 = 5;
/// Keys remembered between two writes. A use of a further key shows after the next write.
const MOST: usize = 200_000;
/// Counts remembered while they cannot be written, besides one for each of those keys.
const MOST_COUNTS: usize = 400_000;
/// Keys that do not work, or never existed, remembered between two writes.
const MOST_REFUSED: usize = 10_000;
/// Uses written per transaction: a change on a page waits for no more than that.
const CHUNK: usize = 5_000;
/// Smaller than `CHUNK`, because each refused key costs an extra lookup.
const CHUNK_OF_REFUSED: usize = 1_000;

/// A refused key that never was one.
const UNKNOWN: &str = "unknown";
/// Refused before a key was looked for.
const MISSING: &str = "missing";
const MALFORMED: &str = "malformed";

/// Usage that is not written yet.
#[derive(Default)]
pub struct Usage {
    gathered: Mutex<Gathered>,
    metrics: Metrics,
}

#[derive(Default)]
struct Gathered {
    /// By the id of the key.
    recent: HashMap<i64, Recent>,
    /// Counts other than those in `recent`.
    calls: HashMap<Calls, i64>,
    refused: HashMap<RefusedKey, i64>,
}

/// The latest use of a key, and how many of its latest calls had the same outcome within the same
/// hour: most requests touch nothing else.
struct Recent {
    last_use: Use,
    last_calls: Option<(Calls, i64)>,
}

impl From<Use> for Recent {
    fn from(last_use: Use) -> Self {
        Self {
            last_use,
            last_calls: None,
        }
    }
}

impl Usage {
    pub fn new(metrics: &Metrics) -> Self {
        metrics.know_refusals([UNKNOWN, MISSING, MALFORMED]);
        metrics.know_refusals(Outcome::refusals().map(Outcome::as_str));
        Self {
            gathered: Mutex::default(),
            metrics: metrics.clone(),
        }
    }

    /// Records a call with a working key that ends now. `outcome`: none if the server failed or the
    /// client did not wait.
    pub fn record(
        &self,
        key_id: i64,
        address: IpAddr,
        user_agent: &[u8],
        outcome: Option<Outcome>,
    ) {
        if let Some(refusal) = outcome.filter(|outcome| *outcome != Outcome::Accepted) {
            self.metrics.refused(refusal.as_str(), 1);
        }
        let gathered = &mut *self.lock();
        let at = clock::now();
        if gathered.recent.len() >= MOST && !gathered.recent.contains_key(&key_id) {
            return;
        }
        let recent = gathered.recent.entry(key_id).or_insert_with(|| {
            Recent::from(Use {
                at,
                address,
                user_agent: String::new(),
            })
        });
        recent.last_use.at = at;
        recent.last_use.address = address;
        keep_user_agent(&mut recent.last_use.user_agent, user_agent);
        let Some(outcome) = outcome else {
            return;
        };
        let calls = Calls {
            key_id,
            hour: hour_of(at),
            outcome,
        };
        match &mut recent.last_calls {
            Some((last, number)) if *last == calls => *number += 1,
            last => {
                if let Some((earlier, number)) = last.replace((calls, 1)) {
                    add(&mut gathered.calls, earlier, number, MOST_COUNTS);
                }
            }
        }
    }

    /// Records a call with a key that does not work. If the hash never belonged to a key, it is
    /// dropped when it is written.
    pub fn record_refusal(&self, hash: KeyHash) {
        let hour = hour_of(clock::now());
        let refused = &mut self.lock().refused;
        add(refused, RefusedKey { hash, hour }, 1, MOST_REFUSED);
    }

    /// Counts a call without anything that could be a key.
    pub fn count_without_key(&self, is_missing: bool) {
        let reason = if is_missing { MISSING } else { MALFORMED };
        self.metrics.refused(reason, 1);
    }

    /// Writes periodically, and a last time when `stop` is dropped.
    ///
    /// Runs on its own thread, so that a hung database blocks that thread and nothing else.
    pub fn keep_writing(&self, db: &Db, stop: &Receiver<()>) {
        let mut ticks: u32 = 0;
        while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            ticks = ticks.wrapping_add(1);
            if self.lock().are_few() || ticks.is_multiple_of(TICKS_OF_MANY) {
                self.write(db, ticks.is_multiple_of(TICKS_OF_CALLS));
            }
        }
        self.write(db, true);
    }

    /// Writes the gathered usage. Anything that cannot be written now is kept for the next time.
    fn write(&self, db: &Db, with_calls: bool) {
        let mut batch = std::mem::take(&mut *self.lock()).into_batch();
        let written = catch_unwind(AssertUnwindSafe(|| {
            batch.write(db, with_calls, &self.metrics)
        }));
        self.lock().put_back(batch);
        match written {
            // Of a full disk, the log says so once.
            Ok(Ok(()) | Err(db::Error::DiskFull(_))) => {}
            Ok(Err(error)) => tracing::warn!(%error, "how keys were used could not be written"),
            Err(panic) => resume_unwind(panic),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gathered {
    fn are_few(&self) -> bool {
        self.recent.len() <= FEW && self.refused.len() <= FEW
    }

    fn into_batch(mut self) -> Batch {
        let mut uses = Vec::with_capacity(self.recent.len());
        for (key_id, recent) in self.recent {
            if let Some((calls, number)) = recent.last_calls {
                *self.calls.entry(calls).or_default() += number;
            }
            uses.push((key_id, recent.last_use));
        }
        uses.sort_unstable_by_key(|(key_id, _)| *key_id);
        Batch {
            uses,
            calls: sorted(self.calls),
            refused: sorted(self.refused),
        }
    }

    /// Calls that came meanwhile take precedence over older ones.
    fn put_back(&mut self, batch: Batch) {
        for (key_id, older) in batch.uses {
            if self.recent.len() < MOST {
                self.recent.entry(key_id).or_insert(older.into());
            }
        }
        for (calls, number) in batch.calls {
            add(&mut self.calls, calls, number, MOST_COUNTS);
        }
        for (refused, number) in batch.refused {
            add(&mut self.refused, refused, number, MOST_REFUSED);
        }
    }
}

/// A batch being written. All nodes write in the same order, so that they cannot deadlock.
#[derive(Default)]
struct Batch {
    uses: Vec<(i64, Use)>,
    calls: Vec<(Calls, i64)>,
    refused: Vec<(RefusedKey, i64)>,
}

impl Batch {
    /// Removes each part once it is written.
    ///
    /// # Errors
    /// If the database is unavailable.
    fn write(&mut self, db: &Db, with_calls: bool, metrics: &Metrics) -> db::Result<()> {
        drain(&mut self.uses, CHUNK, |uses| {
            db.write_blocking(|conn| store::record_uses_of_any_account(conn, uses))
        })?;
        if !with_calls {
            return Ok(());
        }
        drain(&mut self.calls, CHUNK, |calls| {
            db.write_blocking(|conn| store::count_calls_of_any_account(conn, calls))
        })?;
        drain(&mut self.refused, CHUNK_OF_REFUSED, |refused| {
            let why =
                db.write_blocking(|conn| store::count_refused_of_any_account(conn, refused))?;
            for (outcome, number) in why {
                let reason = outcome.map_or(UNKNOWN, Outcome::as_str);
                metrics.refused(reason, u64::try_from(number).unwrap_or_default());
            }
            Ok(())
        })
    }
}

/// Writes rows in chunks, and removes those that no longer need writing.
fn drain<T>(
    rows: &mut Vec<T>,
    chunk: usize,
    mut write: impl FnMut(&[T]) -> db::Result<()>,
) -> db::Result<()> {
    while !rows.is_empty() {
        let rest = rows.len().saturating_sub(chunk);
        match write(&rows[rest..]) {
            Ok(()) => {}
            Err(error @ (db::Error::Unavailable(_) | db::Error::DiskFull(_))) => return Err(error),
            // A retry would fail too: a key is missing because a backup was restored.
            Err(error @ db::Error::Refused(_)) => {
                tracing::error!(%error, "how keys were used was not written");
            }
        }
        rows.truncate(rest);
    }
    Ok(())
}

/// Adds to the counts; adds new entries only while there are fewer than `most`.
fn add<K: Eq + Hash>(counts: &mut HashMap<K, i64>, of: K, number: i64, most: usize) {
    if counts.len() < most || counts.contains_key(&of) {
        *counts.entry(of).or_default() += number;
    }
}

fn sorted<K: Ord>(counts: HashMap<K, i64>) -> Vec<(K, i64)> {
    let mut rows: Vec<(K, i64)> = counts.into_iter().collect();
    rows.sort_unstable();
    rows
}

fn hour_of(at: NaiveDateTime) -> NaiveDateTime {
    at.duration_trunc(TimeDelta::hours(1)).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::keys::secret::PlainKey;

    impl Usage {
        fn call(&self, key_id: i64, outcome: Outcome) {
            self.record(key_id, Ipv4Addr::LOCALHOST.into(), b"test", Some(outcome));
        }

        fn take(&self) -> Batch {
            std::mem::take(&mut *self.lock()).into_batch()
        }
    }

    fn hour(number: i64) -> NaiveDateTime {
        hour_of(NaiveDateTime::default()) + TimeDelta::hours(number)
    }

    fn counted(batch: &Batch) -> Vec<(i64, Outcome, i64)> {
        let mut counted: Vec<(i64, Outcome, i64)> = Vec::new();
        for (calls, number) in &batch.calls {
            // The hour may change while the test runs.
            match counted
                .iter_mut()
                .find(|c| (c.0, c.1) == (calls.key_id, calls.outcome))
            {
                Some(known) => known.2 += number,
                None => counted.push((calls.key_id, calls.outcome, *number)),
            }
        }
        counted
    }

    fn unavailable() -> db::Error {
        db::Error::Unavailable("it is a test".into())
    }

    #[test]
    fn calls_are_counted_by_key_and_outcome() {
        let usage = Usage::default();
        for outcome in [
            Outcome::Accepted,
            Outcome::Accepted,
            Outcome::DomainNotFound,
            Outcome::Accepted,
            Outcome::DomainNotFound,
        ] {
            usage.call(1, outcome);
        }
        usage.call(2, Outcome::Accepted);
        usage.record(3, Ipv4Addr::LOCALHOST.into(), b"", None);
        let batch = usage.take();
        assert_eq!(
            counted(&batch),
            [
                (1, Outcome::Accepted, 3),
                (1, Outcome::DomainNotFound, 2),
                (2, Outcome::Accepted, 1),
            ]
        );
        let used: Vec<i64> = batch.uses.iter().map(|(key_id, _)| *key_id).collect();
        assert_eq!(used, [1, 2, 3]);
        assert!(counted(&usage.take()).is_empty(), "they are taken once");
    }

    #[test]
    fn what_is_put_back_is_added_to_what_came_meanwhile() {
        let usage = Usage::default();
        let hash = PlainKey::generate().hash();
        usage.call(1, Outcome::Accepted);
        usage.record_refusal(hash);
        let mut batch = usage.take();
        let older = batch.uses[0].1.at - TimeDelta::hours(2);
        batch.uses[0].1.at = older;
        batch.uses.push((2, batch.uses[0].1.clone()));
        usage.call(1, Outcome::Accepted);
        usage.record_refusal(hash);
        usage.lock().put_back(batch);
        let batch = usage.take();
        assert_eq!(counted(&batch), [(1, Outcome::Accepted, 2)]);
        let refused: i64 = batch.refused.iter().map(|(_, number)| number).sum();
        assert_eq!(refused, 2);
        assert!(batch.uses[0].1.at > older, "the latest use stands");
        assert_eq!(batch.uses[1].1.at, older);
    }

    #[test]
    fn memory_is_bounded_however_long_nothing_can_be_written() {
        let usage = Usage::default();
        for key_id in 0..MOST as i64 + 100 {
            usage.call(key_id, Outcome::Accepted);
            usage.call(key_id, Outcome::InvalidRequest);
        }
        for _ in 0..MOST_REFUSED + 100 {
            usage.record_refusal(PlainKey::generate().hash());
        }
        let mut batch = usage.take();
        // Later hours.
        for later in 1..4 {
            for (calls, _) in &mut batch.calls {
                calls.hour = hour(later);
            }
            usage.lock().put_back(batch);
            usage.call(MOST as i64 * 2, Outcome::Accepted);
            let gathered = usage.lock();
            assert!(gathered.recent.len() <= MOST);
            assert!(gathered.calls.len() <= MOST_COUNTS);
            assert!(gathered.refused.len() <= MOST_REFUSED);
            drop(gathered);
            batch = usage.take();
            assert!(batch.calls.len() <= MOST_COUNTS + MOST);
        }
    }

    #[test]
    fn a_hundred_thousand_keys_are_written_a_few_at_a_time() {
        let mut rows: Vec<usize> = (0..100_000).collect();
        let mut written = Vec::new();
        drain(&mut rows, CHUNK, |chunk| {
            assert!(chunk.len() <= 5_000 && chunk.is_sorted());
            written.extend_from_slice(chunk);
            Ok(())
        })
        .unwrap();
        written.sort_unstable();
        assert!(rows.is_empty() && written.into_iter().eq(0..100_000));
    }

    #[test]
    fn what_cannot_be_written_now_is_left() {
        let mut rows: Vec<usize> = (0..12_000).collect();
        let mut writes = 0;
        let written = drain(&mut rows, CHUNK, |_| {
            writes += 1;
            if writes == 2 {
                Err(unavailable())
            } else {
                Ok(())
            }
        });
        assert!(written.is_err());
        assert!(rows.into_iter().eq(0..7_000));
    }

    #[test]
    fn what_can_never_be_written_is_given_up() {
        let mut rows: Vec<usize> = (0..12_000).collect();
        let refused = || db::Error::Refused(diesel::result::Error::NotFound);
        drain(&mut rows, CHUNK, |_| Err(refused())).unwrap();
        assert!(rows.is_empty());
    }
}
