//! `Db`: runs closures on pooled connections, outside the async threads.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use diesel::connection::{AnsiTransactionManager, TransactionManager};
use diesel::r2d2::R2D2Connection;
use diesel::r2d2::{Pool, PooledConnection};

use super::connection::{Access, Manager, establish, establish_as};
use super::error::{Sign, take_sign};
use super::full_disk::{Space, WriteFault};
use super::journal::{self, ChangeId, Journal};
use super::place::Place;
use super::presence::{Told, tell_of_server};
use super::reserve::{Reserve, Share};
use super::{Connection, DatabaseUrl, Error, Result, backup, clock_watch};

/// How long a request waits for a free connection before it is answered 503.
const CHECKOUT: Duration = Duration::from_secs(2);
/// How long a request waits for a read in total.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// A write gets longer, because a person told to try again must first check whether it took effect.
const WRITE_DEADLINE: Duration = Duration::from_secs(5);
/// Queries that take longer are logged, without their values.
const SLOW: Duration = Duration::from_millis(500);
const POSTGRES_CONNECTIONS: u32 = 16;
const SQLITE_READERS: u32 = 8;

/// A handle to the database; clones share the pools.
///
/// SQLite has one writer at a time, so writes queue for one connection instead of failing as
/// "locked"; its read connections cannot write at all. PostgreSQL uses one pool for both.
#[derive(Clone)]
pub struct Db {
    url: DatabaseUrl,
    readers: Connections,
    writers: Connections,
    journal: Option<Arc<Journal>>,
    space: Arc<Space>,
    /// Whether the database does not record all changes that verification must know of.
    is_unrecorded: Arc<AtomicBool>,
    /// With SQLite.
    place: Option<Arc<Place>>,
    is_server: bool,
    /// Of a server with SQLite.
    _presence: Option<Arc<Told>>,
}

/// A pool, and how many wait for one of its connections; clones share both.
#[derive(Clone)]
struct Connections {
    pool: Pool<Manager>,
    waiting: Arc<AtomicU32>,
}

/// What a pool is doing.
pub struct PoolState {
    /// What it is for: `read`, `write` or, on PostgreSQL, `all`.
    pub name: &'static str,
    pub in_use: u32,
    pub most: u32,
    pub waiting: u32,
}

impl Db {
    /// Connects once, so that a wrong URL is reported at start, then opens the pools.
    ///
    /// # Errors
    /// One sentence on why the database cannot be reached.
    pub fn open(url: &DatabaseUrl) -> std::result::Result<Self, String> {
        Self::open_as(url, false)
    }

    /// The same for a server, which must not run while the database is being restored.
    ///
    /// # Errors
    /// One sentence.
    pub fn open_for_server(url: &DatabaseUrl) -> std::result::Result<Self, String> {
        Self::open_as(url, true)
    }

    fn open_as(url: &DatabaseUrl, is_server: bool) -> std::result::Result<Self, String> {
        if let DatabaseUrl::Sqlite(file) = url {
            file.check_access()?;
        }
        let presence = match url {
            DatabaseUrl::Sqlite(file) if is_server => Some(tell_of_server(file)?),
            _ => None,
        };
        let presence = presence.map(Arc::new);
        let space = Arc::new(match url {
            DatabaseUrl::Sqlite(file) => {
                file.make_if_missing().map_err(|e| e.to_string())?;
                Space::new(Some(Reserve::beside(file)))
            }
            DatabaseUrl::Postgres(_) => Space::new(None),
        });
        // The first connection to a SQLite file makes other files beside it.
        while let Err(error) = establish_as(url, Access::Write, is_server) {
            if !space.is_used_up() || !space.make_room(Share::All) {
                return Err(error.to_string());
            }
        }
        let place = match url {
            DatabaseUrl::Sqlite(file) => Some(Place::of(file).map_err(|e| e.to_string())?),
            DatabaseUrl::Postgres(_) => None,
        };
        let place = place.map(Arc::new);
        let pool = |access, size| {
            let manager = Manager {
                url: url.clone(),
                access,
                is_server,
                place: place.clone(),
            };
            pool(manager, size)
        };
        let (readers, writers) = match url {
            DatabaseUrl::Sqlite(_) => (pool(Access::Read, SQLITE_READERS), pool(Access::Write, 1)),
            DatabaseUrl::Postgres(_) => {
                let both = pool(Access::Write, POSTGRES_CONNECTIONS);
                (both.clone(), both)
            }
        };
        Ok(Self {
            url: url.clone(),
            readers,
            writers,
            journal: None,
            space,
            is_unrecorded: Arc::default(),
            place,
            is_server,
            _presence: presence,
        })
    }

