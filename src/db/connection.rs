//! One connection type for both databases, chosen by the scheme of the URL.

use std::fmt;
use std::sync::Arc;

use chrono::NaiveDateTime;
use diesel::connection::SimpleConnection;
use diesel::r2d2::{ManageConnection, R2D2Connection};
use diesel::sql_types::{BigInt, Text, Timestamptz};
use diesel::{
    Connection, ConnectionError, PgConnection, QueryResult, RunQueryDsl, SqliteConnection,
};
use secrecy::{ExposeSecret, SecretString};

use super::Error;
use super::place::Place;
use super::sqlite_file::SqliteFile;
use crate::clock;

/// Exported as `Connection`: inside this module the derive's code needs that name for Diesel's
/// trait.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    Postgres(PgConnection),
    Sqlite(SqliteConnection),
}

/// Where the data is stored. `Debug` prints no password.
#[derive(Debug, Clone)]
pub enum DatabaseUrl {
    Sqlite(SqliteFile),
    Postgres(SecretString),
}

impl DatabaseUrl {
    /// Whether it is a file that does not exist.
    pub fn is_missing(&self) -> bool {
        match self {
            Self::Sqlite(file) => matches!(file.exists(), Ok(false)),
            Self::Postgres(_) => false,
        }
    }

    pub fn sqlite(path: &str) -> Self {
        Self::Sqlite(SqliteFile::new(path))
    }

    /// Accepts `sqlite://relative/or//absolute/path` or `postgres://…` (also `postgresql://…`).
    pub fn parse(url: &str) -> std::result::Result<Self, String> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            if path.is_empty() || path.ends_with('/') {
                return Err("a sqlite URL names a file, such as sqlite://data/tosend.db".into());
            }
            return Ok(Self::sqlite(path));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned().into()));
        }
        Err("a database URL begins with sqlite:// or postgres://".into())
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(file) => file.fmt(f),
            Self::Postgres(_) => f.write_str("of PostgreSQL"),
        }
    }
}

/// A server is told this.
pub(super) const RESTORING: &str = "it is being restored: try again when that is done";

/// The purpose of a connection. On SQLite, a connection for reading cannot write.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Access {
    Read,
    Write,
    /// For reading a database that may not be one of this program: nothing at all is set up in it.
    Look,
}

/// Opens connections for a pool. Diesel's own manager would try both databases in turn.
#[derive(Debug)]
pub(super) struct Manager {
    pub url: DatabaseUrl,
    pub access: Access,
    /// Whether a server uses them.
    pub is_server: bool,
    /// With SQLite: the file that all connections must have open.
    pub place: Option<Arc<Place>>,
}

impl ManageConnection for Manager {
    type Connection = AnyConnection;
    type Error = diesel::r2d2::Error;

    fn connect(&self) -> std::result::Result<AnyConnection, Self::Error> {
        let conn = establish_as(&self.url, self.access, self.is_server)?;
        if let Some(place) = &self.place {
            let lost = |error: Error| ConnectionError::BadConnection(error.to_string());
            place.check().map_err(lost)?;
        }
        Ok(conn)
    }

    fn is_valid(&self, conn: &mut AnyConnection) -> std::result::Result<(), Self::Error> {
        conn.ping().map_err(diesel::r2d2::Error::QueryError)
    }

    fn has_broken(&self, conn: &mut AnyConnection) -> bool {
        std::thread::panicking() || conn.is_broken()
    }
}

pub(super) fn establish(
    url: &DatabaseUrl,
    access: Access,
) -> std::result::Result<AnyConnection, ConnectionError> {
    match url {
        DatabaseUrl::Sqlite(file) => establish_sqlite(file, access).map(AnyConnection::Sqlite),
        DatabaseUrl::Postgres(url) => {
            establish_postgres(url.expose_secret(), access).map(AnyConnection::Postgres)
        }
    }
}

