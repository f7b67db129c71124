//! Who holds this key? The database is asked for every request, so that a deleted key is refused from the
//! very next request on: not for the key, but whether anything changed since it was looked up (`lookup.rs`,
//! `memory.rs`).
//!
//! Questions are batched: while a thread waits for the database, new questions queue, and all of
//! them are sent together next. A question never waits to be batched, and never joins a batch that
//! was already sent, so that each answer was true at a moment after its request arrived.

mod lookup;
mod memory;

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use self::lookup::{DbLookup, SHORTEST_PAUSE};
use super::store::LiveKey;
use crate::db::Db;
use crate::keys::secret::{KeyHash, PlainKey};
use crate::metrics::{Metrics, Verdict};

pub use lookup::{Answers, Lookup, Remembering};

/// One lookup thread, with a connection and a memory of its own: while it waits for an answer, the next
/// batch grows.
const ASKERS: usize = 1;
/// The maximum number of threads, including those abandoned while they wait for a database.
const MOST_THREADS: usize = 8;
const BATCH: usize = 256;
/// The maximum number of queued questions.
const QUEUE: usize = 8192;
/// How long a request waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// A lookup that takes this long, while requests time out, is abandoned.
const STUCK: Duration = Duration::from_secs(1);

/// It cannot be determined now whether a key works: neither an acceptance nor a refusal.
#[derive(Debug, thiserror::Error)]
#[error("keys cannot be verified right now")]
pub struct Unavailable;

/// Verifies keys. When dropped, it answers the queued questions and ends its threads.
pub struct Verifier(Arc<Shared>);

/// How much it has to do.
pub struct Load {
    /// Questions in the queue.
    pub waiting: usize,
    pub threads: usize,
}

struct Shared {
    metrics: Metrics,
    new_lookup: Box<dyn Fn() -> Box<dyn Lookup> + Send + Sync>,
    queue: Mutex<Queue>,
    arrival: Condvar,
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

/// When dropped without an answer, it reports that there is none.
struct Question {
    hash: KeyHash,
    answer: oneshot::Sender<Option<Arc<LiveKey>>>,
}

impl Verifier {
    /// Starts the thread that asks the database. `remembered_keys`: how many keys it remembers at most.
    pub fn start(db: &Db, remembered_keys: usize, metrics: &Metrics) -> Self {
        let db = db.clone();
        let new_lookup =
            move || Box::new(DbLookup::new(db.clone(), remembered_keys)) as Box<dyn Lookup>;
        Self::build(ASKERS, metrics.clone(), new_lookup)
    }

    /// Starts this many threads; each queries what `new_lookup` makes on that thread.
    pub fn with_lookup(
        askers: usize,
        new_lookup: impl Fn() -> Box<dyn Lookup> + Send + Sync + 'static,
    ) -> Self {
        Self::build(askers, Metrics::default(), new_lookup)
    }

