//! Takes turns among accounts at making keys, which takes long: each account has only one request
//! in the queue for the core at a time, so that another account's request is next or the one after.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::accounts::store::AccountId;

/// With more remembered accounts than this, those that wait for nothing are removed.
const MANY: usize = 100;

#[derive(Clone)]
pub struct KeyTurns {
    /// Making keys uses at most one core.
    core: Arc<Semaphore>,
    accounts: Arc<Mutex<HashMap<AccountId, Arc<Semaphore>>>>,
}

/// Other requests of the same account wait until this is dropped.
pub struct KeyTurn {
    core: Arc<Semaphore>,
    _account: OwnedSemaphorePermit,
}

impl Default for KeyTurns {
    fn default() -> Self {
        Self {
            core: Arc::new(Semaphore::new(1)),
            accounts: Arc::default(),
        }
    }
}

impl KeyTurns {
    pub async fn take(&self, account: AccountId) -> KeyTurn {
        let own = {
            let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
            if accounts.len() >= MANY {
                accounts.retain(|_, own| Arc::strong_count(own) > 1);
            }
            let own = accounts.entry(account);
            own.or_insert_with(|| Arc::new(Semaphore::new(1))).clone()
        };
        KeyTurn {
            core: self.core.clone(),
            _account: own.acquire_owned().await.expect("it is never closed"),
        }
    }
}

impl KeyTurn {
    pub async fn core(&self) -> OwnedSemaphorePermit {
        let core = self.core.clone().acquire_owned().await;
        core.expect("it is never closed")
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::stream::{FuturesUnordered, StreamExt};

    use super::*;

    #[tokio::test]
    async fn an_account_that_wants_much_keeps_no_other_waiting() {
        let turns = KeyTurns::default();
        let work = |account: i64| {
            let turns = turns.clone();
            async move {
                let turn = turns.take(AccountId(account)).await;
                let _core = turn.core().await;
                tokio::task::yield_now().await;
                account
            }
        };
        let first = turns.take(AccountId(1)).await;
        let core = first.core().await;
        let mut queue = FuturesUnordered::new();
        for account in [[1; 50].as_slice(), &[2, 2, 3]].concat() {
            queue.push(work(account).boxed());
            // Polled once, so that it enters the queue before the next one.
            assert!(queue.next().now_or_never().is_none());
        }
        drop((core, first));
        let order: Vec<i64> = queue.collect().await;
        let place = |account| order.iter().position(|a| *a == account).unwrap();
        assert!(place(2) < 3 && place(3) < 3, "{order:?}");
        assert_eq!(order.iter().filter(|a| **a == 2).count(), 2);
        let last_of_2 = order.iter().rposition(|a| *a == 2).unwrap();
        assert!(last_of_2 < 6, "{order:?}");
    }

    #[tokio::test]
    async fn accounts_that_wait_for_nothing_are_forgotten() {
        let turns = KeyTurns::default();
        let kept = turns.take(AccountId(0)).await;
        for account in 1..1_000 {
            turns.take(AccountId(account)).await;
        }
        assert!(turns.accounts.lock().unwrap().len() <= MANY);
        assert!(turns.take(AccountId(0)).now_or_never().is_none());
        drop(kept);
        turns.take(AccountId(0)).await;
    }
}
