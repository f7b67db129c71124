//! Builds the server on a listener: the one way in, for `main` and for tests.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpRequest, HttpServer, web};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::sync::Notify;

use crate::accounts::downloads::Downloads;
use crate::accounts::failures::Failures;
use crate::accounts::known_device::KnownDevices;
use crate::accounts::password::Hasher;
use crate::accounts::setup_code::SetupCode;
use crate::accounts::throttle::{PerAddress, PerDevice};
use crate::background::{BackgroundThread, Parts};
use crate::config::Config;
use crate::db::Db;
use crate::domains::check::{CheckLimit, Checker};
use crate::domains::dns::Dns;
use crate::http::body::Room;
use crate::http::refusals::Refusals;
use crate::http::{head, headers, keep_alive, log};
use crate::keys::usage::Usage;
use crate::keys::verify::Verifier;
use crate::mail::worker;
use crate::open_files::{self, Connections};
use crate::routes;
use crate::secret::ServerSecret;
use crate::upkeep;

/// How long a connection is kept that nobody uses: longer than gateways keep theirs, most of which do
/// so for 60 or 120 seconds. Who closes first would do so while a request is on its way. While many
/// are open, connections are closed after each answer ([`Connections::are_scarce`]).
const KEEP_ALIVE: Duration = Duration::from_secs(130);

/// How long a client may take nothing of an answer before the connection is closed: else it would
/// hold what the answer needs for as long as it likes.
const UNREAD: Duration = Duration::from_secs(60);

/// As many as actix takes.
const MOST_WORKERS: usize = 512;

/// After SIGTERM, how long requests that are under way may take.
const DRAIN_SECONDS: u64 = 8;

/// How long the end may wait for what is still to be written then.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// What every handler may need.
pub struct State {
    pub config: Config,
    pub db: Db,
    pub verifier: Verifier,
    pub usage: Usage,
    pub room: Room,
    /// Told when there is an email to deliver.
    pub accepted: Arc<Notify>,
    pub hasher: Hasher,
    pub sign_in_limit: PerAddress,
    pub device_limit: PerDevice,
    pub devices: KnownDevices,
    pub failures: Failures,
    pub downloads: Downloads,
    pub refusals: Refusals,
    pub checker: Checker,
    pub check_limit: CheckLimit,
    pub setup_code: SetupCode,
    pub secret: ServerSecret,
    pub parts: Parts,
    /// How the operator called this program: the word to begin a command with.
    pub program: String,
}

impl State {
    pub fn new(config: Config, db: Db, secret: ServerSecret) -> Self {
        Self {
            verifier: Verifier::start(&db),
            usage: Usage::default(),
            checker: Checker::new(&db, Dns::new(&config.dns_servers), &secret),
            check_limit: CheckLimit::new(),
            room: Room::default(),
            accepted: Arc::default(),
            db,
            config,
            hasher: Hasher::new(),
            sign_in_limit: PerAddress::new(),
            device_limit: PerDevice::new(),
            devices: KnownDevices::new(&secret),
            failures: Failures::default(),
            downloads: Downloads::default(),
            refusals: Refusals::default(),
            setup_code: SetupCode::derive(secret.as_ref()),
            secret,
            parts: Parts::default(),
            program: std::env::args()
                .next()
                .unwrap_or_else(|| "tosend-dashboard".to_owned()),
        }
    }

    /// The state of the server that took a request.
    pub fn of(request: &HttpRequest) -> &Self {
        request
            .app_data::<web::Data<Self>>()
            .expect("every app has a state")
    }
}

/// Serves until SIGTERM or SIGINT. `greet` runs when it does serve.
///
/// # Errors
/// If the listener cannot be used.
pub fn run(listener: TcpListener, state: State, greet: impl FnOnce()) -> std::io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let server = Server::build(listener, state, None)?;
        greet();
        server.serve().await
    })
}

/// A server that listens already.
pub struct Server {
    http: actix_web::dev::Server,
    state: web::Data<State>,
}

impl Server {
    /// `workers`: how many threads; one for each core if not given.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub fn build(
        listener: TcpListener,
        state: State,
        workers: Option<usize>,
    ) -> std::io::Result<Self> {
        let state = web::Data::new(state);
        let of_app = state.clone();
        let cores = available_parallelism().map_or(1, usize::from);
        let workers = workers.unwrap_or(cores.min(MOST_WORKERS));
        let each = open_files::connections_per_worker(workers);
        let connections = web::Data::new(Connections::at_most(each * workers));
        let opened = connections.clone();
        let server = HttpServer::new(move || {
            App::new()
                .app_data(of_app.clone())
                .app_data(connections.clone())
                .configure(routes::configure(&of_app))
                .wrap(from_fn(headers::secure))
                .wrap(from_fn(head::as_get))
                .wrap(from_fn(keep_alive::while_there_is_room))
                .wrap(from_fn(log::in_a_span))
        })
        .workers(workers)
        .max_connections(each)
        .on_connect(move |stream, connection| {
            connection.insert(opened.open());
            if let Some(stream) = stream.downcast_ref::<TcpStream>() {
                // Without it the system waits for much longer, which is no reason to hang up.
                let _ = set_tcp_user_timeout(stream, UNREAD.as_millis() as u32);
            }
        })
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN_SECONDS);
        let http = server.listen(listener)?.run();
        Ok(Self { http, state })
    }

    pub fn handle(&self) -> ServerHandle {
        self.http.handle()
    }

    /// Serves until it is told to stop.
    pub async fn serve(self) -> std::io::Result<()> {
        let Self { http, state } = self;
        let start = |part, work: fn(&State, Receiver<()>)| {
            let of_part = state.clone();
            BackgroundThread::start(part, &state.parts, move |stop| work(&of_part, stop))
        };
        let usage = start("the count of calls", |state, stop| {
            state.usage.keep_writing(&state.db, &stop);
        })?;
        let upkeep = start("upkeep", |state, stop| {
            upkeep::run(&state.db, &state.config, &stop);
        })?;
        let failures = start("the record of failed sign-ins", |state, stop| {
            let State { db, refusals, .. } = state;
            state.failures.keep_telling(db, refusals, &stop);
        })?;
        let domains = start("the check of domains", |state, stop| {
            state.checker.keep_checking(&stop);
        })?;
        let delivery = match state.config.relay {
            Some(_) => Some(start("delivery", deliver)?),
            None => None,
        };
        let mut http = pin!(http);
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = told_to_end() => {
                // While requests end, emails do too.
                if let Some(delivery) = &delivery {
                    delivery.tell();
                }
                http.await
            }
        };
        // What they are at is undone, and done again after the next start.
        drop((upkeep, domains));
        if delivery.is_some_and(|delivery| !delivery.end(worker::END)) {
            tracing::warn!("emails were still under way at the end, and are sent again");
        }
        if !failures.end(LAST_WRITE) {
            tracing::warn!("failed sign-ins could not be written before the end");
        }
        if !usage.end(LAST_WRITE) {
            tracing::warn!("how keys were used could not be written before the end");
        }
        ended
    }
}

fn deliver(state: &State, stop: Receiver<()>) {
    if let Some(url) = &state.config.relay {
        worker::run(&state.db, &state.secret, url, &state.accepted, stop);
    }
}

/// Until one of the signals comes by which the server ends, too.
async fn told_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
