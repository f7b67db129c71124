//! The embedded migrations: two folders with the same file names, one for each database.

use std::collections::BTreeSet;
use std::time::Duration;

use diesel::connection::Connection as DieselConnection;
use diesel::migration::MigrationConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::Purpose;
use super::progress::{Pace, Progress, reported};
use super::{Connection, Db, Share, verdict_changes};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

/// Migrating a big table takes minutes; the operator who waits must see progress.
const PACE: Pace = Pace {
    first: Duration::from_secs(1),
    then: Duration::from_secs(5),
};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the database was made by a newer version of this program (it has the migration {0}): start that version"
    )]
    Newer(String),
    #[error("the migrations could not run: {0}")]
    Failed(String),
    #[error(transparent)]
    Database(#[from] super::Error),
}

/// Brings the tables up to date and returns how many migrations ran. Nodes that start at the same
/// time wait for each other. Steps that take long are logged while they run.
pub fn run(db: &Db) -> Result<usize, Error> {
    let report = |line: &str| tracing::info!("bringing the database up to date: {line}");
    reported(PACE, report, |progress| {
        progress.begin("waiting for another program that is doing the same".to_owned());
        db.write_urgently_blocking(Share::Half, |conn| {
            super::for_migrations(conn).map_err(super::Error::from)?;
            super::serialize(conn, Purpose::Migration).map_err(super::Error::from)?;
            conn.setup().map_err(super::Error::from)?;
            refuse_newer(conn)?;
            if known()? != applied(conn)? {
                verdict_changes::make_way(conn)?;
            }
            let ran = match conn {
                Connection::Postgres(conn) => run_pending(conn, POSTGRES, progress),
                Connection::Sqlite(conn) => run_pending(conn, SQLITE, progress),
            }?;
            verdict_changes::install(conn)?;
            progress.begin("committing".to_owned());
            Ok(ran)
        })
    })
}

/// Whether all of this program's migrations have run.
pub async fn are_complete(db: &Db) -> Result<bool, Error> {
    db.read(|conn| Ok(applied(conn)?.is_superset(&known()?)))
        .await
}

/// How many of this program's migrations have not run. Changes nothing.
///
/// # Errors
/// The database was made by a newer version, or does not answer.
pub fn count_missing(db: &Db) -> Result<usize, Error> {
    db.read_blocking(|conn| {
        let (table, column) = ("__diesel_schema_migrations", "version");
        let known = known()?;
        if !super::has_column(conn, table, column).map_err(super::Error::from)? {
            return Ok(known.len());
        }
        refuse_newer(conn)?;
        Ok(known.difference(&applied(conn)?).count())
    })
}

fn refuse_newer(conn: &mut Connection) -> Result<(), Error> {
    match applied(conn)?.difference(&known()?).next() {
        Some(version) => Err(Error::Newer(version.clone())),
        None => Ok(()),
    }
}

fn run_pending<C, R>(
    conn: &mut C,
    source: EmbeddedMigrations,
    progress: &Progress<R>,
) -> Result<usize, Error>
where
    C: DieselConnection + MigrationHarness<C::Backend>,
    R: Fn(&str),
{
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| Error::Failed(e.to_string());
    let pending = conn.pending_migrations(source).map_err(failed)?;
    for (index, migration) in pending.iter().enumerate() {
        let (number, count) = (index + 1, pending.len());
        let topic = topic(&migration.name().to_string());
        progress.begin(format!("migration {number} of {count}, “{topic}”"));
        conn.run_migration(migration).map_err(failed)?;
    }
    Ok(pending.len())
}

/// The subject of a migration: its name without the timestamp that orders it.
fn topic(name: &str) -> String {
    let (_time, topic) = name.split_once('_').unwrap_or(("", name));
    topic.replace('_', " ")
}

diesel::table! {
    /// Diesel's own table of the migrations that have run.
    __diesel_schema_migrations (version) {
        version -> Text,
        run_on -> Timestamp,
    }
}

fn applied(conn: &mut Connection) -> Result<BTreeSet<String>, Error> {
    let versions = __diesel_schema_migrations::table
        .select(__diesel_schema_migrations::version)
        .load::<String>(conn)
        .map_err(super::Error::from)?;
    Ok(versions.into_iter().collect())
}

/// The versions this program knows; a test checks that both folders have the same ones.
fn known() -> Result<BTreeSet<String>, Error> {
    use diesel::migration::{Migration, MigrationSource};
    let migrations: Vec<Box<dyn Migration<diesel::sqlite::Sqlite>>> = SQLITE
        .migrations()
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(migrations
        .iter()
        .map(|m| m.name().version().to_string())
        .collect())
}