/// Opens a connection for a server, or for a command. A server opens none while the database is being
/// restored.
pub(super) fn establish_as(
    url: &DatabaseUrl,
    access: Access,
    is_server: bool,
) -> std::result::Result<AnyConnection, ConnectionError> {
    let mut conn = establish(url, access)?;
    if let AnyConnection::Postgres(conn) = &mut conn
        && is_server
        && !ask(conn, "pg_try_advisory_lock_shared")
            .map_err(ConnectionError::CouldntSetupConfiguration)?
    {
        return Err(ConnectionError::BadConnection(RESTORING.to_owned()));
    }
    Ok(conn)
}

/// Until the connection closes. Returns `false` if a server runs. With SQLite, a file does this.
pub(super) fn keep_servers_away(conn: &mut AnyConnection) -> QueryResult<bool> {
    match conn {
        AnyConnection::Postgres(conn) => ask(conn, "pg_try_advisory_lock"),
        AnyConnection::Sqlite(_) => Ok(true),
    }
}

fn ask(conn: &mut PgConnection, function: &str) -> QueryResult<bool> {
    let answer: Answer = diesel::sql_query(format!("SELECT {function}($1) AS yes"))
        .bind::<BigInt, _>(Purpose::Presence as i64)
        .get_result(conn)?;
    Ok(answer.yes)
}

