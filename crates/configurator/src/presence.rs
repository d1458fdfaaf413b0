//! When each workspace's worker last called, written in batches: a poll itself only reads.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_storage::{Db, Sql, StorageError, Value, query};

/// Workspaces that called since the last flush, and workers that watch and keep what they hold.
#[derive(Debug, Default)]
pub struct Presence {
    called: Mutex<HashSet<Id<Workspace>>>,
    watching: Mutex<HashSet<(Id<Workspace>, String)>>,
}

impl Presence {
    /// Notes that a workspace called.
    pub fn note(&self, workspace: Id<Workspace>) {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace);
    }

    /// Notes that a worker watches: what it holds is renewed with the next flush.
    pub(crate) fn note_watcher(&self, workspace: Id<Workspace>, worker: &str) {
        if !worker.is_empty() {
            let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
            watching.insert((workspace, worker.to_owned()));
        }
    }

    /// Notes that a stream of a worker has ended. Where another one of it is open, that will tell of it again.
    pub(crate) fn forget_watcher(&self, workspace: Id<Workspace>, worker: &str) {
        if !worker.is_empty() {
            let mut watching = self.watching.lock().unwrap_or_else(PoisonError::into_inner);
            watching.remove(&(workspace, worker.to_owned()));
        }
    }

    /// Writes what was noted, in a statement for all workspaces. What cannot be written is noted again, except for
    /// renewals: a worker that still watches is noted again anyway.
    pub async fn flush(&self, db: &Db) -> Result<(), StorageError> {
        let watching = std::mem::take(&mut *self.watching.lock().unwrap_or_else(PoisonError::into_inner));
        if !watching.is_empty() {
            let mut watching: Vec<_> = watching.into_iter().collect();
            watching.sort();
            agentrouter_delivery::watch::renew_watched(db, &watching).await?;
        }
        let seen = std::mem::take(&mut *self.called.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let written = write(db, &seen).await;
        if written.is_err() {
            self.called.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
        }
        written
    }
}

async fn write(db: &Db, seen: &HashSet<Id<Workspace>>) -> Result<(), StorageError> {
    const SEEN: Sql = Sql::Each {
        sqlite: "UPDATE workspace_sync SET last_seen_at = :now WHERE workspace_id IN (SELECT unhex(value) FROM json_each($1))",
        postgres: "UPDATE workspace_sync SET last_seen_at = :now WHERE workspace_id = ANY($1)",
    };
    let mut ids: Vec<_> = seen.iter().map(|id| id.uuid()).collect();
    // Rows are locked in one order, whoever flushes.
    ids.sort();
    let mut tx = db.begin().await?;
    query(SEEN).bind(Value::Uuids(ids)).execute(&mut tx).await?;
    tx.commit_unaudited("presence is not a mutation by a person").await
}
