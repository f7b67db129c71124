//! Keys that are changed while others are verified.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::seed::Database;
use anyhow::{Context, Result};

pub const A_SECOND: u32 = 10;

/// Changes keys until it is ended.
pub struct Changes {
    stop: Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Changes {
    /// Changes a random key, each time of another account, so many times a second.
    ///
    /// # Errors
    /// If the database cannot be used.
    pub fn start(database: &Database) -> Result<Self> {
        let mut conn = database.connect()?;
        if database.is_sqlite() {
            conn.batch_execute("PRAGMA busy_timeout = 5000; PRAGMA synchronous = FULL")?;
        }
        let keys = database.keys;
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(Duration::from_secs(1) / A_SECOND)
                == Err(RecvTimeoutError::Timeout)
            {
                let id = rand::random_range(1..=keys);
                let sql = format!("UPDATE api_keys SET description = 'Changed' WHERE id = {id}");
                conn.batch_execute(&sql)?;
            }
            Ok(())
        });
        Ok(Self { stop, thread })
    }

    /// # Errors
    /// If a change failed.
    pub fn end(self) -> Result<()> {
        drop(self.stop);
        let ended = self.thread.join();
        ended
            .ok()
            .context("the thread that changes keys panicked")?
    }
}
