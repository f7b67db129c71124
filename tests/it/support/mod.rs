//! The server under test, its own database for each test, and its clients.

#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod cluster;
mod database;
mod disk;
pub mod dns;
pub mod files;
mod gateway;
mod http;
mod key_store;
mod logs;
mod port;
mod probers;
mod process;
mod proxy;
mod relay;
mod server;
mod upstream;
mod wire;

pub use cluster::{Cluster, Stop};
pub use database::Database;
pub use disk::SmallDisk;
pub use dns::{Dns, Trouble};
pub use gateway::Gateway;
pub use http::{Answer, Program, Slow, Visitor, email, raw, scope};
pub use key_store::{Change, KeyStore, Made, NAME};
pub use port::Port;
pub use probers::{Key, Probers};
pub use process::{
    Dashboard, attest, cli, command, create_account, is_late, with_sockets, without_stderr,
};
pub use proxy::Proxy;
pub use relay::{Got, Relay, read_mail};
pub use server::{App, Backend};
pub use upstream::{Seen, Upstream};
pub use wire::{Answered, Wire, known};

pub const EMAIL: &str = "ada@acme.test";
pub const TITLE: &str = "Acme Inc";
pub const PASSWORD: &str = "four unrelated grey lamps";

/// Repeats a check until it holds. The limit catches what never happens, not what is slow.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Repeatedly asks how many are left until there are none, however many and however slow the
/// machine: it fails only when the number has not fallen for a minute.
pub fn until_none_is_left(what: &str, mut left: impl FnMut() -> i64) {
    let mut now = left();
    while now > 0 {
        let before = now;
        until(&format!("{what}: {before} are left"), || {
            now = left();
            now < before
        });
    }
}

/// Does something that is meaningful only if it takes less than `limit`, and repeats it if the
/// machine took longer. `act` can see that it is late, and may then end early. Returns the result
/// of the last run.
pub fn within<T>(limit: Duration, mut act: impl FnMut(&dyn Fn() -> bool) -> T) -> T {
    for _ in 0..10 {
        let begun = Instant::now();
        let done = act(&|| begun.elapsed() >= limit);
        if begun.elapsed() < limit {
            return done;
        }
    }
    panic!("never done within {limit:?}");
}

/// Tells threads to end, even if the test fails.
pub struct SetWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How often a test repeats itself: a few times, many times in a whole run, or as often as the
/// variable says.
pub fn rounds(variable: &str, few: usize, many: usize) -> usize {
    match std::env::var(variable) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) if is_whole_run() => many,
        Err(_) => few,
    }
}

/// Whether long tests run at full length: `tests/run --whole`.
pub fn is_whole_run() -> bool {
    std::env::var_os("TOSEND_TEST_WHOLE").is_some()
}

/// Writes a test once and runs it on both databases. A test that needs PostgreSQL says so in its
/// name, so that `tests/run --sqlite` skips it.
///
/// `both! { fn a_sentence(app: App) { … } }`, or with its own settings:
/// `both! { fn a_sentence(app: App, with |settings| settings.key_limit = "3".into()) { … } }`
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident($app:ident: App $(, with |$settings:ident| $change:expr)?) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use $crate::support::{App, Backend};

            fn body($app: App) $body

            #[allow(unused_mut, unused_assignments)]
            fn start(backend: Backend) -> App {
                let mut change: fn(&mut tosend_dashboard::config::Settings) = |_| {};
                $(change = |$settings| { $change; };)?
                App::start(backend, change)
            }

            #[test]
            fn on_sqlite() {
                body(start(Backend::Sqlite));
            }

            #[test]
            fn on_postgres() {
                body(start(Backend::Postgres));
            }
        }
    )*};
}
