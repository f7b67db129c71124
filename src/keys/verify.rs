//! Who holds this key? Asked of the database for every request, never of a cache, so that a
//! deleted key is refused by the very next one.
//!
//! Questions are gathered: while a thread asks the database, what arrives waits, and is asked all
//! at once next. Nobody waits for company, and no question joins a batch that was sent already:
//! what a request is told was true at a moment after it arrived.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::secret::{KeyHash, PlainKey};
use super::store::{self, LiveKey};
use crate::db::{self, Connection, Db};

/// Threads that ask, each on a connection of its own: while one waits for PostgreSQL, another one
/// sends. On SQLite nothing is waited for, and one thread has the better batches.
const ASKERS_OF_POSTGRES: usize = 2;
const ASKERS_OF_SQLITE: usize = 1;
/// Threads at most, counting those that were given up on while they wait for a database.
const MOST_THREADS: usize = 8;
const BATCH: usize = 256;
/// Questions that may wait.
const QUEUE: usize = 8192;
/// How long a request waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// A lookup that takes so long, while requests run out of time, will not come back.
const STUCK: Duration = Duration::from_secs(1);
const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Nobody can say right now whether a key works: neither an accept nor a refusal.
#[derive(Debug, thiserror::Error)]
#[error("keys cannot be verified right now")]
pub struct Unavailable;

/// Finds the keys that work. The answers are as of one moment during the call.
pub trait Lookup {
    /// An answer for each of these hashes, no two of which are equal, in their order.
    ///
    /// # Errors
    /// If the database did not answer.
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Vec<Option<LiveKey>>>;
}

/// Verifies keys. Dropped, it answers what waits and ends its threads.
pub struct Verifier(Arc<Shared>);

struct Shared {
    new_lookup: Box<dyn Fn() -> Box<dyn Lookup> + Send + Sync>,
    queue: Mutex<Queue>,
    arrival: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Question>,
    /// Since when each thread that is asking does so, by its number.
    asking: HashMap<usize, Instant>,
    threads: usize,
    /// The number of the next thread.
    next: usize,
    sleeping: usize,
    is_closed: bool,
}

/// Dropped without an answer, it tells that there is none.
struct Question {
    hash: KeyHash,
    answer: oneshot::Sender<Option<LiveKey>>,
}

impl Verifier {
    /// Asks the database.
    pub fn start(db: &Db) -> Self {
        let askers = match db.is_postgres() {
            true => ASKERS_OF_POSTGRES,
            false => ASKERS_OF_SQLITE,
        };
        let db = db.clone();
        Self::with_lookup(askers, move || Box::new(DbLookup::new(db.clone())))
    }

