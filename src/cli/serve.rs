//! `tosend-dashboard`: serves until it is told to stop.

use std::io::{ErrorKind, Write, stdout};
use std::thread::Builder;

use super::database::{migrate, open};
use super::outcome::Outcome;
use super::server_secret;
use crate::accounts::store as accounts_store;
use crate::config::{Config, Signup};
use crate::listener::ReservedAddress;
use crate::open_files;
use crate::recovery;
use crate::server::{self, Components};

/// Everything that could prevent serving is checked first, and the migrations, which can take
/// minutes and cannot be undone, come last. Meanwhile clients are refused: the port is reserved,
/// but not listened on yet. A request that waited instead would be carried out long after its
/// client has given up.
pub fn run(config: Config) -> Outcome {
    let cannot_listen = |e: std::io::Error| match e.kind() {
        ErrorKind::AddrInUse => format!(
            "{} is in use: stop what listens there, or choose another with --listen",
            config.listen
        ),
        _ => format!("cannot listen on {}: {e}", config.listen),
    };
    open_files::raise_limit();
    let reserved = ReservedAddress::reserve(config.listen).map_err(cannot_listen)?;
    let db = open(&config)?;
    let secret = server_secret::read(&config, &db)?;
    migrate(&db)?;
    server_secret::record(&config, &db, &secret)?;
    let db = recovery::attach(db, &config)?;
    recovery::mark(&db).map_err(|e| e.to_string())?;
    // On a full disk, verification and revocations must start nevertheless: `/readyz` says what fails.
    let _ = db.check_writes();
    let listener = reserved.listen().map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let is_empty = !db
        .read_blocking(accounts_store::exists_any)
        .map_err(|e| e.to_string())?;
    let url = config
        .public_url
        .as_ref()
        .map_or_else(|| format!("http://{address}"), |url| url.origin());
    let components = Components::new(config, db, secret);
    let greeting = greeting(&components, &url, is_empty);
    warn(&components.context.config);
    // On its own thread, because serving must go on even if stdout is not read.
    let greet = move || drop(Builder::new().spawn(move || writeln!(stdout(), "{greeting}")));
    server::run(listener, components, greet).map_err(|e| format!("the server stopped: {e}"))
}

/// One line for the person who started the server.
fn greeting(components: &Components, url: &str, is_empty: bool) -> String {
    let config = &components.context.config;
    let first = match (is_empty, config.signup) {
        (false, _) => String::new(),
        (true, Signup::Closed) => {
            " (sign-up is closed: create an account with “account create”)".to_owned()
        }
        (true, _) if config.is_loopback() => {
            " (open it: the first visitor creates the account)".to_owned()
        }
        (true, _) => format!(
            " (open it: the first visitor creates the account, with the set-up code {})",
            components.setup_code.expose()
        ),
    };
    format!("API Keys dashboard: {url}{first}")
}

/// Further warnings for them.
fn warn(config: &Config) {
    if !config.is_https() && !config.is_loopback() {
        tracing::warn!(
            "served without https: cookies and keys travel unencrypted. Put a proxy with TLS in front and set TOSEND_PUBLIC_URL=https://…"
        );
    }
    match &config.relay {
        Some(relay) => tracing::info!("emails are delivered through the relay {relay}"),
        None => tracing::info!(
            "emails are accepted and held: nothing is delivered until TOSEND_SMTP_URL names a relay"
        ),
    }
}
