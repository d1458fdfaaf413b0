//! When each workspace's worker last called, written in batches: a poll itself only reads.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentrouter_delivery::watch::renew_watched;
use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_storage::{Db, Sql, StorageError, Value, query};

/// How long after its last message a stream is taken for one that is read. Streams that are read say something every
/// ten seconds.
const READ_FOR: Duration = Duration::from_secs(25);

/// Workspaces that called since the last flush, and workers that watch and keep what they hold.
#[derive(Debug, Default)]
pub struct Presence {
    called: Mutex<HashSet<Id<Workspace>>>,
    watching: Mutex<HashMap<Id<Workspace>, Vec<Watcher>>>,
}

/// A worker with open streams.
#[derive(Debug)]
struct Watcher {
    worker: String,
    streams: usize,
    spoke_at: Instant,
}

impl Presence {
    /// Notes that a workspace called.
    pub fn note(&self, workspace: Id<Workspace>) {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace);
    }

    /// Notes that a stream of a worker has begun. What the worker holds is renewed while one of its streams is open and
    /// read.
    pub(crate) fn begin_watch(&self, workspace: Id<Workspace>, worker: &str) {
        let mut watching = self.watching();
        let watchers = watching.entry(workspace).or_default();
        if let Some(watcher) = watchers.iter_mut().find(|watcher| watcher.worker == worker) {
            watcher.streams += 1;
        } else {
            watchers.push(Watcher { worker: worker.to_owned(), streams: 1, spoke_at: Instant::now() });
        }
    }

    /// Notes that a worker reads its stream.
    pub(crate) fn note_watcher(&self, workspace: Id<Workspace>, worker: &str) {
        let mut watching = self.watching();
        let mut watchers = watching.get_mut(&workspace).into_iter().flatten();
        if let Some(watcher) = watchers.find(|watcher| watcher.worker == worker) {
            watcher.spoke_at = Instant::now();
        }
    }

    /// Notes that a stream of a worker has ended.
    pub(crate) fn end_watch(&self, workspace: Id<Workspace>, worker: &str) {
        let mut watching = self.watching();
        let Some(watchers) = watching.get_mut(&workspace) else { return };
        if let Some(watcher) = watchers.iter_mut().find(|watcher| watcher.worker == worker) {
            watcher.streams = watcher.streams.saturating_sub(1);
        }
        watchers.retain(|watcher| watcher.streams > 0);
        if watchers.is_empty() {
            watching.remove(&workspace);
        }
    }

    fn is_watching(&self, workspace: Id<Workspace>, worker: &str) -> bool {
        let watching = self.watching();
        let mut watchers = watching.get(&workspace).into_iter().flatten();
        watchers.any(|watcher| watcher.worker == worker && watcher.spoke_at.elapsed() < READ_FOR)
    }

    fn watching(&self) -> MutexGuard<'_, HashMap<Id<Workspace>, Vec<Watcher>>> {
        self.watching.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what was noted, in a statement for all workspaces. What cannot be written is noted again. To be called
    /// once a second.
    pub async fn flush(&self, db: &Db) -> Result<(), StorageError> {
        if !self.watching().is_empty() {
            renew_watched(db, |workspace, worker| self.is_watching(workspace, worker)).await?;
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
