//! The server under test, a database of its own for each test, and who talks to it.

#![allow(dead_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

mod caddy;
mod cluster;
mod database;
pub mod dns;
mod http;
mod key_store;
mod logs;
mod nginx;
mod port;
mod probers;
mod process;
mod proxy;
mod relay;
mod server;
mod wire;

pub use caddy::Caddy;
pub use cluster::{Cluster, Stop};
pub use database::Database;
pub use dns::{Dns, Trouble};
pub use http::{Answer, Program, Slow, Visitor, email, raw, scope};
pub use key_store::{Change, KeyStore, Made, NAME};
pub use nginx::{Nginx, Seen, Upstream};
pub use port::Port;
pub use probers::{Key, Probers};
pub use process::{Dashboard, attest, cli, command, create_account, is_late, without_stderr};
pub use proxy::Proxy;
pub use relay::{Got, Relay, read_mail};
pub use server::{App, Backend};
pub use wire::{Answered, Wire, known};

pub const EMAIL: &str = "ada@acme.test";
pub const TITLE: &str = "Acme Inc";
pub const PASSWORD: &str = "four unrelated grey lamps";

/// Asks again and again until it is so. The limit is for what never comes, not for what is slow.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(60), "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Asks again and again how many are left until there are none, however many and however slow the
/// machine: it fails when there are no fewer after a minute.
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

/// Does something that means what it should only if it takes less than so long: again where the
/// machine took longer. It is told when it is late, and may end early then. Gives what the last time
/// gave.
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

/// Tells threads that they are to end, also when the test fails.
pub struct SetWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// How often a test repeats itself: a few times, or many in a whole run, or as its own variable says.
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

/// Writes a test once and runs it on both databases. Whatever needs PostgreSQL has its name in its own:
/// `tests/run --sqlite` leaves that out.
///
/// `both! { fn a_sentence(app: App) { … } }`, or with settings of its own:
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
