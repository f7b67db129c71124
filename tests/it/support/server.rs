//! The server in this process, on a free port.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tosend_dashboard::accounts::password::Hasher;
use tosend_dashboard::config::{Config, Settings};
use tosend_dashboard::db::{Db, migrations};
use tosend_dashboard::domains::check::Checker;
use tosend_dashboard::recovery;
use tosend_dashboard::secret::SecretRing;
use tosend_dashboard::server::{Components, Server};

use super::{Database, Dns, Program, Visitor, logs};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Sqlite,
    Postgres,
}

impl Backend {
    /// Both databases, or only SQLite: `tests/run --sqlite`.
    pub fn all() -> impl Iterator<Item = Self> {
        let is_alone = std::env::var_os("TOSEND_TEST_SQLITE_ALONE").is_some();
        let postgres = Some(Self::Postgres).filter(|_| !is_alone);
        [Self::Sqlite].into_iter().chain(postgres)
    }
}

pub struct App {
    pub address: SocketAddr,
    pub database: Database,
    pub hasher: Hasher,
    pub checker: Checker,
    pub setup_code: String,
    /// Where metrics are served, if they are on.
    pub metrics: Option<SocketAddr>,
    handle: actix_web::dev::ServerHandle,
    thread: Option<JoinHandle<()>>,
}

impl App {
    pub fn start(backend: Backend, change: impl FnOnce(&mut Settings)) -> Self {
        Self::on(Database::new(backend), change)
    }

    /// A server on an existing database, such as a second node.
    pub fn on(database: Database, change: impl FnOnce(&mut Settings)) -> Self {
        Self::build(database, change, |_| {})
    }

    /// A server with parts that differ from the product.
    pub fn altered(database: Database, alter: impl FnOnce(&mut Components)) -> Self {
        Self::build(database, |_| {}, alter)
    }

    fn build(
        database: Database,
        change: impl FnOnce(&mut Settings),
        alter: impl FnOnce(&mut Components),
    ) -> Self {
        logs::watch();
        let mut settings = Settings {
            database_url: Some(database.url.clone()),
            database_url_file: None,
            listen: "127.0.0.1:0".into(),
            public_url: None,
            signup: "first".into(),
            trusted_proxies: String::new(),
            secret_file: Some(database.folder.path().join("secret").display().to_string()),
            journal: (database.journal.as_ref()).map(|path| path.display().to_string()),
            journal_days: "400".into(),
            dns_servers: database.dns.address.to_string(),
            key_limit: "1000".into(),
            remembered_keys: "100000".into(),
            domain_limit: "200".into(),
            activity_days: "365".into(),
            smtp_url: None,
            smtp_credentials_file: None,
            smtp_helo: None,
            retention_days: "30".into(),
            email_days: "365".into(),
            drain_seconds: "0".into(),
            log: "trace".into(),
            log_format: "text".into(),
            access_log: "false".into(),
            metrics_listen: None,
        };
        change(&mut settings);
        let config = Config::parse(&settings).expect("the test's settings are right");
        std::fs::create_dir_all(database.folder.path().join("data")).unwrap();
        let db = Db::open(&config.database).expect("the database opens");
        migrations::run(&db).expect("the migrations run");
        let db = recovery::attach(db, &config).expect("the journal is the right one");
        let secrets = SecretRing::read_or_make(&config.secret_file).unwrap();
        let listener = TcpListener::bind(config.listen).unwrap();
        let address = listener.local_addr().unwrap();
        let mut components = Components::new(config, db, secrets);
        alter(&mut components);
        let hasher = components.guard.hasher.clone();
        let checker = Checker::clone(&components.checker);
        let setup_code = components.setup_code.expose().to_owned();
        let for_metrics = components.context.config.metrics_listen;
        let for_metrics = for_metrics.map(|address| TcpListener::bind(address).unwrap());
        let metrics = for_metrics.as_ref().map(|l| l.local_addr().unwrap());
        let (send, receive) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let mut server =
                    Server::build(listener, components, Some(2)).expect("the server starts");
                if let Some(listener) = for_metrics {
                    server.answer_prometheus(listener).unwrap();
                }
                send.send(server.handle()).unwrap();
                server.serve().await.expect("the server ends well");
            });
        });
        Self {
            address,
            database,
            hasher,
            checker,
            setup_code,
            metrics,
            handle: receive.recv().unwrap(),
            thread: Some(thread),
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The DNS server that the server queries.
    pub fn dns(&self) -> &Dns {
        &self.database.dns
    }

    /// A person with a new browser.
    pub fn visitor(&self) -> Visitor {
        Visitor::new(format!("http://{}", self.address))
    }

    /// The owner of the first account, signed up and signed in.
    pub fn owner(&self) -> Visitor {
        let visitor = self.visitor();
        visitor.sign_up();
        visitor
    }

    /// The owner of another account, created by the operator, signed in.
    pub fn stranger(&self) -> Visitor {
        let email = "eve@evil.test";
        super::create_account(&self.database, email, "Evil Corp");
        let visitor = self.visitor();
        visitor.sign_in(email);
        visitor
    }

    /// A program that sends a key with its requests.
    pub fn program(&self, key: &str) -> Program {
        Program::new(format!("http://{}", self.address), key)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
