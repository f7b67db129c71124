//! How a batch of questions is answered: from memory, after the database has said what changed, or by a
//! lookup.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::memory::Memory;
use crate::db::journal::{Belonging, Journal};
use crate::db::verdict_changes::{Changes, Position, Reader};
use crate::db::{self, Connection, Db};
use crate::keys::secret::KeyHash;
use crate::keys::verification::store::{LiveKey, look_up_of_any_account};

pub(super) const SHORTEST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often it is checked whether triggers that were missing are there again.
const CHECK: Duration = Duration::from_secs(1);

pub type Answers = Vec<Option<Arc<LiveKey>>>;

/// Finds the keys that work. Each answer was true at a moment during the call.
pub trait Lookup {
    /// One answer for each of these distinct hashes, in the same order.
    ///
    /// # Errors
    /// If the database did not answer.
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers>;
}

/// Answers from memory what nothing has changed, and looks up the rest.
pub struct Remembering {
    memory: Memory,
}

impl Remembering {
    /// At most so many keys.
    pub fn new(most: usize) -> Self {
        Self {
            memory: Memory::new(most),
        }
    }

    /// From where on changes must be read before the next answers.
    pub fn position(&self) -> Option<&Position> {
        self.memory.position()
    }

    /// `changes`: read from [`position`](Self::position) on, after the last of the questions had arrived.
    /// Returns also which journal of ends the database had when keys were found by a lookup.
    ///
    /// # Errors
    /// If the database did not answer.
    pub fn answer(
        &mut self,
        conn: &mut Connection,
        changes: &Changes,
        hashes: &[KeyHash],
    ) -> db::Result<(Answers, Option<Belonging>)> {
        self.memory.follow(changes);
        let mut unknown = Vec::new();
        let mut answers = Answers::with_capacity(hashes.len());
        for (place, hash) in hashes.iter().enumerate() {
            answers.push(match self.memory.find(hash) {
                Some(found) if found.has_ended_by(changes.now) => None,
                Some(found) => Some(Arc::clone(&found.key)),
                None => {
                    unknown.push((place, *hash));
                    None
                }
            });
        }
        if unknown.is_empty() {
            return Ok((answers, changes.journal.clone()));
        }
        let wanted: Vec<KeyHash> = unknown.iter().map(|(_, hash)| *hash).collect();
        let looked = look_up_of_any_account(conn, &wanted)?;
        let journal = match looked.found.iter().any(Option::is_some) {
            true => looked.journal.clone(),
            false => changes.journal.clone(),
        };
        if let Some(position) = &looked.position {
            for (hash, found) in wanted.iter().zip(&looked.found) {
                if let Some(found) = found {
                    self.memory.remember(*hash, found, position);
                }
            }
        }
        for ((place, _), answer) in unknown.into_iter().zip(looked.answers()) {
            answers[place] = answer;
        }
        Ok((answers, journal))
    }
}

/// A connection, and what is remembered of what it said.
struct Known {
    conn: Connection,
    /// `None`: the database does not record all changes, so that nothing can be remembered.
    reader: Option<Reader>,
    checked: Instant,
    remembering: Remembering,
}

/// Asks the database on its own connection, and connects again when that is lost. A new connection begins
/// with nothing in memory.
pub(super) struct DbLookup {
    db: Db,
    most: usize,
    known: Option<Known>,
    pause: Duration,
    not_before: Instant,
}

impl DbLookup {
    /// `most`: keys that are remembered.
    pub fn new(db: Db, most: usize) -> Self {
        let mut lookup = Self {
            db,
            most,
            known: None,
            pause: SHORTEST_PAUSE,
            not_before: Instant::now(),
        };
        // If it fails, the first question tries again.
        let _ = lookup.connect();
        lookup
    }

    /// # Errors
    /// Fails immediately while the last failure is recent.
    fn connect(&mut self) -> db::Result<&mut Known> {
        if Instant::now() < self.not_before {
            return Err(db::Error::Unavailable("it was not a moment ago".into()));
        }
        match Known::connect(&self.db, self.most) {
            Ok(known) => Ok(self.known.insert(known)),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&mut self, error: db::Error) -> db::Error {
        tracing::warn!(%error, "a lookup of keys failed");
        self.known = None;
        self.not_before = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        error
    }
}

impl Lookup for DbLookup {
    fn look_up(&mut self, hashes: &[KeyHash]) -> db::Result<Answers> {
        let db = self.db.clone();
        if let Some(known) = &mut self.known {
            match known.look_up(&db, hashes) {
                Ok(answers) => return Ok(answers),
                // A lost connection is noticed only when it is used.
                Err(error) => tracing::warn!(%error, "a lookup of keys failed: retrying once"),
            }
        }
        self.known = None;
        let known = self.connect()?;
        match known.look_up(&db, hashes) {
            Ok(answers) => {
                self.pause = SHORTEST_PAUSE;
                Ok(answers)
            }
            Err(error) => Err(self.failed(error)),
        }
    }
}

impl Known {
    fn connect(db: &Db, most: usize) -> db::Result<Self> {
        let conn = db.connect()?;
        let mut known = Self {
            conn,
            reader: None,
            checked: Instant::now(),
            remembering: Remembering::new(most),
        };
        known.check_triggers(db)?;
        Ok(known)
    }

    /// Learns whether the database records all changes, and tells `/readyz`.
    fn check_triggers(&mut self, db: &Db) -> db::Result<()> {
        self.reader = Reader::begin(&mut self.conn)?;
        self.checked = Instant::now();
        if db.note_unrecorded(self.reader.is_none()) && self.reader.is_none() {
            tracing::error!(
                "triggers of the database that record changes of keys are missing or disabled: every key is looked up; restart the server to put them back"
            );
        }
        Ok(())
    }

    fn look_up(&mut self, db: &Db, hashes: &[KeyHash]) -> db::Result<Answers> {
        let name = std::any::type_name::<Remembering>();
        db::watched(name, || self.ask(db, hashes))
    }

    fn ask(&mut self, db: &Db, hashes: &[KeyHash]) -> db::Result<Answers> {
        // No query can see that another file has the name now.
        db.check_place()?;
        let journal = db.journal().map(|journal| (&**journal, journal.known()));
        if self.reader.is_none() && self.checked.elapsed() >= CHECK {
            self.check_triggers(db)?;
        }
        let Some(reader) = &self.reader else {
            return self.ask_alone(journal, hashes);
        };
        let changes = reader.read(&mut self.conn, self.remembering.position())?;
        let is_recorded = changes.are_recorded;
        let answered = self.remembering.answer(&mut self.conn, &changes, hashes)?;
        if !is_recorded {
            self.check_triggers(db)?;
        }
        let (answers, at_lookup) = answered;
        if let Some((journal, known)) = journal
            && answers.iter().any(Option::is_some)
        {
            journal.compare(changes.journal.as_ref(), known)?;
            journal.compare(at_lookup.as_ref(), known)?;
        }
        Ok(answers)
    }

    /// From the database alone.
    fn ask_alone(
        &mut self,
        journal: Option<(&Journal, i64)>,
        hashes: &[KeyHash],
    ) -> db::Result<Answers> {
        let looked = look_up_of_any_account(&mut self.conn, hashes)?;
        let at_lookup = looked.journal.clone();
        let answers = looked.answers();
        if let Some((journal, known)) = journal
            && answers.iter().any(Option::is_some)
        {
            journal.compare(at_lookup.as_ref(), known)?;
        }
        Ok(answers)
    }
}
