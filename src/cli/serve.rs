//! `tosend-dashboard`: serves until it is told to stop.

use std::io::{ErrorKind, Write, stdout};
use std::net::{SocketAddr, TcpListener};
use std::thread::Builder;

use super::database::{migrate, open_for_server};
use super::outcome::CommandResult;
use super::server_secret;
use crate::accounts::store as accounts_store;
use crate::config::{Config, Signup};
use crate::listener::{self, ReservedAddress};
use crate::open_files;
use crate::recovery;
use crate::server::{self, Components};
use crate::service_manager::ServiceManager;
use crate::signals;

/// Everything that could prevent serving is checked first, and the migrations, which can take
/// minutes and cannot be undone, come last. Meanwhile clients are refused: the port is reserved,
/// but not listened on yet. A request that waited instead would be carried out long after its
/// client has given up. Where a service manager keeps the listener open, clients do wait: that is
/// what it is for.
pub fn run(mut config: Config) -> CommandResult {
    signals::ignore_strays();
    open_files::raise_limit();
    let place = Place::take(&mut config)?;
    let is_listener_kept = matches!(place, Place::Kept(_));
    let metrics = config.metrics_listen;
    let metrics = metrics.map(|address| reserve(address, "--metrics-listen"));
    let metrics = metrics.transpose()?;
    let db = open_for_server(&config)?;
    let secrets = server_secret::read(&config, &db)?;
    migrate(&db)?;
    server_secret::record(&config, &db, &secrets)?;
    let db = recovery::attach(db, &config)?;
    recovery::mark(&db).map_err(|e| e.to_string())?;
    // On a full disk, verification and revocations must start nevertheless: `/readyz` says what fails.
    let _ = db.check_writes();
    let listener = place.listen(&config)?;
    let metrics = listen_for_prometheus(metrics)?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    let is_empty = !db
        .read_blocking(accounts_store::exists_any)
        .map_err(|e| e.to_string())?;
    let url = config
        .public_url
        .as_ref()
        .map_or_else(|| format!("http://{address}"), |url| url.origin());
    let mut components = Components::new(config, db, secrets);
    components.manager = ServiceManager::from_environment();
    components.is_listener_kept = is_listener_kept;
    let greeting = greeting(&components, &url, is_empty);
    warn(&components.context.config);
    // On its own thread, because serving must go on even if stdout is not read.
    let greet = move || drop(Builder::new().spawn(move || writeln!(stdout(), "{greeting}")));
    server::run(listener, metrics, components, greet)
        .map_err(|e| format!("the server stopped: {e}"))
}

/// Where the server will listen.
enum Place {
    Reserved(ReservedAddress),
    /// Somebody else listens there for the server, and does so when it ends.
    Kept(TcpListener),
}

impl Place {
    /// From now on, `config.listen` is the address of the listener that was passed, if one was: much
    /// depends on whether other machines can reach it.
    fn take(config: &mut Config) -> Result<Self, String> {
        let Some(listener) = listener::inherited()? else {
            return reserve(config.listen, "--listen").map(Self::Reserved);
        };
        config.listen = listener.local_addr().map_err(|e| e.to_string())?;
        tracing::info!(
            address = %config.listen,
            "the listener was passed to this process: TOSEND_LISTEN is not used"
        );
        Ok(Self::Kept(listener))
    }

    fn listen(self, config: &Config) -> Result<TcpListener, String> {
        match self {
            Self::Reserved(reserved) => reserved
                .listen()
                .map_err(|e| cannot_listen(config.listen, "--listen", &e)),
            Self::Kept(listener) => Ok(listener),
        }
    }
}

/// `flag`: the setting that has the address.
fn reserve(address: SocketAddr, flag: &str) -> Result<ReservedAddress, String> {
    ReservedAddress::reserve(address).map_err(|e| cannot_listen(address, flag, &e))
}

fn cannot_listen(address: SocketAddr, flag: &str, error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!("{address} is in use: stop what listens there, or choose another with {flag}")
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn listen_for_prometheus(reserved: Option<ReservedAddress>) -> Result<Option<TcpListener>, String> {
    let Some(reserved) = reserved else {
        return Ok(None);
    };
    let listener = reserved.listen();
    let listener = listener.map_err(|e| format!("cannot listen for Prometheus: {e}"))?;
    let address = listener.local_addr().map_err(|e| e.to_string())?;
    tracing::info!("metrics are served on http://{address}/metrics");
    Ok(Some(listener))
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
    for danger in config.dangers() {
        tracing::warn!("{danger}");
    }
    if config.journal.is_none() {
        tracing::warn!(
            "there is no journal of ends: after a restore, nobody knows which keys have ended since the backup; name a file in TOSEND_JOURNAL"
        );
    }
    match &config.relay {
        Some(relay) => tracing::info!("emails are delivered through the relay {relay}"),
        None => tracing::info!(
            "emails are accepted and held: nothing is delivered until TOSEND_SMTP_URL names a relay"
        ),
    }
}
