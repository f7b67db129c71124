//! Delivers accepted emails: claims them, hands them to the relay, and stores the results.
//!
//! Delivery is at least once: a claim is a lease, longer than an attempt may take. If a node dies
//! during an attempt, another takes the email over, and cannot know whether the relay has it.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{NaiveDateTime, TimeDelta};
use futures_util::FutureExt;
use lettre::Address;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::attempt::{AttemptOutcome, Before};
use super::mime::{self, Mail, STACK_BYTES, Signature, Unsendable};
use super::relay::{Fate, Relay, Trouble};
use super::reply::without_addresses;
use super::results::Results;
use super::store::{self, Outgoing};
use super::turns::{PAGE, PLACES, Picked, Places, Turns};
use crate::background::Runtime;
use crate::clock;
use crate::db::{self, Connection, Db};
use crate::domains::dkim::DkimKey;
use crate::domains::life::jittered;
use crate::domains::store::{self as domains_store, Signing};
use crate::emails::message::Message;
use crate::logging::Outage;
use crate::metrics::Metrics;
use crate::outbox::{Arrivals, EmailStatus};
use crate::relay_url::RelayUrl;
use crate::secret::SecretRing;
use crate::token;

/// Messages built at a time: building one takes several times the memory of the email, which may
/// have 16 MB.
const PREPARING: usize = 2;
/// Results that wait to be stored before no more emails are claimed.
const MOST_RESULTS: usize = 2 * PLACES;
/// How long an attempt may take.
const ATTEMPT: Duration = Duration::from_secs(8 * 60);
/// How long an email stays claimed: an attempt, and some time to store its result.
const LEASE: Duration = Duration::from_secs(10 * 60);
/// How often the database is polled for emails that other nodes accepted, and for retries.
const POLL: Duration = Duration::from_secs(2);
/// How long an unusable relay is left alone, at first and at most.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(60);
/// The same for a relay that answers but refuses this server: a person has to fix that.
const LONGEST_REST_IF_REFUSED: Duration = Duration::from_secs(5 * 60);
/// How often the log reports that the relay refuses emails by its policy.
const TELL_POLICY: Duration = Duration::from_secs(60 * 60);
/// Longer than any email waits for its next attempt.
const LONGEST_WAIT: TimeDelta = TimeDelta::days(1);
/// How long an email waits for its domain's key, at first and at most.
const SHORTEST_KEY_WAIT: TimeDelta = TimeDelta::minutes(1);
const LONGEST_KEY_WAIT: TimeDelta = TimeDelta::minutes(15);
/// The reason shown for that wait.
const LOST_KEY: &str = "It waits to be signed: the key of its domain cannot be decrypted. The domain’s page offers another key.";
const AWAITS_RECORD: &str = "It waits to be signed: the DKIM record of its domain’s new key was not found yet. The domain’s page shows the record.";
/// At shutdown: the time for deliveries in progress, and for releasing the rest.
const DRAIN: Duration = Duration::from_secs(6);
const LAST_WRITE: Duration = Duration::from_secs(2);
/// How long shutdown may take.
pub const END: Duration = Duration::from_secs(9);

/// The outcomes of attempts in metrics: how the email ended, or why it is tried again.
const DELIVERED: &str = "delivered";
const FAILED: &str = "failed";
const DEFERRED: &str = "deferred";
const UNREACHABLE: &str = "relay_unreachable";
const NOT_LET_IN: &str = "login_refused";
const REFUSES: &str = "relay_refuses";
pub const OUTCOMES: [&str; 6] = [
    DELIVERED,
    FAILED,
    DEFERRED,
    UNREACHABLE,
    NOT_LET_IN,
    REFUSES,
];

