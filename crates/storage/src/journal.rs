//! A journal of statements, for tests of what all of them have in common. Nobody opens it in production.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::query::Query;

/// A statement that is about to be run.
#[derive(Debug, Clone)]
pub struct Statement {
    /// Which write transaction it is part of; none for a read of its own.
    pub transaction: Option<u64>,
    /// The statement, with its values.
    pub query: Query,
}

#[derive(Debug, Default)]
pub(crate) struct Journal {
    reader: OnceLock<UnboundedSender<Statement>>,
    transactions: AtomicU64,
}

impl Journal {
    /// Everything from now on. Opened a second time, it stays with its first reader.
    pub(crate) fn open(&self) -> UnboundedReceiver<Statement> {
        let (sender, receiver) = unbounded_channel();
        // The second reader finds an empty journal.
        let _ = self.reader.set(sender);
        receiver
    }

    /// A number for a transaction.
    pub(crate) fn begin(&self) -> u64 {
        self.transactions.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn note(&self, transaction: Option<u64>, query: &Query) {
        if let Some(reader) = self.reader.get() {
            // A reader that has gone has read enough.
            let _ = reader.send(Statement { transaction, query: query.clone() });
        }
    }
}