    /// Asks on so many threads whatever `new_lookup` makes for each of them, on that thread.
    pub fn with_lookup(
        askers: usize,
        new_lookup: impl Fn() -> Box<dyn Lookup> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            new_lookup: Box::new(new_lookup),
            queue: Mutex::default(),
            arrival: Condvar::new(),
        });
        for _ in 0..askers {
            shared.spawn(&mut shared.lock());
        }
        Self(shared)
    }

    /// The key that was presented, if it works right now. What cannot be a key is not looked up.
    ///
    /// # Errors
    /// If the database is away or slow, or too many wait for it.
    pub async fn verify(&self, presented: &[u8]) -> Result<Option<LiveKey>, Unavailable> {
        let Some(key) = PlainKey::parse(presented) else {
            return Ok(None);
        };
        let answer = self.0.ask(key.hash())?;
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| Unavailable),
            Err(_) => {
                self.0.replace_stuck();
                Err(Unavailable)
            }
        }
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.arrival.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(&self, hash: KeyHash) -> Result<oneshot::Receiver<Option<LiveKey>>, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.lock();
        if queue.waiting.len() >= QUEUE {
            return Err(Unavailable);
        }
        queue.waiting.push_back(Question { hash, answer });
        let is_someone_idle = queue.sleeping > 0;
        drop(queue);
        // Asked first, since waking costs a system call even when nobody sleeps.
        if is_someone_idle {
            self.arrival.notify_one();
        }
        Ok(receiver)
    }

    fn spawn(self: &Arc<Self>, queue: &mut Queue) {
        let number = queue.next;
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("verify-{number}"))
            .spawn(move || shared.serve(number));
        match thread {
            Ok(_) => {
                queue.next += 1;
                queue.threads += 1;
            }
            Err(error) => tracing::error!(%error, "a thread that verifies keys cannot start"),
        }
    }

    /// A thread whose database does not come back any more, nor fails, is left to itself, and
    /// another one with another connection takes its place.
    fn replace_stuck(self: &Arc<Self>) {
        let mut queue = self.lock();
        let stuck: Vec<usize> = queue
            .asking
            .iter()
            .filter(|(_, since)| since.elapsed() >= STUCK)
            .map(|(&number, _)| number)
            .collect();
        for number in stuck {
            if queue.threads < MOST_THREADS {
                tracing::warn!("the database keeps a lookup of keys waiting: trying another way");
                queue.asking.remove(&number);
                self.spawn(&mut queue);
            }
        }
    }

    fn serve(&self, number: usize) {
        let mut lookup = (self.new_lookup)();
        while let Some(batch) = self.next_batch(number) {
            if catch_unwind(AssertUnwindSafe(|| answer(&mut *lookup, batch))).is_err() {
                lookup = (self.new_lookup)();
            }
            if self.lock().asking.remove(&number).is_none() {
                // Replaced while it was stuck.
                break;
            }
        }
        self.lock().threads -= 1;
    }

    /// Waits for questions and takes all, up to a batch; `None` when there will be no more.
    fn next_batch(&self, number: usize) -> Option<Vec<Question>> {
        let mut queue = self.lock();
        while queue.waiting.is_empty() {
            if queue.is_closed {
                return None;
            }
            queue.sleeping += 1;
            queue = self
                .arrival
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
            queue.sleeping -= 1;
        }
        queue.asking.insert(number, Instant::now());
        let end = queue.waiting.len().min(BATCH);
        Some(queue.waiting.drain(..end).collect())
    }
}

/// Asks for equal hashes once, and for those that nobody waits for any more not at all.
fn answer(lookup: &mut dyn Lookup, mut batch: Vec<Question>) {
    batch.retain(|question| !question.answer.is_closed());
    batch.sort_unstable_by_key(|question| question.hash);
    let mut hashes: Vec<KeyHash> = batch.iter().map(|question| question.hash).collect();
    hashes.dedup();
    // Without answers, the senders are dropped, which tells those who wait.
    let Ok(answers) = lookup.look_up(&hashes) else {
        return;
    };
    let mut questions = batch.into_iter().peekable();
    for (hash, answer) in hashes.iter().zip(answers) {
        while let Some(question) = questions.next_if(|question| question.hash == *hash) {
            // Whoever asked may have gone.
            let _ = question.answer.send(answer.clone());
        }
    }
}

/// Asks the database on a connection of its own, which it makes anew when it is lost.
struct DbLookup {
    db: Db,
    conn: Option<Connection>,
    pause: Duration,
    not_before: Instant,
}

impl DbLookup {
    fn new(db: Db) -> Self {
        let mut lookup = Self {
            db,
            conn: None,
            pause: SHORTEST_PAUSE,
            not_before: Instant::now(),
        };
        // If it fails, the first question tries again.
        let _ = lookup.connect();
        lookup
    }

    /// # Errors
    /// At once, while the last failure is not long ago.
    fn connect(&mut self) -> db::Result<&mut Connection> {
        if Instant::now() < self.not_before {
            return Err(db::Error::Unavailable("it was not a moment ago".into()));
        }
        match self.db.connect() {
            Ok(conn) => Ok(self.conn.insert(conn)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: db::Error) -> db::Error {
        tracing::warn!(%error, "keys cannot be verified");
        self.conn = None;
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        error
    }
}

impl Lookup for DbLookup {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Vec<Option<LiveKey>>> {
        if let Some(conn) = &mut self.conn {
            match store::find_live_by_hashes_of_any_account(conn, hashes) {
                Ok(answers) => return Ok(answers),
                // That a connection was lost shows only when it is used.
                Err(error) => tracing::warn!(%error, "a lookup of keys failed: trying once more"),
            }
        }
        let conn = self.connect()?;
        let answers = store::find_live_by_hashes_of_any_account(conn, hashes);
        match answers {
            Ok(answers) => {
                self.pause = SHORTEST_PAUSE;
                Ok(answers)
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}