/// Delivers until `stop` is dropped. `arrivals` signals that there are emails to deliver.
pub fn run(
    db: &Db,
    secrets: &SecretRing,
    url: &RelayUrl,
    arrivals: &Arrivals,
    metrics: &Metrics,
    stop: Receiver<()>,
) {
    let runtime = match Runtime::new(Some(STACK_BYTES)) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "emails cannot be delivered");
            return;
        }
    };
    let worker = Arc::new(Worker {
        db: db.clone(),
        secrets: secrets.clone(),
        relay: Relay::new(url.clone()),
        metrics: metrics.clone(),
        health: Mutex::default(),
        policy_told: Mutex::default(),
        preparing: Semaphore::new(PREPARING),
        results: Results::default(),
        under_way: Mutex::default(),
    });
    runtime.block_on(worker.deliver(arrivals, stop));
}

/// Corrects emails whose next attempt is so far ahead that only a wrong clock can have set it.
/// Returns how many.
pub fn pull_back(conn: &mut Connection) -> db::Result<usize> {
    let lease = TimeDelta::from_std(LEASE).expect("minutes");
    store::pull_back_of_any_account(conn, LONGEST_WAIT, lease)
}

struct Worker {
    db: Db,
    secrets: SecretRing,
    relay: Relay,
    metrics: Metrics,
    health: Mutex<Health>,
    /// When the log last reported that the relay refuses emails by its policy.
    policy_told: Mutex<Option<Instant>>,
    preparing: Semaphore,
    results: Results,
    /// With their claims.
    under_way: Mutex<BTreeSet<(i64, String)>>,
}

/// Whether the relay can be used.
#[derive(Default)]
struct Health {
    /// Consecutive failures.
    failures: u32,
    rests_until: Option<Instant>,
    outage: Outage,
}

/// An attempt under way.
struct Attempt {
    account: i64,
    began: Instant,
}

impl Attempt {
    fn now(account: i64) -> Self {
        Self {
            account,
            began: Instant::now(),
        }
    }
}

impl Worker {
    async fn deliver(self: Arc<Self>, arrivals: &Arrivals, stop: Receiver<()>) {
        let mut stopped = tokio::task::spawn_blocking(move || stop.recv().is_err());
        let (mut attempts, mut results) = (JoinSet::new(), JoinSet::new());
        let mut under_way = HashMap::new();
        let mut turns = Turns::default();
        let mut outage = Outage::default();
        while !stopped.is_finished() {
            while let Some(ended) = attempts.try_join_next_with_id() {
                self.clone().conclude(ended, &mut under_way, &mut results);
            }
            while results.try_join_next().is_some() {}
            let places = match results.len() < MOST_RESULTS {
                true => self.places(under_way.values()),
                false => Places::new(0, []),
            };
            let claimed = self.claim(&mut turns, &places).await;
            match &claimed {
                Err(error) => {
                    if let Some(times) = outage.goes_on() {
                        tracing::error!(%error, times, "emails cannot be claimed for delivery");
                    }
                }
                Ok(_) if outage.ends() => {
                    tracing::info!("emails can be claimed for delivery again")
                }
                Ok(_) => {}
            }
            let (claim, claimed) = claimed.unwrap_or_default();
            let has_more = !claimed.is_empty();
            for Picked { account, email } in claimed {
                let (worker, claim) = (self.clone(), claim.clone());
                let attempt = attempts.spawn(async move { worker.attempt(email, claim).await });
                under_way.insert(attempt.id(), Attempt::now(account));
            }
            if has_more {
                continue;
            }
            tokio::select! {
                _ = &mut stopped => break,
                Some(ended) = attempts.join_next_with_id() => {
                    self.clone().conclude(ended, &mut under_way, &mut results);
                }
                Some(_) = results.join_next() => {}
                () = arrivals.wait() => {}
                () = sleep(self.pause()) => self.relay.close_idle().await,
            }
        }
        let _ = timeout(DRAIN, async {
            while let Some(ended) = attempts.join_next_with_id().await {
                self.clone().conclude(ended, &mut under_way, &mut results);
            }
            while results.join_next().await.is_some() {}
        })
        .await;
        attempts.shutdown().await;
        results.shutdown().await;
        if timeout(LAST_WRITE, self.give_back()).await.is_err() {
            tracing::warn!("claimed emails could not be released before shutdown");
        }
    }

