//! Every test runs with all logs enabled, and none of them may contain a secret.

use std::io::Write;
use std::sync::Once;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::PASSWORD;

/// Everything at TRACE except the tests' own HTTP clients, which run in the same process.
const FILTER: &str = "trace,reqwest=off,hyper=off,hyper_util=off,h2=off,mio=off,thirtyfour=off";

/// Collects the logs of this process and ends it if one holds a key, a password or a session.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_ansi(false)
            .with_writer(Watch)
            .init();
    });
}

struct Watch;

impl Write for Watch {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if let Some(secret) = find_secret(&text) {
            eprintln!("A log line holds {secret}: {text}");
            std::process::abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Watch {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// The kind of secret that a log line contains, if any.
pub fn find_secret(text: &str) -> Option<&'static str> {
    if text.contains(PASSWORD) || text.contains(&PASSWORD.replace(' ', "+")) {
        return Some("a password");
    }
    if text.contains("tosend_session=") {
        return Some("a session");
    }
    let is_key =
        |tail: &str| tail.len() >= 38 && tail.bytes().take(38).all(|b| b.is_ascii_alphanumeric());
    text.split("tsend_").skip(1).any(is_key).then_some("a key")
}

#[test]
fn the_watch_knows_a_secret_when_it_sees_one() {
    assert_eq!(find_secret("all is well: tsend_aB…x9Zq"), None);
    assert_eq!(
        find_secret(&format!("key=tsend_{} ", "a".repeat(38))),
        Some("a key")
    );
    assert_eq!(
        find_secret(&format!("body: password={PASSWORD}")),
        Some("a password")
    );
    assert_eq!(find_secret("cookie: tosend_session=abc"), Some("a session"));
}
