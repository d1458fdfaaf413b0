//! Who uses a store: any number of processes share it, or one has it to itself, as for copying it.
//!
//! A lock and not a row, so that it ends with its process however that ends: of a file beside an embedded database, or
//! of a session of a PostgreSQL server.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::{Connection, PgConnection, Row as _};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::catalog::quoted;
use crate::db::{Db, Engine, Pool};
use crate::error::StorageError;
use crate::{Tx, query};

const CHECK: Duration = Duration::from_secs(5);

/// A lock that is held until it is dropped.
pub(crate) enum Held {
    File(#[expect(dead_code, reason = "it is held, not used")] File),
    Session(Box<PgConnection>),
}

/// How a store is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Shared,
    Alone,
}

impl Db {
    /// Marks the store as in use until the last handle is gone or closed.
    ///
    /// # Errors
    /// `Occupied` where another process has it to itself.
    pub async fn share(&self) -> Result<(), StorageError> {
        self.occupy(Use::Shared).await
    }

    /// Takes the store for this process alone until the last handle is gone or closed.
    ///
    /// # Errors
    /// `Occupied` where another process uses it.
    pub async fn take_alone(&self) -> Result<(), StorageError> {
        self.occupy(Use::Alone).await
    }

    /// Renews the mark of [`Db::share`] whenever a server that was restarted forgot it, until `shutdown`. Returns at
    /// once on SQLite, where nothing can forget it.
    pub async fn stay_shared(&self, shutdown: &CancellationToken) {
        if !matches!(self.pool(), Pool::Postgres(_)) {
            return;
        }
        let mut ticks = tokio::time::interval(CHECK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let mut held = self.held().lock().await;
            let is_held = match held.as_mut() {
                Some(Held::Session(session)) => session.ping().await.is_ok(),
                Some(Held::File(_)) => true,
                None => false,
            };
            drop(held);
            if !is_held && let Err(error) = self.share().await {
                tracing::warn!(%error, "the mark that this store is in use could not be renewed");
            }
        }
    }

    async fn occupy(&self, how: Use) -> Result<(), StorageError> {
        let held = match self.pool() {
            Pool::Sqlite { .. } => match self.path() {
                Some(path) => lock_file(path, how)?,
                None => return Ok(()),
            },
            Pool::Postgres(pool) => {
                // Out of the pool: the lock lives as long as the session.
                let mut session = pool.acquire().await?.detach();
                lock_session(&mut session, how).await?;
                Held::Session(Box::new(session))
            }
        };
        *self.held().lock().await = Some(held);
        Ok(())
    }
}

fn lock_file(database: &Path, how: Use) -> Result<Held, StorageError> {
    let mut path = database.as_os_str().to_owned();
    path.push("-lock");
    let failed = |error| StorageError::Unavailable(sqlx::Error::Io(error));
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(PathBuf::from(path))
        .map_err(failed)?;
    let locked = match how {
        Use::Shared => file.try_lock_shared(),
        Use::Alone => file.try_lock(),
    };
    match locked {
        Ok(()) => Ok(Held::File(file)),
        Err(TryLockError::WouldBlock) => Err(StorageError::Occupied),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

async fn lock_session(session: &mut PgConnection, how: Use) -> Result<(), StorageError> {
    // Stores of other schemas in the same database are other stores.
    const SHARED: &str =
        "SELECT pg_try_advisory_lock_shared(hashtextextended('agentrouter-store/' || current_schema(), 0))";
    const ALONE: &str =
        "SELECT pg_try_advisory_lock(hashtextextended('agentrouter-store/' || current_schema(), 0))";
    let statement = if how == Use::Shared { SHARED } else { ALONE };
    let is_locked: bool = sqlx::query(statement).fetch_one(session).await?.try_get(0)?;
    if is_locked { Ok(()) } else { Err(StorageError::Occupied) }
}

impl Tx {
    /// Returns once every write to these tables that was under way has ended, and keeps new ones waiting until this
    /// transaction ends.
    ///
    /// # Errors
    /// Where that takes longer than ten seconds.
    pub async fn drain_writers(&mut self, tables: &[&str]) -> Result<(), StorageError> {
        // SQLite has one writer, and this transaction is it.
        if self.engine() == Engine::Postgres && !tables.is_empty() {
            let tables: Vec<_> = tables.iter().map(|name| quoted(name)).collect();
            query("SET LOCAL lock_timeout = '10s'").execute(self).await?;
            query(format!("LOCK TABLE {} IN SHARE MODE", tables.join(", "))).execute(self).await?;
        }
        Ok(())
    }
}
