//! The database: a pool per engine behind one handle.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use agentrouter_kernel::{Clock, Timestamp};
use agentrouter_telemetry::Telemetry;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::task::TaskTracker;

use crate::error::StorageError;
use crate::journal::{Journal, Statement};
use crate::notify::Notifier;
use crate::occupancy::Held;
use crate::query::{Query, query};
use crate::row::Row;
use crate::{Tx, migrate};

/// Which engine a database runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// The embedded engine: one process, one writer.
    Sqlite,
    /// A server: many processes, many writers.
    Postgres,
}

/// How to reach a database.
#[derive(Debug, Clone)]
pub enum Target {
    /// A file, created where it does not exist.
    Sqlite(PathBuf),
    /// A `postgres://` URL.
    Postgres(String),
}

impl Target {
    /// Reads a database URL: `sqlite:<path>` or `postgres://...`.
    ///
    /// # Errors
    /// `Url`, without the URL itself, which may hold a password.
    pub fn parse(url: &str) -> Result<Self, StorageError> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(StorageError::Url("sqlite: must be followed by the path of a file".to_owned()))
            } else {
                Ok(Self::Sqlite(path.into()))
            };
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(url.to_owned()));
        }
        Err(StorageError::Url("a database URL begins with sqlite: or postgres://".to_owned()))
    }
}

/// Connection limits.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most connections to PostgreSQL, or readers of SQLite.
    pub max_connections: u32,
    /// How long a call may wait for a connection.
    pub acquire_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_connections: 16, acquire_timeout: Duration::from_secs(10) }
    }
}

/// More readers than this gain nothing on one file.
const SQLITE_READERS: u32 = 8;

pub(crate) const SELECT_NOW: &str = "SELECT CAST(:now AS BIGINT) AS value";

pub(crate) enum Pool {
    /// SQLite takes one writer at a time; a pool of one makes writers queue instead of failing.
    Sqlite {
        read: SqlitePool,
        write: SqlitePool,
    },
    Postgres(PgPool),
}

/// A handle to the database. Clones share the pools.
#[derive(Clone)]
pub struct Db(Arc<Inner>);

struct Inner {
    pool: Pool,
    clock: Arc<dyn Clock>,
    clock_offset_micros: AtomicI64,
    notifier: Notifier,
    telemetry: Telemetry,
    journal: Journal,
    max_connections: u32,
    /// The file of an embedded database.
    path: Option<PathBuf>,
    held: tokio::sync::Mutex<Option<Held>>,
    /// What goes on without the call that began it.
    tasks: TaskTracker,
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("engine", &self.engine()).finish_non_exhaustive()
    }
}

impl Db {
    /// Opens a database without touching its schema.
    ///
    /// # Errors
    /// `Url` for a URL that cannot be read, `Unavailable` where nothing answers.
    pub async fn open(target: &Target, limits: Limits, clock: Arc<dyn Clock>) -> Result<Self, StorageError> {
        Self::open_with(target, limits, clock, Telemetry::default()).await
    }

