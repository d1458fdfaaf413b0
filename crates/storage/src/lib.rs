//! SQLite and PostgreSQL behind one small query interface.
//!
//! Owns the pools, transactions, the stored clock, migrations, keyset lists, the audit log, idempotency
//! records and wake-ups. Knows no service: every other statement lives in the store of its service. There are
//! no storage traits; a [`Query`] is one SQL text with bound values, and the few texts that differ between the
//! engines stand side by side in an [`Sql::Each`].
//!
//! Invariants: writes take a [`Tx`], which is one transaction; a function that was given a `Tx` never opens
//! another connection; every stored time is [`Tx::now`]; a mutation commits with its audit entry.

pub mod audit;
pub mod catalog;
pub mod idempotency;
pub mod list;
pub mod pulse;
pub mod purge;
pub mod scope;

mod db;
mod dialect;
mod error;
mod journal;
mod migrate;
mod notify;
mod occupancy;
mod query;
mod row;
mod to_the_end;
mod tx;
mod value;

pub use audit::{AuditEntry, CallOrigin};
pub use db::{Db, Engine, Limits, Target};
pub use error::StorageError;
pub use journal::Statement;
pub use list::{List, Page};
pub use notify::Notifier;
pub use query::{Query, Source, Sql, query};
pub use row::{FromColumn, FromRow, Row};
pub use tx::Tx;
pub use value::Value;
