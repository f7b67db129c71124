//! Databases with many keys, of which some are known in clear.

use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use chrono::{TimeDelta, Utc};
use diesel::connection::SimpleConnection;
use diesel::{Connection, PgConnection, SqliteConnection};
use tosend_dashboard::keys::secret::PlainKey;

use crate::Backend;
use crate::postgres::Cluster;

pub type KeyText = [u8; 44];

pub const PASSWORD: &str = "benchmark: some long words";
/// The owner of an account with few keys.
pub const FEW: &str = "few@acme.com";
pub const FEW_KEYS: u64 = 30;
/// The owner of an account with many keys.
pub const MANY: &str = "many@acme.com";

/// The owners' accounts have the ids 1 and 2; the other keys belong to these many.
const OTHER_ACCOUNTS: u64 = 1_000;
/// Enough that a cache of keys, or the sharing of equal ones, would not show.
const DRAWN: usize = 100_000;

/// Keys that are asked for: one set for all databases.
pub struct Keys {
    valid: Vec<PlainKey>,
    pub unknown: Arc<[KeyText]>,
}

impl Keys {
    pub fn generate() -> Self {
        let keys = || (0..DRAWN).map(|_| PlainKey::generate());
        Self {
            valid: keys().collect(),
            unknown: keys().map(|key| text(&key)).collect(),
        }
    }

    /// Those that a database with so many keys has.
    pub fn valid(&self, database: &Database) -> Arc<[KeyText]> {
        let drawn = &self.valid[..database.drawn()];
        drawn.iter().map(text).collect()
    }

    /// Keys with a typo.
    pub fn misspelt(&self) -> Arc<[KeyText]> {
        let misspell = |mut key: KeyText| {
            key[20] = if key[20] == b'a' { b'b' } else { b'a' };
            key
        };
        self.unknown.iter().copied().map(misspell).collect()
    }
}

fn text(key: &PlainKey) -> KeyText {
    let bytes = key.expose().as_bytes();
    bytes.try_into().expect("a key has 44 characters")
}

/// A database of the dashboard, in a folder that goes with the benchmark's.
pub struct Database {
    pub folder: PathBuf,
    pub keys: u64,
    backend: Backend,
    url: String,
}

impl Database {
    /// Makes one with so many keys: tables and people by the program itself, the rest in SQL.
    pub fn seed(folder: &Path, cluster: Option<&Cluster>, count: u64, keys: &Keys) -> Result<Self> {
        let name = format!("keys_{count}");
        let folder = folder.join(&name);
        std::fs::create_dir(&folder)?;
        let (backend, url) = match cluster {
            Some(cluster) => (Backend::Postgres, cluster.create_database(&name)?),
            None => (
                Backend::Sqlite,
                format!("sqlite://{}/tosend.db", folder.display()),
            ),
        };
        let database = Self {
            folder,
            keys: count,
            backend,
            url,
        };
        database.run(&["migrate"])?;
        for email in [FEW, MANY] {
            let who = ["--email", email, "--title", "Acme", "--password-stdin"];
            database.run(&[&["account", "create"], &who[..]].concat())?;
        }
        database.fill(&keys.valid[..database.drawn()])?;
        Ok(database)
    }

