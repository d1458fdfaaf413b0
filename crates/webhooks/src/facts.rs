//! Workspaces that went offline, and those that are back: found by looking, because nothing happens when a worker stops
//! calling.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentrouter_delivery::signal::ONLINE_WITHIN;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Db, Source, StorageError, Tx, query, row};
use serde_json::{Value, json};

use crate::model::EventType;
use crate::queue::Outbox;

/// How many workspaces one transaction tells of.
const STEP: i64 = 200;
/// A look that comes later than this after the one before did not see what was in between.
const GAP: Duration = Duration::from_secs(30);

/// Since when this process has been watching, without a gap.
///
/// While no server runs, or none reaches the database, no worker can call: the workspaces are not to blame. So nobody
/// is reported offline who had less than the whole threshold to call while somebody was there to hear it.
#[derive(Debug, Default)]
pub struct Watching(Mutex<Option<(Timestamp, Timestamp)>>);

impl Watching {
    fn look(&self, now: Timestamp) -> Timestamp {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = match *seen {
            Some((since, last)) if now.since(last) <= GAP && now >= last => since,
            _ => now,
        };
        *seen = Some((since, now));
        since
    }
}

/// Tells of workspaces whose presence changed. Returns how many that were.
///
/// # Errors
/// Those of any statement; the next call goes on.
pub async fn tell_presence(db: &Db, watching: &Watching) -> Result<usize, Fault> {
    let now = db.now().await?;
    let since = watching.look(now);
    let mut told = tell(db, Presence::Online).await?;
    if now.since(since) > ONLINE_WITHIN {
        told += tell(db, Presence::Offline).await?;
    }
    Ok(told)
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Presence {
    Offline,
    Online,
}

row! {
    #[derive(Debug)]
    struct Found {
        workspace_id: Id<Workspace>,
        customer_id: Id<Customer>,
        workspace_slug: String,
        customer_slug: String,
        display_name: String,
        last_seen_at: Timestamp,
        is_archived: bool,
    }
}

impl Found {
    fn data(&self) -> Value {
        json!({
            "customer_id": self.customer_slug,
            "workspace_id": self.workspace_slug,
            "workspace_row_id": self.workspace_id.to_string(),
            "display_name": self.display_name,
            "last_seen_at": self.last_seen_at.to_string(),
        })
    }
}

async fn tell(db: &Db, presence: Presence) -> Result<usize, Fault> {
    let mut told = 0;
    // A look of its own, so that a quiet fleet costs no transaction.
    while !find(db, presence, 1).await?.is_empty() {
        let mut tx = db.begin().await?;
        // Replicas take turns, and whoever comes second finds nothing left.
        tx.lock("webhook-presence").await?;
        let found = find(&mut tx, presence, STEP).await?;
        let mut outbox = Outbox::default();
        for found in &found {
            match presence {
                Presence::Offline => {
                    note_offline(&mut tx, found).await?;
                    outbox
                        .tell(&mut tx, found.customer_id, EventType::WorkspaceOffline, &found.data())
                        .await?;
                }
                Presence::Online => {
                    forget_offline(&mut tx, found).await?;
                    if !found.is_archived {
                        let data = found.data();
                        outbox.tell(&mut tx, found.customer_id, EventType::WorkspaceOnline, &data).await?;
                    }
                }
            }
        }
        tx.commit_unaudited("nobody did anything").await?;
        told += found.len();
    }
    Ok(told)
}

async fn find(source: impl Source, presence: Presence, limit: i64) -> Result<Vec<Found>, StorageError> {
    const OFFLINE: &str = "SELECT y.workspace_id, y.customer_id, w.slug AS workspace_slug, c.slug AS customer_slug, \
             w.display_name, y.last_seen_at, FALSE AS is_archived \
         FROM workspace_sync y JOIN workspaces w ON w.id = y.workspace_id JOIN customers c ON c.id = y.customer_id \
         WHERE y.last_seen_at < :now - $1 AND w.deleted_at IS NULL AND c.deleted_at IS NULL \
         AND NOT EXISTS (SELECT 1 FROM webhook_offline_workspaces o WHERE o.workspace_id = y.workspace_id) LIMIT $2";
    // Archived ones are forgotten without a word.
    const ONLINE: &str = "SELECT o.workspace_id, o.customer_id, w.slug AS workspace_slug, c.slug AS customer_slug, \
             w.display_name, y.last_seen_at, (w.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL) AS is_archived \
         FROM webhook_offline_workspaces o JOIN workspace_sync y ON y.workspace_id = o.workspace_id \
         JOIN workspaces w ON w.id = o.workspace_id JOIN customers c ON c.id = o.customer_id \
         WHERE y.last_seen_at >= :now - $1 OR w.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL LIMIT $2";
    let statement = match presence {
        Presence::Offline => OFFLINE,
        Presence::Online => ONLINE,
    };
    let threshold = i64::try_from(ONLINE_WITHIN.as_micros()).unwrap_or(i64::MAX);
    query(statement).bind(threshold).bind(limit).all(source).await
}

async fn note_offline(tx: &mut Tx, found: &Found) -> Result<(), StorageError> {
    const NOTE: &str = "INSERT INTO webhook_offline_workspaces (workspace_id, customer_id, last_seen_at, told_at) \
         VALUES ($1, $2, $3, :now)";
    query(NOTE).bind(found.workspace_id).bind(found.customer_id).bind(found.last_seen_at).execute(tx).await?;
    Ok(())
}

async fn forget_offline(tx: &mut Tx, found: &Found) -> Result<(), StorageError> {
    const FORGET: &str =
        "DELETE FROM webhook_offline_workspaces WHERE customer_id = $1 AND workspace_id = $2";
    query(FORGET).bind(found.customer_id).bind(found.workspace_id).execute(tx).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_begins_the_watch_anew() {
        let watching = Watching::default();
        let at = Timestamp::from_secs;
        assert_eq!(watching.look(at(100)), at(100));
        assert_eq!(watching.look(at(130)), at(100));
        assert_eq!(watching.look(at(161)), at(161), "nobody looked for 31 s");
        assert_eq!(watching.look(at(170)), at(161));
        assert_eq!(watching.look(at(169)), at(169), "a clock that goes back tells nothing");
    }
}
