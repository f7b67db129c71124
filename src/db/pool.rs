//! `Db`: runs closures on pooled connections, outside the async threads.

use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::r2d2::{Pool, PooledConnection};

use super::connection::{Access, Manager, establish};
use super::{Connection, DatabaseUrl, Error, Result};

/// How long a request waits for a free connection before it is answered 503.
const CHECKOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a read in total.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// A write gets longer, because a person told to try again must first check whether it took effect.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
const POSTGRES_CONNECTIONS: u32 = 16;
const SQLITE_READERS: u32 = 8;

/// A handle to the database; clones share the pools.
///
/// SQLite has one writer at a time, so writes queue for one connection instead of failing as
/// "locked"; its read connections cannot write at all. PostgreSQL uses one pool for both.
#[derive(Clone)]
pub struct Db {
    url: DatabaseUrl,
    readers: Pool<Manager>,
    writers: Pool<Manager>,
}

impl Db {
    /// Connects once, so that a wrong URL is reported at start, then opens the pools.
    ///
    /// # Errors
    /// One sentence on why the database cannot be reached.
    pub fn open(url: &DatabaseUrl) -> std::result::Result<Self, String> {
        if let DatabaseUrl::Sqlite(file) = url {
            file.make_if_missing().map_err(|e| e.to_string())?;
        }
        establish(url, Access::Write).map_err(|e| e.to_string())?;
        let pool = |access, size| pool(url, access, size);
        Ok(match url {
            DatabaseUrl::Sqlite(_) => Self {
                url: url.clone(),
                readers: pool(Access::Read, SQLITE_READERS),
                writers: pool(Access::Write, 1),
            },
            DatabaseUrl::Postgres(_) => {
                let both = pool(Access::Write, POSTGRES_CONNECTIONS);
                Self {
                    url: url.clone(),
                    readers: both.clone(),
                    writers: both,
                }
            }
        })
    }

    /// Opens a database to look at it: nothing can be changed in it. `None`: it is a file that does
    /// not exist.
    ///
    /// # Errors
    /// One sentence on why the server could not use it.
    pub fn look(url: &DatabaseUrl) -> std::result::Result<Option<Self>, String> {
        if let DatabaseUrl::Sqlite(file) = url
            && !file.exists().map_err(|e| e.to_string())?
        {
            return Ok(None);
        }
        establish(url, Access::Look).map_err(|e| e.to_string())?;
        let pool = pool(url, Access::Look, 1);
        Ok(Some(Self {
            url: url.clone(),
            readers: pool.clone(),
            writers: pool,
        }))
    }

    /// A connection for reading outside the pools, for a caller that must never wait for a page's
    /// query.
    pub fn connect(&self) -> Result<Connection> {
        establish(&self.url, Access::Read).map_err(|e| Error::Unavailable(e.to_string()))
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.url, DatabaseUrl::Postgres(_))
    }

    /// Runs `f` on a connection for reading.
    pub async fn read<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.clone();
        let end = Instant::now() + READ_DEADLINE;
        off_the_async_threads(READ_DEADLINE, move || {
            in_time(end)?;
            f(&mut *checkout(&db.readers)?)
        })
        .await
    }

    /// Runs `f` in one transaction: committed when `f` returns `Ok`, rolled back when it returns
    /// `Err` or finishes after its request's deadline.
    pub async fn write<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.clone();
        let end = Instant::now() + WRITE_DEADLINE;
        off_the_async_threads(WRITE_DEADLINE, move || {
            in_time(end)?;
            db.write_blocking(|conn| {
                let value = f(conn)?;
                in_time(end)?;
                Ok(value)
            })
        })
        .await
    }

    /// Like [`Db::read`], on the calling thread and without a deadline.
    pub fn read_blocking<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        f(&mut *checkout(&self.readers)?)
    }

    /// Like [`Db::write`], on the calling thread and without a deadline.
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

/// On SQLite, takes the write lock immediately: a transaction that reads first and writes later
/// fails as "locked", without waiting, if another process wrote in between.
fn begin(conn: &mut Connection) -> diesel::QueryResult<()> {
    match conn {
        Connection::Sqlite(conn) => {
            AnsiTransactionManager::begin_transaction_sql(conn, "BEGIN IMMEDIATE")
        }
        Connection::Postgres(conn) => AnsiTransactionManager::begin_transaction(conn),
    }
}

/// Starts nothing for a request that was already answered. A COMMIT in progress may still succeed.
fn in_time(end: Instant) -> Result<()> {
    match Instant::now() < end {
        true => Ok(()),
        false => Err(too_late()),
    }
}

fn too_late() -> Error {
    Error::Unavailable("it did not answer in time".to_owned())
}

fn pool(url: &DatabaseUrl, access: Access, size: u32) -> Pool<Manager> {
    Pool::builder()
        .max_size(size)
        .min_idle(Some(1))
        .connection_timeout(CHECKOUT)
        .error_handler(Box::new(LogWarning))
        .build_unchecked(Manager {
            url: url.clone(),
            access,
        })
}

fn checkout(pool: &Pool<Manager>) -> Result<PooledConnection<Manager>> {
    pool.get().map_err(|e| Error::Unavailable(e.to_string()))
}

async fn off_the_async_threads<T, E>(
    deadline: Duration,
    f: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E>
where
    T: Send + 'static,
    E: From<Error> + Send + 'static,
{
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(f)).await {
        Ok(Ok(result)) => result,
        // Without the panic's message, which may quote the data being processed.
        Ok(Err(_)) => Err(Error::Unavailable("a query panicked".to_owned()).into()),
        Err(_) => Err(too_late().into()),
    }
}

#[derive(Debug)]
struct LogWarning;

impl diesel::r2d2::HandleError<diesel::r2d2::Error> for LogWarning {
    fn handle_error(&self, error: diesel::r2d2::Error) {
        tracing::warn!(%error, "a database connection failed");
    }
}
