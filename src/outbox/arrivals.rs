//! Notifies delivery that the email API accepted emails, or that one is to be sent again.

use tokio::sync::Notify;

use crate::metrics::Metrics;

/// Wakes delivery for emails that this node accepted. Emails of other nodes are found by polling.
#[derive(Default)]
pub struct Arrivals {
    arrival: Notify,
    metrics: Metrics,
}

impl Arrivals {
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            arrival: Notify::default(),
            metrics: metrics.clone(),
        }
    }

    pub fn announce(&self, emails: usize) {
        self.metrics.accepted(emails);
        self.wake();
    }

    /// Without counting: an email that was accepted before is due again.
    pub fn wake(&self) {
        self.arrival.notify_one();
    }

    /// Waits until emails are due; returns at once if that happened since the last wait.
    pub async fn wait(&self) {
        self.arrival.notified().await;
    }
}
