//! Builds the server on a listener: the one way in, for `main` and for tests.

use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::signal::unix::{SignalKind, signal};
use actix_web::{App, HttpRequest, HttpServer, web};
use tokio::sync::Notify;

use crate::accounts::password::Hasher;
use crate::accounts::setup_code::SetupCode;
use crate::accounts::throttle::PerAddress;
use crate::background::{BackgroundThread, Parts};
use crate::config::Config;
use crate::db::Db;
use crate::domains::check::{CheckLimit, Checker};
use crate::domains::dns::Dns;
use crate::http::body::Room;
use crate::http::{head, headers, log};
use crate::keys::usage::Usage;
use crate::keys::verify::Verifier;
use crate::mail::worker;
use crate::routes;
use crate::secret::ServerSecret;
use crate::upkeep;

/// How long a connection is kept that nobody uses: longer than gateways keep theirs, most of which do
/// so for 60 or 120 seconds. Who closes first would do so while a request is on its way.
const KEEP_ALIVE: Duration = Duration::from_secs(130);

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
        let mut server = HttpServer::new(move || {
            App::new()
                .app_data(of_app.clone())
                .configure(routes::configure(&of_app))
                .wrap(from_fn(headers::secure))
                .wrap(from_fn(head::as_get))
                .wrap(from_fn(log::in_a_span))
        })
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN_SECONDS);
        if let Some(workers) = workers {
            server = server.workers(workers);
        }
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
