//! What a watch reads: the events of a workspace that wait for a worker, from where it stood on.
//!
//! An event carries the number under which it was last offered to its workspace, and is offered again whenever it
//! becomes pending. The number is taken under the lock of the workspace, so whoever has read up to a number has seen all
//! there was up to it. An event that waits for an older one of its slot is held back and named, and follows once it
//! can be claimed.

use std::collections::HashMap;
use std::time::Duration;

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, FromRow, Row, Sql, StorageError, Value, query, row};
use uuid::Uuid;

use crate::event::{EventRow, select_events};
use crate::poll;

/// The most events that a watch holds back; it reads no further until one of them can be claimed.
const HELD_BACK_MAX: usize = 64;
/// The most events that are read for many watches at once, where there are fewer than half as many watches.
const TOGETHER_MAX: usize = 1_000;

/// Where a watch stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Position {
    /// The number of the last event it has read.
    pub offered: i64,
    /// That event's place in the sequence of the customer.
    pub position: i64,
    /// That event.
    pub event: Uuid,
    /// The events up to there that could not be claimed yet.
    pub held_back: Vec<Id<Event>>,
}

#[derive(Debug)]
struct Waiting {
    event: EventRow,
    is_blocked: bool,
}

impl FromRow for Waiting {
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        Ok(Self { event: EventRow::from_row(row)?, is_blocked: row.get("is_blocked")? })
    }
}

/// Reads on from a position, in what is laid out: the events that can be claimed now and were not given out from there before, in the order
/// in which they were offered. Moves the position past them.
pub async fn read_on(
    db: &Db,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    at: &mut Position,
    limit: i64,
) -> Result<Vec<EventRow>, StorageError> {
    const WAITING: Sql = Sql::Each {
        sqlite: concat!(
            "SELECT x.*, EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = x.workspace_id \
                 AND o.configuration_id = x.configuration_id AND o.status = 'acknowledged') AS is_blocked FROM (",
            select_events!(
                "WHERE e.workspace_id = $1 AND w.customer_id = $2 AND e.is_open = TRUE AND e.status = 'pending' \
                 AND ((e.offered, e.position, e.id) > ($3, $4, $5) OR e.id IN (SELECT unhex(value) FROM json_each($6)))"
            ),
            ") x ORDER BY x.offered, x.position, x.id LIMIT $7"
        ),
        postgres: concat!(
            "SELECT x.*, EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = x.workspace_id \
                 AND o.configuration_id = x.configuration_id AND o.status = 'acknowledged') AS is_blocked FROM (",
            select_events!(
                "WHERE e.workspace_id = $1 AND w.customer_id = $2 AND e.is_open = TRUE AND e.status = 'pending' \
                 AND ((e.offered, e.position, e.id) > ($3, $4, $5) OR e.id = ANY($6))"
            ),
            ") x ORDER BY x.offered, x.position, x.id LIMIT $7"
        ),
    };
    let waiting: Vec<Waiting> = query(WAITING)
        .bind(workspace)
        .bind(customer)
        .bind(at.offered)
        .bind(at.position)
        .bind(at.event)
        .bind(Value::Uuids(at.held_back.iter().map(|id| id.uuid()).collect()))
        .bind(limit)
        .all(db)
        .await?;
    Ok(at.pass(waiting))
}

impl Position {
    fn place(&self) -> (i64, i64, Uuid) {
        (self.offered, self.position, self.event)
    }

    /// Moves past events that stand in the order in which they were offered. Returns those that can be claimed now; the
    /// others are held back.
    fn pass(&mut self, waiting: Vec<Waiting>) -> Vec<EventRow> {
        let mut events = Vec::with_capacity(waiting.len());
        let mut held_back = Vec::new();
        for Waiting { event, is_blocked } in waiting {
            if is_blocked {
                if held_back.len() == HELD_BACK_MAX {
                    break;
                }
                held_back.push(event.id);
            }
            (self.offered, self.position, self.event) = self.place().max(place(&event));
            if !is_blocked {
                events.push(event);
            }
        }
        // What was held back and is not pending any more has been superseded or claimed by somebody.
        self.held_back = held_back;
        events
    }
}

fn place(event: &EventRow) -> (i64, i64, Uuid) {
    (event.offered, event.position, event.id.uuid())
}

/// What was offered to many workspaces of a customer, read by one statement for the watches of all of them.
#[derive(Debug, Default)]
pub struct Together(HashMap<Id<Workspace>, Part>);

#[derive(Debug)]
struct Part {
    since: i64,
    waiting: Vec<Waiting>,
}

impl Together {
    /// Reads what was offered to each workspace since a number. Where that is too much for one statement, nothing is
    /// read, and each watch reads for itself.
    pub async fn read(
        db: &Db,
        customer: Id<Customer>,
        since: impl IntoIterator<Item = (Id<Workspace>, i64)>,
    ) -> Result<Self, StorageError> {
        const WAITING: Sql = Sql::Each {
            sqlite: concat!(
                "SELECT x.*, EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = x.workspace_id \
                     AND o.configuration_id = x.configuration_id AND o.status = 'acknowledged') AS is_blocked FROM (",
                select_events!(
                    "WHERE e.workspace_id IN (SELECT unhex(value) FROM json_each($1)) AND w.customer_id = $2 \
                     AND e.is_open = TRUE AND e.status = 'pending'"
                ),
                ") x ORDER BY x.offered, x.position, x.id LIMIT $3"
            ),
            postgres: concat!(
                "SELECT x.*, EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = x.workspace_id \
                     AND o.configuration_id = x.configuration_id AND o.status = 'acknowledged') AS is_blocked FROM (",
                select_events!(
                    "WHERE e.workspace_id = ANY($1) AND w.customer_id = $2 AND e.is_open = TRUE AND e.status = 'pending'"
                ),
                ") x ORDER BY x.offered, x.position, x.id LIMIT $3"
            ),
        };
        let mut parts: HashMap<_, _> = since
            .into_iter()
            .map(|(workspace, since)| (workspace, Part { since, waiting: Vec::new() }))
            .collect();
        let limit = TOGETHER_MAX.max(parts.len().saturating_mul(2));
        let waiting: Vec<Waiting> = query(WAITING)
            .bind(Value::Uuids(parts.keys().map(|id| id.uuid()).collect()))
            .bind(customer)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .all(db)
            .await?;
        if waiting.len() >= limit {
            return Ok(Self::default());
        }
        for waiting in waiting {
            if let Some(part) = parts.get_mut(&waiting.event.workspace_id)
                && waiting.event.offered > part.since
            {
                part.waiting.push(waiting);
            }
        }
        Ok(Self(parts))
    }

