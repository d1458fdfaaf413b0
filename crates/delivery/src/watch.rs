//! What a watch reads: the events of a workspace that wait for a worker, from where it stood on.
//!
//! An event carries the number under which it was last offered to its workspace, and is offered again whenever it
//! becomes pending. The number is taken under the lock of the workspace, so whoever has read up to a number has seen all
//! there was up to it. An event that waits for an older one of its slot is held back and named, and follows once it
//! can be claimed.

use std::collections::HashMap;

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, FromRow, Row, Sql, StorageError, Value, query, row};
use uuid::Uuid;

use crate::event::{EventRow, select_events};
use crate::poll;

/// The most events that a watch holds back; it reads no further until one of them can be claimed.
const HELD_BACK_MAX: usize = 64;

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
    let mut events = Vec::with_capacity(waiting.len());
    let mut held_back = Vec::new();
    for Waiting { event, is_blocked } in waiting {
        if is_blocked {
            if held_back.len() == HELD_BACK_MAX {
                break;
            }
            held_back.push(event.id);
        }
        let place = (event.offered, event.position, event.id.uuid());
        if place > (at.offered, at.position, at.event) {
            (at.offered, at.position, at.event) = place;
        }
        if !is_blocked {
            events.push(event);
        }
    }
    // What was held back and is not pending any more has been superseded or claimed by somebody.
    at.held_back = held_back;
    Ok(events)
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

/// Renews the claims that workers hold while they watch: `(workspace, worker)` pairs. Returns how many there were.
///
/// One statement for all of them. Only claims that are still good are renewed, for the time they were made for.
pub async fn renew_watched(db: &Db, watched: &[(Id<Workspace>, String)]) -> Result<u64, StorageError> {
    const RENEW: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET due_at = :now + lease_micros \
             FROM (SELECT unhex(value ->> 0) AS workspace_id, value ->> 1 AS worker_id FROM json_each($1)) AS d \
             WHERE liaison_configuration_events.workspace_id = d.workspace_id \
             AND liaison_configuration_events.worker_id = d.worker_id AND status = 'acknowledged' AND due_at > :now",
        postgres: "UPDATE liaison_configuration_events SET due_at = :now + lease_micros \
             FROM (SELECT CAST(value ->> 0 AS uuid) AS workspace_id, value ->> 1 AS worker_id \
                 FROM jsonb_array_elements(CAST($1 AS jsonb))) AS d \
             WHERE liaison_configuration_events.workspace_id = d.workspace_id \
             AND liaison_configuration_events.worker_id = d.worker_id AND status = 'acknowledged' AND due_at > :now",
    };
    let pairs: serde_json::Value = watched
        .iter()
        .filter(|(_, worker)| !worker.is_empty())
        .map(|(workspace, worker)| serde_json::json!([workspace.uuid().simple().to_string(), worker]))
        .collect();
    if pairs.as_array().is_none_or(Vec::is_empty) {
        return Ok(0);
    }
    let mut tx = db.begin().await?;
    let renewed = query(RENEW).bind(pairs.to_string()).execute(&mut tx).await?;
    tx.commit_unaudited("the event rows tell").await?;
    Ok(renewed)
}
