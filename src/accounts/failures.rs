//! Reports failed sign-ins to the account they were aimed at.
//!
//! A request only notes the address that was entered, in memory, in the same way for known and
//! unknown addresses. Whether an account has it is looked up a second later, outside the request,
//! so that neither the answer nor its timing reveals anything. A crash can lose the latest ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::email::Email;
use super::event::{Action, Actor, NewEvent};
use super::store::{self, Person, events};
use crate::db::{self, Connection, Db};
use crate::http::refusals::Refusals;
use crate::logging::Outage;

const TICK: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
/// The maximum number of addresses waiting to be looked up; further ones in the same second are
/// only in the log.
const MOST_ASKED: usize = 10_000;
/// The maximum number of people remembered, each for an hour after the last failure.
const MOST_KNOWN: usize = 10_000;

/// How often sign-ins with an address failed since the last report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tally {
    pub failed: u64,
    /// Refused without checking the password, because there were too many before.
    pub refused: u64,
    /// Where the last one came from.
    address: IpAddr,
}

impl Tally {
    fn of(address: IpAddr) -> Self {
        Self {
            failed: 0,
            refused: 0,
            address,
        }
    }

    fn is_empty(&self) -> bool {
        self.failed + self.refused == 0
    }

    /// Returns the tally and starts a new one.
    fn take(&mut self) -> Self {
        let taken = *self;
        *self = Self::of(taken.address);
        taken
    }

    fn add(&mut self, other: &Self) {
        self.failed += other.failed;
        self.refused += other.refused;
        self.address = other.address;
    }

    fn detail(&self) -> String {
        let failed = match self.failed {
            1 => "1 failed sign-in".to_owned(),
            count => format!("{count} failed sign-ins"),
        };
        match self.refused {
            0 => failed,
            more => format!("{failed}, and {more} more refused without looking at the password"),
        }
    }
}

/// A person whose address was entered.
struct Known {
    person: Person,
    tally: Tally,
    since: Instant,
    told: Option<Instant>,
}

impl Known {
    /// A minute after the first failure, and then once an hour, so that an attack cannot flood the
    /// activity.
    fn is_due(&self, now: Instant) -> bool {
        !self.tally.is_empty()
            && now.duration_since(self.since) >= MINUTE
            && self
                .told
                .is_none_or(|told| now.duration_since(told) >= HOUR)
    }

    fn is_over(&self, now: Instant) -> bool {
        self.tally.is_empty()
            && self
                .told
                .is_none_or(|told| now.duration_since(told) >= HOUR)
    }
}

#[derive(Default)]
pub struct Failures {
    asked: Mutex<HashMap<String, Tally>>,
    known: Mutex<HashMap<String, Known>>,
}

impl Failures {
    /// Notes a wrong password, or an address without an account.
    pub fn note_failed(&self, email: &Email, address: IpAddr) {
        self.note(email, address, |tally| tally.failed += 1);
    }

    /// Notes a sign-in that was refused unchecked.
    pub fn note_refused(&self, email: &Email, address: IpAddr) {
        self.note(email, address, |tally| tally.refused += 1);
    }

    fn note(&self, email: &Email, address: IpAddr, count: impl FnOnce(&mut Tally)) {
        let mut asked = lock(&self.asked);
        if asked.len() >= MOST_ASKED && !asked.contains_key(email.as_ref()) {
            return;
        }
        let tally = asked.entry(email.to_string()).or_insert(Tally::of(address));
        tally.address = address;
        count(tally);
    }

    /// Takes the tally to report to a person who has just signed in.
    pub fn take(&self, email: &Email) -> Option<Tally> {
        let mut sum = lock(&self.asked).remove(email.as_ref());
        if let Some(known) = lock(&self.known).get_mut(email.as_ref()) {
            let mut tally = known.tally.take();
            if let Some(newer) = &sum {
                tally.add(newer);
            }
            sum = Some(tally);
        }
        sum.filter(|tally| !tally.is_empty())
    }

    /// Keeps a tally that could not be recorded, to report it later.
    pub fn put_back(&self, email: &str, tally: &Tally) {
        let mut asked = lock(&self.asked);
        let sum = asked
            .entry(email.to_owned())
            .or_insert(Tally::of(tally.address));
        sum.failed += tally.failed;
        sum.refused += tally.refused;
    }

    /// Records due reports, and sums up refusals in the log, until `stop` is dropped.
    pub fn keep_telling(&self, db: &Db, refusals: &Refusals, stop: &Receiver<()>) {
        let mut bound_at = Instant::now();
        let mut outage = Outage::default();
        loop {
            let is_last = stop.recv_timeout(TICK) != Err(RecvTimeoutError::Timeout);
            refusals.sum_up();
            let mut done = self.ask(db).and_then(|()| self.tell(db, is_last));
            if done.is_ok() && Instant::now() >= bound_at {
                bound_at = Instant::now() + MINUTE;
                done = db.write_blocking(store::bound_attempts);
            }
            match &done {
                Err(error) => {
                    if let Some(times) = outage.goes_on() {
                        tracing::error!(%error, times, "failed sign-ins cannot be written down, which is tried again");
                    }
                }
                Ok(()) if outage.ends() => tracing::info!("failed sign-ins are written down again"),
                Ok(()) => {}
            }
            if is_last {
                return;
            }
        }
    }

