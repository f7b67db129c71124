//! Limits how many downloads of an account's activity run at once, because each holds memory until
//! the client has read it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Per account.
const MOST: usize = 4;
/// After how many seconds a retry is worthwhile.
pub const BUSY_SECONDS: u64 = 30;

/// The downloads in progress, by account.
#[derive(Default)]
pub struct Downloads(Arc<Mutex<HashMap<i64, usize>>>);

/// Held while a download runs.
pub struct DownloadTurn {
    account: i64,
    running: Arc<Mutex<HashMap<i64, usize>>>,
}

impl Downloads {
    /// `None`: the limit is reached.
    pub fn begin(&self, account: i64) -> Option<DownloadTurn> {
        let mut running = lock(&self.0);
        let count = running.entry(account).or_default();
        if *count >= MOST {
            return None;
        }
        *count += 1;
        Some(DownloadTurn {
            account,
            running: self.0.clone(),
        })
    }
}

impl Drop for DownloadTurn {
    fn drop(&mut self) {
        let mut running = lock(&self.running);
        if let Some(count) = running.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                running.remove(&self.account);
            }
        }
    }
}

fn lock(running: &Mutex<HashMap<i64, usize>>) -> MutexGuard<'_, HashMap<i64, usize>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_account_has_its_turns_and_gets_them_back() {
        let downloads = Downloads::default();
        let turns: Vec<_> = (0..MOST).map(|_| downloads.begin(1).unwrap()).collect();
        assert!(downloads.begin(1).is_none());
        assert!(downloads.begin(2).is_some());
        drop(turns);
        assert!(downloads.begin(1).is_some());
        assert!(lock(&downloads.0).is_empty());
    }
}