    fn build(
        askers: usize,
        metrics: Metrics,
        new_lookup: impl Fn() -> Box<dyn Lookup> + Send + Sync + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            metrics,
            new_lookup: Box::new(new_lookup),
            queue: Mutex::default(),
            arrival: Condvar::new(),
            told: Mutex::default(),
        });
        for _ in 0..askers {
            shared.spawn(&mut shared.lock());
        }
        Self(shared)
    }

    /// The presented key, if it works at this moment. A text that cannot be a key is not looked up.
    ///
    /// # Errors
    /// If the database is unavailable or slow, or too many requests wait for it.
    pub async fn verify(&self, presented: &[u8]) -> Result<Option<Arc<LiveKey>>, Unavailable> {
        let Some(key) = PlainKey::parse(presented) else {
            return Ok(None);
        };
        let metrics = &self.0.metrics;
        let asked = metrics.asked();
        let verdict = self.0.look_up(key.hash()).await;
        metrics.verdict(
            asked,
            match &verdict {
                Ok(Some(_)) => Verdict::Works,
                Ok(None) => Verdict::DoesNot,
                Err(Unavailable) => Verdict::Unavailable,
            },
        );
        verdict
    }

    pub fn load(&self) -> Load {
        let queue = self.0.lock();
        Load {
            waiting: queue.waiting.len(),
            threads: queue.threads,
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

    async fn look_up(self: &Arc<Self>, hash: KeyHash) -> Result<Option<Arc<LiveKey>>, Unavailable> {
        let answer = self.ask(hash)?;
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| self.unavailable("the lookup failed")),
            Err(_) => {
                self.replace_stuck();
                Err(self.unavailable("the lookup takes too long"))
            }
        }
    }

    fn ask(&self, hash: KeyHash) -> Result<oneshot::Receiver<Option<Arc<LiveKey>>>, Unavailable> {
        let (answer, receiver) = oneshot::channel();
        let mut queue = self.lock();
        if queue.waiting.len() >= QUEUE {
            drop(queue);
            return Err(self.unavailable("too many wait"));
        }
        queue.waiting.push_back(Question { hash, answer });
        let is_someone_idle = queue.sleeping > 0;
        drop(queue);
        // Checked first, because a wake-up costs a system call even when no thread sleeps.
        if is_someone_idle {
            self.arrival.notify_one();
        }
        Ok(receiver)
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
        Some(queue.waiting.drain(..end).collect())
    }
}

