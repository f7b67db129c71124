//! Notifies delivery that the email API accepted emails.

use tokio::sync::Notify;

/// Wakes delivery for emails that this node accepted. Emails of other nodes are found by polling.
#[derive(Default)]
pub struct Arrivals(Notify);

impl Arrivals {
    pub fn announce(&self) {
        self.0.notify_one();
    }

    /// Waits until emails are accepted; returns at once if that happened since the last wait.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
