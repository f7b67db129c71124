//! Stores accepted emails. Those that arrive while a commit is under way wait, and share the next
//! one: a commit costs the disk the same however many emails are in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::queue::{Full, Queue, Size};
use super::store::{self, NewEmail, Submitted};
use crate::accounts::store::AccountId;
use crate::db::{self, Db};
use crate::http::body::BodyPermit;
use crate::keys::verification::store::LiveKey;
use crate::outbox::Arrivals;

/// Threads that store emails. SQLite has one writer; with PostgreSQL, an account whose rows another
/// transaction has locked must not hold up all others.
const THREADS_OF_POSTGRES: usize = 4;
/// How long a request waits until its emails are stored.
const DEADLINE: Duration = Duration::from_secs(5);
/// Accounts whose emails fail one after the other before the rest is given up as well.
const MOST_FAILURES: usize = 2;

/// Accepts emails. When dropped, it stores what waits and ends its threads.
pub struct Acceptor(Arc<Shared>);

struct Shared {
    db: Db,
    arrivals: Arc<Arrivals>,
    state: Mutex<State>,
    change: Condvar,
}

#[derive(Default)]
struct State {
    queue: Queue<Submission>,
    is_closed: bool,
}

/// The emails of one request: all of them are stored, or none. When dropped without an answer, it
/// reports that there is none.
struct Submission {
    account: AccountId,
    api_key_id: i64,
    emails: Vec<NewEmail>,
    answer: oneshot::Sender<db::Result<()>>,
    _permit: BodyPermit,
}

/// Why emails that share a commit were not stored.
enum Stop {
    /// A request does not wait for its answer any more: it may have been told to try again.
    Abandoned,
    Failed(db::Error),
}

impl From<db::Error> for Stop {
    fn from(error: db::Error) -> Self {
        Self::Failed(error)
    }
}

impl Acceptor {
    pub fn start(db: &Db, arrivals: Arc<Arrivals>) -> Self {
        let shared = Arc::new(Shared {
            db: db.clone(),
            arrivals,
            state: Mutex::default(),
            change: Condvar::new(),
        });
        let threads = if db.is_postgres() {
            THREADS_OF_POSTGRES
        } else {
            1
        };
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new()
                .name(format!("accept-{number}"))
                .spawn(move || shared.serve());
            if let Err(error) = thread {
                tracing::error!(%error, "a thread that stores emails cannot start");
            }
        }
        Self(shared)
    }

    /// Stores emails durably, after all those of the account that were submitted before. `permit`:
    /// held until then.
    ///
    /// # Errors
    /// If they are not stored, or it is unknown whether they are.
    pub async fn accept(
        &self,
        key: &LiveKey,
        emails: Vec<NewEmail>,
        permit: BodyPermit,
    ) -> db::Result<()> {
        let (answer, receiver) = oneshot::channel();
        self.0.submit(Submission {
            account: key.account,
            api_key_id: key.id,
            emails,
            answer,
            _permit: permit,
        })?;
        match timeout(DEADLINE, receiver).await {
            Ok(Ok(stored)) => stored,
            Ok(Err(_)) => Err(unavailable("storing emails failed")),
            Err(_) => Err(unavailable("it did not store emails in time")),
        }
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.change.notify_all();
    }
}

impl Submission {
    fn is_awaited(&self) -> bool {
        !self.answer.is_closed()
    }

    fn size(&self) -> Size {
        Size {
            emails: self.emails.len(),
            bytes: self.emails.iter().map(NewEmail::bytes).sum(),
        }
    }