/// Looks equal hashes up only once, and skips those whose requests no longer wait.
fn answer(lookup: &mut dyn Lookup, mut batch: Vec<Question>, metrics: &Metrics) {
    batch.retain(|question| !question.answer.is_closed());
    if batch.is_empty() {
        return;
    }
    batch.sort_unstable_by_key(|question| question.hash);
    let mut hashes: Vec<KeyHash> = batch.iter().map(|question| question.hash).collect();
    hashes.dedup();
    metrics.batch(hashes.len());
    // Without answers, the senders are dropped, which notifies the waiting requests.
    let Ok(answers) = lookup.look_up(&hashes) else {
        return;
    };
    let mut questions = batch.into_iter().peekable();
    for (hash, answer) in hashes.iter().zip(answers) {
        while let Some(question) = questions.next_if(|question| question.hash == *hash) {
            // The request may be gone.
            let _ = question.answer.send(answer.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::accounts::store::AccountId;
    use crate::db;
    use crate::keys::rule::Rule;
    use crate::keys::scope::Scope;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A database that the test controls: each lookup waits for the test's answer.
    struct Played(mpsc::Sender<Call>);

    struct Call {
        hashes: Vec<KeyHash>,
        reply: mpsc::Sender<Reply>,
    }

    enum Reply {
        /// These keys work, and no others.
        Live(Vec<KeyHash>),
        Failure,
        Panic,
    }

    impl Lookup for Played {
        fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
            let (reply, replied) = mpsc::channel();
            let hashes = hashes.to_vec();
            let call = Call {
                hashes: hashes.clone(),
                reply,
            };
            // The test has ended: behaves as if there were no database.
            let failure = || db::Error::Unavailable("it is a play".into());
            self.0.send(call).map_err(|_| failure())?;
            match replied.recv().unwrap_or(Reply::Failure) {
                Reply::Live(live) => {
                    let answer = |hash| live.contains(hash).then(|| Arc::new(live_key(hash)));
                    Ok(hashes.iter().map(answer).collect())
                }
                Reply::Failure => Err(failure()),
                Reply::Panic => panic!("as the test wants"),
            }
        }
    }

    /// A live key whose name shows which key it is.
    fn live_key(hash: &KeyHash) -> LiveKey {
        LiveKey {
            id: 1,
            account: AccountId(1),
            name: format!("{hash:?}"),
            truncated: PlainKey::generate().truncated(),
            scope: Scope::AllDomains,
            rule: Rule::default(),
        }
    }

    struct Stage {
        verifier: Verifier,
        calls: mpsc::Receiver<Call>,
    }

    type Verdict = Result<Option<String>, ()>;
    type Request<'a> = Pin<Box<dyn Future<Output = Verdict> + 'a>>;

    impl Stage {
        fn new() -> Self {
            let (call, calls) = mpsc::channel();
            Self {
                verifier: Verifier::with_lookup(1, move || Box::new(Played(call.clone()))),
                calls,
            }
        }

        /// A request for a key that waits for its verdict: the name of the key, if it works.
        fn request<'a>(&'a self, key: &'a PlainKey) -> Request<'a> {
            let mut request = self.raw(key.expose().as_bytes());
            assert_eq!(poll(&mut request), Poll::Pending);
            request
        }

        fn raw<'a>(&'a self, presented: &'a [u8]) -> Request<'a> {
            Box::pin(async move {
                let verdict = self.verifier.verify(presented).await;
                verdict
                    .map(|key| key.map(|key| key.name.clone()))
                    .map_err(drop)
            })
        }

        fn call(&self) -> Call {
            self.calls.recv_timeout(LIMIT).expect("a lookup")
        }

        /// A lookup in progress until it is answered, and the request that waits for it.
        fn busy<'a>(&'a self, key: &'a PlainKey) -> (Request<'a>, Call) {
            (self.request(key), self.call())
        }
    }

    impl Call {
        fn answer(self, reply: Reply) {
            self.reply.send(reply).unwrap();
        }

        fn find(self, live: &[&PlainKey]) {
            self.answer(Reply::Live(live.iter().map(|key| key.hash()).collect()));
        }
    }

    fn poll(request: &mut Request) -> Poll<Verdict> {
        let mut context = Context::from_waker(Waker::noop());
        request.as_mut().poll(&mut context)
    }

    fn works(key: &PlainKey) -> Verdict {
        Ok(Some(format!("{:?}", key.hash())))
    }

    fn keys<const N: usize>() -> [PlainKey; N] {
        [(); N].map(|()| PlainKey::generate())
    }

    #[actix_web::test]
    async fn a_request_is_not_answered_by_a_lookup_that_began_before_it() {
        let stage = Stage::new();
        let [key] = keys();
        let (early, call) = stage.busy(&key);
        let late = stage.request(&key);
        call.find(&[&key]);
        assert_eq!(early.await, works(&key));
        // The key was deleted meanwhile.
        stage.call().find(&[]);
        assert_eq!(late.await, Ok(None));
    }

    #[actix_web::test]
    async fn whoever_waits_is_asked_for_at_once_and_equal_keys_once() {
        let stage = Stage::new();
        let [first, key, other, bad] = keys();
        let (_first, busy) = stage.busy(&first);
        let requests = [&key, &bad, &other, &key, &key].map(|key| stage.request(key));
        busy.find(&[]);
        let call = stage.call();
        assert_eq!(call.hashes.len(), 3);
        call.find(&[&key, &other]);
        let [one, two, three, four, five] = requests;
        assert_eq!(one.await, works(&key));
        assert_eq!(two.await, Ok(None));
        assert_eq!(three.await, works(&other));
        assert_eq!(four.await, works(&key));
        assert_eq!(five.await, works(&key));
    }

    #[actix_web::test]
    async fn a_batch_has_256_questions_at_most() {
        let stage = Stage::new();
        let [first] = keys();
        let many: [PlainKey; 600] = keys();
        let (_first, busy) = stage.busy(&first);
        let requests: Vec<_> = many.iter().map(|key| stage.request(key)).collect();
        busy.find(&[]);
        for size in [256, 256, 88] {
            let call = stage.call();
            assert_eq!(call.hashes.len(), size);
            call.find(&many.each_ref());
        }
        for (request, key) in requests.into_iter().zip(&many) {
            assert_eq!(request.await, works(key));
        }
    }

    #[actix_web::test]
    async fn nobody_is_asked_for_who_has_gone() {
        let stage = Stage::new();
        let [first, gone, key] = keys();
        let (_first, busy) = stage.busy(&first);
        drop(stage.request(&gone));
        let request = stage.request(&key);
        busy.find(&[]);
        let call = stage.call();
        assert_eq!(call.hashes, [key.hash()]);
        call.find(&[&key]);
        assert_eq!(request.await, works(&key));
    }

    #[actix_web::test]
    async fn when_8192_wait_the_next_one_is_told_that_there_is_no_verdict() {
        let stage = Stage::new();
        let [key] = keys();
        let (_first, busy) = stage.busy(&key);
        let ask = |_| stage.verifier.0.ask(key.hash()).unwrap();
        let waiting: Vec<_> = (0..8192).map(ask).collect();
        let mut next = stage.raw(key.expose().as_bytes());
        assert_eq!(poll(&mut next), Poll::Ready(Err(())), "at once");
        busy.find(&[]);
        for _ in 0..8192 / 256 {
            stage.call().find(&[&key]);
        }
        for answer in waiting {
            assert!(answer.await.unwrap().is_some());
        }
    }

    #[actix_web::test]
    async fn what_cannot_be_a_key_is_not_looked_up() {
        let stage = Stage::new();
        let [key] = keys();
        let mut wrong = key.expose().to_owned();
        let last = if wrong.ends_with('x') { 'y' } else { 'x' };
        wrong.replace_range(wrong.len() - 1.., &last.to_string());
        for presented in [wrong.as_str(), "", "tsend_"] {
            assert_eq!(stage.raw(presented.as_bytes()).await, Ok(None));
        }
        // The next lookup runs on another thread.
        let (_request, call) = stage.busy(&key);
        assert_eq!(call.hashes, [key.hash()]);
    }

    #[actix_web::test]
    async fn a_failure_is_no_verdict_and_the_next_lookup_is_made() {
        let stage = Stage::new();
        let [key] = keys();
        for failure in [Reply::Failure, Reply::Panic] {
            let (request, call) = stage.busy(&key);
            call.answer(failure);
            assert_eq!(request.await, Err(()));
            let (request, call) = stage.busy(&key);
            call.find(&[&key]);
            assert_eq!(request.await, works(&key));
        }
    }

    #[actix_web::test]
    async fn a_lookup_that_does_not_come_back_holds_up_nobody_for_long() {
        let stage = Stage::new();
        let [key] = keys();
        let (request, stuck) = stage.busy(&key);
        let began = Instant::now();
        assert_eq!(request.await, Err(()));
        assert!(began.elapsed() < LIMIT);
        let (request, call) = stage.busy(&key);
        // Its late answer goes to nobody, and its thread is one too many.
        stuck.find(&[]);
        call.find(&[&key]);
        assert_eq!(request.await, works(&key));
        let threads = || stage.verifier.0.lock().threads;
        let began = Instant::now();
        while threads() > 1 {
            assert!(began.elapsed() < LIMIT, "two threads are left");
            std::thread::yield_now();
        }
        let (request, call) = stage.busy(&key);
        call.find(&[&key]);
        assert_eq!(request.await, works(&key));
    }

    #[actix_web::test]
    async fn a_dropped_verifier_answers_what_waits_and_ends_its_threads() {
        let stage = Stage::new();
        let [key] = keys();
        let (request, busy) = stage.busy(&key);
        drop(request);
        let waiting = stage.verifier.0.ask(key.hash()).unwrap();
        let Stage { verifier, calls } = stage;
        drop(verifier);
        busy.find(&[]);
        calls.recv_timeout(LIMIT).expect("a lookup").find(&[&key]);
        assert_eq!(
            waiting.await.unwrap().map(|key| key.name.clone()),
            works(&key).unwrap()
        );
        // The last thread drops the function that makes lookups.
        let ended = calls.recv_timeout(LIMIT).map(drop);
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
    }
}