    /// [`Db::open`], with the instruments that everything done through this handle is counted by.
    pub async fn open_with(
        target: &Target,
        limits: Limits,
        clock: Arc<dyn Clock>,
        telemetry: Telemetry,
    ) -> Result<Self, StorageError> {
        let pool = match target {
            Target::Sqlite(path) => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    // An acknowledged write survives the loss of power, not only of the process.
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true)
                    .busy_timeout(limits.acquire_timeout)
                    .statement_cache_capacity(512);
                let write = SqlitePoolOptions::new()
                    .max_connections(1)
                    .min_connections(1)
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .acquire_timeout(limits.acquire_timeout)
                    .connect_with(options.clone())
                    .await?;
                let read = SqlitePoolOptions::new()
                    .max_connections(limits.max_connections.min(SQLITE_READERS))
                    .idle_timeout(None)
                    .max_lifetime(None)
                    .acquire_timeout(limits.acquire_timeout)
                    .connect_lazy_with(options.read_only(true).create_if_missing(false));
                Pool::Sqlite { read, write }
            }
            Target::Postgres(url) => {
                let options = PgConnectOptions::from_str(url)
                    .map_err(|_| StorageError::Url("the database URL cannot be read".to_owned()))?
                    .application_name("agentrouter")
                    .statement_cache_capacity(512)
                    .options([
                        ("statement_timeout", "30s"),
                        ("idle_in_transaction_session_timeout", "60s"),
                        ("jit", "off"),
                    ]);
                Pool::Postgres(
                    PgPoolOptions::new()
                        .max_connections(limits.max_connections)
                        .acquire_timeout(limits.acquire_timeout)
                        // A dead connection is found by the statement that fails on it; asking first
                        // would cost every statement a round trip.
                        .test_before_acquire(false)
                        .connect_with(options)
                        .await?,
                )
            }
        };
        let path = match target {
            Target::Sqlite(path) => Some(path.clone()),
            Target::Postgres(_) => None,
        };
        Ok(Self(Arc::new(Inner {
            pool,
            clock,
            clock_offset_micros: AtomicI64::new(0),
            notifier: Notifier::default(),
            telemetry,
            journal: Journal::default(),
            max_connections: limits.max_connections,
            path,
            held: tokio::sync::Mutex::new(None),
            tasks: TaskTracker::new(),
        })))
    }

    /// Brings the schema up to date. Replicas that start together wait for each other.
    ///
    /// # Errors
    /// `NewerSchema` where a newer program migrated it, `ChangedMigration` where history was rewritten.
    pub async fn migrate(&self) -> Result<(), StorageError> {
        migrate::run(self.pool()).await
    }

    /// The engine behind this handle.
    pub fn engine(&self) -> Engine {
        match self.0.pool {
            Pool::Sqlite { .. } => Engine::Sqlite,
            Pool::Postgres(_) => Engine::Postgres,
        }
    }

    /// Begins a write transaction. Dropping it rolls back.
    pub async fn begin(&self) -> Result<Tx, StorageError> {
        Tx::begin(self.clone(), "BEGIN").await
    }

    /// Begins a transaction that sees the store as it is now, whatever is committed meanwhile.
    pub async fn snapshot(&self) -> Result<Tx, StorageError> {
        Tx::begin(self.clone(), "BEGIN ISOLATION LEVEL REPEATABLE READ").await
    }

    /// The stored clock outside a transaction: PostgreSQL's, or the injected one for SQLite.
    pub async fn now(&self) -> Result<Timestamp, StorageError> {
        Ok(query(SELECT_NOW).value(self).await?.unwrap_or(self.clock_now()))
    }

    /// Moves the stored clock of this handle, for tests of leases and expiries.
    pub fn advance_clock(&self, by: Duration) {
        let micros = i64::try_from(by.as_micros()).unwrap_or(i64::MAX);
        self.0.clock_offset_micros.fetch_add(micros, Ordering::SeqCst);
    }

    /// Every statement from now on, for tests of what all of them have in common.
    pub fn statements(&self) -> UnboundedReceiver<Statement> {
        self.0.journal.open()
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Where committed changes are announced.
    pub fn notifier(&self) -> &Notifier {
        &self.0.notifier
    }

    /// The instruments of whoever opened this handle.
    pub fn telemetry(&self) -> &Telemetry {
        &self.0.telemetry
    }

    /// Notes the state of the connection pool in the metrics.
    pub fn observe_pool(&self) {
        let (size, idle, max) = match &self.0.pool {
            Pool::Sqlite { read, write } => (
                read.size() + write.size(),
                read.num_idle() + write.num_idle(),
                self.0.max_connections.min(SQLITE_READERS) + 1,
            ),
            Pool::Postgres(pool) => (pool.size(), pool.num_idle(), self.0.max_connections),
        };
        // The two numbers are read one after the other, so that more may seem to be idle than there are.
        let idle = i64::try_from(idle).unwrap_or(i64::MAX).min(i64::from(size));
        self.telemetry().metrics().database.set_connections(i64::from(size) - idle, idle, i64::from(max));
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> Result<(), StorageError> {
        query("SELECT CAST(1 AS BIGINT) AS value").value::<i64>(self).await.map(|_| ())
    }

    /// Closes all connections, after the running statements, and gives up the mark of being in use.
    pub async fn close(&self) {
        self.0.tasks.close();
        self.0.tasks.wait().await;
        self.0.held.lock().await.take();
        match &self.0.pool {
            Pool::Sqlite { read, write } => {
                read.close().await;
                write.close().await;
            }
            Pool::Postgres(pool) => pool.close().await,
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.0.pool
    }

    pub(crate) fn tasks(&self) -> &TaskTracker {
        &self.0.tasks
    }

    pub(crate) fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    pub(crate) fn held(&self) -> &tokio::sync::Mutex<Option<Held>> {
        &self.0.held
    }

    pub(crate) fn clock_now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.clock.now().as_micros().saturating_add(self.clock_offset()))
    }

    pub(crate) fn clock_offset(&self) -> i64 {
        self.0.clock_offset_micros.load(Ordering::SeqCst)
    }

    pub(crate) async fn read(&self, query: Query) -> Result<Vec<Row>, StorageError> {
        self.telemetry().metrics().database.read();
        self.noted(self.fetch(query).await)
    }

    async fn fetch(&self, query: Query) -> Result<Vec<Row>, StorageError> {
        query.check()?;
        self.journal().note(None, &query);
        Ok(match &self.0.pool {
            Pool::Sqlite { read, .. } => query
                .for_sqlite(self.clock_now())?
                .fetch_all(read)
                .await?
                .into_iter()
                .map(Row::Sqlite)
                .collect(),
            Pool::Postgres(pool) => query
                .for_postgres(self.clock_offset())
                .fetch_all(pool)
                .await?
                .into_iter()
                .map(Row::Postgres)
                .collect(),
        })
    }

    /// Counts an outcome where the database was not there for it.
    pub(crate) fn noted<T>(&self, outcome: Result<T, StorageError>) -> Result<T, StorageError> {
        if matches!(outcome, Err(StorageError::Unavailable(_))) {
            self.telemetry().metrics().database.unavailable.inc();
        }
        outcome
    }
}