    /// What [`read_on`] would read for a watch that has seen everything up to a number and holds nothing back. None
    /// where it has to read for itself. Each part is given out once.
    pub fn take(
        &mut self,
        workspace: Id<Workspace>,
        seen: i64,
        at: &mut Position,
        limit: i64,
    ) -> Option<Vec<EventRow>> {
        let part = self.0.get(&workspace)?;
        let fits = i64::try_from(part.waiting.len()).is_ok_and(|length| length < limit);
        if !fits || part.since != seen || !at.held_back.is_empty() {
            return None;
        }
        let mut waiting = self.0.remove(&workspace)?.waiting;
        if self.0.is_empty() {
            self.0.shrink_to_fit();
        }
        // The watch may have read further than the number that it had heard of.
        waiting.retain(|waiting| place(&waiting.event) > at.place());
        Some(at.pass(waiting))
    }
}

/// How far the offers of a workspace have come. What was offered and not laid out yet is laid out before.
pub async fn offered(
    db: &Db,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
) -> Result<Option<i64>, StorageError> {
    const OFFERED: &str =
        "SELECT offered AS value FROM workspace_sync WHERE customer_id = $1 AND workspace_id = $2";
    poll::catch_up(db, customer, workspace).await?;
    query(OFFERED).bind(customer).bind(workspace).value(db).await
}

/// How far the offers of all workspaces of a customer have come, after laying out what was offered to them: what one
/// statement tells many watches.
pub async fn offered_to_all(
    db: &Db,
    customer: Id<Customer>,
) -> Result<HashMap<Id<Workspace>, i64>, StorageError> {
    row! {
        struct Offered {
            workspace_id: Id<Workspace>,
            offered: i64,
        }
    }
    const OFFERED: &str = "SELECT workspace_id, offered FROM workspace_sync WHERE customer_id = $1";
    poll::catch_up_customer(db, customer).await?;
    let rows: Vec<Offered> = query(OFFERED).bind(customer).all(db).await?;
    Ok(rows.into_iter().map(|row| (row.workspace_id, row.offered)).collect())
}

row! {
    struct Waning {
        id: Id<Event>,
        workspace_id: Id<Workspace>,
        worker_id: String,
        claim_token: Uuid,
    }
}

/// The part of its lease that a claim has left when it is renewed is a half, and at least this.
const RENEWED_BEFORE: Duration = Duration::from_secs(3);

/// Renews the claims of workers of which `is_watching` holds, once half of their lease is over. Returns how many there
/// were. To be called once a second: then leases of two seconds and more hold.
///
/// Only claims that are still good are renewed, for the time they were made for.
pub async fn renew_watched(
    db: &Db,
    is_watching: impl Fn(Id<Workspace>, &str) -> bool,
) -> Result<u64, StorageError> {
    const WANING: &str = "SELECT id, workspace_id, worker_id, claim_token FROM liaison_configuration_events \
         WHERE due_at IS NOT NULL AND due_at > :now AND status = 'acknowledged' AND worker_id <> '' \
         AND due_at <= :now + CASE WHEN lease_micros > 2 * CAST($1 AS BIGINT) \
             THEN lease_micros / 2 ELSE CAST($1 AS BIGINT) END";
    // Rows are locked in the order of their ids, as batches do it.
    const RENEW: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET due_at = :now + lease_micros \
             WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND claim_token IN (SELECT unhex(value) FROM json_each($2)) \
             AND status = 'acknowledged' AND due_at > :now",
        postgres: "WITH held AS MATERIALIZED (SELECT id FROM liaison_configuration_events WHERE id = ANY($1) \
                 ORDER BY id FOR UPDATE) \
             UPDATE liaison_configuration_events SET due_at = :now + lease_micros FROM held \
             WHERE liaison_configuration_events.id = held.id AND claim_token = ANY($2) \
             AND status = 'acknowledged' AND due_at > :now",
    };
    let before = i64::try_from(RENEWED_BEFORE.as_micros()).unwrap_or(i64::MAX);
    let waning: Vec<Waning> = query(WANING).bind(before).all(db).await?;
    let of_watching = waning.iter().filter(|claim| is_watching(claim.workspace_id, &claim.worker_id));
    let (ids, tokens): (Vec<_>, Vec<_>) =
        of_watching.map(|claim| (claim.id.uuid(), claim.claim_token)).unzip();
    if ids.is_empty() {
        return Ok(0);
    }
    let mut tx = db.begin().await?;
    let renewed = query(RENEW).bind(Value::Uuids(ids)).bind(Value::Uuids(tokens)).execute(&mut tx).await?;
    tx.commit_unaudited("the event rows tell").await?;
    Ok(renewed)
}
