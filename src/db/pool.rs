//! `Db`: runs closures on pooled connections, off the async threads.

use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::r2d2::{Pool, PooledConnection};

use super::connection::{Access, Manager, establish};
use super::{Connection, DatabaseUrl, Error, Result};

/// How long a request waits for a free connection before it is answered 503.
const CHECKOUT: Duration = Duration::from_secs(2);
const POSTGRES_CONNECTIONS: u32 = 16;
const SQLITE_READERS: u32 = 8;

/// Handle on the database; clones share the pools.
///
/// SQLite has one writer at a time, so its writes queue for one connection instead of failing
/// as "locked"; its readers cannot write at all. PostgreSQL uses one pool for both.
#[derive(Clone)]
pub struct Db {
    readers: Pool<Manager>,
    writers: Pool<Manager>,
}

impl Db {
    /// Connects once, so that a wrong URL is told at start, then opens the pools.
    ///
    /// # Errors
    /// One sentence on why the database cannot be reached.
    pub fn open(url: &DatabaseUrl) -> std::result::Result<Self, String> {
        establish(url, Access::Write).map_err(|e| e.to_string())?;
        let pool = |access, size| {
            Pool::builder()
                .max_size(size)
                .min_idle(Some(1))
                .connection_timeout(CHECKOUT)
                .error_handler(Box::new(LogWarning))
                .build_unchecked(Manager {
                    url: url.clone(),
                    access,
                })
        };
        Ok(match url {
            DatabaseUrl::Sqlite(_) => Self {
                readers: pool(Access::Read, SQLITE_READERS),
                writers: pool(Access::Write, 1),
            },
            DatabaseUrl::Postgres(_) => {
                let both = pool(Access::Write, POSTGRES_CONNECTIONS);
                Self {
                    readers: both.clone(),
                    writers: both,
                }
            }
        })
    }

    /// Runs `f` for reading.
    pub async fn read<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.clone();
        off_the_async_threads(move || f(&mut *checkout(&db.readers)?)).await
    }

    /// Runs `f` in one transaction: committed when `f` returns `Ok`, undone when it returns `Err`.
    pub async fn write<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.clone();
        off_the_async_threads(move || db.write_blocking(f)).await
    }

    /// As [`Db::write`], on the calling thread: for the command line.
    pub fn write_blocking<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        let mut conn = checkout(&self.writers)?;
        begin(&mut conn).map_err(Error::from)?;
        match f(&mut conn) {
            Ok(value) => {
                <Connection as TransactionManager<_>>::commit_transaction(&mut conn)
                    .map_err(Error::from)?;
                Ok(value)
            }
            Err(error) => {
                if let Err(rollback) =
                    <Connection as TransactionManager<_>>::rollback_transaction(&mut conn)
                {
                    tracing::warn!(error = %rollback, "a transaction could not be rolled back");
                }
                Err(error)
            }
        }
    }
}

/// SQLite takes the write lock at once: a transaction that reads first and writes later fails as
/// "locked", without waiting, when another process wrote in between.
fn begin(conn: &mut Connection) -> diesel::QueryResult<()> {
    match conn {
        Connection::Sqlite(conn) => {
            AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")
        }
        Connection::Postgres(conn) => AnsiTransactionManager::begin_transaction(conn),
    }
}

fn checkout(pool: &Pool<Manager>) -> Result<PooledConnection<Manager>> {
    pool.get().map_err(|e| Error::Unavailable(e.to_string()))
}

async fn off_the_async_threads<T, E>(
    f: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::task::spawn_blocking(f).await {
        Ok(result) => result,
        Err(panic) => Err(Error::Unavailable(panic.to_string()).into()),
    }
}

#[derive(Debug)]
struct LogWarning;

impl diesel::r2d2::HandleError<diesel::r2d2::Error> for LogWarning {
    fn handle_error(&self, error: diesel::r2d2::Error) {
        tracing::warn!(%error, "a database connection failed");
    }
}
