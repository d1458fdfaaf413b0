//! When each workspace's worker last called, written in batches: a poll itself only reads.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_storage::{Db, Sql, StorageError, Value, query};

/// Workspaces that called since the last flush.
#[derive(Debug, Default)]
pub struct Presence(Mutex<HashSet<Id<Workspace>>>);

impl Presence {
    /// Notes that a workspace called.
    pub fn note(&self, workspace: Id<Workspace>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(workspace);
    }

    /// Writes what was noted, in one statement. What cannot be written is noted again.
    pub async fn flush(&self, db: &Db) -> Result<(), StorageError> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        if seen.is_empty() {
            return Ok(());
        }
        let written = write(db, &seen).await;
        if written.is_err() {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
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
