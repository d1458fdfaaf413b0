//! What can go wrong in storage. Nothing of a driver's text reaches a client.

use std::time::Duration;

use agentrouter_kernel::{Fault, FaultKind};

/// A storage error.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// A unique key is taken.
    #[error("a unique key is taken")]
    Conflict(#[source] sqlx::Error),
    /// A row that is referred to does not exist, or is still referred to.
    #[error("a referenced row is missing or in use")]
    ForeignKey(#[source] sqlx::Error),
    /// The engine gave up on the transaction so that another one could go on; it may be retried.
    #[error("the transaction lost against another one")]
    Serialization(#[source] sqlx::Error),
    /// A statement of the transaction failed earlier, so that it cannot be committed: a defect of whoever tries.
    #[error("a transaction was to be committed after one of its statements had failed")]
    Broken,
    /// The database cannot be reached or is busy.
    #[error("the database is unavailable")]
    Unavailable(#[source] sqlx::Error),
    /// A text has the character U+0000, which PostgreSQL does not store, so that neither engine is asked.
    #[error("a text has the character U+0000")]
    Nul,
    /// A stored value is not what it should be.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
    /// Anything else: a defect of ours.
    #[error("the database refused a statement")]
    Driver(#[source] sqlx::Error),
    /// The database was migrated by a newer program.
    #[error("the database schema is newer than this program: it has migration {0}")]
    NewerSchema(i64),
    /// A migration that was applied differs from the one this program has.
    #[error("migration {0} was changed after it was applied")]
    ChangedMigration(i64),
    /// A migration failed.
    #[error("migration failed")]
    Migration(#[source] Box<sqlx::migrate::MigrateError>),
    /// Another process uses the store, or has it to itself.
    #[error("the store is in use by another process")]
    Occupied,
    /// The URL of the database is wrong.
    #[error("{0}")]
    Url(String),
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::error::ErrorKind;
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code();
                let code = code.as_deref().unwrap_or_default();
                match database.kind() {
                    ErrorKind::UniqueViolation => Self::Conflict(error),
                    ErrorKind::ForeignKeyViolation => Self::ForeignKey(error),
                    // PostgreSQL: serialization failure, deadlock, and a lock that was not to be had.
                    _ if matches!(code, "40001" | "40P01" | "55P03") => Self::Serialization(error),
                    // SQLite: busy and locked, with their extended codes. PostgreSQL: a statement that
                    // took too long (57014), a session that slept in a transaction (25P03), connection
                    // exceptions (08), out of resources (53), shutting down or starting (57P).
                    _ if matches!(code, "5" | "6" | "261" | "262" | "517" | "518" | "57014" | "25P03")
                        || code.starts_with("08")
                        || code.starts_with("53")
                        || code.starts_with("57P") =>
                    {
                        Self::Unavailable(error)
                    }
                    _ => Self::Driver(error),
                }
            }
            // A server that goes down in the middle of an answer says something that is none.
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) | sqlx::Error::ColumnNotFound(_) => {
                Self::Corrupt(error.to_string())
            }
            _ => Self::Driver(error),
        }
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Serialization(_) | StorageError::Conflict(_) => Self::new(
                FaultKind::Aborted,
                "CONCURRENT_CHANGE",
                "another call changed the same thing; retry",
            )
            .with_source(error),
            StorageError::Unavailable(_) => {
                Self::unavailable("the database is unavailable; retry", Duration::from_secs(1))
                    .with_source(error)
            }
            StorageError::Nul => Self::new(
                FaultKind::InvalidArgument,
                "INVALID_FIELDS",
                "a text has the character U+0000, which none may have",
            ),
            other => Self::internal(other),
        }
    }
}
