//! The embedded migrations: two folders with the same names, one for each database.

use std::collections::BTreeSet;

use diesel::connection::Connection as DieselConnection;
use diesel::migration::MigrationConnection;
use diesel::prelude::*;
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::connection::Purpose;
use super::{Connection, Db};

const POSTGRES: EmbeddedMigrations = embed_migrations!("migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

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

/// Brings the tables up to date. Returns how many migrations ran. Nodes that start together
/// wait for each other.
pub fn run(db: &Db) -> Result<usize, Error> {
    db.write_blocking(|conn| {
        super::without_timeouts(conn).map_err(super::Error::from)?;
        super::serialize(conn, Purpose::Migration).map_err(super::Error::from)?;
        conn.setup().map_err(super::Error::from)?;
        refuse_newer(conn)?;
        match conn {
            Connection::Postgres(conn) => run_pending(conn, POSTGRES),
            Connection::Sqlite(conn) => run_pending(conn, SQLITE),
        }
    })
}

/// Whether every migration of this program has run.
pub async fn are_complete(db: &Db) -> Result<bool, Error> {
    db.read(|conn| Ok(applied(conn)?.is_superset(&known()?)))
        .await
}

fn refuse_newer(conn: &mut Connection) -> Result<(), Error> {
    match applied(conn)?.difference(&known()?).next() {
        Some(version) => Err(Error::Newer(version.clone())),
        None => Ok(()),
    }
}

fn run_pending<C>(conn: &mut C, source: EmbeddedMigrations) -> Result<usize, Error>
where
    C: DieselConnection + MigrationHarness<C::Backend>,
{
    let ran = conn
        .run_pending_migrations(source)
        .map_err(|e| Error::Failed(e.to_string()))?;
    Ok(ran.len())
}

diesel::table! {
    /// Diesel's own record of what has run.
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

/// The versions this program knows; a test holds the two folders to the same names.
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