    /// From now on, what transactions note is written to this journal.
    pub fn with_journal(self, journal: Arc<Journal>) -> Self {
        Self {
            journal: Some(journal),
            ..self
        }
    }

    pub fn journal(&self) -> Option<&Arc<Journal>> {
        self.journal.as_ref()
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
        if let DatabaseUrl::Sqlite(file) = url {
            file.check_access()?;
        }
        establish(url, Access::Look).map_err(|e| e.to_string())?;
        let manager = Manager {
            url: url.clone(),
            access: Access::Look,
            is_server: false,
            place: None,
        };
        let pool = pool(manager, 1);
        Ok(Some(Self {
            url: url.clone(),
            readers: pool.clone(),
            writers: pool,
            journal: None,
            space: Arc::new(Space::new(None)),
            is_unrecorded: Arc::default(),
            place: None,
            is_server: false,
            _presence: None,
        }))
    }

    /// A connection for reading outside the pools, for a caller that must never wait for a page's
    /// query.
    pub fn connect(&self) -> Result<Connection> {
        let conn = establish_as(&self.url, Access::Read, self.is_server);
        let conn = conn.map_err(|e| Error::Unavailable(e.to_string()))?;
        self.check_place().map(|()| conn)
    }

    /// Whether SQLite's file is the one that was opened: costs a `stat`. Every read and write asks this.
    ///
    /// # Errors
    /// While it has been deleted or replaced: what is read may be out of date, and what is written is
    /// lost.
    pub fn check_place(&self) -> Result<()> {
        self.place.as_ref().map_or(Ok(()), |place| place.check())
    }

    /// Notes whether the triggers of `verdict_changes` are missing or disabled. Returns whether that was
    /// not known.
    pub fn note_unrecorded(&self, is_unrecorded: bool) -> bool {
        self.is_unrecorded.swap(is_unrecorded, Ordering::Relaxed) != is_unrecorded
    }

    /// As it was noted last.
    pub fn is_unrecorded(&self) -> bool {
        self.is_unrecorded.load(Ordering::Relaxed)
    }

    pub fn pools(&self) -> Vec<PoolState> {
        match self.is_postgres() {
            true => vec![self.writers.state("all")],
            false => vec![self.readers.state("read"), self.writers.state("write")],
        }
    }

    pub fn is_postgres(&self) -> bool {
        matches!(self.url, DatabaseUrl::Postgres(_))
    }

    /// Copies the SQLite database as it is at this moment, while others use it.
    ///
    /// # Errors
    /// One sentence.
    pub fn back_up(&self, to: &Path) -> std::result::Result<(), String> {
        self.check_place().map_err(|e| e.to_string())?;
        let mut conn = establish(&self.url, Access::Write).map_err(|e| e.to_string())?;
        backup::copy_to(&mut conn, to)
    }

