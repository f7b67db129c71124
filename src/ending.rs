//! Whether the server is about to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Clones share it.
#[derive(Clone, Default)]
pub struct Ending(Arc<AtomicBool>);

impl Ending {
    pub fn begin(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn has_begun(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
