//! Builds the server on a listener; both `main` and the tests start it here.

use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::rt::net::TcpStream;
use actix_web::web::{Data, ServiceConfig};
use actix_web::{App, HttpServer};
use rustix::net::sockopt::set_tcp_user_timeout;
use tokio::time::{sleep, timeout};

use crate::accounts::downloads::Downloads;
use crate::accounts::setup_code::SetupCode;
use crate::accounts::sign_in::SignInGuard;
use crate::background::{BackgroundThread, Parts};
use crate::config::Config;
use crate::db::{DatabaseUrl, Db};
use crate::domains::check::{CheckLimit, Checker};
use crate::domains::dns::Dns;
use crate::emails::acceptor::Acceptor;
use crate::ending::Ending;
use crate::http::body::Room;
use crate::http::count::{self, Answers};
use crate::http::refusals::Refusals;
use crate::http::{Context, every_request, health};
use crate::keys::usage::Usage;
use crate::keys::verification::Verifier;
use crate::mail::worker;
use crate::metrics::Metrics;
use crate::open_files::{self, Connections};
use crate::outbox::Arrivals;
use crate::routes;
use crate::scrape::{self, Figures, Scrape};
use crate::secret::SecretRing;
use crate::service_manager::ServiceManager;
use crate::signals::OrdersToEnd;
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

/// How long requests may still run once no more are accepted.
const DRAIN_SECONDS: u64 = 8;

/// Before idle connections are closed: the time in which one that is in use gets an answer that
/// closes it, and in which one that was just accepted gets its first request through.
const LAST_REQUESTS: Duration = Duration::from_millis(100);

/// How often it is checked whether all connections are closed.
const GLANCE: Duration = Duration::from_millis(5);

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
    pub acceptor: Data<Acceptor>,
    pub guard: Data<SignInGuard>,
    pub setup_code: Data<SetupCode>,
    pub downloads: Data<Downloads>,
    pub refusals: Data<Refusals>,
    pub checker: Data<Checker>,
    pub check_limit: Data<CheckLimit>,
    pub parts: Data<Parts>,
    pub ending: Data<Ending>,
    /// Who started this process and wants to be told how it is.
    pub manager: Option<ServiceManager>,
    /// Whether somebody keeps the listener open when this process ends, and for the next one.
    pub is_listener_kept: bool,
    metrics: Metrics,
    figures: Arc<Figures>,
    secrets: Data<SecretRing>,
}

impl Components {
    pub fn new(config: Config, db: Db, secrets: SecretRing) -> Self {
        let refusals = Data::new(Refusals::default());
        let dns = Dns::new(&config.dns_servers);
        let metrics = match config.metrics_listen {
            Some(_) => Metrics::on(),
            None => Metrics::default(),
        };
        if config.relay.is_some() {
            metrics.know_relay(worker::OUTCOMES);
        }
        let arrivals = Data::new(Arrivals::new(&metrics));
        let acceptor = Acceptor::start(&db, arrivals.clone().into_inner());
        Self {
            verifier: Data::new(Verifier::start(&db, config.remembered_keys, &metrics)),
            usage: Data::new(Usage::new(&metrics)),
            room: Data::default(),
            arrivals,
            acceptor: Data::new(acceptor),
            guard: Data::new(SignInGuard::new(&secrets, refusals.clone().into_inner())),
            setup_code: Data::new(SetupCode::derive(secrets.current().as_ref())),
            downloads: Data::default(),
            refusals,
            checker: Data::new(Checker::new(&db, dns, &secrets)),
            check_limit: Data::default(),
            parts: Data::default(),
            ending: Data::default(),
            manager: None,
            is_listener_kept: false,
            context: Data::new(Context { config, db }),
            metrics,
            figures: Arc::default(),
            secrets: Data::new(secrets),
        }
    }

    fn register(&self, app: &mut ServiceConfig) {
        app.app_data(self.context.clone())
            .app_data(self.verifier.clone())
            .app_data(self.usage.clone())
            .app_data(self.room.clone())
            .app_data(self.arrivals.clone())
            .app_data(self.acceptor.clone())
            .app_data(self.guard.clone())
            .app_data(self.setup_code.clone())
            .app_data(self.downloads.clone())
            .app_data(self.refusals.clone())
            .app_data(self.checker.clone())
            .app_data(self.check_limit.clone())
            .app_data(self.parts.clone())
            .app_data(self.ending.clone())
            .app_data(self.secrets.clone());
        routes::configure(&self.context, self.secrets.current())(app);
    }

    fn scrape(&self, connections: &Data<Connections>) -> Scrape {
        let Context { config, db } = &**self.context;
        Scrape {
            metrics: self.metrics.clone(),
            figures: self.figures.clone(),
            db: db.clone(),
            verifier: self.verifier.clone().into_inner(),
            parts: Parts::clone(&self.parts),
            connections: connections.clone().into_inner(),
            folder: match &config.database {
                DatabaseUrl::Sqlite(file) => Some(file.folder().to_owned()),
                DatabaseUrl::Postgres(_) => None,
            },
        }
    }
}