    /// Writes what is in SQLite's WAL to the file, so that the file alone is the database.
    pub fn into_the_file(&self) -> Result<()> {
        backup::into_the_file(&mut *self.writers.checkout()?)
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
            db.read_blocking(f)
        })
        .await
    }

    /// Runs `f` in one transaction: committed when `f` returns `Ok`, rolled back when it returns
    /// `Err` or finishes after its request's deadline. Fails if the disk is full.
    pub async fn write<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_as(name_of(&f), f).await
    }

    /// Like [`Db::write`], under this name in the log if it is slow.
    pub async fn write_as<T, E>(
        &self,
        name: &'static str,
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
            db.write_blocking_as(name, |conn| {
                let value = f(conn)?;
                in_time(end)?;
                Ok(value)
            })
        })
        .await
    }

    /// Like [`Db::write`]; if the disk is full, `f` runs again with this share of the reserve.
    pub async fn write_urgently<T, E>(
        &self,
        share: Share,
        f: impl FnMut(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.write_urgently_as(name_of(&f), share, f).await
    }

    /// Like [`Db::write_urgently`], under this name in the log if it is slow.
    pub async fn write_urgently_as<T, E>(
        &self,
        name: &'static str,
        share: Share,
        mut f: impl FnMut(&mut Connection) -> std::result::Result<T, E> + Send + 'static,
    ) -> std::result::Result<T, E>
    where
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        let db = self.clone();
        let end = Instant::now() + WRITE_DEADLINE;
        off_the_async_threads(WRITE_DEADLINE, move || {
            in_time(end)?;
            db.write_urgently_blocking_as(name, share, |conn| {
                in_time(end)?;
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
        self.check_place()?;
        let conn = &mut *self.readers.checkout()?;
        watched(name_of(&f), || f(conn))
    }

    /// Like [`Db::write`], on the calling thread and without a deadline.
    pub fn write_blocking<T, E>(
        &self,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        self.write_blocking_as(name_of(&f), f)
    }

    fn write_blocking_as<T, E>(
        &self,
        name: &'static str,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        self.space.admit(Share::Nothing)?;
        let done = self.transact(name, f);
        if self.lacked_room() {
            self.space.note_full();
        }
        done
    }

    /// Like [`Db::write_urgently`], on the calling thread and without a deadline.
    pub fn write_urgently_blocking<T, E>(
        &self,
        share: Share,
        f: impl FnMut(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        self.write_urgently_blocking_as(name_of(&f), share, f)
    }

    fn write_urgently_blocking_as<T, E>(
        &self,
        name: &'static str,
        share: Share,
        mut f: impl FnMut(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        self.space.admit(share)?;
        loop {
            let done = self.transact(name, &mut f);
            match &done {
                Err(_) if self.lacked_room() && self.space.make_room(share) => continue,
                Ok(_) if share == Share::All => {
                    if let Some(journal) = &self.journal
                        && self.space.make_room_for(journal)
                    {
                        // What fails is tried again each second.
                        let _ = self.write_out_journal();
                    }
                }
                _ => {}
            }
            return done;
        }
    }

    /// Whether the transaction that just failed on this thread found the disk full.
    fn lacked_room(&self) -> bool {
        match take_sign() {
            Some(Sign::Sure) => true,
            Some(Sign::Possible) => self.space.is_used_up(),
            None => false,
        }
    }

    fn transact<T, E>(
        &self,
        name: &'static str,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        self.check_place()?;
        let conn = &mut *self.writers.checkout()?;
        watched(name, || self.in_transaction(conn, f))
    }

    fn in_transaction<T, E>(
        &self,
        conn: &mut Connection,
        f: impl FnOnce(&mut Connection) -> std::result::Result<T, E>,
    ) -> std::result::Result<T, E>
    where
        E: From<Error>,
    {
        take_sign();
        begin(conn).map_err(Error::from)?;
        journal::take_noted();
        let done = f(conn).and_then(|value| {
            self.check_place()?;
            let number = self.write_to_journal(conn)?;
            Ok((value, number))
        });
        match done {
            Ok((value, number)) => {
                self.commit(conn, number)?;
                Ok(value)
            }
            Err(error) => {
                if let Err(rollback) =
                    <Connection as TransactionManager<_>>::rollback_transaction(conn)
                {
                    tracing::warn!(error = %rollback, "a transaction could not be rolled back");
                }
                Err(error)
            }
        }
    }

    /// Writes next to nothing, to learn whether the database takes writes.
    pub fn check_writes(&self) -> Result<()> {
        let checked = self.write_blocking(clock_watch::touch);
        self.space.note_check(&checked);
        checked
    }

    /// Why the database takes no writes, as of the last check, or of a later write that found the disk
    /// full.
    pub fn write_fault(&self) -> Option<WriteFault> {
        self.space.fault()
    }

    /// MiB, if little is left on the disk of SQLite's file.
    pub fn little_space_left(&self) -> Option<u64> {
        self.space.little_left()
    }

    /// Writes to the journal what could not be written to it before.
    ///
    /// # Errors
    /// If the database fails; a journal that fails says so itself.
    pub fn write_out_journal(&self) -> Result<()> {
        let Some(journal) = &self.journal else {
            return Ok(());
        };
        loop {
            let rows = self.read_blocking(journal::list_unwritten)?;
            if rows.is_empty() {
                journal.retry();
                return Ok(());
            }
            if journal.write_late(&rows).is_err() {
                return Ok(());
            }
            self.write_urgently_blocking(Share::Half, |conn| {
                journal::forget_unwritten(conn, &rows)
            })?;
        }
    }

    /// Returns the number of the change in the journal, if the transaction noted one.
    fn write_to_journal(&self, conn: &mut Connection) -> Result<Option<ChangeId>> {
        let noted = journal::take_noted();
        match &self.journal {
            Some(journal) if !noted.is_empty() => journal.before_commit(conn, noted).map(Some),
            _ => Ok(None),
        }
    }

    fn commit(&self, conn: &mut Connection, number: Option<ChangeId>) -> Result<()> {
        let committed = <Connection as TransactionManager<_>>::commit_transaction(conn);
        let committed = committed.map_err(Error::from);
        if let (Some(journal), Some(number)) = (&self.journal, number) {
            match &committed {
                Ok(()) => journal.committed(number),
                // Which breaks the connection: SQLite has rolled back by itself.
                Err(Error::DiskFull(_)) => journal.rolled_back(number),
                // If the connection broke, the change may have been committed.
                Err(_) if is_broken(conn) => {}
                Err(_) => journal.rolled_back(number),
            }
        }
        committed
    }
}

fn is_broken(conn: &mut Connection) -> bool {
    conn.is_broken() || conn.ping().is_err()
}

/// The name of what runs: a function, or the one that a closure stands in.
pub fn name_of<F>(_: &F) -> &'static str {
    let name = std::any::type_name::<F>();
    name.split("::{{closure}}").next().unwrap_or(name)
}

/// Runs queries, and logs their name if they are slow.
pub fn watched<T>(name: &'static str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = run();
    let took = begun.elapsed();
    if took >= SLOW {
        let milliseconds = took.as_millis() as u64;
        tracing::warn!(query = name, milliseconds, "a slow query");
    }
    done
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

fn pool(manager: Manager, size: u32) -> Connections {
    let pool = Pool::builder()
        .max_size(size)
        .min_idle(Some(1))
        .connection_timeout(CHECKOUT)
        .error_handler(Box::new(LogWarning))
        .build_unchecked(manager);
    let waiting = Arc::default();
    Connections { pool, waiting }
}

impl Connections {
    fn checkout(&self) -> Result<PooledConnection<Manager>> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let conn = self.pool.get();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        conn.map_err(|e| Error::Unavailable(e.to_string()))
    }

    fn state(&self, name: &'static str) -> PoolState {
        let state = self.pool.state();
        PoolState {
            name,
            in_use: state.connections.saturating_sub(state.idle_connections),
            most: self.pool.max_size(),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
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
