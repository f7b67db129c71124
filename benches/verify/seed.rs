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
/// As in `mail000001.example.org`.
pub type DomainText = [u8; 22];

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

    /// The domains of the accounts that they belong to.
    pub fn domains(&self, database: &Database) -> Arc<[DomainText]> {
        let domain = |drawn| {
            let name = format!("mail{:06}.example.org", database.account_of(drawn));
            name.as_bytes()
                .try_into()
                .expect("names have 22 characters")
        };
        (0..database.drawn()).map(domain).collect()
    }

    /// One of the account with many keys.
    pub fn of_many(&self, database: &Database) -> Result<Arc<[KeyText]>> {
        let mut drawn = 0..database.drawn();
        let of_many = drawn.find(|drawn| database.account_of(*drawn) == 2);
        let of_many = of_many.context("no key of that account is known")?;
        Ok([text(&self.valid[of_many])].into())
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
            .env("TOSEND_JOURNAL", self.folder.join("ends"))
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

    /// The account of a key that was drawn, as [`Database::insert_all`] has it.
    fn account_of(&self, drawn: usize) -> u64 {
        let i = drawn as u64 * (self.keys / self.drawn() as u64);
        let (few_step, many) = (self.keys / FEW_KEYS, self.many_keys());
        let many_step = self.keys / many;
        match () {
            () if i.is_multiple_of(few_step) && i / few_step < FEW_KEYS => 1,
            () if i % many_step == 1 && i / many_step < many => 2,
            () => 3 + (i + i / OTHER_ACCOUNTS) % OTHER_ACCOUNTS,
        }
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

    /// Emails of the account with many keys that wait to be delivered.
    pub fn add_emails_to_deliver(&self, emails: u64) -> Result<()> {
        let message = r#"{"from": {"email": "hello@mail000002.example.org", "name": "Acme"}, "to": [{"email": "ada@example.org", "name": null}],
            "cc": [], "bcc": [], "reply_to": [], "subject": "Your order", "html": null, "text": "Thank you for your order.",
            "headers": {}, "attachments": [], "tags": {}, "message_hash": null}"#;
        let sql = format!(
            "WITH RECURSIVE numbers (i) AS (
                SELECT CAST(1 AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < {emails}
            )
            INSERT INTO emails (account_id, api_key_id, domain_id, message_id, message, status, created_at,
                internet_id, next_attempt_at, sender, recipient, recipients)
            SELECT 2, (SELECT min(id) FROM api_keys WHERE account_id = 2), 2, 'm' || i, '{message}', 'held',
                '2026-01-15 10:30:00', 'i' || i, '2026-01-15 10:30:00', 'hello@mail000002.example.org',
                'ada@example.org', 1
            FROM numbers"
        );
        Ok(self.connect()?.batch_execute(&sql)?)
    }

    /// What a busy account has after a year: emails and events, and totals of each key and day.
    pub fn age_many(&self, rows: u64) -> Result<()> {
        let (day, hour, at) = match self.backend {
            Backend::Sqlite => (
                "strftime('%Y-%m-%d 00:00:00', 'now', '-' || i || ' days')",
                "strftime('%Y-%m-%d %H:00:00', 'now', '-' || i || ' hours')",
                "strftime('%Y-%m-%d %H:%M:%S', 'now', '-' || (i * 20) || ' seconds')",
            ),
            Backend::Postgres => (
                "date_trunc('day', now() AT TIME ZONE 'UTC') - i * interval '1 day'",
                "date_trunc('hour', now() AT TIME ZONE 'UTC') - i * interval '1 hour'",
                "now() AT TIME ZONE 'UTC' - i * interval '20 seconds'",
            ),
        };
        let numbers = |most: u64| {
            format!(
                "WITH RECURSIVE numbers (i) AS (
                    SELECT CAST(0 AS BIGINT) UNION ALL SELECT i + 1 FROM numbers WHERE i < {most} - 1
                )"
            )
        };
        let (year, days, all) = (numbers(365), numbers(72), numbers(rows));
        let keys = "(SELECT id FROM api_keys WHERE account_id = 2 ORDER BY id LIMIT 1000) AS keys";
        let one_key = "(SELECT min(id) FROM api_keys WHERE account_id = 2)";
        let sql = format!(
            "{year} INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
            SELECT 2, keys.id, {day}, 2, 3 FROM numbers, {keys};
            {year} INSERT INTO email_totals (account_id, api_key_id, day, domain_id, accepted)
            SELECT 2, 0, {day}, 2, 3000 FROM numbers;
            {days} INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
            SELECT 2, keys.id, {hour}, 3 FROM numbers, {keys};
            {days} INSERT INTO email_hours (account_id, api_key_id, hour, accepted)
            SELECT 2, 0, {hour}, 3000 FROM numbers;
            {all} INSERT INTO emails (account_id, api_key_id, domain_id, message_id, status, created_at,
                internet_id, next_attempt_at, ended_at, sender, recipient, recipients)
            SELECT 2, {one_key}, 2, 'm' || i, 'delivered', {at}, 'i' || i, {at}, {at},
                'hello@mail000002.example.org', 'ada@example.org', 1
            FROM numbers;
            {all} INSERT INTO events (account_id, at, actor, action, subject_id, subject, detail)
            SELECT 2, {at}, '{MANY}', CASE i % 10 WHEN 0 THEN 'session.started' ELSE 'key.edited' END,
                {one_key} + i % 1000, 'Key', 'name'
            FROM numbers;"
        );
        let mut conn = self.connect()?;
        conn.batch_execute(&sql)?;
        // PostgreSQL does so by itself, SQLite does not.
        if self.backend == Backend::Postgres {
            conn.batch_execute("VACUUM ANALYZE")?;
        }
        Ok(())
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
            SELECT id, 'mail' || substr(CAST(1000000 + id AS TEXT), 2) || '.example.org', 'verified', '2026-01-15 10:30:00', '{tomorrow}'
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
