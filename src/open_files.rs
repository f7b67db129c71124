//! How many files, and therefore connections, this process may have open.

use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files reserved for everything other than client connections: the database, the relay, DNS,
/// the log. SQLite needs up to 3 for each of 11 connections, PostgreSQL one for each of 24.
const RESERVE: u64 = 128;

/// Files that each serving thread opens for itself, with a margin.
const PER_WORKER: u64 = 8;

/// A maximum whatever the limit allows, because each connection costs memory. It is also actix's
/// own default.
const MOST_PER_WORKER: u64 = 25_000;

/// Raises the limit as far as the system allows. The usual limit of 1,024 exists for programs that
/// use `select(2)`.
pub fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit of open files cannot be raised");
    }
}

/// How many connections each of this many workers may have.
pub fn connections_per_worker(workers: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current;
    share(limit.unwrap_or(u64::MAX), workers as u64) as usize
}

fn share(limit: u64, workers: u64) -> u64 {
    let reserve = RESERVE + PER_WORKER * workers;
    // With a limit this low, half of it must do for everything else.
    let connections = limit.saturating_sub(reserve).max(limit / 2);
    (connections / workers).clamp(1, MOST_PER_WORKER)
}

/// Counts open client connections and knows the maximum.
pub struct Connections {
    /// One reference for this value, and one for each open connection.
    open: Arc<()>,
    most: usize,
}

/// Held while a connection is open.
pub struct OpenConnection {
    _open: Arc<()>,
}

impl Connections {
    pub fn at_most(most: usize) -> Self {
        Self {
            open: Arc::default(),
            most,
        }
    }

    pub fn open(&self) -> OpenConnection {
        OpenConnection {
            _open: self.open.clone(),
        }
    }

    pub fn count(&self) -> usize {
        Arc::strong_count(&self.open) - 1
    }

    pub fn are_all_closed(&self) -> bool {
        self.count() == 0
    }

    pub fn most(&self) -> usize {
        self.most
    }

    /// Whether another idle connection would be too many. A connection is kept idle only if at most
    /// half of the maximum were open when it was answered, so idle ones never occupy the other
    /// half.
    pub fn are_scarce(&self) -> bool {
        self.count() > self.most / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_remain_for_the_rest() {
        for (limit, workers, each) in [
            (1_024, 2, 440),
            (1_024, 64, 8),
            (256, 2, 64),
            (64, 4, 8),
            (2, 4, 1),
            (1_048_576, 2, 25_000),
            (u64::MAX, 1, 25_000),
        ] {
            assert_eq!(share(limit, workers), each, "{limit} {workers}");
        }
    }

    #[test]
    fn connections_are_scarce_above_the_half() {
        let connections = Connections::at_most(4);
        let mut open = Vec::new();
        for scarce in [false, false, true, true] {
            open.push(connections.open());
            assert_eq!(connections.are_scarce(), scarce, "{}", open.len());
        }
        open.truncate(2);
        assert!(!connections.are_scarce());
    }
}
