//! Threads that run beside the server. A thread that panics, or ends without having been told to,
//! is logged and restarted after a growing pause; meanwhile `/readyz` names the part that is down.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// After running this long before it failed, a thread is restarted with the first, shortest pause
/// again.
const RAN_WELL: Duration = Duration::from_secs(60);
/// A restarted part counts as down until it has run this long.
const SETTLES: Duration = Duration::from_secs(2);

/// The parts of the server that were started, and which of them are down. Clones share it.
#[derive(Clone, Default)]
pub struct Parts(Arc<Mutex<BTreeMap<&'static str, Option<Down>>>>);

#[derive(Clone, Copy, PartialEq)]
enum Down {
    /// When the part is, or was, started again.
    Until(Instant),
    /// Nothing starts it again: its thread is gone.
    ForGood,
}

impl Down {
    fn lasts_at(self, now: Instant) -> bool {
        match self {
            Self::Until(again_at) => now < again_at + SETTLES,
            Self::ForGood => true,
        }
    }
}

impl Parts {
    /// One sentence for each part that is down.
    pub fn list_down(&self) -> Vec<String> {
        self.list_down_at(Instant::now())
    }

    /// Each part that was started, and whether it is up.
    pub fn list(&self) -> Vec<(&'static str, bool)> {
        let now = Instant::now();
        let parts = self.lock();
        let parts = parts.iter();
        let is_down = |down: &Down| down.lasts_at(now);
        parts
            .map(|(part, down)| (*part, !down.as_ref().is_some_and(is_down)))
            .collect()
    }

    fn list_down_at(&self, now: Instant) -> Vec<String> {
        let mut parts = self.lock();
        for down in parts.values_mut() {
            down.take_if(|down| !down.lasts_at(now));
        }
        let down = parts.iter();
        let down = down.filter_map(|(part, down)| Some((*part, down.as_ref()?)));
        let sentence = |(part, down): (&str, &Down)| {
            let Down::Until(again_at) = down else {
                return format!("{part} is down: restart the server");
            };
            let left = again_at.saturating_duration_since(now);
            match left.is_zero() {
                true => format!("{part} is down: it was started again a moment ago"),
                false => {
                    let seconds = left.as_secs() + u64::from(left.subsec_nanos() > 0);
                    format!("{part} is down: it is started again in {seconds} s")
                }
            }
        };
        down.map(sentence).collect()
    }

    fn is_started(&self, part: &'static str) {
        self.lock().entry(part).or_default();
    }

    /// Whether a restart of the process is the only remedy.
    pub fn is_any_lost(&self) -> bool {
        self.lock()
            .values()
            .any(|down| *down == Some(Down::ForGood))
    }

    fn is_down(&self, part: &'static str, again_at: Instant) {
        self.lock().insert(part, Some(Down::Until(again_at)));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Option<Down>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A plain thread, not one of Tokio's: at shutdown the runtime waits for its blocking threads, and
/// one stuck on a hung database would delay everything. Dropping this tells the thread to stop.
pub struct BackgroundThread {
    stop: Stop,
    finished: Receiver<()>,
}

impl BackgroundThread {
    /// Runs `work`, which continues until the sender of the receiver it is given is dropped.
    ///
    /// # Errors
    /// If the operating system cannot start a thread.
    pub fn start(
        part: &'static str,
        parts: &Parts,
        work: impl Fn(Receiver<()>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let stop = Stop::default();
        let (finish, finished) = mpsc::channel();
        let (ours, started, parts) = (stop.clone(), parts, parts.clone());
        std::thread::Builder::new()
            .name(part.to_owned())
            .spawn(move || {
                let watch = Watch {
                    part,
                    parts: &parts,
                    stop: &ours,
                };
                supervise(part, &parts, &ours, work);
                drop(watch);
                let _ = finish.send(());
            })?;
        started.is_started(part);
        Ok(Self { stop, finished })
    }

    /// Tells the thread to stop.
    pub fn tell(&self) {
        self.stop.tell();
    }

    /// Tells the thread to stop, and returns whether it stopped within `limit`.
    pub fn end(self, limit: Duration) -> bool {
        self.tell();
        self.finished.recv_timeout(limit).is_ok()
    }
}

impl Drop for BackgroundThread {
    fn drop(&mut self) {
        self.tell();
    }
}

/// Notices that a thread ends without having been told to.
struct Watch<'a> {
    part: &'static str,
    parts: &'a Parts,
    stop: &'a Stop,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if !self.stop.lock().is_told {
            self.parts.lock().insert(self.part, Some(Down::ForGood));
        }
    }
}

fn supervise(part: &'static str, parts: &Parts, stop: &Stop, work: impl Fn(Receiver<()>)) {
    let mut pause = FIRST_PAUSE;
    while let Some(stopped) = stop.listen() {
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| work(stopped)));
        let Some(stopped) = stop.listen() else {
            return;
        };
        if started.elapsed() >= RAN_WELL {
            pause = FIRST_PAUSE;
        }
        let seconds = pause.as_secs();
        // By now the log already has the place of the panic.
        match outcome {
            Ok(()) => tracing::error!(part, seconds, "a part ended; restarting it"),
            Err(_) => tracing::error!(part, seconds, "a part panicked; restarting it"),
        }
        parts.is_down(part, Instant::now() + pause);
        if stopped.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Tells the listener to stop, whether it is listening already or begins to later.
#[derive(Clone, Default)]
struct Stop(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    is_told: bool,
    listener: Option<Sender<()>>,
}

impl Stop {
    fn tell(&self) {
        let mut told = self.lock();
        told.is_told = true;
        told.listener = None;
    }

    /// Replaces the previous listener. `None`: the order to stop has already been given.
    fn listen(&self) -> Option<Receiver<()>> {
        let mut told = self.lock();
        if told.is_told {
            return None;
        }
        let (listener, receiver) = mpsc::channel();
        told.listener = Some(listener);
        Some(receiver)
    }

    fn lock(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A runtime owned by the thread that makes it. When dropped, even by a panic, it does not wait for
/// its blocking threads: one of them may be hung on the database.
pub struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// # Errors
    /// If the system lacks the resources.
    pub fn new(stack_bytes: Option<usize>) -> std::io::Result<Self> {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all();
        if let Some(bytes) = stack_bytes {
            builder.thread_stack_size(bytes);
        }
        builder.build().map(|runtime| Self(Some(runtime)))
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        runtime.block_on(future)
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// A part that reports each of its starts and then waits for an order.
    fn start(parts: &Parts) -> (BackgroundThread, Receiver<Sender<Order>>) {
        let (begin, begun) = mpsc::channel();
        let work = move |stopped: Receiver<()>| {
            let (order, orders) = mpsc::channel();
            begin.send(order).unwrap();
            match orders.recv() {
                Ok(Order::Panic) => panic!("as the test wants"),
                Ok(Order::Return) => {}
                Err(_) => assert!(stopped.recv().is_err()),
            }
        };
        let thread = BackgroundThread::start("a part", parts, work).unwrap();
        (thread, begun)
    }

    enum Order {
        Panic,
        Return,
    }

    #[test]
    fn what_panics_or_ends_is_named_and_started_again() {
        let parts = Parts::default();
        let (thread, begun) = start(&parts);
        for order in [Order::Panic, Order::Return] {
            let now = begun.recv_timeout(LIMIT).unwrap();
            now.send(order).unwrap();
        }
        let last = begun.recv_timeout(LIMIT).unwrap();
        assert_eq!(
            parts.list_down(),
            ["a part is down: it was started again a moment ago"]
        );
        assert_eq!(parts.list(), [("a part", false)]);
        assert!(parts.list_down_at(Instant::now() + SETTLES).is_empty());
        assert_eq!(parts.list(), [("a part", true)]);
        drop(last);
        assert!(thread.end(LIMIT));
    }

    #[test]
    fn it_stops_while_it_pauses() {
        let parts = Parts::default();
        let (thread, begun) = start(&parts);
        begun
            .recv_timeout(LIMIT)
            .unwrap()
            .send(Order::Panic)
            .unwrap();
        assert!(thread.end(LIMIT));
        assert!(begun.recv_timeout(LIMIT).is_err());
    }

    #[test]
    fn a_thread_that_is_gone_is_named_until_the_end() {
        let (parts, stop) = (Parts::default(), Stop::default());
        let watch = || Watch {
            part: "a part",
            parts: &parts,
            stop: &stop,
        };
        let told = ["a part is down: restart the server"];
        drop(watch());
        let later = Instant::now() + LONGEST_PAUSE * 2;
        assert_eq!(parts.list_down_at(later), told);
        assert!(parts.is_any_lost());

        parts.lock().clear();
        stop.tell();
        drop(watch());
        assert!(parts.list_down().is_empty() && !parts.is_any_lost());
    }

    #[test]
    fn a_part_that_is_down_says_for_how_long() {
        let parts = Parts::default();
        let now = Instant::now();
        parts.is_down("delivery", now + Duration::from_millis(7_200));
        let told = "delivery is down: it is started again in 8 s";
        assert_eq!(parts.list_down_at(now), [told]);
    }

    #[test]
    fn a_runtime_that_panics_waits_for_no_blocking_thread() {
        let (release, released) = mpsc::channel::<()>();
        let (end, ended) = mpsc::channel();
        std::thread::spawn(move || {
            let panicked = catch_unwind(AssertUnwindSafe(|| {
                let runtime = Runtime::new(None).unwrap();
                runtime.block_on(async {
                    tokio::task::spawn_blocking(move || released.recv());
                    tokio::task::yield_now().await;
                    panic!("as the test wants");
                });
            }));
            end.send(panicked.is_err()).unwrap();
        });
        assert_eq!(ended.recv_timeout(LIMIT), Ok(true));
        drop(release);
    }
}