    fn submitted(&self) -> Submitted<'_> {
        Submitted {
            account: self.account,
            api_key_id: self.api_key_id,
            emails: &self.emails,
        }
    }

    fn tell(self, stored: db::Result<()>) {
        // The request may be gone.
        let _ = self.answer.send(stored);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn submit(&self, submission: Submission) -> db::Result<()> {
        let (account, size) = (submission.account.0, submission.size());
        let joined = self.lock().queue.join(account, size, submission);
        joined.map_err(|Full| unavailable("too many emails wait to be stored"))?;
        self.change.notify_one();
        Ok(())
    }

    fn serve(&self) {
        while let Some(batch) = self.next_batch() {
            let accounts: Vec<i64> = batch.iter().map(|of| of.account.0).collect();
            // A panic drops the batch, which notifies the waiting requests.
            let done = catch_unwind(AssertUnwindSafe(|| self.store(batch)));
            if done.is_err() {
                tracing::error!("storing emails panicked");
            }
            self.lock().queue.release(accounts);
            self.change.notify_one();
        }
    }

    /// Waits for submissions, and takes those that are stored together; `None` when no more will
    /// come.
    fn next_batch(&self) -> Option<Vec<Submission>> {
        let mut state = self.lock();
        loop {
            let batch: Vec<Submission> = state.queue.take().into_iter().map(|(_, of)| of).collect();
            if !batch.is_empty() {
                return Some(batch);
            }
            if state.is_closed {
                return None;
            }
            state = self
                .change
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Stores a batch in one transaction and answers each request. What cannot be stored fails alone.
    fn store(&self, mut batch: Vec<Submission>) {
        let mut is_apart = false;
        loop {
            batch.retain(Submission::is_awaited);
            if batch.is_empty() {
                return;
            }
            match self.try_to_store(&batch, is_apart) {
                Ok(stored) => return self.tell(batch, stored),
                Err(Stop::Abandoned) => {}
                Err(Stop::Failed(db::Error::Refused(_))) if !is_apart => is_apart = true,
                Err(Stop::Failed(db::Error::DiskFull(why))) => {
                    let full = || Err(db::Error::DiskFull(why.clone()));
                    return batch.into_iter().for_each(|of| of.tell(full()));
                }
                Err(Stop::Failed(error)) => return self.store_one_by_one(batch, &error),
            }
        }
    }

    /// Returns a result for each if the transaction was committed. `is_apart`: each in a savepoint,
    /// because one of them cannot be stored.
    fn try_to_store(
        &self,
        batch: &[Submission],
        is_apart: bool,
    ) -> Result<Vec<db::Result<()>>, Stop> {
        let submitted: Vec<Submitted> = batch.iter().map(Submission::submitted).collect();
        self.db.write_blocking(|conn| {
            let stored = match is_apart {
                false => {
                    store::accept_of_any_account(conn, &submitted)?;
                    batch.iter().map(|_| Ok(())).collect()
                }
                true => store::accept_apart_of_any_account(conn, &submitted)?,
            };
            match batch.iter().all(Submission::is_awaited) {
                true => Ok(stored),
                false => Err(Stop::Abandoned),
            }
        })
    }

    /// Stores each request's emails in a transaction of their own: the one they shared failed, perhaps
    /// because the rows of one account are locked.
    fn store_one_by_one(&self, batch: Vec<Submission>, error: &db::Error) {
        if batch.len() == 1 {
            return batch
                .into_iter()
                .for_each(|of| of.tell(Err(unavailable(error))));
        }
        tracing::warn!(%error, requests = batch.len(), "emails could not be stored together: each request’s are tried alone");
        let mut failed: Vec<AccountId> = Vec::new();
        for submission in batch {
            if failed.len() >= MOST_FAILURES || failed.contains(&submission.account) {
                submission.tell(Err(unavailable(error)));
            } else if submission.is_awaited() {
                let account = submission.account;
                match self.try_to_store(std::slice::from_ref(&submission), true) {
                    Ok(stored) => self.tell(vec![submission], stored),
                    Err(Stop::Abandoned) => {}
                    Err(Stop::Failed(error)) => {
                        failed.push(account);
                        submission.tell(Err(error));
                    }
                }
            }
        }
    }

    fn tell(&self, batch: Vec<Submission>, stored: Vec<db::Result<()>>) {
        let mut emails = 0;
        for (submission, stored) in batch.into_iter().zip(stored) {
            if stored.is_ok() {
                emails += submission.emails.len();
            }
            submission.tell(stored.map_err(gone_meanwhile));
        }
        if emails > 0 {
            self.arrivals.announce(emails);
        }
    }
}

/// A client that tries again will learn what is missing.
fn gone_meanwhile(error: db::Error) -> db::Error {
    match error {
        db::Error::Refused(error) if db::is_foreign_key_violation(&error) => {
            unavailable("the domain was deleted in the meantime")
        }
        error => error,
    }
}

fn unavailable(why: impl ToString) -> db::Error {
    db::Error::Unavailable(why.to_string())
}
