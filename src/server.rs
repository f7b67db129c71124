//! Builds the server on a listener; both `main` and the tests start it here.

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
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, HttpServer};
use rustix::net::sockopt::set_tcp_user_timeout;

use crate::accounts::downloads::Downloads;
use crate::accounts::setup_code::SetupCode;
use crate::accounts::sign_in::SignInGuard;
use crate::background::{BackgroundThread, Parts};
use crate::config::Config;
use crate::db::{DatabaseUrl, Db};
use crate::domains::check::{CheckLimit, Checker};
use crate::domains::dns::Dns;
use crate::http::body::Room;
use crate::http::count::{self, Answers};
use crate::http::refusals::Refusals;
use crate::http::{Context, head, headers, keep_alive};
use crate::keys::usage::Usage;
use crate::keys::verification::Verifier;
use crate::mail::worker;
use crate::metrics::Metrics;
use crate::open_files::{self, Connections};
use crate::outbox::Arrivals;
use crate::routes;
use crate::scrape::{self, Figures, Scrape};
use crate::secret::ServerSecret;
use crate::upkeep;

/// How long an idle connection is kept: longer than gateways keep theirs, most of them 60 or 120
/// seconds. The side that closes first may do so while a request is on its way. While many
/// connections are open, each is closed after its answer ([`Connections::are_scarce`]).
const KEEP_ALIVE: Duration = Duration::from_secs(130);

/// How long a client may leave an answer unread before the connection is closed; otherwise it could
/// occupy the memory of the answer for as long as it likes.
const UNREAD: Duration = Duration::from_secs(60);

/// The most that actix accepts.
const MOST_WORKERS: usize = 512;

/// How long requests may still run after SIGTERM.
const DRAIN_SECONDS: u64 = 8;

/// How long shutdown may then wait for unwritten data.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// The parts of a server, made and registered only here. No other code sees all of them: a handler
/// takes each part it needs as an argument, `Data<Part>`.
#[derive(Clone)]
pub struct Components {
    pub context: Data<Context>,
    pub verifier: Data<Verifier>,
    pub usage: Data<Usage>,
    pub room: Data<Room>,
    pub arrivals: Data<Arrivals>,
    pub guard: Data<SignInGuard>,
    pub setup_code: Data<SetupCode>,
    pub downloads: Data<Downloads>,
    pub refusals: Data<Refusals>,
    pub checker: Data<Checker>,
    pub check_limit: Data<CheckLimit>,
    pub parts: Data<Parts>,
    metrics: Metrics,
    figures: Arc<Figures>,
    secret: ServerSecret,
}

impl Components {
    pub fn new(config: Config, db: Db, secret: ServerSecret) -> Self {
        let refusals = Data::new(Refusals::default());
        let dns = Dns::new(&config.dns_servers);
        let metrics = match config.metrics_listen {
            Some(_) => Metrics::on(),
            None => Metrics::default(),
        };
        if config.relay.is_some() {
            metrics.know_relay(worker::OUTCOMES);
        }
        Self {
            verifier: Data::new(Verifier::start(&db, &metrics)),
            usage: Data::new(Usage::new(&metrics)),
            room: Data::default(),
            arrivals: Data::new(Arrivals::new(&metrics)),
            guard: Data::new(SignInGuard::new(&secret, refusals.clone().into_inner())),
            setup_code: Data::new(SetupCode::derive(secret.as_ref())),
            downloads: Data::default(),
            refusals,
            checker: Data::new(Checker::new(&db, dns, &secret)),
            check_limit: Data::default(),
            parts: Data::default(),
            context: Data::new(Context { config, db }),
            metrics,
            figures: Arc::default(),
            secret,
        }
    }

    fn register(&self, app: &mut ServiceConfig) {
        app.app_data(self.context.clone())
            .app_data(self.verifier.clone())
            .app_data(self.usage.clone())
            .app_data(self.room.clone())
            .app_data(self.arrivals.clone())
            .app_data(self.guard.clone())
            .app_data(self.setup_code.clone())
            .app_data(self.downloads.clone())
            .app_data(self.refusals.clone())
            .app_data(self.checker.clone())
            .app_data(self.check_limit.clone())
            .app_data(self.parts.clone());
        routes::configure(&self.context, &self.secret)(app);
    }

    fn scrape(&self, connections: &Connections) -> Scrape {
        let Context { config, db } = &**self.context;
        Scrape {
            metrics: self.metrics.clone(),
            figures: self.figures.clone(),
            db: db.clone(),
            verifier: self.verifier.clone().into_inner(),
            parts: Parts::clone(&self.parts),
            connections: connections.clone(),
            folder: match &config.database {
                DatabaseUrl::Sqlite(file) => Some(file.folder().to_owned()),
                DatabaseUrl::Postgres(_) => None,
            },
        }
    }
}

/// Serves until SIGTERM or SIGINT. `greet` runs once the server is listening. `metrics`: the
/// listener for Prometheus.
///
/// # Errors
/// If a listener cannot be used.
pub fn run(
    listener: TcpListener,
    metrics: Option<TcpListener>,
    components: Components,
    greet: impl FnOnce(),
) -> std::io::Result<()> {
    actix_web::rt::System::new().block_on(async {
        let mut server = Server::build(listener, components, None)?;
        if let Some(metrics) = metrics {
            server.answer_prometheus(metrics)?;
        }
        greet();
        server.serve().await
    })
}

