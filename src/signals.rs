//! The signals that end the server, and those that must not.

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals whose default would end the process without a farewell to its clients, and which nobody
/// sends to end a server: SIGHUP comes from a closed terminal or from a log rotation, the others
/// from a mistake.
const IGNORED: [fn() -> SignalKind; 5] = [
    SignalKind::hangup,
    SignalKind::alarm,
    SignalKind::io,
    SignalKind::user_defined1,
    SignalKind::user_defined2,
];

/// Ignores them for as long as this process lives. (SIGPIPE is ignored by every Rust program.)
pub fn ignore_strays() {
    // What listens for a signal replaces its default for good, also after it has gone.
    let runtime = Builder::new_current_thread().enable_io().build();
    let listened = runtime.and_then(|runtime| {
        runtime.block_on(async {
            for kind in IGNORED {
                drop(signal(kind())?);
            }
            Ok(())
        })
    });
    if let Err(error) = listened {
        tracing::warn!(%error, "a signal such as SIGHUP would end the server at once");
    }
}

/// SIGTERM, SIGINT and SIGQUIT.
pub struct OrdersToEnd([Signal; 3]);

impl OrdersToEnd {
    /// # Errors
    /// If the system lacks the resources.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self([
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
        ]))
    }

    /// Waits for the next one.
    pub async fn next(&mut self) {
        let [terminate, interrupt, quit] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
