//! A database for one test, removed when the test ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::TimeDelta;
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use tempfile::TempDir;

use super::{Backend, Cluster, Dns};

pub struct Database {
    /// The URL for the server; a test may route it through a proxy.
    pub url: String,
    pub folder: Arc<TempDir>,
    pub name: String,
    /// The DNS server that the servers on this database query.
    pub dns: Arc<Dns>,
    /// The journal of ends, if the test names one.
    pub journal: Option<PathBuf>,
    backend: Backend,
    /// The URL for the test's own queries.
    direct: String,
    is_shared_server: bool,
}

impl Database {
    pub fn new(backend: Backend) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = folder();
        let name = format!(
            "test_{}_{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::SeqCst)
        );
        let url = match backend {
            Backend::Sqlite => format!(
                "sqlite://{}",
                folder.path().join("data/tosend.db").display()
            ),
            Backend::Postgres => {
                admin(&format!("CREATE DATABASE {name}"));
                format!("{}/{name}", postgres())
            }
        };
        Self {
            direct: url.clone(),
            url,
            folder,
            name,
            dns: Arc::new(Dns::start()),
            journal: None,
            backend,
            is_shared_server: backend == Backend::Postgres,
        }
    }

    /// With a journal of ends outside the folder of the data.
    pub fn with_journal(backend: Backend) -> Self {
        let mut database = Self::new(backend);
        database.journal = Some(database.folder.path().join("ends"));
        database
    }

    /// The URL for other programs, such as pg_dump.
    pub fn direct(&self) -> &str {
        &self.direct
    }

    /// A new database on a test's own PostgreSQL.
    pub fn on(cluster: &Cluster) -> Self {
        cluster
            .database("postgres")
            .execute("CREATE DATABASE tosend");
        cluster.database("tosend")
    }

    /// An existing database, which is not removed.
    pub(super) fn at(server: &str, name: &str) -> Self {
        let url = format!("{server}/{name}");
        Self {
            direct: url.clone(),
            url,
            folder: folder(),
            name: name.to_owned(),
            dns: Arc::new(Dns::start()),
            journal: None,
            backend: Backend::Postgres,
            is_shared_server: false,
        }
    }

    /// Prevents writes to a table (with SQLite, to all of them) until the returned value is
    /// dropped.
    pub fn lock(&self, table: &str) -> Box<dyn SimpleConnection> {
        match self.backend() {
            Backend::Postgres => {
                let mut conn = PgConnection::establish(&self.url).unwrap();
                let sql = format!("BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE");
                conn.batch_execute(&sql).unwrap();
                Box::new(conn)
            }
            Backend::Sqlite => {
                let file = self.file();
                let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
                let sql = "PRAGMA busy_timeout = 60000; BEGIN IMMEDIATE";
                conn.batch_execute(sql).unwrap();
                Box::new(conn)
            }
        }
    }

    /// On PostgreSQL: makes everybody wait who writes to the journal of ends, until it is dropped.
    pub fn hold_the_journal(&self) -> Box<dyn SimpleConnection> {
        let mut conn = PgConnection::establish(&self.direct).unwrap();
        conn.batch_execute("SELECT pg_advisory_lock(7306004)")
            .unwrap();
        Box::new(conn)
    }

    /// The same database for another node; it exists as long as the first value does.
    pub fn again(&self) -> Self {
        Self {
            url: self.url.clone(),
            folder: self.folder.clone(),
            name: self.name.clone(),
            dns: self.dns.clone(),
            journal: self.journal.clone(),
            backend: self.backend,
            direct: self.direct.clone(),
            is_shared_server: false,
        }
    }

    /// Opens it as the server does.
    pub fn open(&self) -> tosend_dashboard::db::Db {
        use tosend_dashboard::db::{DatabaseUrl, Db};
        Db::open(&DatabaseUrl::parse(&self.url).unwrap()).unwrap()
    }

    /// Runs SQL whenever a row is added to a table.
    pub fn on_insert(&self, table: &str, sql: &str) {
        self.execute(&match self.backend {
            Backend::Sqlite => {
                format!("CREATE TRIGGER also AFTER INSERT ON {table} BEGIN {sql}; END")
            }
            Backend::Postgres => format!(
                "CREATE FUNCTION also() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN {sql}; RETURN NEW; END $$;
                 CREATE TRIGGER also AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION also()"
            ),
        });
    }

    /// Makes all keys that have not ended older by this much time.
    pub fn age_keys(&self, time: TimeDelta) {
        let seconds = time.num_seconds();
        let earlier = |column: &str| match self.backend {
            Backend::Sqlite => {
                format!("strftime('%Y-%m-%d %H:%M:%f', {column}, '-{seconds} seconds')")
            }
            Backend::Postgres => format!("{column} - interval '{seconds} seconds'"),
        };
        self.execute(&format!(
            "UPDATE api_keys SET expires_at = {}, stops_at = {} WHERE ended_at IS NULL",
            earlier("expires_at"),
            earlier("stops_at")
        ));
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("data/tosend.db")
    }

    /// Runs SQL that both databases understand, without the server's knowledge.
    pub fn execute(&self, sql: &str) {
        match self.backend {
            Backend::Sqlite => diesel::SqliteConnection::establish(self.file().to_str().unwrap())
                .unwrap()
                .batch_execute(&format!("PRAGMA busy_timeout = 60000; {sql}"))
                .unwrap(),
            Backend::Postgres => PgConnection::establish(&self.direct)
                .unwrap()
                .batch_execute(sql)
                .unwrap(),
        }
    }

    /// The single number that a query returns.
    pub fn number(&self, sql: &str) -> i64 {
        use diesel::prelude::*;
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::BigInt)]
            n: i64,
        }
        let query = diesel::sql_query(format!("SELECT CAST(({sql}) AS BIGINT) AS n"));
        let row: Row = match self.backend {
            Backend::Sqlite => query.get_result(
                &mut SqliteConnection::establish(self.file().to_str().unwrap()).unwrap(),
            ),
            Backend::Postgres => {
                query.get_result(&mut PgConnection::establish(&self.direct).unwrap())
            }
        }
        .unwrap();
        row.n
    }

    pub fn backend(&self) -> Backend {
        self.backend
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if self.is_shared_server && !std::thread::panicking() {
            admin(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                self.name
            ));
        }
    }
}

fn folder() -> Arc<TempDir> {
    Arc::new(tempfile::tempdir().expect("a folder for the test"))
}

/// The temporary server that `tests/run` starts.
fn postgres() -> String {
    std::env::var("TOSEND_TEST_POSTGRES")
        .expect("TOSEND_TEST_POSTGRES is not set: run the tests with tests/run")
}

fn admin(sql: &str) {
    PgConnection::establish(&format!("{}/postgres", postgres()))
        .expect("the throw-away PostgreSQL answers")
        .batch_execute(sql)
        .expect("the throw-away PostgreSQL obeys");
}

impl Database {
    /// The single text that a query returns.
    pub fn text(&self, sql: &str) -> String {
        use diesel::prelude::*;
        #[derive(diesel::QueryableByName)]
        struct Row {
            #[diesel(sql_type = diesel::sql_types::Text)]
            t: String,
        }
        let query = diesel::sql_query(format!("SELECT CAST(({sql}) AS TEXT) AS t"));
        let row: Row = match self.backend {
            Backend::Sqlite => query.get_result(
                &mut SqliteConnection::establish(self.file().to_str().unwrap()).unwrap(),
            ),
            Backend::Postgres => {
                query.get_result(&mut PgConnection::establish(&self.direct).unwrap())
            }
        }
        .unwrap();
        row.t
    }
}
