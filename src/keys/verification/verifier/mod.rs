//! Who holds this key? The database is asked for every request, so that a deleted key is refused from the
//! very next request on: not for the key, but whether anything changed since it was looked up (`lookup.rs`,
//! `memory.rs`).
//!
//! Questions are batched: while the thread waits for the database, new questions queue (`queue.rs`), and
//! all of them are answered together next. A question never waits to be batched, and never joins a batch
//! for which the database was already asked, so that each answer was true at a moment after its request
//! arrived.

mod desk;
mod lookup;
mod memory;
mod queue;

use std::sync::Arc;

use self::lookup::DbLookup;
use self::queue::Shared;
use super::store::LiveKey;
use crate::db::Db;
use crate::keys::secret::PlainKey;
use crate::metrics::{Metrics, Verdict};

pub use lookup::{Answers, Lookup, Remembering};
pub use queue::Unavailable;

/// One lookup thread, with a connection and a memory of its own: while it waits for an answer, the next
/// batch grows.
const ASKERS: usize = 1;
/// Verifies keys. When dropped, it answers the queued questions and ends its threads.
pub struct Verifier(Arc<Shared>);

/// How much it has to do.
pub struct Load {
    /// Questions in the queue.
    pub waiting: usize,
    pub threads: usize,
}

impl Verifier {
    /// Starts the thread that asks the database. `remembered_keys`: how many keys it remembers at most.
    pub fn start(db: &Db, remembered_keys: usize, metrics: &Metrics) -> Self {
        let db = db.clone();
        let new_lookup =
            move || Box::new(DbLookup::new(db.clone(), remembered_keys)) as Box<dyn Lookup>;
        Self(Shared::start(ASKERS, metrics.clone(), new_lookup))
    }

    /// Starts this many threads; each queries what `new_lookup` makes on that thread.
    pub fn with_lookup(
        askers: usize,
        new_lookup: impl Fn() -> Box<dyn Lookup> + Send + Sync + 'static,
    ) -> Self {
        Self(Shared::start(askers, Metrics::default(), new_lookup))
    }

    /// The presented key, if it works at this moment. A text that cannot be a key is not looked up.
    ///
    /// # Errors
    /// If the database is unavailable or slow, or too many requests wait for it.
    pub async fn verify(&self, presented: &[u8]) -> Result<Option<Arc<LiveKey>>, Unavailable> {
        let Some(hash) = PlainKey::hash_of(presented) else {
            return Ok(None);
        };
        let metrics = &self.0.metrics;
        let asked = metrics.asked();
        let verdict = self.0.look_up(hash).await;
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
        Load {
            waiting: self.0.waiting(),
            threads: self.0.threads(),
        }
    }
}

impl Drop for Verifier {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::mpsc;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::accounts::store::AccountId;
    use crate::db;
    use crate::keys::rule::Rule;
    use crate::keys::scope::Scope;
    use crate::keys::secret::KeyHash;

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
        async fn request<'a>(&'a self, key: &'a PlainKey) -> Request<'a> {
            let mut request = self.raw(key.expose().as_bytes());
            assert_eq!(poll(&mut request), Poll::Pending);
            handed_over().await;
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
        async fn busy<'a>(&'a self, key: &'a PlainKey) -> (Request<'a>, Call) {
            (self.request(key).await, self.call())
        }

        async fn requests<'a>(
            &'a self,
            keys: impl IntoIterator<Item = &'a PlainKey>,
        ) -> Vec<Request<'a>> {
            let mut requests = Vec::new();
            for key in keys {
                requests.push(self.request(key).await);
            }
            requests
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

    /// What was asked on this thread is in the queue.
    async fn handed_over() {
        for _ in 0..3 {
            tokio::task::yield_now().await;
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
        let (early, call) = stage.busy(&key).await;
        let late = stage.request(&key).await;
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
        let (_first, busy) = stage.busy(&first).await;
        let requests = stage.requests([&key, &bad, &other, &key, &key]).await;
        busy.find(&[]);
        let call = stage.call();
        assert_eq!(call.hashes.len(), 3);
        call.find(&[&key, &other]);
        let [one, two, three, four, five] = <[_; 5]>::try_from(requests).ok().unwrap();
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
        let (_first, busy) = stage.busy(&first).await;
        let requests = stage.requests(&many).await;
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
        let (_first, busy) = stage.busy(&first).await;
        drop(stage.request(&gone).await);
        let request = stage.request(&key).await;
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
        let (_first, busy) = stage.busy(&key).await;
        let ask = |_| stage.verifier.0.ask(key.hash()).unwrap();
        let waiting: Vec<_> = (0..8192).map(ask).collect();
        handed_over().await;
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
        let (_request, call) = stage.busy(&key).await;
        assert_eq!(call.hashes, [key.hash()]);
    }

    #[actix_web::test]
    async fn a_failure_is_no_verdict_and_the_next_lookup_is_made() {
        let stage = Stage::new();
        let [key] = keys();
        for failure in [Reply::Failure, Reply::Panic] {
            let (request, call) = stage.busy(&key).await;
            call.answer(failure);
            assert_eq!(request.await, Err(()));
            let (request, call) = stage.busy(&key).await;
            call.find(&[&key]);
            assert_eq!(request.await, works(&key));
        }
    }

    #[actix_web::test]
    async fn a_lookup_that_does_not_come_back_holds_up_nobody_for_long() {
        let stage = Stage::new();
        let [key] = keys();
        let (request, stuck) = stage.busy(&key).await;
        let began = Instant::now();
        assert_eq!(request.await, Err(()));
        assert!(began.elapsed() < LIMIT);
        let (request, call) = stage.busy(&key).await;
        // Its late answer goes to nobody, and its thread is one too many.
        stuck.find(&[]);
        call.find(&[&key]);
        assert_eq!(request.await, works(&key));
        let threads = || stage.verifier.0.threads();
        let began = Instant::now();
        while threads() > 1 {
            assert!(began.elapsed() < LIMIT, "two threads are left");
            std::thread::yield_now();
        }
        let (request, call) = stage.busy(&key).await;
        call.find(&[&key]);
        assert_eq!(request.await, works(&key));
    }

    #[actix_web::test]
    async fn a_dropped_verifier_answers_what_waits_and_ends_its_threads() {
        let stage = Stage::new();
        let [key] = keys();
        let (request, busy) = stage.busy(&key).await;
        drop(request);
        let waiting = stage.verifier.0.ask(key.hash()).unwrap();
        handed_over().await;
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
