//! `tosend-dashboard`: serves until it is told to stop.

use std::io::{ErrorKind, Write, stdout};
use std::net::TcpListener;
use std::thread::Builder;

use super::{Outcome, read_secret};
use crate::accounts::store as accounts_store;
use crate::app::{self, State};
use crate::config::{Config, Signup};
use crate::db::{Db, nodes};
use crate::secret::ServerSecret;

pub fn run(config: Config, db: Db) -> Outcome {
    let secret = read_secret(&config)?;
    if db.is_postgres() {
        share_secret(&config, &db, &secret)?;
    }
    let listener = TcpListener::bind(config.listen).map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => format!(
            "{} is in use: stop what listens there, or choose another with --listen",
            config.listen
        ),
        _ => format!("cannot listen on {}: {e}", config.listen),
    })?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let is_empty = !db
        .write_blocking(accounts_store::exists_any)
        .map_err(|e| e.to_string())?;
    let url = config
        .public_url
        .as_ref()
        .map_or_else(|| format!("http://{address}"), |url| url.origin());
    let state = State::new(config, db, secret);
    let greeting = greeting(&state, &url, is_empty);
    warn(&state.config);
    // On a thread, since serving goes on even if nobody reads this.
    let greet = move || drop(Builder::new().spawn(move || writeln!(stdout(), "{greeting}")));
    app::run(listener, state, greet).map_err(|e| format!("the server stopped: {e}"))
}

/// Nodes with different secrets would sign each other's people out.
fn share_secret(config: &Config, db: &Db, secret: &ServerSecret) -> Outcome {
    let is_shared = db
        .write_blocking(|conn| nodes::share_secret(conn, &secret.hash()))
        .map_err(|e| e.to_string())?;
    match is_shared {
        true => Ok(()),
        false => Err(format!(
            "the secret {} is not the one that the nodes of this database share: copy theirs to this place, or, if it is lost, run “adopt-secret” here, which signs everyone out",
            config.secret_file.display()
        )),
    }
}

/// One line for whoever started it.
fn greeting(state: &State, url: &str, is_empty: bool) -> String {
    let config = &state.config;
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
            state.setup_code.expose()
        ),
    };
    format!("API Keys dashboard: {url}{first}")
}

/// What they should know besides.
fn warn(config: &Config) {
    if !config.is_https() && !config.is_loopback() {
        tracing::warn!(
            "served without https: cookies and keys travel in clear. Put a proxy with TLS in front and set TOSEND_PUBLIC_URL=https://…"
        );
    }
    match &config.relay {
        Some(relay) => tracing::info!("emails are delivered through the relay {relay}"),
        None => tracing::info!(
            "emails are accepted and held: nothing is delivered until TOSEND_SMTP_URL names a relay"
        ),
    }
}