fn establish_postgres(
    url: &str,
    access: Access,
) -> std::result::Result<PgConnection, ConnectionError> {
    let mut conn = PgConnection::establish(&with_defaults(url)).map_err(without_the_url)?;
    // Instants are stored without a zone and are UTC by convention.
    conn.batch_execute(match access {
        // Force lookups by index: a plan made while the tables were small must not scan them after
        // they have grown.
        Access::Read | Access::Look => {
            "SET TIME ZONE 'UTC'; SET statement_timeout = '2s'; SET jit = off;
             SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off;
             SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_bitmapscan = off"
        }
        // A write that was answered as done must survive a crash, whatever the server's default is.
        Access::Write => {
            "SET TIME ZONE 'UTC'; SET statement_timeout = '5s'; SET lock_timeout = '5s';
             SET idle_in_transaction_session_timeout = '10s';
             SELECT set_config('synchronous_commit', 'on', false)
             WHERE current_setting('synchronous_commit') = 'off'"
        }
    })
    .and_then(|()| match access {
        Access::Look => conn.batch_execute("SET default_transaction_read_only = on"),
        Access::Read | Access::Write => Ok(()),
    })
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

/// Adds what a PostgreSQL URL does not specify: of several hosts only the primary is used, because
/// a standby may not know yet that a key was deleted; and a dead network is noticed within seconds.
fn with_defaults(url: &str) -> String {
    let mut url = url.to_owned();
    for (name, value) in [
        ("target_session_attrs", "read-write"),
        ("connect_timeout", "2"),
        ("tcp_user_timeout", "4000"),
        ("keepalives_idle", "5"),
        ("keepalives_interval", "2"),
        ("keepalives_count", "2"),
    ] {
        let query = query_of(&url);
        let is_given = query.is_some_and(|query| {
            let mut settings = query
                .split('&')
                .filter_map(|setting| setting.split_once('='));
            settings.any(|(given, _)| given == name)
        });
        if !is_given {
            let separator = match query {
                None => "?",
                Some(query) if query.is_empty() || query.ends_with('&') => "",
                Some(_) => "&",
            };
            url = format!("{url}{separator}{name}={value}");
        }
    }
    url
}

/// The part after the `?` of a URL; a `?` inside the password does not count.
fn query_of(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let place = match rest.find(['@', '/']) {
        Some(end) if rest[end..].starts_with('@') => &rest[end..],
        _ => rest,
    };
    place.split_once('?').map(|(_, query)| query)
}

/// libpq reports an invalid URL by quoting parts of it, including the password, so only errors that
/// come from a server are passed on.
fn without_the_url(error: ConnectionError) -> ConnectionError {
    match error {
        ConnectionError::BadConnection(why) if !why.starts_with("connection to server") => {
            ConnectionError::BadConnection(
                "its URL is malformed, or there is no such host; in a name or password write @ as \
                 %40 and other special characters alike"
                    .into(),
            )
        }
        error => error,
    }
}

fn establish_sqlite(
    file: &SqliteFile,
    access: Access,
) -> std::result::Result<SqliteConnection, ConnectionError> {
    let mut conn = SqliteConnection::establish(&file.uri())?;
    // Must come first: preparing any statement reads the file.
    conn.batch_execute("PRAGMA busy_timeout = 5000")
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    refuse_old_sqlite(&mut conn)?;
    if access == Access::Look {
        // The transaction shows whether this user may write.
        conn.batch_execute("BEGIN IMMEDIATE; ROLLBACK; PRAGMA query_only = ON")
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
        return Ok(conn);
    }
    // Has no effect on a file with tables, but takes the write lock.
    if access == Access::Write && is_empty(&mut conn)? {
        conn.batch_execute("PRAGMA auto_vacuum = INCREMENTAL")
            .map_err(ConnectionError::CouldntSetupConfiguration)?;
    }
    // FULL, because a revocation that was answered must survive a power loss.
    conn.batch_execute(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA trusted_schema = OFF;
         PRAGMA cell_size_check = ON;",
    )
    .and_then(|()| match access {
        Access::Read | Access::Look => conn.batch_execute("PRAGMA query_only = ON"),
        Access::Write => Ok(()),
    })
    .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(conn)
}

fn is_empty(conn: &mut SqliteConnection) -> std::result::Result<bool, ConnectionError> {
    let pages = diesel::dsl::sql::<BigInt>("(SELECT page_count FROM pragma_page_count)");
    let pages: i64 = diesel::select(pages)
        .get_result(conn)
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    Ok(pages == 0)
}

/// SQLite before 3.51.3 can corrupt a WAL database that several connections write to. This program
/// bundles a newer version, but a build may still have linked against the system's.
fn refuse_old_sqlite(conn: &mut SqliteConnection) -> std::result::Result<(), ConnectionError> {
    let version: String = diesel::select(diesel::dsl::sql::<Text>("sqlite_version()"))
        .get_result(conn)
        .map_err(ConnectionError::CouldntSetupConfiguration)?;
    if is_sound(&version) {
        return Ok(());
    }
    let why = format!("built with SQLite {version}, which can lose data; 3.51.3 is needed");
    Err(ConnectionError::BadConnection(why))
}

fn is_sound(version: &str) -> bool {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    (next(), next(), next()) >= (3, 51, 3)
}

/// Removes the time limits for the running transaction, because migrating a big table takes long.
pub(super) fn without_timeouts(conn: &mut AnyConnection) -> QueryResult<()> {
    match conn {
        AnyConnection::Postgres(conn) => {
            conn.batch_execute("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
        }
        AnyConnection::Sqlite(_) => Ok(()),
    }
}

/// Whether a table has a column, which it may lack before the migrations have run.
pub fn has_column(conn: &mut AnyConnection, table: &str, column: &str) -> QueryResult<bool> {
    let question = match conn {
        AnyConnection::Postgres(_) => {
            "SELECT EXISTS (SELECT 1 FROM pg_attribute
             WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped) AS yes"
        }
        AnyConnection::Sqlite(_) => {
            "SELECT EXISTS (SELECT 1 FROM pragma_table_info(?) WHERE name = ?) AS yes"
        }
    };
    let answer: Answer = diesel::sql_query(question)
        .bind::<Text, _>(table)
        .bind::<Text, _>(column)
        .get_result(conn)?;
    Ok(answer.yes)
}

#[derive(diesel::QueryableByName)]
struct Answer {
    #[diesel(sql_type = diesel::sql_types::Bool)]
    yes: bool,
}

/// How many bytes the database takes up: on SQLite its file, without the WAL.
pub fn size(conn: &mut AnyConnection) -> super::Result<i64> {
    let question = match conn {
        AnyConnection::Postgres(_) => "SELECT pg_database_size(current_database()) AS bytes",
        AnyConnection::Sqlite(_) => {
            "SELECT page_count * page_size AS bytes FROM pragma_page_count, pragma_page_size"
        }
    };
    let size: Size = diesel::sql_query(question).get_result(conn)?;
    Ok(size.bytes)
}

#[derive(diesel::QueryableByName)]
struct Size {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    bytes: i64,
}

diesel::define_sql_function! {
    /// An instant as a clock in that zone displays it.
    fn timezone(zone: Text, instant: Timestamptz) -> Timestamp;
}

diesel::define_sql_function! {
    fn clock_timestamp() -> Timestamptz;
}

/// The present instant in UTC, by the clock that decides when keys end: PostgreSQL's, which all
/// nodes share, or this machine's with SQLite, which has none.
pub fn now(conn: &mut AnyConnection) -> QueryResult<NaiveDateTime> {
    match conn {
        AnyConnection::Postgres(conn) => {
            diesel::select(timezone("UTC", clock_timestamp())).get_result(conn)
        }
        AnyConnection::Sqlite(_) => Ok(clock::now()),
    }
}

/// Makes the running transaction wait for others with the same `purpose` until they end. On SQLite,
/// writing transactions already run one at a time.
pub fn serialize(conn: &mut AnyConnection, purpose: Purpose) -> QueryResult<()> {
    match conn {
        AnyConnection::Postgres(conn) => {
            conn.batch_execute(&format!("SELECT pg_advisory_xact_lock({})", purpose as i64))
        }
        AnyConnection::Sqlite(_) => Ok(()),
    }
}

/// What transactions wait for each other about; the number is that of the lock.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    FirstAccount = 7_306_001,
    Migration = 7_306_002,
    NodesSecret = 7_306_003,
    Journal = 7_306_004,
    /// Held by the connections of servers; see `presence`.
    Presence = 7_306_006,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides_the_database() {
        assert!(matches!(
            DatabaseUrl::parse("sqlite://data/a.db"),
            Ok(DatabaseUrl::Sqlite(file)) if file == SqliteFile::new("data/a.db")
        ));
        assert!(matches!(
            DatabaseUrl::parse("postgres://u:p@localhost/x"),
            Ok(DatabaseUrl::Postgres(_))
        ));
        for wrong in ["", "data.db", "mysql://x", "sqlite://", "sqlite:///data/"] {
            assert!(DatabaseUrl::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_url_says_goes_before_what_is_added() {
        let plain = with_defaults("postgres://u@h/x");
        assert!(
            plain
                .starts_with("postgres://u@h/x?target_session_attrs=read-write&connect_timeout=2&")
        );
        let own = with_defaults("postgres://u@h/x?connect_timeout=9&target_session_attrs=any");
        assert!(own.contains("?connect_timeout=9&target_session_attrs=any&tcp_user_timeout="));
        assert_eq!(own.matches("connect_timeout").count(), 1);
        for (url, start) in [
            (
                "postgres://u:a?b@h/x",
                "postgres://u:a?b@h/x?target_session_attrs=",
            ),
            ("postgres://h/x?", "postgres://h/x?target_session_attrs="),
            (
                "postgres://h/x?a=b&",
                "postgres://h/x?a=b&target_session_attrs=",
            ),
        ] {
            let whole = with_defaults(url);
            assert!(whole.starts_with(start), "{whole}");
        }
        assert_eq!(own.matches("target_session_attrs").count(), 1);
    }

    #[test]
    fn an_old_sqlite_is_refused() {
        for (version, sound) in [
            ("3.40.1", false),
            ("3.51.2", false),
            ("3.51.3", true),
            ("3.53.2", true),
            ("4.0", true),
            ("", false),
        ] {
            assert_eq!(is_sound(version), sound, "{version}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = DatabaseUrl::parse("postgres://u:hunter2@localhost/x").unwrap();
        assert!(!format!("{url:?}").contains("hunter2"));
    }
}
