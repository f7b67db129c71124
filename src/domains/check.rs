//! Looks at domains: when someone asks, and beside the server when their time comes. Any number of
//! nodes may do it at once.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, spawn_blocking};

use super::dkim::{self, SealedKey};
use super::dns::Dns;
use super::name::DomainName;
use super::store::{self, Domain};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::background::Runtime;
use crate::db::{self, Db};
use crate::secret::ServerSecret;

const TICK: Duration = Duration::from_secs(1);
/// Domains that are read at a time, and of which so many are looked up at once.
const DUE: i64 = 64;
const AT_ONCE: usize = 8;

/// How often the people of an account may have a domain looked up: their questions go to others'
/// servers.
pub const SECONDS_BETWEEN: u64 = 5;
/// Above this many remembered accounts, those that may ask again anyway are forgotten.
const MANY: usize = 10_000;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("no key could be made: {0}")]
    Key(#[from] dkim::Error),
    // Without the panic's message, which may quote what was worked on.
    #[error("no key could be made: the thread panicked")]
    Thread(#[from] JoinError),
}

/// What came of a look.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    pub domain: Domain,
    /// Whether DNS said anything of the record that matters.
    pub is_answered: bool,
}

/// Looks at domains, with what that takes.
#[derive(Clone)]
pub struct Checker {
    db: Db,
    dns: Dns,
    secret: ServerSecret,
    /// Making keys takes up one core at most.
    core: Arc<Semaphore>,
}

impl Checker {
    pub fn new(db: &Db, dns: Dns, secret: &ServerSecret) -> Self {
        Self {
            db: db.clone(),
            dns,
            secret: secret.clone(),
            core: Arc::new(Semaphore::new(1)),
        }
    }

    /// Looks at a domain now. `None` if the account has no such domain.
    pub async fn check(
        &self,
        account: AccountId,
        id: i64,
        actor: Actor,
    ) -> Result<Option<Checked>, Error> {
        let Some(domain) = self
            .db
            .read(move |conn| store::find(conn, account, id))
            .await?
        else {
            return Ok(None);
        };
        let name = DomainName::known(&domain.name);
        let Some(public) = self.key_of(account, id, &name).await? else {
            return Ok(None);
        };
        let findings = self.dns.look(name.as_ref(), &public).await;
        let is_answered = findings.dkim.is_some();
        let settled = self
            .db
            .write(move |conn| store::settle(conn, account, id, &public, &findings, &actor))
            .await?;
        Ok(settled.map(|domain| Checked {
            domain,
            is_answered,
        }))
    }

    /// The public key of a domain, which is made now if it has none. `None` if the domain is gone.
    pub async fn key_of(
        &self,
        account: AccountId,
        id: i64,
        name: &DomainName,
    ) -> Result<Option<String>, Error> {
        let find = move |conn: &mut _| store::find_records(conn, account, id);
        let Some(records) = self.db.read(find).await? else {
            return Ok(None);
        };
        if records.dkim_public.is_some() {
            return Ok(records.dkim_public);
        }
        let key = self.make_key(name.clone()).await?;
        let given = self
            .db
            .write(move |conn| {
                store::give_key(conn, account, id, &key)?;
                // Another node may have been faster.
                store::find_records(conn, account, id)
            })
            .await?;
        Ok(given.and_then(|records| records.dkim_public))
    }

    /// Off the async threads, since it takes long.
    pub async fn make_key(&self, name: DomainName) -> Result<SealedKey, Error> {
        let core = self.core.clone().acquire_owned().await;
        let secret = self.secret.clone();
        let make = move || {
            let key = SealedKey::make(&secret, &name);
            // Not before, even if nobody waits for the key any more.
            drop(core);
            key
        };
        Ok(spawn_blocking(make).await??)
    }

    /// Goes on until `stop` is dropped.
    pub fn keep_checking(&self, stop: &Receiver<()>) {
        let runtime = match Runtime::new(None) {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!(%error, "domains cannot be checked");
                return;
            }
        };
        let mut is_failing = false;
        loop {
            let done = runtime.block_on(self.check_due(stop));
            match (&done, is_failing) {
                (Err(error), false) => {
                    tracing::error!(%error, "the check of domains fails, and is tried again");
                }
                (Ok(()), true) => tracing::info!("the check of domains works again"),
                _ => {}
            }
            is_failing = done.is_err();
            if stop.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    /// One that cannot be checked keeps no other from it.
    async fn check_due(&self, stop: &Receiver<()>) -> Result<(), Error> {
        // Reads first: SQLite has one writer, who is not to be taken up every second for nothing.
        let due = |conn: &mut _| store::find_due_of_any_account(conn, DUE);
        let due = self.db.read(due).await?;
        let checks = stream::iter(due)
            .take_while(|_| std::future::ready(stop.try_recv() == Err(TryRecvError::Empty)))
            .map(|(account, id)| self.check_if_claimed(account, id))
            .buffer_unordered(AT_ONCE);
        checks
            .fold(Ok(()), |sum, done| std::future::ready(sum.and(done)))
            .await
    }

    async fn check_if_claimed(&self, account: AccountId, id: i64) -> Result<(), Error> {
        let claim = move |conn: &mut _| store::claim(conn, account, id);
        if self.db.write(claim).await? {
            self.check(account, id, Actor::server()).await?;
        }
        Ok(())
    }
}

/// How often each account may ask for a look. Each node counts for itself.
pub struct CheckLimit(DefaultKeyedRateLimiter<i64>);

impl CheckLimit {
    pub fn new() -> Self {
        let span = Duration::from_secs(SECONDS_BETWEEN);
        let quota = Quota::with_period(span).expect("a span of time");
        Self(RateLimiter::keyed(quota.allow_burst(NonZeroU32::MIN)))
    }

    pub fn admits(&self, account: AccountId) -> bool {
        if self.0.len() > MANY {
            self.0.retain_recent();
        }
        self.0.check_key(&account.0).is_ok()
    }
}

impl Default for CheckLimit {
    fn default() -> Self {
        Self::new()
    }
}