    /// Gives the place of an attempt to another email, while its result is being stored.
    fn conclude(
        self: Arc<Self>,
        ended: Result<(Id, Option<Finished>), JoinError>,
        under_way: &mut HashMap<Id, Attempt>,
        results: &mut JoinSet<()>,
    ) {
        let (id, finished) = match ended {
            Ok((id, finished)) => (id, finished),
            Err(error) => (error.id(), None),
        };
        under_way.remove(&id);
        if let Some(finished) = finished {
            results.spawn(async move { self.settle(finished).await });
        }
    }

    /// The places for emails in delivery: only one while the relay is in doubt. Attempts from before
    /// do not occupy it then, nor do those that hang, so that the relay is asked again at least every
    /// minute.
    fn places<'a>(&self, attempts: impl Iterator<Item = &'a Attempt>) -> Places {
        let now = Instant::now();
        match self.health().rests_until {
            Some(until) if now < until => Places::new(0, []),
            Some(until) => {
                let from = until.max(now - LONGEST_REST);
                let recent = attempts.filter(|attempt| attempt.began >= from);
                Places::new(1, recent.map(|attempt| attempt.account))
            }
            None => Places::new(PLACES, attempts.map(|attempt| attempt.account)),
        }
    }

    /// How long to wait for an event.
    fn pause(&self) -> Duration {
        match self.health().rests_until {
            Some(until) => POLL.min(
                until
                    .saturating_duration_since(Instant::now())
                    .max(FIRST_REST),
            ),
            None => POLL,
        }
    }

    /// Claims the emails whose turn it is. Returns the claim and the emails.
    async fn claim(&self, turns: &mut Turns, places: &Places) -> db::Result<(String, Vec<Picked>)> {
        let token = token::random();
        let lease = TimeDelta::from_std(LEASE).expect("minutes");
        loop {
            let mut picked = self.pick(turns, places.clone()).await?;
            if picked.is_empty() {
                return Ok((token, picked));
            }
            let mut ids: Vec<i64> = picked.iter().map(|picked| picked.email).collect();
            // Nodes that lock rows in the same order cannot deadlock.
            ids.sort_unstable();
            let ours = token.clone();
            let journal = self.db.journal().cloned();
            let known = journal.as_ref().map_or(0, |journal| journal.known());
            let claim = move |conn: &mut Connection| {
                let claimed = store::claim_of_any_account(conn, &ids, &ours, lease)?;
                // An older copy of the database does not know what was sent since. Asked after the claim,
                // which such a copy cannot replace before this transaction ends.
                if let Some(journal) = journal {
                    journal.expect(conn, known)?;
                }
                Ok::<_, db::Error>(claimed)
            };
            let claimed = self.db.write(claim).await?;
            picked.retain(|picked| claimed.contains(&picked.email));
            // Otherwise other nodes were faster, and the next accounts are tried.
            if !picked.is_empty() {
                let ours = picked.iter().map(|picked| (picked.email, token.clone()));
                self.under_way().extend(ours);
                return Ok((token, picked));
            }
        }
    }

    /// The emails whose turn it is, as many as there are places.
    async fn pick(&self, turns: &mut Turns, places: Places) -> db::Result<Vec<Picked>> {
        if places.free == 0 {
            return Ok(Vec::new());
        }
        let before = *turns;
        let pick = move |conn: &mut _| pick(conn, before, places);
        let (after, picked) = self.db.read(pick).await?;
        *turns = after;
        Ok(picked)
    }

    /// Makes one attempt. `None`: there is no result to store.
    async fn attempt(&self, id: i64, claim: String) -> Option<Finished> {
        let until = Instant::now() + LEASE;
        let attempt = self.unless_it_panics(id, &claim, self.try_to_send(id, claim.clone()));
        match attempt.await? {
            Ok(Some(end)) => {
                return Some(Finished {
                    id,
                    claim,
                    until,
                    end,
                });
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(email = id, %error, "an email cannot be read for delivery");
                sleep(FIRST_REST).await;
                let ours = claim.clone();
                let give_back =
                    move |conn: &mut _| store::give_back_of_any_account(conn, id, &ours);
                // If this fails, the lease ends by itself.
                let _ = self.db.write(give_back).await;
            }
        }
        self.under_way().remove(&(id, claim));
        None
    }

    /// After a panic, the email waits until its lease ends; others are not affected.
    async fn unless_it_panics<T>(
        &self,
        id: i64,
        claim: &str,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let done = AssertUnwindSafe(work).catch_unwind().await.ok();
        if done.is_none() {
            self.under_way().remove(&(id, claim.to_owned()));
            tracing::error!(
                email = id,
                "a delivery attempt panicked; retrying in ten minutes"
            );
        }
        done
    }

    /// `None`: the claim was lost or released.
    async fn try_to_send(&self, id: i64, claim: String) -> db::Result<Option<End>> {
        let ours = (id, claim.clone());
        let find = move |conn: &mut _| find_with_signing(conn, id, &claim);
        let Some((email, signing)) = self.db.read(find).await? else {
            return Ok(None);
        };
        let signature = match self.signature(signing) {
            Ok(signature) => signature,
            Err(why) => {
                self.put_off(&email, why, ours).await?;
                return Ok(None);
            }
        };
        let mut before = Before {
            attempts: email.attempts,
            first_attempt_at: email.first_attempt_at,
            refused: email.refused.clone(),
            delivered: 0,
        };
        let prepare = move || Prepared::from(&email, signature);
        let permit = self.preparing.acquire().await;
        let prepared = tokio::task::spawn_blocking(prepare)
            .await
            .unwrap_or(Err(Unsendable::Panic));
        drop(permit);
        let Prepared {
            mail,
            recipients,
            delivered,
        } = match prepared {
            Ok(prepared) => prepared,
            Err(why) => {
                tracing::warn!(email = id, "an email cannot be turned into a message");
                return Ok(Some(End::Unsendable(before, why)));
            }
        };
        before.delivered = delivered;
        let sent = timeout(ATTEMPT, self.relay.send(&mail, &recipients)).await;
        let sent = sent.unwrap_or_else(|_| {
            let words = "The relay took too long.".to_owned();
            Ok(vec![Fate::Deferred(words); recipients.len()])
        });
        Ok(Some(match sent {
            Ok(fates) => {
                self.can_be_used();
                self.tell_of_policy(&fates);
                End::Answered(before, recipients, fates)
            }
            Err(trouble) => {
                let rest = self.cannot_be_used(&trouble);
                End::Trouble(before, recipients, trouble, rest)
            }
        }))
    }

    /// How an email is signed now, if at all, or why it must wait.
    fn signature(&self, signing: Signing) -> Result<Option<Signature>, &'static str> {
        let (domain, sealed, is_published) = match signing {
            Signing::Key(domain, sealed) => (domain, sealed, true),
            Signing::Missing(domain, sealed) => (domain, sealed, false),
            Signing::Awaited => return Err(AWAITS_RECORD),
            Signing::None => return Ok(None),
        };
        let signature = DkimKey::open_with_any(&sealed, &self.secrets, &domain)
            .map_err(|e| e.to_string())
            .and_then(|key| mime::signature(&key, &domain));
        match signature {
            Ok(signature) => Ok(Some(signature).filter(|_| is_published)),
            Err(error) => {
                tracing::debug!(%domain, error, "the emails of a domain cannot be signed");
                Err(LOST_KEY)
            }
        }
    }

    /// Releases the email with a growing delay until it can be signed; its account sees why.
    async fn put_off(
        &self,
        email: &Outgoing,
        why: &'static str,
        (id, claim): (i64, String),
    ) -> db::Result<()> {
        let age = clock::now() - email.created_at;
        let rest = jittered((age / 10).clamp(SHORTEST_KEY_WAIT, LONGEST_KEY_WAIT));
        let put_off =
            move |conn: &mut _| store::put_off_of_any_account(conn, id, &claim, rest, why);
        self.db.write(put_off).await
    }

    /// Stores the result of an attempt.
    async fn settle(&self, finished: Finished) {
        let Finished {
            id,
            claim,
            until,
            end,
        } = finished;
        let settle = async {
            let trusted_now = |conn: &mut _| Ok::<_, db::Error>(db::trusted_now(conn)?);
            let now = match end {
                End::Unsendable(..) => None,
                _ => self.db.read(trusted_now).await.unwrap_or_default(),
            };
            let unless_ended = end.name();
            let outcome = end.outcome(now);
            self.metrics.attempted(match outcome.status {
                EmailStatus::Delivered => DELIVERED,
                EmailStatus::Failed => FAILED,
                EmailStatus::Held | EmailStatus::Deferred => unless_ended,
            });
            self.store(id, &claim, &outcome, until).await;
        };
        self.unless_it_panics(id, &claim, settle).await;
        self.under_way().remove(&(id, claim));
    }

    /// Retries until the lease ends: an email whose result is not stored would be sent again.
    async fn store(&self, id: i64, claim: &str, outcome: &AttemptOutcome, until: Instant) {
        loop {
            match self.results.store(&self.db, id, claim, outcome).await {
                Ok(true) => {
                    let (status, attempts) = (outcome.status.as_str(), outcome.attempts);
                    return tracing::debug!(email = id, status, attempts, "a delivery attempt");
                }
                Ok(false) => {
                    return tracing::warn!(email = id, "another node took over an email");
                }
                Err(_) if Instant::now() < until => sleep(FIRST_REST).await,
                Err(error) => {
                    return tracing::error!(email = id, %error, "the result of an attempt is lost");
                }
            }
        }
    }

    fn can_be_used(&self) {
        self.metrics.relay_is_up(true);
        let mut health = self.health();
        if health.outage.ends() {
            tracing::info!("the relay can be used again");
        }
        *health = Health::default();
    }

    /// Reports in the log, at intervals, what the relay's policy holds against this server or a
    /// sender.
    fn tell_of_policy(&self, fates: &[Fate]) {
        let put_off = fates.iter().find_map(|fate| match fate {
            Fate::PutOff(words) => Some(without_addresses(words)),
            _ => None,
        });
        let Some(reply) = put_off else { return };
        let mut told = self
            .policy_told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() > TELL_POLICY) {
            *told = Some(Instant::now());
            tracing::error!(
                reply,
                "the relay refuses emails from this server by its policy; they are retried"
            );
        }
    }

    /// Returns how long the relay is left alone.
    fn cannot_be_used(&self, trouble: &Trouble) -> Duration {
        self.metrics.relay_is_up(false);
        let mut health = self.health();
        // Attempts that started together count as one failure.
        if health
            .rests_until
            .is_none_or(|until| until <= Instant::now())
        {
            health.failures += 1;
        }
        if let Some(times) = health.outage.goes_on() {
            tell(trouble, times);
        }
        let rest = FIRST_REST * 2_u32.saturating_pow(health.failures - 1);
        let rest = rest.min(match trouble {
            Trouble::Refuses(_) => LONGEST_REST_IF_REFUSED,
            Trouble::Unreachable(_) | Trouble::NotLetIn => LONGEST_REST,
        });
        health.rests_until = Some(Instant::now() + rest);
        rest
    }

    async fn give_back(&self) {
        let left = std::mem::take(&mut *self.under_way());
        for (id, claim) in left {
            let give_back = move |conn: &mut _| store::give_back_of_any_account(conn, id, &claim);
            if let Err(error) = self.db.write(give_back).await {
                tracing::warn!(email = id, %error, "a claimed email could not be released");
            }
        }
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, BTreeSet<(i64, String)>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A claimed email, and how the emails of its domain are signed now. `None`: the claim is lost.
fn find_with_signing(
    conn: &mut Connection,
    id: i64,
    claim: &str,
) -> db::Result<Option<(Outgoing, Signing)>> {
    let Some(email) = store::find_claimed_of_any_account(conn, id, claim)? else {
        return Ok(None);
    };
    let signing = match email.domain_id {
        Some(domain) => domains_store::find_signing_of_any_account(conn, domain)?,
        None => Signing::None,
    };
    Ok(Some((email, signing)))
}

/// An attempt's outcome, as metrics name it.
fn name_of(trouble: &Trouble) -> &'static str {
    match trouble {
        Trouble::Unreachable(_) => UNREACHABLE,
        Trouble::NotLetIn => NOT_LET_IN,
        Trouble::Refuses(_) => REFUSES,
    }
}

