//! Wake-ups between the processes that share a PostgreSQL database.
//!
//! Nothing here runs inside a write transaction, because a NOTIFY there makes commits take turns. Changes are
//! passed on after their commit, coalesced; and once a second each process asks whether any sequence has moved, so
//! that a lost wake-up costs a second and never a change.

use std::collections::BTreeSet;
use std::time::Duration;

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id};
use sqlx::postgres::PgListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{Db, Pool};
use crate::error::StorageError;
use crate::query::query;

const CHANNEL: &str = "agentrouter_changes";
/// How long changes are collected before they are passed on.
const COALESCE: Duration = Duration::from_millis(10);
const SAFETY_POLL: Duration = Duration::from_secs(1);
/// Ids of one notification; its payload may have at most 8000 bytes.
const IDS_MAX: usize = 200;

/// Passes wake-ups on until `shutdown`. Returns at once on SQLite, which one process has for itself.
pub async fn run(db: &Db, shutdown: &CancellationToken) {
    let Pool::Postgres(pool) = db.pool() else { return };
    while !shutdown.is_cancelled() {
        let outcome = match PgListener::connect_with(pool).await {
            Ok(listener) => pass_on(db, listener, shutdown).await,
            Err(error) => Err(StorageError::from(error)),
        };
        if let Err(error) = outcome {
            tracing::warn!(error = %Fault::from(error), "wake-ups between processes are interrupted");
            // Whatever was missed meanwhile is found now.
            db.notifier().announce_all();
            tokio::select! {
                () = tokio::time::sleep(SAFETY_POLL) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }
}

async fn pass_on(
    db: &Db,
    mut listener: PgListener,
    shutdown: &CancellationToken,
) -> Result<(), StorageError> {
    const NOTIFY: &str = "SELECT pg_notify($1, $2)";
    const MOVED: &str = "SELECT CAST(COALESCE(SUM(head), 0) AS BIGINT) AS value FROM customer_sequences";
    listener.listen(CHANNEL).await?;
    let mut outgoing = db.notifier().outgoing();
    let mut waiting = BTreeSet::new();
    let mut coalesce = tokio::time::interval(COALESCE);
    let mut safety = tokio::time::interval(SAFETY_POLL);
    coalesce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    safety.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut moved = None;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            notification = listener.try_recv() => match notification? {
                Some(notification) => hear(db, notification.payload()),
                // The connection was lost and is made anew; whatever was announced meanwhile is found now.
                None => db.notifier().announce_all(),
            },
            change = outgoing.recv() => match change {
                Ok(customer) => { waiting.insert(customer.uuid()); }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = coalesce.tick(), if !waiting.is_empty() => {
                let ids: Vec<Uuid> = waiting.iter().copied().take(IDS_MAX).collect();
                let payload = ids.iter().map(|id| id.simple().to_string()).collect::<Vec<_>>().join(",");
                db.read(query(NOTIFY).bind(CHANNEL).bind(payload)).await?;
                waiting.retain(|id| !ids.contains(id));
            }
            _ = safety.tick() => {
                let now = query(MOVED).value::<i64>(db).await?;
                if moved.is_some() && moved != now {
                    db.notifier().announce_all();
                }
                moved = now;
            }
        }
    }
}

fn hear(db: &Db, payload: &str) {
    for id in payload.split(',').filter_map(|text| Uuid::try_parse(text).ok()) {
        db.notifier().announce_from_elsewhere(Id::<Customer>::from_uuid(id));
    }
}
