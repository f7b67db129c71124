//! The side of a thread that serves requests. It hands over the questions of all requests that it works on
//! together, and is woken once for all answers of a batch: locks and wake-ups cost more than a verdict.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use crate::keys::secret::KeyHash;
use crate::keys::verification::store::LiveKey;

/// How long a request waits for its answer.
const DEADLINE: Duration = Duration::from_secs(2);
/// How exactly: one timer for all of a thread's requests costs less than one for each.
const TICK: Duration = Duration::from_millis(50);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    Lookup,
    TooLate,
}

pub(super) type Reply = Result<Option<Arc<LiveKey>>, Failure>;

/// Replies, each with the number of its question.
type Replies = Vec<(u64, Reply)>;

/// When dropped without an answer, it reports that there is none.
pub(super) struct Question {
    pub hash: KeyHash,
    inbox: Arc<Inbox>,
    number: u64,
    is_answered: bool,
}

impl Question {
    /// Whether nobody waits for the answer any more.
    pub fn is_pointless(&self) -> bool {
        self.inbox.has_gone.load(Ordering::Acquire) && self.inbox.lock().gone.contains(&self.number)
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        if !self.is_answered {
            self.inbox.deliver([(self.number, Err(Failure::Lookup))]);
        }
    }
}

/// Delivers answers, to each serving thread all of its own at once.
pub(super) fn deliver(answered: impl Iterator<Item = (Question, Option<Arc<LiveKey>>)>) {
    let mut by_thread: Vec<(Arc<Inbox>, Replies)> = Vec::new();
    for (mut question, answer) in answered {
        question.is_answered = true;
        let reply = (question.number, Ok(answer));
        let is_same = |(inbox, _): &&mut (Arc<Inbox>, Replies)| Arc::ptr_eq(inbox, &question.inbox);
        match by_thread.iter_mut().find(is_same) {
            Some((_, replies)) => replies.push(reply),
            None => by_thread.push((Arc::clone(&question.inbox), vec![reply])),
        }
    }
    for (inbox, replies) in by_thread {
        inbox.deliver(replies);
    }
}

/// Where the answers for one serving thread arrive.
#[derive(Default)]
struct Inbox {
    mail: Mutex<Mail>,
    /// Whether `gone` has anything in it.
    has_gone: AtomicBool,
}

#[derive(Default)]
struct Mail {
    replies: Replies,
    /// Of the courier, until there is mail.
    waker: Option<Waker>,
    /// Questions without a reply that nobody waits for.
    gone: HashSet<u64>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn deliver(&self, replies: impl IntoIterator<Item = (u64, Reply)>) {
        let mut mail = self.lock();
        for (number, reply) in replies {
            if mail.gone.is_empty() || !mail.gone.remove(&number) {
                mail.replies.push((number, reply));
            }
        }
        self.has_gone
            .store(!mail.gone.is_empty(), Ordering::Release);
        let waker = mail.waker.take();
        drop(mail);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn give_up(&self, number: u64) {
        self.lock().gone.insert(number);
        self.has_gone.store(true, Ordering::Release);
    }
}

/// Where questions go.
pub(super) trait Queue: Send + Sync {
    /// Takes all of these.
    fn take_in(&self, questions: &mut Vec<Question>);
}

/// What one serving thread has to do with one verifier.
pub(super) struct Desk {
    queue: Weak<dyn Queue>,
    inbox: Arc<Inbox>,
    /// Questions that are handed over when the requests that are ready now have been worked on.
    outbox: RefCell<Vec<Question>>,
    places: RefCell<Places>,
    courier: RefCell<Option<Waker>>,
    /// As of the last tick, while there are ticks.
    now: Cell<Instant>,
    is_ticking: Cell<bool>,
}

thread_local! {
    static DESKS: RefCell<Vec<Rc<Desk>>> = const { RefCell::new(Vec::new()) };
}

impl Desk {
    /// The one of this thread.
    pub fn of<Q: Queue + 'static>(queue: &Arc<Q>) -> Rc<Self> {
        DESKS.with_borrow_mut(|desks| {
            let is_same =
                |desk: &&Rc<Self>| std::ptr::addr_eq(desk.queue.as_ptr(), Arc::as_ptr(queue));
            if let Some(desk) = desks.iter().find(is_same) {
                return Rc::clone(desk);
            }
            let queue: Weak<Q> = Arc::downgrade(queue);
            let desk = Rc::new(Self {
                queue,
                inbox: Arc::default(),
                outbox: RefCell::default(),
                places: RefCell::default(),
                courier: RefCell::default(),
                now: Cell::new(Instant::now()),
                is_ticking: Cell::new(false),
            });
            tokio::task::spawn_local(Courier {
                desk: Rc::clone(&desk),
                tick: None,
            });
            desks.push(Rc::clone(&desk));
            desk
        })
    }

    pub fn ask(self: &Rc<Self>, hash: KeyHash) -> Answer {
        if !self.is_ticking.get() {
            self.now.set(Instant::now());
        }
        let number = self.places.borrow_mut().take(self.now.get());
        let mut outbox = self.outbox.borrow_mut();
        outbox.push(Question {
            hash,
            inbox: Arc::clone(&self.inbox),
            number,
            is_answered: false,
        });
        // On this thread, it runs after what is ready already. It has not run yet if it is not there.
        if outbox.len() == 1
            && let Some(courier) = &*self.courier.borrow()
        {
            courier.wake_by_ref();
        }
        Answer {
            desk: Rc::clone(self),
            number: Some(number),
        }
    }

