//! Write transactions. Committing takes the audit entry of the mutation, so that forgetting it does not
//! compile; the exceptions say why.

use std::fmt;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Principal, Timestamp};
use agentrouter_telemetry::Telemetry;
use agentrouter_telemetry::metrics::Wakeup;
use sqlx::{Database, Postgres, SqlSafeStr as _, Sqlite, Transaction};

use crate::audit::AuditEntry;
use crate::db::{Db, Engine, Pool, SELECT_NOW};
use crate::error::StorageError;
use crate::query::{Query, query};
use crate::row::Row;
use crate::to_the_end::ToTheEnd;
use crate::{audit, dialect};

enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A write transaction. Dropping it rolls back, and once a statement failed nothing else can come of it.
pub struct Tx {
    inner: Inner,
    /// Whether a statement failed.
    is_broken: bool,
    db: Db,
    /// Its number in the journal.
    number: u64,
    now: Option<Timestamp>,
    changed: Vec<Id<Customer>>,
    observations: Vec<Observation>,
}

type Observation = Box<dyn FnOnce(&Telemetry) + Send + Sync>;

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("engine", &self.db.engine()).finish_non_exhaustive()
    }
}

/// Waits for a connection, which may be given up, and begins, which may not.
async fn begin<D: Database>(
    db: &Db,
    pool: &sqlx::Pool<D>,
    statement: &'static str,
) -> Result<Transaction<'static, D>, sqlx::Error> {
    let connection = pool.acquire().await?;
    let begun = Transaction::begin(connection, Some(statement.into_sql_str()));
    ToTheEnd::new(db.tasks().clone(), begun).await
}

impl Tx {
    /// Begins with this statement on PostgreSQL. On SQLite every transaction is a snapshot.
    pub(crate) async fn begin(db: Db, postgres: &'static str) -> Result<Self, StorageError> {
        db.telemetry().metrics().database.transactions.inc();
        let inner = match db.pool() {
            // Immediate: a transaction that reads before it writes cannot lose its turn half-way.
            Pool::Sqlite { write, .. } => begin(&db, write, "BEGIN IMMEDIATE").await.map(Inner::Sqlite),
            Pool::Postgres(pool) => begin(&db, pool, postgres).await.map(Inner::Postgres),
        };
        let inner = db.noted(inner.map_err(StorageError::from))?;
        let number = db.journal().begin();
        Ok(Self {
            inner,
            is_broken: false,
            db,
            number,
            now: None,
            changed: Vec::new(),
            observations: Vec::new(),
        })
    }

    /// The instruments of the database handle.
    pub fn telemetry(&self) -> &Telemetry {
        self.db.telemetry()
    }

    /// Notes something to count once it is committed, and only then.
    pub fn on_commit(&mut self, observe: impl FnOnce(&Telemetry) + Send + Sync + 'static) {
        self.observations.push(Box::new(observe));
    }

    /// The engine behind it.
    pub fn engine(&self) -> Engine {
        self.db.engine()
    }

    /// Whether a statement failed, so that the transaction cannot be committed.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// The time of this transaction, the only one that is ever stored: the database's clock, read once.
    pub async fn now(&mut self) -> Result<Timestamp, StorageError> {
        if let Some(now) = self.now {
            return Ok(now);
        }
        let now = match &self.inner {
            Inner::Sqlite(_) => self.db.clock_now(),
            Inner::Postgres(_) => query(SELECT_NOW).value(&mut *self).await?.unwrap_or(self.db.clock_now()),
        };
        self.now = Some(now);
        Ok(now)
    }

    /// Holds a named lock until the transaction ends.
    pub async fn lock(&mut self, name: &str) -> Result<(), StorageError> {
        if matches!(self.inner, Inner::Postgres(_)) {
            query(dialect::POSTGRES_LOCK).bind(name).execute(self).await?;
        }
        Ok(())
    }

    /// Notes that the customer has news for its workspaces. They are told once it is committed.
    pub fn announce(&mut self, customer: Id<Customer>) {
        if !self.changed.contains(&customer) {
            self.changed.push(customer);
        }
    }

    /// Commits a mutation together with its audit entry.
    pub async fn commit(mut self, principal: &Principal, entry: AuditEntry) -> Result<(), StorageError> {
        audit::record(&mut self, principal, entry).await?;
        self.finish().await
    }

    /// Commits what needs no audit entry. The reason is for the reader of the code.
    pub async fn commit_unaudited(self, _reason: &'static str) -> Result<(), StorageError> {
        self.finish().await
    }

    async fn finish(self) -> Result<(), StorageError> {
        // PostgreSQL answers the commit of a broken transaction by rolling it back, and calls that a success.
        if self.is_broken {
            return Err(StorageError::Broken);
        }
        ToTheEnd::new(self.db.tasks().clone(), Box::pin(self.commit_and_tell())).await
    }

    async fn commit_and_tell(self) -> Result<(), StorageError> {
        let committed = match self.inner {
            Inner::Sqlite(tx) => tx.commit().await,
            Inner::Postgres(tx) => tx.commit().await,
        };
        self.db.noted(committed.map_err(StorageError::from))?;
        for observe in self.observations {
            observe(self.db.telemetry());
        }
        for customer in self.changed {
            self.db.telemetry().metrics().wakeups.woken(Wakeup::Local);
            self.db.notifier().announce(customer);
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, query: Query) -> Result<u64, StorageError> {
        let outcome = self.try_execute(query).await;
        self.is_broken |= outcome.is_err();
        outcome
    }

    pub(crate) async fn fetch(&mut self, query: Query) -> Result<Vec<Row>, StorageError> {
        let outcome = self.try_fetch(query).await;
        self.is_broken |= outcome.is_err();
        outcome
    }

    async fn try_execute(&mut self, query: Query) -> Result<u64, StorageError> {
        query.check()?;
        self.telemetry().metrics().database.statement();
        self.db.journal().note(Some(self.number), &query);
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => {
                query.for_sqlite(self.db.clock_now())?.execute(&mut **tx).await?.rows_affected()
            }
            Inner::Postgres(tx) => {
                query.for_postgres(self.db.clock_offset()).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    async fn try_fetch(&mut self, query: Query) -> Result<Vec<Row>, StorageError> {
        query.check()?;
        self.telemetry().metrics().database.statement();
        self.db.journal().note(Some(self.number), &query);
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => query
                .for_sqlite(self.db.clock_now())?
                .fetch_all(&mut **tx)
                .await?
                .into_iter()
                .map(Row::Sqlite)
                .collect(),
            Inner::Postgres(tx) => query
                .for_postgres(self.db.clock_offset())
                .fetch_all(&mut **tx)
                .await?
                .into_iter()
                .map(Row::Postgres)
                .collect(),
        })
    }
}
