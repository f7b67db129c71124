//! The word from the email API to delivery that there is something to do.

use tokio::sync::Notify;

/// Emails that this node accepted. Delivery also looks by itself, for those of other nodes.
#[derive(Default)]
pub struct Arrivals(Notify);

impl Arrivals {
    pub fn announce(&self) {
        self.0.notify_one();
    }

    /// Until emails were accepted since this was waited for last.
    pub async fn wait(&self) {
        self.0.notified().await;
    }
}
