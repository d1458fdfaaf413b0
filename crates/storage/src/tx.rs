//! Write transactions. Committing takes the audit entry of the mutation, so that forgetting it does not
//! compile; the exceptions say why.

use std::fmt;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Principal, Timestamp};
use sqlx::{Postgres, Sqlite, Transaction};

use crate::audit::AuditEntry;
use crate::db::{Db, Pool, SELECT_NOW};
use crate::error::StorageError;
use crate::query::{Query, query};
use crate::row::Row;
use crate::{audit, dialect};

enum Inner {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A write transaction. Dropping it rolls back.
pub struct Tx {
    inner: Inner,
    db: Db,
    now: Option<Timestamp>,
    changed: Vec<Id<Customer>>,
}

impl fmt::Debug for Tx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tx").field("engine", &self.db.engine()).finish_non_exhaustive()
    }
}

impl Tx {
    pub(crate) async fn begin(db: Db) -> Result<Self, StorageError> {
        let inner = match db.pool() {
            // Immediate: a transaction that reads before it writes cannot lose its turn half-way.
            Pool::Sqlite { write, .. } => Inner::Sqlite(write.begin_with("BEGIN IMMEDIATE").await?),
            Pool::Postgres(pool) => Inner::Postgres(pool.begin().await?),
        };
        Ok(Self { inner, db, now: None, changed: Vec::new() })
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
        match self.inner {
            Inner::Sqlite(tx) => tx.commit().await?,
            Inner::Postgres(tx) => tx.commit().await?,
        }
        for customer in self.changed {
            self.db.notifier().announce(customer);
        }
        Ok(())
    }

    pub(crate) async fn execute(&mut self, query: Query) -> Result<u64, StorageError> {
        Ok(match &mut self.inner {
            Inner::Sqlite(tx) => {
                query.for_sqlite(self.db.clock_now())?.execute(&mut **tx).await?.rows_affected()
            }
            Inner::Postgres(tx) => {
                query.for_postgres(self.db.clock_offset()).execute(&mut **tx).await?.rows_affected()
            }
        })
    }

    pub(crate) async fn fetch(&mut self, query: Query) -> Result<Vec<Row>, StorageError> {
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