fn tell(trouble: &Trouble, times: u64) {
    match trouble {
        Trouble::Unreachable(why) => {
            tracing::warn!(why, times, "the relay cannot be used; emails wait");
        }
        // The reply to a login may repeat parts of it.
        Trouble::NotLetIn => tracing::error!(
            times,
            "the relay does not let this server in: check the user and the password in TOSEND_SMTP_CREDENTIALS_FILE; emails wait"
        ),
        Trouble::Refuses(words) => {
            let reply = without_addresses(words);
            tracing::error!(
                reply,
                times,
                "the relay refuses this server: check its reply and TOSEND_SMTP_HELO; emails wait"
            );
        }
    }
}

/// An attempt whose result is still to be stored.
struct Finished {
    id: i64,
    claim: String,
    /// When the lease ends.
    until: Instant,
    end: End,
}

/// How an attempt ended.
enum End {
    /// The email cannot become a message.
    Unsendable(Before, Unsendable),
    /// The relay answered for each recipient.
    Answered(Before, Vec<Address>, Vec<Fate>),
    /// The relay could not be used, and is left alone for so long.
    Trouble(Before, Vec<Address>, Trouble, Duration),
}

impl End {
    /// `now`: none while the clock is in doubt.
    fn outcome(self, now: Option<NaiveDateTime>) -> AttemptOutcome {
        match self {
            Self::Unsendable(before, why) => before.then_never(&why),
            Self::Answered(before, recipients, fates) => before.then(now, &recipients, &fates),
            Self::Trouble(before, recipients, trouble, rest) => {
                before.then_trouble(now, &recipients, &trouble, rest)
            }
        }
    }

