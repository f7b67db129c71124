//! Stores the results of delivery attempts. Those that arrive while a commit is under way share the
//! next one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::attempt::AttemptOutcome;
use super::store;
use crate::db::{self, Connection, Db, Share};

/// The results that wait to be stored.
#[derive(Default)]
pub struct Results {
    waiting: Mutex<Vec<Waiting>>,
    /// Held by the task that stores what waits.
    turn: tokio::sync::Mutex<()>,
}

struct Waiting {
    result: AttemptResult,
    /// Whether the claim was still valid.
    stored: oneshot::Sender<db::Result<bool>>,
}

#[derive(Clone)]
struct AttemptResult {
    email: i64,
    claim: String,
    outcome: AttemptOutcome,
}

impl Results {
    /// Stores the result of an attempt. Returns whether the claim was still valid.
    ///
    /// # Errors
    /// If it is not stored, or it is unknown whether it is.
    pub async fn store(
        &self,
        db: &Db,
        email: i64,
        claim: &str,
        outcome: &AttemptOutcome,
    ) -> db::Result<bool> {
        let (stored, answer) = oneshot::channel();
        let result = AttemptResult {
            email,
            claim: claim.to_owned(),
            outcome: outcome.clone(),
        };
        self.waiting().push(Waiting { result, stored });
        let turn = self.turn.lock().await;
        // Empty if another task has stored it meanwhile.
        let batch = std::mem::take(&mut *self.waiting());
        if !batch.is_empty() {
            store_together(db, batch).await;
        }
        drop(turn);
        let cut_off = |_| Err(db::Error::Unavailable("storing it was cut off".to_owned()));
        answer.await.unwrap_or_else(cut_off)
    }

    fn waiting(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn store_together(db: &Db, mut batch: Vec<Waiting>) {
    // Nodes that lock rows in the same order cannot deadlock.
    batch.sort_unstable_by_key(|waiting| waiting.result.email);
    let results = batch.iter().map(|waiting| waiting.result.clone());
    match settle(db, results.collect()).await {
        Ok(settled) => {
            for (waiting, is_ours) in batch.into_iter().zip(settled) {
                // The attempt may have been cut off.
                let _ = waiting.stored.send(Ok(is_ours));
            }
        }
        // One of them cannot be stored.
        Err(db::Error::Refused(_)) if batch.len() > 1 => {
            for waiting in batch {
                let settled = settle(db, vec![waiting.result]).await;
                let is_ours = settled.map(|settled| settled.into_iter().all(|is_ours| is_ours));
                let _ = waiting.stored.send(is_ours);
            }
        }
        Err(error) => {
            for waiting in batch {
                let failed = db::Error::Unavailable(error.to_string());
                let _ = waiting.stored.send(Err(failed));
            }
        }
    }
}

/// Stores these results in one transaction. Returns for each whether its claim was still valid.
async fn settle(db: &Db, results: Vec<AttemptResult>) -> db::Result<Vec<bool>> {
    let settle = move |conn: &mut Connection| {
        let settled = results.iter().map(|result| {
            let AttemptResult {
                email,
                claim,
                outcome,
            } = result;
            store::settle_of_any_account(conn, *email, claim, outcome)
        });
        settled.collect::<db::Result<Vec<bool>>>()
    };
    db.write_urgently(Share::Half, settle).await
}
