//! Whether the database takes writes, and what is kept back for when its disk is full.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::journal::Journal;
use super::reserve::{Reserve, Share};
use super::{Error, Result};

/// Below this, `/readyz` warns.
const LITTLE: u64 = 256 * 1024 * 1024;
/// How long a full disk of PostgreSQL, whose free space is unknown, is believed to be full.
const BELIEVED: Duration = Duration::from_secs(10);
const MIB: u64 = 1024 * 1024;

/// Why the database takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteFault {
    /// With SQLite, urgent writes may still succeed.
    DiskFull,
    Other,
}

#[derive(Debug)]
pub(super) struct Space {
    /// With SQLite.
    reserve: Option<Reserve>,
    /// Set by a write that found the disk full, or a failed check; cleared by a check that succeeds.
    fault: Mutex<Option<Found>>,
}

#[derive(Debug, Clone, Copy)]
struct Found {
    fault: WriteFault,
    at: Instant,
}

impl Space {
    pub fn new(reserve: Option<Reserve>) -> Self {
        Self {
            reserve,
            fault: Mutex::default(),
        }
    }

    /// Refuses ordinary writes while the reserve is not whole: they would use up what was freed for
    /// urgent ones.
    pub fn admit(&self, share: Share) -> Result<()> {
        match &self.reserve {
            Some(reserve) if share == Share::Nothing && reserve.lacks_room() => {
                self.note_full();
                Err(Error::DiskFull("only urgent changes are written".into()))
            }
            _ => Ok(()),
        }
    }

    /// Frees a piece of the reserve. Returns whether a write of this kind should be tried again.
    pub fn make_room(&self, share: Share) -> bool {
        self.note_full();
        self.reserve
            .as_ref()
            .is_some_and(|reserve| reserve.cut(share))
    }

    /// Frees a piece of the reserve for the journal of ends, if it fails for want of it. Returns whether
    /// to write to it again.
    pub fn make_room_for(&self, journal: &Journal) -> bool {
        if !journal.is_failing() {
            return false;
        }
        let fails_for_want_of_room =
            |reserve: &&Reserve| reserve.is_on_the_disk_of(journal.path()) && reserve.is_needed();
        let reserve = self.reserve.as_ref().filter(fails_for_want_of_room);
        let is_freed = reserve.is_some_and(|reserve| reserve.cut(Share::All));
        if is_freed {
            self.note_full();
        }
        is_freed
    }

    /// Whether so little is free that a failure may come from it. Unknown with PostgreSQL.
    pub fn is_used_up(&self) -> bool {
        self.reserve.as_ref().is_some_and(Reserve::is_needed)
    }

    pub fn note_full(&self) {
        let full = Found {
            fault: WriteFault::DiskFull,
            at: Instant::now(),
        };
        let before = self.lock().replace(full);
        if before.is_none_or(|before| before.fault != WriteFault::DiskFull) {
            match &self.reserve {
                Some(reserve) => tracing::error!(
                    "the disk of the database is full: only urgent changes are written, with the space that {} kept back; make room",
                    reserve.path().display()
                ),
                None => tracing::error!("the disk of the database is full: make room there"),
            }
        }
    }

    /// Notes how a check ended.
    pub fn note_check(&self, checked: &Result<()>) {
        match checked {
            // What was checked is small, and may find a place where a larger change does not.
            Ok(()) if self.is_still_full() => {}
            Ok(()) => {
                if self.lock().take().is_some() {
                    tracing::info!("the database takes writes again");
                }
            }
            Err(Error::DiskFull(_)) => self.note_full(),
            Err(_) => {
                *self.lock() = Some(Found {
                    fault: WriteFault::Other,
                    at: Instant::now(),
                });
            }
        }
    }

    fn is_still_full(&self) -> bool {
        let found = *self.lock();
        found.is_some_and(|found| {
            found.fault == WriteFault::DiskFull
                && match &self.reserve {
                    Some(reserve) => reserve.is_needed(),
                    None => found.at.elapsed() < BELIEVED,
                }
        })
    }

    /// As of the last check, or of a later write that found the disk full.
    pub fn fault(&self) -> Option<WriteFault> {
        self.lock().map(|found| found.fault)
    }

    /// MiB, if little is left on the disk of SQLite's file.
    pub fn little_left(&self) -> Option<u64> {
        let free = self.reserve.as_ref()?.free_bytes()?;
        (free < LITTLE).then_some(free / MIB)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Found>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