    fn hand_over(&self) {
        let mut outbox = self.outbox.borrow_mut();
        if outbox.is_empty() {
            return;
        }
        match self.queue.upgrade() {
            Some(queue) => queue.take_in(&mut outbox),
            None => outbox.clear(),
        }
    }

    fn take_mail(&self, waker: &Waker) {
        let mut mail = self.inbox.lock();
        let replies = std::mem::take(&mut mail.replies);
        mail.waker = Some(waker.clone());
        drop(mail);
        for (number, reply) in replies {
            self.settle(number, reply);
        }
    }

    fn settle(&self, number: u64, reply: Reply) {
        let waker = self.places.borrow_mut().settle(number, reply);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn end_what_takes_too_long(&self) {
        self.now.set(Instant::now());
        let late = self
            .places
            .borrow()
            .waiting_since(self.now.get() - DEADLINE);
        for number in late {
            self.inbox.give_up(number);
            self.settle(number, Err(Failure::TooLate));
        }
    }
}

/// The requests of a thread that wait, each at a place. A number is that of the place and, in its upper
/// half, how often the place was taken before.
#[derive(Default)]
struct Places {
    places: Vec<Place>,
    free: Vec<u32>,
}

struct Place {
    taken: u32,
    since: Option<Instant>,
    waker: Option<Waker>,
    reply: Option<Reply>,
}

impl Places {
    fn take(&mut self, now: Instant) -> u64 {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Place {
                taken: 0,
                since: None,
                waker: None,
                reply: None,
            });
            (self.places.len() - 1) as u32
        });
        let taken = &mut self.places[place as usize];
        taken.since = Some(now);
        u64::from(taken.taken) << 32 | u64::from(place)
    }

    fn find(&mut self, number: u64) -> Option<&mut Place> {
        let place = self.places.get_mut(number as u32 as usize)?;
        (u64::from(place.taken) == number >> 32).then_some(place)
    }

    /// Returns who is to be woken.
    fn settle(&mut self, number: u64, reply: Reply) -> Option<Waker> {
        let place = self.find(number).filter(|place| place.reply.is_none())?;
        place.reply = Some(reply);
        place.waker.take()
    }

    fn poll(&mut self, number: u64, waker: &Waker) -> Poll<Reply> {
        let Some(place) = self.find(number) else {
            return Poll::Ready(Err(Failure::Lookup));
        };
        if let Some(reply) = place.reply.take() {
            self.leave(number);
            return Poll::Ready(reply);
        }
        if !place.waker.as_ref().is_some_and(|old| old.will_wake(waker)) {
            place.waker = Some(waker.clone());
        }
        Poll::Pending
    }

    /// Returns whether no reply had come yet.
    fn leave(&mut self, number: u64) -> bool {
        let Some(place) = self.find(number) else {
            return false;
        };
        place.taken = place.taken.wrapping_add(1);
        (place.since, place.waker) = (None, None);
        let has_none = place.reply.take().is_none();
        self.free.push(number as u32);
        has_none
    }

    fn are_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// The numbers of those that have waited since then, or longer.
    fn waiting_since(&self, then: Instant) -> Vec<u64> {
        let places = self.places.iter().enumerate();
        let is_late =
            |place: &Place| place.reply.is_none() && place.since.is_some_and(|at| at <= then);
        let late = places.filter(|(_, place)| is_late(place));
        late.map(|(at, place)| u64::from(place.taken) << 32 | at as u64)
            .collect()
    }
}

/// A request that waits for its answer. If it is dropped, the question need not be asked any more.
pub(super) struct Answer {
    desk: Rc<Desk>,
    /// `None`: it has its answer.
    number: Option<u64>,
}

impl Future for Answer {
    type Output = Reply;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Reply> {
        let Some(number) = self.number else {
            return Poll::Ready(Err(Failure::Lookup));
        };
        let polled = self.desk.places.borrow_mut().poll(number, context.waker());
        if polled.is_ready() {
            self.number = None;
        }
        polled
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && self.desk.places.borrow_mut().leave(number)
        {
            self.desk.inbox.give_up(number);
        }
    }
}

/// A task of the thread: hands questions over, brings answers to those who wait, and tells them when it
/// takes too long.
struct Courier {
    desk: Rc<Desk>,
    tick: Option<Pin<Box<Sleep>>>,
}

impl Future for Courier {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let desk = Rc::clone(&self.desk);
        let waker = context.waker();
        desk.courier
            .borrow_mut()
            .get_or_insert_with(|| waker.clone());
        desk.hand_over();
        desk.take_mail(waker);
        while !desk.places.borrow().are_empty() {
            desk.is_ticking.set(true);
            let tick = self.tick.get_or_insert_with(|| Box::pin(sleep(TICK)));
            if tick.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.tick = None;
            desk.end_what_takes_too_long();
        }
        // A tick that is pending stays: the next request is close behind under load.
        if let Some(tick) = &mut self.tick
            && tick.as_mut().poll(context).is_ready()
        {
            self.tick = None;
        }
        if self.tick.is_none() {
            desk.is_ticking.set(false);
        }
        Poll::Pending
    }
}

/// The runtime of the thread has ended.
impl Drop for Courier {
    fn drop(&mut self) {
        let _ = DESKS.try_with(|desks| {
            desks
                .borrow_mut()
                .retain(|desk| !Rc::ptr_eq(desk, &self.desk));
        });
    }
}
