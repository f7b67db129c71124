//! Checks the DNS records of domains: on request, and in the background when a check is due. Any
//! number of nodes may do it at once.

use std::collections::HashSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use governor::Quota;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::sleep;

use super::dkim::{self, DkimKey, SealedKey};
use super::dns::Dns;
use super::key_turns::{KeyTurn, KeyTurns};
use super::name::DomainName;
use super::store::{self, Added, Domain, DomainKey};
use crate::accounts::event::Actor;
use crate::accounts::store::AccountId;
use crate::accounts::throttle::Limit;
use crate::background::Runtime;
use crate::db::{self, Db, nodes};
use crate::logging::Outage;
use crate::secret::{SecretRing, ServerSecret};

const TICK: Duration = Duration::from_secs(1);
/// Domains checked at once. If DNS does not answer, a check takes eight seconds.
const AT_ONCE: usize = 16;
/// Due domains read at a time.
const DUE: i64 = 64;
/// The maximum number of accounts in one round of turns.
const ROUND: usize = 500;

/// The shortest time between the checks that the people of an account may request, because the
/// queries go to other people's servers.
pub const SECONDS_BETWEEN: u64 = 5;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Db(#[from] db::Error),
    #[error("no key could be made: {0}")]
    Key(#[from] dkim::Error),
    #[error(
        "no key could be made: this database has got another secret; copy the file with it here"
    )]
    OtherSecret,
    // Without the panic's message, which may quote the data being processed.
    #[error("no key could be made: the thread panicked")]
    Thread(#[from] JoinError),
}

/// The result of a check.
#[derive(Debug, PartialEq, Eq)]
pub struct Checked {
    pub domain: Domain,
    /// Whether DNS answered the query for the record that matters.
    pub is_answered: bool,
}

/// Checks domains, with everything needed for it.
#[derive(Clone)]
pub struct Checker {
    db: Db,
    dns: Dns,
    secrets: SecretRing,
    turns: KeyTurns,
    keys_made: Arc<AtomicUsize>,
}

/// A new key for a domain. The account's turn lasts until this is dropped.
pub struct Made {
    pub key: SealedKey,
    _turn: KeyTurn,
}

/// The lookups in progress, and whose turn is next.
#[derive(Default)]
struct UnderWay {
    domains: HashSet<(AccountId, i64)>,
    /// Accounts that have had their turn in this round.
    had_turn: HashSet<AccountId>,
}

impl UnderWay {
    fn free(&self) -> usize {
        AT_ONCE - self.domains.len()
    }

    /// An account gets another lookup only while more are free than it already has, so that a few
    /// accounts with many slow domains leave room for others.
    fn has_its_share(&self, account: AccountId) -> bool {
        let own = self.domains.iter().filter(|(of, _)| *of == account);
        own.count() >= self.free()
    }

    /// Accounts whose domains must not be started now.
    fn waiting(&self) -> Vec<AccountId> {
        let accounts = self.domains.iter().map(|(account, _)| *account);
        let mut waiting: HashSet<_> = accounts
            .filter(|account| self.has_its_share(*account))
            .collect();
        waiting.extend(&self.had_turn);
        waiting.into_iter().collect()
    }

    /// Chooses from the due domains, one per account.
    fn start(&mut self, due: Vec<(AccountId, i64)>) -> Vec<(AccountId, i64)> {
        let mut started = Vec::new();
        for domain in due {
            let (account, _) = domain;
            if !self.had_turn.contains(&account)
                && !self.has_its_share(account)
                && self.domains.insert(domain)
            {
                self.had_turn.insert(account);
                started.push(domain);
            }
        }
        started
    }
}

type Check = BoxFuture<'static, ((AccountId, i64), Result<(), Error>)>;

impl Checker {
    pub fn new(db: &Db, dns: Dns, secrets: &SecretRing) -> Self {
        Self {
            db: db.clone(),
            dns,
            secrets: secrets.clone(),
            turns: KeyTurns::default(),
            keys_made: Arc::default(),
        }
    }

    /// A key for a domain about to be added, unless the account has it already or is at its limit:
    /// a refused request must not cost a key.
    pub async fn key_for_new(
        &self,
        account: AccountId,
        name: &DomainName,
        limit: i64,
    ) -> Result<Result<Made, Added>, Error> {
        let of_read = name.clone();
        let refusal = move |conn: &mut _| store::refusal(conn, account, &of_read, limit);
        if let Some(refused) = self.db.read(refusal.clone()).await? {
            return Ok(Err(refused));
        }
        let turn = self.turns.take(account).await;
        // The account added other domains before its turn came.
        if let Some(refused) = self.db.read(refusal).await? {
            return Ok(Err(refused));
        }
        let key = self.make_key(&turn, name.clone()).await?;
        Ok(Ok(Made { key, _turn: turn }))
    }

