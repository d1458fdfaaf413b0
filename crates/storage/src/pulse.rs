//! Wake-ups between the processes that share a PostgreSQL database.
//!
//! Nothing here runs inside a write transaction, because a NOTIFY there makes commits take turns. Changes are
//! passed on after their commit, coalesced; and once a second each process asks in one statement whether the sequence
//! of a customer that somebody waits for has moved, so that a lost wake-up costs a second and never a change.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_telemetry::metrics::Wakeup;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{Db, Pool};
use crate::error::StorageError;
use crate::query::query;
use crate::value::Value;

const CHANNEL: &str = "agentrouter_changes";
/// Begins a notification, before the id of the process that sent it.
const ORIGIN: &str = "from:";
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
            all(db, Wakeup::Reconnect);
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
    listener.listen(CHANNEL).await?;
    let wakeups = &db.telemetry().metrics().wakeups;
    let mut outgoing = db.notifier().outgoing();
    let mut waiting = BTreeSet::new();
    let mut coalesce = tokio::time::interval(COALESCE);
    let mut safety = tokio::time::interval(SAFETY_POLL);
    coalesce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    safety.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut heads = HashMap::new();
    // Its own notifications come back to a process, which has told its waiters already.
    let origin = format!("{ORIGIN}{}", Id::<Customer>::new(db.clock_now()));
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            notification = listener.try_recv() => match notification? {
                Some(notification) => hear(db, notification.payload(), &origin),
                // The connection was lost and is made anew; whatever was announced meanwhile is found now.
                None => all(db, Wakeup::Reconnect),
            },
            change = outgoing.recv() => match change {
                Ok(customer) => { waiting.insert(customer.uuid()); }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = coalesce.tick(), if !waiting.is_empty() => {
                let ids: Vec<Uuid> = waiting.iter().copied().take(IDS_MAX).collect();
                let payload = ids.iter().fold(origin.clone(), |text, id| format!("{text},{}", id.simple()));
                db.read(query(NOTIFY).bind(CHANNEL).bind(payload)).await?;
                wakeups.notifications.inc();
                waiting.retain(|id| !ids.contains(id));
            }
            _ = safety.tick() => look(db, &mut heads).await?,
        }
    }
}

crate::row! {
    struct Head {
        customer_id: Id<Customer>,
        head: i64,
    }
}

/// Asks what moved since the last time, of those customers that somebody waits for. Who was not waited for then may
/// have moved unseen between the waiter's first read and now, and is announced, too.
async fn look(db: &Db, heads: &mut HashMap<Id<Customer>, i64>) -> Result<(), StorageError> {
    const HEADS: &str = "SELECT customer_id, head FROM customer_sequences WHERE customer_id = ANY($1)";
    let awaited = db.notifier().awaited();
    if awaited.is_empty() {
        heads.clear();
        return Ok(());
    }
    let wakeups = &db.telemetry().metrics().wakeups;
    wakeups.safety_polls.inc();
    let ids = awaited.iter().map(|id| id.uuid()).collect();
    let now: Vec<Head> = query(HEADS).bind(Value::Uuids(ids)).all(db).await?;
    let now: HashMap<_, _> = now.into_iter().map(|row| (row.customer_id, row.head)).collect();
    for (customer, head) in &now {
        if heads.get(customer) != Some(head) {
            wakeups.woken(Wakeup::SafetyPoll);
            db.notifier().announce_from_elsewhere(*customer);
        }
    }
    *heads = now;
    Ok(())
}

fn all(db: &Db, source: Wakeup) {
    db.telemetry().metrics().wakeups.woken(source);
    db.notifier().announce_all();
}

fn hear(db: &Db, payload: &str, own_origin: &str) {
    let (origin, ids) = payload.split_once(',').unwrap_or_default();
    if origin == own_origin {
        return;
    }
    for id in ids.split(',').filter_map(|text| Uuid::try_parse(text).ok()) {
        db.telemetry().metrics().wakeups.woken(Wakeup::Replica);
        db.notifier().announce_from_elsewhere(Id::<Customer>::from_uuid(id));
    }
}
