//! A database for one test, gone when the test is.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection};
use tempfile::TempDir;

use super::Backend;

pub struct Database {
    pub url: String,
    pub folder: TempDir,
    backend: Backend,
    name: String,
}

impl Database {
    pub fn new(backend: Backend) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let folder = tempfile::tempdir().expect("a folder for the test");
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
            url,
            folder,
            backend,
            name,
        }
    }

    /// The SQLite file.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("data/tosend.db")
    }

    /// Runs SQL that both databases understand, behind the server's back.
    pub fn execute(&self, sql: &str) {
        match self.backend {
            Backend::Sqlite => diesel::SqliteConnection::establish(self.file().to_str().unwrap())
                .unwrap()
                .batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}"))
                .unwrap(),
            Backend::Postgres => PgConnection::establish(&self.url)
                .unwrap()
                .batch_execute(sql)
                .unwrap(),
        }
    }

    /// The one number that a query gives.
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
            Backend::Postgres => query.get_result(&mut PgConnection::establish(&self.url).unwrap()),
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
        if self.backend == Backend::Postgres && !std::thread::panicking() {
            admin(&format!(
                "DROP DATABASE IF EXISTS {} WITH (FORCE)",
                self.name
            ));
        }
    }
}

/// The throw-away server that `tests/run` starts.
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
    /// The one text that a query gives.
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
            Backend::Postgres => query.get_result(&mut PgConnection::establish(&self.url).unwrap()),
        }
        .unwrap();
        row.t
    }
}