    /// As metrics name it, unless the email has ended.
    fn name(&self) -> &'static str {
        match self {
            Self::Unsendable(..) => FAILED,
            Self::Answered(..) => DEFERRED,
            Self::Trouble(_, _, trouble, _) => name_of(trouble),
        }
    }
}

/// The emails whose turn it is, as many as there are places: to claim one costs as much as to claim
/// all of them. Also returns the turns after them.
fn pick(
    conn: &mut Connection,
    mut turns: Turns,
    mut places: Places,
) -> db::Result<(Turns, Vec<Picked>)> {
    let mut all: Vec<Picked> = Vec::new();
    if !store::is_any_due_of_any_account(conn)? {
        return Ok((turns, all));
    }
    // From the middle of a round to its end, and one full round in which nothing is found.
    let rounds_to_go = |turns: &Turns| if turns.after == 0 { 1 } else { 2 };
    let mut rounds = rounds_to_go(&turns);
    while rounds > 0 && places.free > 0 {
        let except: Vec<i64> = all.iter().map(|picked| picked.email).collect();
        let accounts = store::list_turns_of_any_account(conn, turns.after, PAGE, &except)?;
        let (picked, is_over) = turns.pick(&accounts, &mut places);
        rounds = match picked.is_empty() {
            true => rounds - usize::from(is_over),
            false => rounds_to_go(&turns),
        };
        all.extend(picked);
    }
    Ok((turns, all))
}

/// A message, and the recipients of this attempt.
struct Prepared {
    mail: Mail,
    recipients: Vec<Address>,
    /// How many recipients have it already.
    delivered: usize,
}

impl Prepared {
    fn from(email: &Outgoing, signature: Option<Signature>) -> Result<Self, Unsendable> {
        let message: Message =
            serde_json::from_str(&email.message).map_err(|_| Unsendable::Stored)?;
        let mut recipients = mime::recipients(&message)?;
        let all = recipients.len();
        if let Some(remaining) = &email.remaining {
            recipients.retain(|address| remaining.contains(&address.to_string()));
        }
        Ok(Self {
            mail: mime::build(&message, &email.internet_id, email.created_at, signature)?,
            delivered: all.saturating_sub(recipients.len() + email.refused.len()),
            recipients,
        })
    }
}