    /// The program with this database and nothing else in its environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tosend-dashboard"));
        command
            .env_clear()
            .env("TOSEND_DATABASE_URL", &self.url)
            .env("TOSEND_SECRET_FILE", self.folder.join("secret"))
            .env("TOSEND_KEY_LIMIT", "100000")
            .env("TOSEND_LOG", "warn")
            .current_dir(&self.folder);
        command
    }

    fn run(&self, args: &[&str]) -> Result<()> {
        let mut child = self
            .command()
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        let mut stdin = child.stdin.take().context("no standard input")?;
        stdin.write_all(PASSWORD.as_bytes())?;
        drop(stdin);
        let status = child.wait()?;
        ensure!(status.success(), "{} failed: {status}", args.join(" "));
        Ok(())
    }

    fn drawn(&self) -> usize {
        DRAWN.min(self.keys as usize)
    }

    pub fn many_keys(&self) -> u64 {
        10_000.min(self.keys / 10)
    }

    fn fill(&self, drawn: &[PlainKey]) -> Result<()> {
        let mut conn = self.connect()?;
        conn.batch_execute(match self.backend {
            // The server turns its journal on again.
            Backend::Sqlite => {
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2000000"
            }
            // Foreign keys hold by construction.
            Backend::Postgres => "SET session_replication_role = replica",
        })?;
        conn.batch_execute("BEGIN")?;
        self.insert_drawn(&mut *conn, drawn)?;
        conn.batch_execute(&self.insert_all())?;
        conn.batch_execute("COMMIT")?;
        // No clean-up is left for the time of the measurements.
        conn.batch_execute(match self.backend {
            Backend::Sqlite => "ANALYZE",
            Backend::Postgres => "VACUUM ANALYZE",
        })?;
        if self.backend == Backend::Postgres {
            conn.batch_execute("CHECKPOINT")?;
        }
        Ok(())
    }

    pub fn is_sqlite(&self) -> bool {
        self.backend == Backend::Sqlite
    }

    pub fn connect(&self) -> Result<Box<dyn SimpleConnection + Send>> {
        Ok(match self.backend {
            Backend::Sqlite => Box::new(SqliteConnection::establish(
                self.url.trim_start_matches("sqlite://"),
            )?),
            Backend::Postgres => Box::new(PgConnection::establish(&self.url)?),
        })
    }

    /// Puts the hashes of the drawn keys into a table beside.
    fn insert_drawn(&self, conn: &mut dyn SimpleConnection, drawn: &[PlainKey]) -> Result<()> {
        let (bytes, quote) = match self.backend {
            Backend::Sqlite => ("BLOB", "x'"),
            Backend::Postgres => ("BYTEA", "'\\x"),
        };
        conn.batch_execute(&format!(
            "CREATE TEMP TABLE drawn (n BIGINT PRIMARY KEY, hash {bytes}, first8 TEXT, last4 TEXT)"
        ))?;
        let mut rows = drawn.iter().enumerate().peekable();
        while rows.peek().is_some() {
            let mut sql = String::from("INSERT INTO drawn VALUES ");
            for (n, key) in rows.by_ref().take(1_000) {
                write!(sql, "({n}, {quote}")?;
                for byte in key.hash().as_ref() {
                    write!(sql, "{byte:02x}")?;
                }
                let shown = key.truncated();
                write!(sql, "', '{}', '{}'),", shown.first8, shown.last4)?;
            }
            conn.batch_execute(sql.trim_end_matches(','))?;
        }
        Ok(())
    }

    /// Accounts with a domain each, and all keys: drawn ones spread evenly between others that
    /// nobody knows; a quarter of them restricted to their account's domain.
    fn insert_all(&self) -> String {
        let keys = self.keys;
        let random = match self.backend {
            Backend::Sqlite => "randomblob(32)",
            Backend::Postgres => "sha256(int8send(i))",
        };
        let drawn_step = keys / self.drawn() as u64;
        let few_step = keys / FEW_KEYS;
        let many = self.many_keys();
        let many_step = keys / many;
        // No domain is looked at meanwhile; what is later still would be taken for a wrong clock's.
        let tomorrow = (Utc::now() + TimeDelta::days(1)).format("%Y-%m-%d %H:%M:%S");
        format!(
            "
            WITH RECURSIVE numbers (i) AS (
                SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {OTHER_ACCOUNTS}
            )
            INSERT INTO accounts (title, status, created_at)
            SELECT 'Account ' || i, 'active', '2026-01-15 10:30:00' FROM numbers;

            INSERT INTO sending_domains (account_id, name, status, created_at, next_check_at)
            SELECT id, 'mail' || id || '.example.org', 'verified', '2026-01-15 10:30:00', '{tomorrow}'
            FROM accounts;

            WITH RECURSIVE numbers (i) AS (
                SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < {keys} - 1
            )
            INSERT INTO api_keys
                (account_id, name, hash, first8, last4, all_domains, status, created_at)
            SELECT
                CASE
                    WHEN i % {few_step} = 0 AND i / {few_step} < {FEW_KEYS} THEN 1
                    WHEN i % {many_step} = 1 AND i / {many_step} < {many} THEN 2
                    ELSE 3 + (i + i / {OTHER_ACCOUNTS}) % {OTHER_ACCOUNTS}
                END,
                'Key ' || i, COALESCE(drawn.hash, {random}), COALESCE(first8, 'tsend_Zz'),
                COALESCE(last4, 'zzzz'), i / 7 % 4 <> 0, 'active', '2026-01-15 10:30:00'
            FROM numbers
            LEFT JOIN drawn ON drawn.n = i / {drawn_step} AND i % {drawn_step} = 0
            ORDER BY i;

            INSERT INTO api_key_domains
            SELECT api_keys.id, sending_domains.id FROM api_keys
            JOIN sending_domains ON sending_domains.account_id = api_keys.account_id
            WHERE NOT all_domains;

            UPDATE accounts SET key_count =
                (SELECT count(*) FROM api_keys
                WHERE account_id = accounts.id AND ended_at IS NULL);
            "
        )
    }
}