/// A server that is already listening.
pub struct Server {
    http: actix_web::dev::Server,
    metrics: Option<actix_web::dev::Server>,
    connections: Connections,
    components: Components,
}

impl Server {
    /// `workers`: the number of threads; by default one per core.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub fn build(
        listener: TcpListener,
        components: Components,
        workers: Option<usize>,
    ) -> std::io::Result<Self> {
        let of_app = components.clone();
        let cores = available_parallelism().map_or(1, usize::from);
        let workers = workers.unwrap_or(cores.min(MOST_WORKERS));
        let each = open_files::connections_per_worker(workers);
        let connections = Connections::at_most(each * workers);
        let (opened, shown) = (connections.clone(), Data::new(connections.clone()));
        let server = HttpServer::new(move || {
            App::new()
                .app_data(shown.clone())
                .configure(|app| of_app.register(app))
                .configure(|app| {
                    if let Some(answers) = Answers::new(&of_app.metrics) {
                        app.app_data(answers);
                    }
                })
                .wrap(from_fn(headers::secure))
                .wrap(from_fn(head::as_get))
                .wrap(from_fn(keep_alive::while_there_is_room))
                .wrap(from_fn(count::and_log))
        })
        .workers(workers)
        .max_connections(each)
        .on_connect(move |stream, connection| {
            connection.insert(opened.open());
            if let Some(stream) = stream.downcast_ref::<TcpStream>() {
                // Without this option the system only waits much longer, so a failure is no reason
                // to hang up.
                let _ = set_tcp_user_timeout(stream, UNREAD.as_millis() as u32);
            }
        })
        .keep_alive(KEEP_ALIVE)
        .shutdown_timeout(DRAIN_SECONDS);
        let http = server.listen(listener)?.run();
        Ok(Self {
            http,
            metrics: None,
            connections,
            components,
        })
    }

    /// Also answers Prometheus, on a listener of its own, if metrics are on.
    ///
    /// # Errors
    /// If the listener cannot be used.
    pub fn answer_prometheus(&mut self, listener: TcpListener) -> std::io::Result<()> {
        let scrape = self.components.scrape(&self.connections);
        self.metrics = Some(scrape::api::server(listener, scrape)?);
        Ok(())
    }

    pub fn handle(&self) -> ServerHandle {
        self.http.handle()
    }

    /// Serves until told to stop.
    pub async fn serve(self) -> std::io::Result<()> {
        let Self {
            http,
            metrics,
            components,
            ..
        } = self;
        let start = |part, work: fn(&Components, Receiver<()>)| {
            let of_part = components.clone();
            BackgroundThread::start(part, &components.parts, move |stop| work(&of_part, stop))
        };
        let usage = start("the count of calls", |with, stop| {
            with.usage.keep_writing(&with.context.db, &stop);
        })?;
        let upkeep = start("upkeep", |with, stop| {
            upkeep::run(&with.context.db, &with.context.config, &stop);
        })?;
        let failures = start("the record of failed sign-ins", |with, stop| {
            with.guard.keep_telling(&with.context.db, &stop);
        })?;
        let domains = start("the check of domains", |with, stop| {
            with.checker.keep_checking(&stop);
        })?;
        let delivery = match components.context.config.relay {
            Some(_) => Some(start("delivery", deliver)?),
            None => None,
        };
        let figures = match metrics {
            Some(metrics) => {
                let figures = start("the figures for metrics", |with, stop| {
                    with.figures.keep_reading(&with.context.db, &stop);
                })?;
                let handle = metrics.handle();
                actix_web::rt::spawn(metrics);
                Some((figures, handle))
            }
            None => None,
        };
        let mut http = pin!(http);
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = told_to_end() => {
                // Deliveries finish while requests do.
                if let Some(delivery) = &delivery {
                    delivery.tell();
                }
                http.await
            }
        };
        // Their unfinished work is rolled back, and done again after the next start.
        drop((upkeep, domains));
        if let Some((figures, metrics)) = figures {
            drop(figures);
            metrics.stop(false).await;
        }
        if delivery.is_some_and(|delivery| !delivery.end(worker::END)) {
            tracing::warn!("deliveries were cut off by shutdown; those emails are sent again");
        }
        if !failures.end(LAST_WRITE) {
            tracing::warn!("failed sign-ins could not be recorded before shutdown");
        }
        if !usage.end(LAST_WRITE) {
            tracing::warn!("how keys were used could not be written before shutdown");
        }
        ended
    }
}

fn deliver(with: &Components, stop: Receiver<()>) {
    let Context { config, db } = &**with.context;
    if let Some(url) = &config.relay {
        let Components {
            secret,
            arrivals,
            metrics,
            ..
        } = with;
        worker::run(db, secret, url, arrivals, metrics, stop);
    }
}

/// Waits for a signal that also ends the server.
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