/// Serves until SIGTERM, SIGINT or SIGQUIT. `greet` runs once the server is listening. `metrics`: the
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
    address: SocketAddr,
    connections: Data<Connections>,
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
        let connections = Data::new(Connections::at_most(each * workers));
        let (opened, of_server) = (connections.clone(), connections.clone());
        let address = listener.local_addr()?;
        let server = HttpServer::new(move || {
            App::new()
                .app_data(connections.clone())
                .configure(|app| of_app.register(app))
                .configure(|app| {
                    if let Some(answers) = Answers::new(&of_app.metrics) {
                        app.app_data(answers);
                    }
                })
                .wrap_fn(every_request::answered)
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
        .disable_signals()
        .shutdown_timeout(DRAIN_SECONDS);
        let http = server.listen(listener)?.run();
        Ok(Self {
            http,
            metrics: None,
            address,
            connections: of_server,
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
        let mut orders = OrdersToEnd::listen()?;
        let threads = Threads::start(&self.components, self.address, self.metrics.is_some())?;
        let handle = self.http.handle();
        let Self {
            http,
            metrics,
            connections,
            components,
            ..
        } = self;
        let metrics = metrics.map(|server| {
            let handle = server.handle();
            actix_web::rt::spawn(server);
            handle
        });
        let mut http = pin!(http);
        let ended = tokio::select! {
            ended = &mut http => ended,
            () = orders.next() => {
                // The server carries out what its handle is told only while it is polled.
                tokio::select! {
                    ended = &mut http => ended,
                    () = let_go(&handle, &components, &connections, &threads, &mut orders) => Ok(()),
                }
            }
        };
        if let Some(metrics) = metrics {
            metrics.stop(false).await;
        }
        threads.end();
        ended
    }
}

/// Ends the service of clients: without a failed request, if a proxy looks at `/readyz` or somebody
/// keeps the listener open. Returns when all connections are closed, which the server itself notices
/// only once a second; after [`DRAIN_SECONDS`], it closes them.
async fn let_go(
    handle: &ServerHandle,
    components: &Components,
    connections: &Connections,
    threads: &Threads,
    orders: &mut OrdersToEnd,
) {
    if let Some(manager) = &components.manager {
        manager.tell_end();
    }
    components.ending.begin();
    let drain = components.context.config.drain;
    tokio::select! {
        () = sleep(drain) => {}
        // Somebody is in a hurry.
        () = orders.next() => {}
    }
    // Deliveries finish while requests do.
    threads.tell_delivery();
    if components.is_listener_kept {
        // Who connects from now on waits for the next process. A listener that closes instead would
        // cut off those who wait, so it is served until it does.
        handle.pause().await;
        // The thread that accepts may notice a moment later. What it accepts until then must be
        // counted before the connections are.
        sleep(LAST_REQUESTS).await;
    }
    let _ = timeout(LAST_REQUESTS, all_closed(connections)).await;
    drop(handle.stop(true));
    // The connections that were accepted until then are counted now.
    sleep(GLANCE).await;
    all_closed(connections).await;
}

async fn all_closed(connections: &Connections) {
    while !connections.are_all_closed() {
        sleep(GLANCE).await;
    }
}

/// The background threads.
struct Threads {
    usage: BackgroundThread,
    failures: BackgroundThread,
    delivery: Option<BackgroundThread>,
    /// Nobody waits for these: their unfinished work is rolled back, and done again after the next
    /// start.
    _others: Vec<BackgroundThread>,
}

impl Threads {
    /// `is_watched`: whether Prometheus is answered.
    fn start(
        components: &Components,
        address: SocketAddr,
        is_watched: bool,
    ) -> std::io::Result<Self> {
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
        let mut others = vec![upkeep, domains];
        if is_watched {
            others.push(start("the figures for metrics", |with, stop| {
                with.figures.keep_reading(&with.context.db, &stop);
            })?);
        }
        if let Some(manager) = components.manager.clone() {
            let parts = components.parts.clone();
            let work = move |stop| {
                let serves = || !parts.is_any_lost() && health::is_answered(address);
                manager.keep_telling(serves, &stop);
            };
            others.push(BackgroundThread::start(
                "signs of life",
                &components.parts,
                work,
            )?);
        }
        Ok(Self {
            usage,
            failures,
            delivery,
            _others: others,
        })
    }

    fn tell_delivery(&self) {
        if let Some(delivery) = &self.delivery {
            delivery.tell();
        }
    }

    /// Waits for what may be lost otherwise, each for a limited time.
    fn end(self) {
        if self.delivery.is_some_and(|thread| !thread.end(worker::END)) {
            tracing::warn!("deliveries were cut off by shutdown; those emails are sent again");
        }
        if !self.failures.end(LAST_WRITE) {
            tracing::warn!("failed sign-ins could not be recorded before shutdown");
        }
        if !self.usage.end(LAST_WRITE) {
            tracing::warn!("how keys were used could not be written before shutdown");
        }
    }
}

fn deliver(with: &Components, stop: Receiver<()>) {
    let Context { config, db } = &**with.context;
    if let Some(url) = &config.relay {
        let Components {
            secrets,
            arrivals,
            metrics,
            ..
        } = with;
        worker::run(db, secrets, url, arrivals, metrics, stop);
    }
}
