//! When, from where and by what each key was last used: gathered in memory, written in batches, and
//! never on a request's own time. A crash loses the last few seconds of it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::NaiveDateTime;

use super::store;
use crate::clock;
use crate::db::{self, Db};

const TICK: Duration = Duration::from_secs(1);
/// With this many keys in use, their uses are written at every tick; with more, at every tenth, so
/// that a busy server spends little on it.
const FEW: usize = 1_000;
const TICKS_OF_MANY: u32 = 10;
/// Keys that are remembered between two writes. The use of another one shows after the next.
const MOST: usize = 200_000;
/// Uses in one transaction: a page that changes something waits for no more than that.
const CHUNK: usize = 5_000;
const USER_AGENT_BYTES: usize = 200;

/// The latest accepted use of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    pub at: NaiveDateTime,
    pub address: IpAddr,
    /// As the client calls itself, cut to 200 bytes; empty if it does not.
    pub user_agent: String,
}

/// The uses that are not written yet, by the key's id.
#[derive(Default)]
pub struct Usage(Mutex<HashMap<i64, Use>>);

impl Usage {
    /// Remembers a use that happens now.
    pub fn record(&self, key_id: i64, address: IpAddr, user_agent: &[u8]) {
        let mut uses = self.lock();
        let at = clock::now();
        if uses.len() >= MOST && !uses.contains_key(&key_id) {
            return;
        }
        let latest = uses.entry(key_id).or_insert_with(|| Use {
            at,
            address,
            user_agent: String::new(),
        });
        latest.at = at;
        latest.address = address;
        set_user_agent(&mut latest.user_agent, user_agent);
    }

    /// Writes from time to time, and a last time when `stop` is dropped.
    ///
    /// On a thread of its own: while a database hangs, that thread does, and nothing else.
    pub fn keep_writing(&self, db: &Db, stop: &Receiver<()>) {
        let mut ticks: u32 = 0;
        while stop.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
            ticks = ticks.wrapping_add(1);
            if self.lock().len() <= FEW || ticks.is_multiple_of(TICKS_OF_MANY) {
                self.write(db);
            }
        }
        self.write(db);
    }

    /// Writes what was gathered. What cannot be written now is kept for the next time.
    fn write(&self, db: &Db) {
        let taken = std::mem::take(&mut *self.lock());
        let mut uses: Vec<(i64, Use)> = taken.into_iter().collect();
        // All nodes write in the same order, so that none waits for another in a circle.
        uses.sort_unstable_by_key(|(key_id, _)| *key_id);
        for (number, chunk) in uses.chunks(CHUNK).enumerate() {
            match db.write_blocking(|conn| store::record_uses_of_any_account(conn, chunk)) {
                Ok(()) => {}
                Err(error @ db::Error::Unavailable(_)) => {
                    tracing::warn!(%error, "when keys were last used could not be written");
                    return self.put_back(uses.split_off(number * CHUNK));
                }
                // Again would be in vain: a key is gone, since a backup was restored.
                Err(error @ db::Error::Refused(_)) => {
                    tracing::error!(%error, "when keys were last used was not written");
                }
            }
        }
    }

    fn put_back(&self, uses: Vec<(i64, Use)>) {
        let mut newer = self.lock();
        for (key_id, older) in uses {
            if newer.len() < MOST {
                newer.entry(key_id).or_insert(older);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Use>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set_user_agent(text: &mut String, header: &[u8]) {
    text.clear();
    // With what completes a last character of four bytes, so that none is cut in two.
    let header = &header[..header.len().min(USER_AGENT_BYTES + 3)];
    let lossy = String::from_utf8_lossy(header);
    let mut end = lossy.len().min(USER_AGENT_BYTES);
    while !lossy.is_char_boundary(end) {
        end -= 1;
    }
    text.push_str(&lossy[..end]);
    // Somebody's mistake, which must not leave a key in the database.
    if text.contains("tsend_") {
        text.clear();
    }
}
