//! The queue of questions, and the threads that answer them.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::desk::{self, Answer, Desk, Failure, Question};
use super::lookup::{Lookup, SHORTEST_PAUSE};
use crate::keys::secret::KeyHash;
use crate::keys::verification::store::LiveKey;
use crate::metrics::Metrics;

/// The maximum number of threads, including those abandoned while they wait for a database.
const MOST_THREADS: usize = 8;
const BATCH: usize = 256;
/// The maximum number of questions that wait.
const QUEUE: usize = 8192;
/// A lookup that takes this long, while requests time out, is abandoned.
const STUCK: Duration = Duration::from_secs(1);

/// It cannot be determined now whether a key works: neither an acceptance nor a refusal.
#[derive(Debug, thiserror::Error)]
#[error("keys cannot be verified right now")]
pub struct Unavailable;

pub(super) struct Shared {
    pub metrics: Metrics,
    new_lookup: Box<dyn Fn() -> Box<dyn Lookup> + Send + Sync>,
    queue: Mutex<Queue>,
    arrival: Condvar,
    /// Questions in the queue, and those that serving threads have not handed over yet.
    waiting: AtomicUsize,
    /// When a missing verdict was last logged.
    told: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Question>,
    /// For each thread that is waiting for the database, by its number: since when.
    asking: HashMap<usize, Instant>,
    threads: usize,
    /// The number of the next thread.
    next: usize,
    sleeping: usize,
    is_closed: bool,
}

impl Shared {
    /// Starts this many threads.
    pub fn start(
        askers: usize,
        metrics: Metrics,
        new_lookup: impl Fn() -> Box<dyn Lookup> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            metrics,
            new_lookup: Box::new(new_lookup),
            queue: Mutex::default(),
            arrival: Condvar::new(),
            waiting: AtomicUsize::new(0),
            told: Mutex::default(),
        });
        for _ in 0..askers {
            shared.spawn(&mut shared.lock());
        }
        shared
    }

    /// No more questions will come.
    pub fn close(&self) {
        self.lock().is_closed = true;
        self.arrival.notify_all();
    }

    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn threads(&self) -> usize {
        self.lock().threads
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub async fn look_up(
        self: &Arc<Self>,
        hash: KeyHash,
    ) -> Result<Option<Arc<LiveKey>>, Unavailable> {
        match self.ask(hash)?.await {
            Ok(answer) => Ok(answer),
            Err(Failure::Lookup) => Err(self.unavailable("the lookup failed")),
            Err(Failure::TooLate) => {
                self.replace_stuck();
                Err(self.unavailable("the lookup takes too long"))
            }
        }
    }

    pub fn ask(self: &Arc<Self>, hash: KeyHash) -> Result<Answer, Unavailable> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(self.unavailable("too many wait"));
        }
        Ok(Desk::of(self).ask(hash))
    }

    /// Logs why there is no verdict, once a second however many requests wait.
    fn unavailable(&self, why: &str) -> Unavailable {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= Duration::from_secs(1)) {
            *told = Some(Instant::now());
            tracing::warn!(why, "keys cannot be verified");
        }
        Unavailable
    }

    /// Returns whether a thread was added.
    fn spawn(self: &Arc<Self>, queue: &mut Queue) -> bool {
        let number = queue.next;
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("verify-{number}"))
            .spawn(move || shared.serve(number));
        if let Err(error) = thread {
            tracing::error!(%error, "a thread that verifies keys cannot start");
            return false;
        }
        queue.next += 1;
        queue.threads += 1;
        true
    }

    /// Abandons a thread whose database neither answers nor fails, and replaces it by one with a
    /// new connection.
    fn replace_stuck(self: &Arc<Self>) {
        let mut queue = self.lock();
        let stuck: Vec<usize> = queue
            .asking
            .iter()
            .filter(|(_, since)| since.elapsed() >= STUCK)
            .map(|(&number, _)| number)
            .collect();
        for number in stuck {
            if queue.threads < MOST_THREADS && self.spawn(&mut queue) {
                tracing::warn!("a lookup of keys is stuck: opening another connection");
                queue.asking.remove(&number);
            }
        }
    }

    fn serve(&self, number: usize) {
        let new_lookup = || catch_unwind(AssertUnwindSafe(|| (self.new_lookup)())).ok();
        let mut lookup = new_lookup();
        while let Some(batch) = self.next_batch(number) {
            let answered = catch_unwind(AssertUnwindSafe(|| match &mut lookup {
                Some(lookup) => answer(&mut **lookup, batch, &self.metrics),
                None => drop(batch),
            }));
            if answered.is_err() || lookup.is_none() {
                // A lookup that panics each time must not use up a core.
                std::thread::sleep(SHORTEST_PAUSE);
                lookup = new_lookup();
            }
            if self.lock().asking.remove(&number).is_none() {
                // Replaced while it was stuck.
                break;
            }
        }
        self.lock().threads -= 1;
    }

    /// Waits for questions and takes all of them, up to one batch; `None` when no more will come.
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
        self.waiting.fetch_sub(end, Ordering::Relaxed);
        Some(queue.waiting.drain(..end).collect())
    }
}

impl desk::Queue for Shared {
    fn take_in(&self, questions: &mut Vec<Question>) {
        let mut queue = self.lock();
        queue.waiting.extend(questions.drain(..));
        let is_someone_idle = queue.sleeping > 0;
        drop(queue);
        // Checked first, because a wake-up costs a system call even when no thread sleeps.
        if is_someone_idle {
            self.arrival.notify_one();
        }
    }
}

/// Looks equal hashes up only once, and skips those whose requests no longer wait.
fn answer(lookup: &mut dyn Lookup, mut batch: Vec<Question>, metrics: &Metrics) {
    batch.retain(|question| !question.is_pointless());
    if batch.is_empty() {
        return;
    }
    batch.sort_unstable_by_key(|question| question.hash);
    let mut hashes: Vec<KeyHash> = batch.iter().map(|question| question.hash).collect();
    hashes.dedup();
    metrics.batch(hashes.len());
    // Questions that are dropped tell those who wait that there is no answer.
    let Ok(answers) = lookup.look_up(&hashes) else {
        return;
    };
    let mut place = 0;
    desk::deliver(batch.into_iter().map(|question| {
        while hashes[place] != question.hash {
            place += 1;
        }
        let answer = answers[place].clone();
        (question, answer)
    }));
}