    /// Whether a domain's key was sealed with a secret of this server.
    pub fn can_open(&self, domain: &str, sealed: &[u8]) -> bool {
        DkimKey::open_with_any(sealed, &self.secrets, &DomainName::known(domain)).is_ok()
    }

    /// Whether a domain has a key that cannot be opened.
    pub fn is_lost(&self, key: &DomainKey) -> bool {
        let sealed = key.sealed.as_ref();
        sealed.is_some_and(|sealed| !self.can_open(&key.name, sealed))
    }

    /// A replacement for a key that cannot be opened, and that key. `None` if the domain's key can
    /// be opened, or the domain is gone.
    pub async fn key_for_lost(
        &self,
        account: AccountId,
        id: i64,
    ) -> Result<Option<(Made, Vec<u8>)>, Error> {
        let turn = self.turns.take(account).await;
        let find = move |conn: &mut _| store::find_key(conn, account, id);
        let lost = self.db.read(find).await?.filter(|key| self.is_lost(key));
        let Some(DomainKey {
            name,
            sealed: Some(sealed),
            ..
        }) = lost
        else {
            return Ok(None);
        };
        let key = self.make_key(&turn, DomainName::known(&name)).await?;
        Ok(Some((Made { key, _turn: turn }, sealed)))
    }

    /// How many key pairs were made since the server started.
    pub fn keys_made(&self) -> usize {
        self.keys_made.load(Ordering::SeqCst)
    }

