//! Wake-ups between the processes that share a PostgreSQL database.
//!
//! Nothing here runs inside a write transaction, because a NOTIFY there makes commits take turns. Changes are
//! passed on after their commit, coalesced; and once a second each process asks in one statement whether the sequence of
//! a customer that somebody waits for has moved, so that a lost wake-up costs a second and never a change.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_telemetry::metrics::Wakeup;
use sqlx::postgres::PgListener;
use tokio::sync::broadcast;
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
/// Stands in a notification for the ids of all customers.
const ANYBODY: &str = "*";
/// How long changes are collected before they are passed on.
const COALESCE: Duration = Duration::from_millis(10);
const SAFETY_POLL: Duration = Duration::from_secs(1);
/// Ids of one notification; its payload may have at most 8000 bytes.
const IDS_MAX: usize = 200;

/// Passes wake-ups on until `shutdown`. Returns at once on SQLite, which one process has for itself.
pub async fn run(db: &Db, shutdown: &CancellationToken) {
    let Pool::Postgres(pool) = db.pool() else { return };
    // Kept while the database is away: who waits elsewhere hears of it late rather than never.
    let mut outgoing = Outgoing { changes: db.notifier().outgoing(), waiting: Waiting::default() };
    while !shutdown.is_cancelled() {
        let outcome = match PgListener::connect_with(pool).await {
            Ok(listener) => pass_on(db, listener, &mut outgoing, shutdown).await,
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

/// Changes of this process on their way to the others.
struct Outgoing {
    changes: broadcast::Receiver<Id<Customer>>,
    waiting: Waiting,
}

/// Whose changes are to be passed on.
#[derive(Debug, Default, PartialEq)]
struct Waiting {
    customers: BTreeSet<Uuid>,
    /// Anybody's: there were more than could be kept apart.
    all: bool,
}

impl Waiting {
    fn is_empty(&self) -> bool {
        self.customers.is_empty() && !self.all
    }

    /// What the next notification names, and all that is left after it.
    fn next(&self) -> (String, Self) {
        if self.all {
            return (ANYBODY.to_owned(), Self::default());
        }
        let names: Vec<_> = self.customers.iter().take(IDS_MAX).map(|id| id.simple().to_string()).collect();
        let rest = self.customers.iter().skip(IDS_MAX).copied().collect();
        (names.join(","), Self { customers: rest, all: false })
    }
}

async fn pass_on(
    db: &Db,
    mut listener: PgListener,
    Outgoing { changes, waiting }: &mut Outgoing,
    shutdown: &CancellationToken,
) -> Result<(), StorageError> {
    const NOTIFY: &str = "SELECT pg_notify($1, $2)";
    listener.listen(CHANNEL).await?;
    let wakeups = &db.telemetry().metrics().wakeups;
    let mut coalesce = tokio::time::interval(COALESCE);
    let mut safety = tokio::time::interval(SAFETY_POLL);
    coalesce.set_missed_tick_behavior(MissedTickBehavior::Delay);
    safety.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut known = Known::default();
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
            change = changes.recv() => match change {
                Ok(customer) => { waiting.customers.insert(customer.uuid()); }
                Err(RecvError::Lagged(_)) => waiting.all = true,
                Err(RecvError::Closed) => return Ok(()),
            },
            _ = coalesce.tick(), if !waiting.is_empty() => {
                let (names, rest) = waiting.next();
                db.read(query(NOTIFY).bind(CHANNEL).bind(format!("{origin},{names}"))).await?;
                wakeups.notifications.inc();
                *waiting = rest;
            }
            _ = safety.tick() => look(db, &mut known).await?,
        }
    }
}

/// What the last safety polls found.
#[derive(Default)]
struct Known {
    /// The sequences of the customers that somebody waited for.
    heads: HashMap<Id<Customer>, i64>,
    /// The sum of all sequences, at the last poll and the one before.
    sums: [Option<i64>; 2],
}

crate::row! {
    struct Head {
        customer_id: Option<Id<Customer>>,
        head: i64,
    }
}

/// Wakes those whose customer's sequence has moved since the last time.
///
/// Of a customer that nobody waited for then, it is not known. But whoever waits now has read for himself since the
/// poll before the last, so where no sequence at all has moved since that, nothing was missed.
async fn look(db: &Db, known: &mut Known) -> Result<(), StorageError> {
    const HEADS: &str = "SELECT customer_id, head FROM customer_sequences WHERE customer_id = ANY($1) \
         UNION ALL SELECT CAST(NULL AS UUID), CAST(COALESCE(SUM(head), 0) AS BIGINT) FROM customer_sequences";
    let wakeups = &db.telemetry().metrics().wakeups;
    wakeups.safety_polls.inc();
    let awaited = db.notifier().awaited().iter().map(|id| id.uuid()).collect();
    let rows: Vec<Head> = query(HEADS).bind(Value::Uuids(awaited)).all(db).await?;
    let sum = rows.iter().find(|row| row.customer_id.is_none()).map(|row| row.head);
    let [last, before] = known.sums;
    let is_quiet = sum == before;
    let heads: HashMap<_, _> = rows.iter().filter_map(|row| Some((row.customer_id?, row.head))).collect();
    for (customer, head) in &heads {
        let has_moved = known.heads.get(customer).map_or(!is_quiet, |known| known != head);
        if has_moved {
            wakeups.woken(Wakeup::SafetyPoll);
            db.notifier().announce_from_elsewhere(*customer);
        }
    }
    *known = Known { heads, sums: [sum, last] };
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
    if ids == ANYBODY {
        return all(db, Wakeup::Replica);
    }
    for id in ids.split(',').filter_map(|text| Uuid::try_parse(text).ok()) {
        db.telemetry().metrics().wakeups.woken(Wakeup::Replica);
        db.notifier().announce_from_elsewhere(Id::<Customer>::from_uuid(id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_changes_take_many_notifications_and_too_many_take_one() {
        let customers: BTreeSet<_> = (0..450).map(Uuid::from_u128).collect();
        let mut waiting = Waiting { customers: customers.clone(), all: false };
        let (mut told, mut notifications) = (BTreeSet::new(), 0);
        while !waiting.is_empty() {
            let (names, rest) = waiting.next();
            assert!(names.len() < 7900, "a payload has at most 8000 bytes");
            told.extend(names.split(',').map(|name| Uuid::try_parse(name).expect("an id")));
            (waiting, notifications) = (rest, notifications + 1);
        }
        assert_eq!((told, notifications), (customers.clone(), 3));
        let overflown = Waiting { customers, all: true };
        assert_eq!(overflown.next(), (ANYBODY.to_owned(), Waiting::default()));
    }
}
