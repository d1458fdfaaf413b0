//! When keys were last used, written beside the calls and not in them.

use std::collections::BTreeSet;

use agentrouter_kernel::id::{ApiKey, Id};
use agentrouter_storage::{Db, StorageError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::store;

/// Uses that wait to be written. When more are due they are dropped: the next call of the same key tells again.
const QUEUE: usize = 1024;
/// The most uses of one transaction.
const BATCH: usize = 128;

/// The end that calls hold.
#[derive(Debug, Clone)]
pub(crate) struct Uses(mpsc::Sender<Id<ApiKey>>);

impl Uses {
    /// Tells that a key was used. Never waits and never fails.
    pub(crate) fn note(&self, key: Id<ApiKey>) {
        // A full queue, or none at all, costs no more than a late time of last use.
        let _ = self.0.try_send(key);
    }
}

/// Writes when keys were last used. The server runs it as a task of its own.
#[derive(Debug)]
pub struct KeyUsage {
    db: Db,
    queue: mpsc::Receiver<Id<ApiKey>>,
}

impl KeyUsage {
    pub(crate) fn new(db: Db) -> (Uses, Self) {
        let (sender, queue) = mpsc::channel(QUEUE);
        (Uses(sender), Self { db, queue })
    }

    /// Writes until the server stops, and then what is still queued.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            // Only the waiting may be cut short: what was taken out of the queue is written.
            tokio::select! {
                _ = self.queue.recv_many(&mut batch, BATCH) => {}
                () = stop.cancelled() => {
                    self.queue.close();
                    self.queue.recv_many(&mut batch, BATCH).await;
                }
            }
            if batch.is_empty() {
                return;
            }
            if let Err(error) = self.write(&mut batch).await {
                tracing::warn!(%error, "the last use of keys could not be noted");
            }
        }
    }

    /// Waits for uses and writes a batch of them; tells of how many keys. None once the authenticator is gone.
    pub async fn next(&mut self) -> Option<Result<usize, StorageError>> {
        let mut batch = Vec::with_capacity(BATCH);
        self.queue.recv_many(&mut batch, BATCH).await;
        if batch.is_empty() { None } else { Some(self.write(&mut batch).await) }
    }

    /// Empties a batch, whether or not it can be written.
    async fn write(&self, batch: &mut Vec<Id<ApiKey>>) -> Result<usize, StorageError> {
        // In one order, so that two replicas do not wait for each other.
        let keys: BTreeSet<_> = batch.drain(..).collect();
        let mut tx = self.db.begin().await?;
        for key in &keys {
            store::api_keys::note_use(&mut tx, *key).await?;
        }
        tx.commit_unaudited("a time of last use changes nothing").await?;
        Ok(keys.len())
    }
}