    /// Checks a domain now. `None` if the account has no such domain.
    pub async fn check(
        &self,
        account: AccountId,
        id: i64,
        actor: Actor,
    ) -> Result<Option<Checked>, Error> {
        let find = move |conn: &mut _| store::find_key(conn, account, id);
        let Some(key) = self.db.read(find).await? else {
            return Ok(None);
        };
        if self.is_lost(&key) {
            tracing::warn!(
                domain = key.name,
                "the key of a domain cannot be decrypted with this server's secret: its page offers to replace it"
            );
        }
        let name = DomainName::known(&key.name);
        let public = match key.public {
            Some(public) => Some(public),
            None => self.give_key(account, id, &name).await?,
        };
        let Some(public) = public else {
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

    /// Makes sure that a domain has a key, unless the domain is gone.
    pub async fn ensure_key(
        &self,
        account: AccountId,
        id: i64,
        name: &DomainName,
    ) -> Result<(), Error> {
        let find = move |conn: &mut _| store::find_key(conn, account, id);
        if let Some(key) = self.db.read(find).await?
            && key.public.is_none()
        {
            self.give_key(account, id, name).await?;
        }
        Ok(())
    }

    /// Makes a key for a domain that had none. Returns the domain's public key; `None` if the domain
    /// is gone.
    async fn give_key(
        &self,
        account: AccountId,
        id: i64,
        name: &DomainName,
    ) -> Result<Option<String>, Error> {
        let find = move |conn: &mut _| store::find_key(conn, account, id);
        let turn = self.turns.take(account).await;
        match self.db.read(find).await? {
            // It got a key before its turn came.
            Some(key) if key.public.is_some() => return Ok(key.public),
            Some(_) => {}
            None => return Ok(None),
        }
        let key = self.make_key(&turn, name.clone()).await?;
        let given = self
            .db
            .write(move |conn| {
                store::give_key(conn, account, id, &key)?;
                // Another node may have been faster.
                store::find_key(conn, account, id)
            })
            .await?;
        Ok(given.and_then(|key| key.public))
    }

    /// Runs outside the async threads, because it takes long.
    async fn make_key(&self, turn: &KeyTurn, name: DomainName) -> Result<SealedKey, Error> {
        let core = turn.core().await;
        let (secret, made) = (self.sealing_secret().await?, self.keys_made.clone());
        let make = move || {
            let key = SealedKey::make(&secret, &name);
            made.fetch_add(1, Ordering::SeqCst);
            // Not earlier, even if no request waits for the key any more.
            drop(core);
            key
        };
        Ok(spawn_blocking(make).await??)
    }

    /// The secret that belongs to the database now: it may have been rotated since the start.
    async fn sealing_secret(&self) -> Result<ServerSecret, Error> {
        let Some(hash) = self.db.read(nodes::find_secret).await? else {
            return Ok(self.secrets.current().clone());
        };
        self.secrets.find_by_hash(&hash).ok_or(Error::OtherSecret)
    }

    /// Runs until `stop` is dropped.
    pub fn keep_checking(&self, stop: &Receiver<()>) {
        match Runtime::new(None) {
            Ok(runtime) => runtime.block_on(self.check_due(stop)),
            Err(error) => {
                tracing::error!(%error, "domains cannot be checked");
            }
        }
    }

    /// A domain that cannot be checked does not hold up the others.
    async fn check_due(&self, stop: &Receiver<()>) {
        let (mut under_way, mut checks) = (UnderWay::default(), FuturesUnordered::new());
        let mut outage = Outage::default();
        while stop.try_recv() == Err(TryRecvError::Empty) {
            let mut done = self.start_due(&mut under_way, &checks).await;
            tokio::select! {
                Some((domain, checked)) = checks.next() => {
                    under_way.domains.remove(&domain);
                    done = done.and(checked);
                }
                () = sleep(TICK) => {}
            }
            match &done {
                Err(error) => {
                    if let Some(times) = outage.goes_on() {
                        tracing::error!(%error, times, "the check of domains fails, and is tried again");
                    }
                    sleep(TICK).await;
                }
                Ok(()) if outage.ends() => tracing::info!("the check of domains works again"),
                Ok(()) => {}
            }
        }
    }

    /// Starts as many checks as there is room for, taking the accounts in turn.
    async fn start_due(
        &self,
        under_way: &mut UnderWay,
        checks: &FuturesUnordered<Check>,
    ) -> Result<(), Error> {
        while under_way.free() > 0 {
            if under_way.had_turn.len() >= ROUND {
                under_way.had_turn.clear();
            }
            let waiting = under_way.waiting();
            // Reads first: SQLite has a single writer, which must not be occupied every second for
            // nothing.
            let due = move |conn: &mut _| store::find_due_of_any_account(conn, &waiting, DUE);
            let started = under_way.start(self.db.read(due).await?);
            if started.is_empty() && under_way.had_turn.is_empty() {
                break;
            }
            if started.is_empty() {
                under_way.had_turn.clear();
            }
            for (account, id) in started {
                let checker = self.clone();
                let check = async move {
                    let checked = checker.check_if_claimed(account, id).await;
                    ((account, id), checked)
                };
                checks.push(check.boxed());
            }
        }
        Ok(())
    }

    async fn check_if_claimed(&self, account: AccountId, id: i64) -> Result<(), Error> {
        let claim = move |conn: &mut _| store::claim(conn, account, id);
        if self.db.write(claim).await? {
            self.check(account, id, Actor::server()).await?;
        }
        Ok(())
    }
}

/// How often each account may request a check. Each node counts separately.
pub struct CheckLimit(Limit<i64>);

impl CheckLimit {
    pub fn new() -> Self {
        let span = Duration::from_secs(SECONDS_BETWEEN);
        let quota = Quota::with_period(span).expect("a span of time");
        Self(Limit::new(quota.allow_burst(NonZeroU32::MIN)))
    }

    pub fn admits(&self, account: AccountId) -> bool {
        self.0.admit(&account.0).is_ok()
    }
}

impl Default for CheckLimit {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts all of these due domains that may start, in as many rounds as that takes.
    fn start_all(under_way: &mut UnderWay, due: &[(i64, i64)]) -> Vec<i64> {
        let mut accounts = Vec::new();
        loop {
            let waiting = under_way.waiting();
            let due = due.iter().map(|(account, id)| (AccountId(*account), *id));
            let due = due.filter(|(account, _)| !waiting.contains(account));
            let due = due.take(DUE as usize);
            let started = under_way.start(due.collect());
            if started.is_empty() && under_way.had_turn.is_empty() {
                return accounts;
            }
            if started.is_empty() {
                under_way.had_turn.clear();
            }
            accounts.extend(started.into_iter().map(|(account, _)| account.0));
        }
    }

    #[test]
    fn accounts_take_turns_and_a_few_never_take_all() {
        let many: Vec<_> = (0..200).map(|id| (1, id)).collect();
        let mut under_way = UnderWay::default();
        assert_eq!(start_all(&mut under_way, &many), [1; AT_ONCE / 2]);
        let others = [many.as_slice(), &[(2, 1000), (3, 1001), (2, 1002)]].concat();
        assert_eq!(start_all(&mut under_way, &others), [2, 3, 2]);
        // A finished check makes room, also for accounts with many domains.
        under_way
            .domains
            .retain(|(account, _)| *account == AccountId(1));
        assert!(start_all(&mut under_way, &many).is_empty());
        let ended = *under_way.domains.iter().next().unwrap();
        under_way.domains.remove(&ended);
        assert_eq!(start_all(&mut under_way, &many), [1]);

        // With as many accounts as places, each account has one.
        let mut under_way = UnderWay::default();
        let all: Vec<_> = (0..200).map(|id| (id % AT_ONCE as i64, id)).collect();
        let mut started = start_all(&mut under_way, &all);
        started.sort_unstable();
        assert_eq!(started, (0..AT_ONCE as i64).collect::<Vec<_>>());
        assert_eq!(under_way.free(), 0);

        // The first account gets no second check before the last one has its first.
        let mut under_way = UnderWay::default();
        let all: Vec<_> = (0..400).map(|id| (id / 100, id)).collect();
        let started = start_all(&mut under_way, &all);
        assert_eq!(started, [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0]);
    }
}