    /// Looks up whose addresses were entered.
    fn ask(&self, db: &Db) -> db::Result<()> {
        let emails: Vec<String> = lock(&self.asked).keys().cloned().collect();
        if emails.is_empty() {
            return Ok(());
        }
        let people = db.read_blocking(|conn| store::find_people(conn, &emails))?;
        let (mut asked, mut known) = (lock(&self.asked), lock(&self.known));
        let now = Instant::now();
        for email in emails {
            // It may have been taken meanwhile.
            let Some(tally) = asked.remove(&email) else {
                continue;
            };
            let Some(person) = people.get(&email) else {
                continue;
            };
            if known.len() >= MOST_KNOWN && !known.contains_key(&email) {
                known.retain(|_, known| !known.is_over(now));
                if known.len() >= MOST_KNOWN {
                    continue;
                }
            }
            let known = known.entry(email).or_insert_with(|| Known {
                person: *person,
                tally: Tally::of(tally.address),
                since: now,
                told: None,
            });
            if known.tally.is_empty() {
                known.since = now;
            }
            known.tally.add(&tally);
        }
        Ok(())
    }

    /// Records what is due; everything, at shutdown.
    fn tell(&self, db: &Db, is_last: bool) -> db::Result<()> {
        let now = Instant::now();
        let mut due = Vec::new();
        {
            let mut known = lock(&self.known);
            known.retain(|_, known| !known.is_over(now));
            for (email, known) in known.iter_mut() {
                if known.is_due(now) || is_last && !known.tally.is_empty() {
                    let tally = known.tally.take();
                    known.told = Some(now);
                    due.push((email.clone(), known.person, tally));
                }
            }
        }
        let mut done = Ok(());
        for (email, person, tally) in due {
            // Skipped after a failure, which loses nothing.
            done =
                done.and_then(|()| db.write_blocking(|conn| record(conn, &person, &email, &tally)));
            if done.is_err() {
                self.put_back(&email, &tally);
                if let Some(known) = lock(&self.known).get_mut(&email) {
                    known.told = None;
                }
            }
        }
        done
    }
}

/// Records a person's failed sign-ins in the activity of the account.
pub fn record(
    conn: &mut Connection,
    person: &Person,
    email: &str,
    tally: &Tally,
) -> db::Result<()> {
    let event = NewEvent {
        action: Action::SessionRefused,
        subject_id: Some(person.user_id),
        subject: email,
        detail: &tally.detail(),
    };
    let actor = Actor::stranger(tally.address);
    Ok(events::record(conn, person.account, &actor, event)?)
}

fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_more_is_not_remembered_when_there_are_many() {
        let failures = Failures::default();
        let address = "192.0.2.1".parse().unwrap();
        let email = |n: usize| Email::parse(&format!("a{n}@acme.test")).unwrap();
        for n in 0..MOST_ASKED + 5 {
            failures.note_failed(&email(n), address);
        }
        failures.note_refused(&email(0), address);
        assert_eq!(lock(&failures.asked).len(), MOST_ASKED);
        let taken = failures.take(&email(0)).unwrap();
        assert_eq!((taken.failed, taken.refused), (1, 1));
        assert_eq!(failures.take(&email(0)), None);
        assert_eq!(failures.take(&email(MOST_ASKED + 1)), None);
    }

    #[test]
    fn an_attack_is_told_once_an_hour() {
        let start = Instant::now();
        let address = "192.0.2.1".parse().unwrap();
        let known = |told: Option<Duration>| Known {
            person: Person {
                user_id: 1,
                account: store::AccountId(1),
            },
            tally: Tally {
                failed: 1,
                ..Tally::of(address)
            },
            since: start,
            told: told.map(|told| start + told),
        };
        assert!(!known(None).is_due(start + Duration::from_secs(59)));
        assert!(known(None).is_due(start + MINUTE));
        assert!(!known(Some(MINUTE)).is_due(start + HOUR));
        assert!(known(Some(MINUTE)).is_due(start + MINUTE + HOUR));
    }

    #[test]
    fn failures_are_told_in_words() {
        let told = |failed, refused| {
            let address = "192.0.2.1".parse().unwrap();
            Tally {
                failed,
                refused,
                address,
            }
            .detail()
        };
        assert_eq!(told(1, 0), "1 failed sign-in");
        assert_eq!(
            told(12, 3),
            "12 failed sign-ins, and 3 more refused without looking at the password"
        );
    }
}
