//! Laying out events: writing the rows of deliveries that a version implies.

use agentrouter_api::configurator::EventType;
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::scope::WorkspaceScope;
use agentrouter_storage::{Sql, StorageError, Tx, Value, query, row};
use serde_json::json;

use crate::names::event_type_name;
use crate::version::{Audience, ConfigurationRow, next_position};
use crate::{event_id, observe};

/// One delivery to write.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    id: Id<Event>,
    workspace: Id<Workspace>,
    configuration: Id<Configuration>,
    /// Named, not looked up when the event is written: by then there may be a newer one, which comes on its own.
    version: i64,
    position: i64,
}

impl Delivery {
    /// The newest version of a slot to a workspace, under the id that follows from it.
    pub(crate) fn newest(configuration: &ConfigurationRow, workspace: &WorkspaceScope) -> Self {
        Self {
            id: event_id::derive(configuration.updated_at, workspace.number, configuration.position),
            workspace: workspace.id,
            configuration: configuration.id,
            version: configuration.version,
            position: configuration.position,
        }
    }

    /// A version to a workspace once more, under an id of its own.
    pub(crate) fn again(
        workspace: Id<Workspace>,
        configuration: Id<Configuration>,
        version: i64,
        position: i64,
        now: Timestamp,
    ) -> Self {
        Self { id: Id::new(now), workspace, configuration, version, position }
    }

    fn to_json(&self) -> serde_json::Value {
        let [id, workspace, configuration] =
            [self.id.uuid(), self.workspace.uuid(), self.configuration.uuid()]
                .map(|id| id.simple().to_string());
        json!([id, workspace, configuration, self.version, self.position])
    }
}

/// The deliveries of a statement as rows `d`, read from the JSON in `$1`. One array of rows and not an array per column:
/// SQLite would compare every row of one with every row of the next.
macro_rules! deliveries_sqlite {
    () => {
        "(SELECT unhex(value ->> 0) AS id, unhex(value ->> 1) AS workspace_id, unhex(value ->> 2) AS configuration_id, \
             value ->> 3 AS version, value ->> 4 AS position FROM json_each($1)) AS d"
    };
}

/// [`deliveries_sqlite`] for PostgreSQL.
macro_rules! deliveries_postgres {
    () => {
        "(SELECT CAST(value ->> 0 AS uuid) AS id, CAST(value ->> 1 AS uuid) AS workspace_id, \
             CAST(value ->> 2 AS uuid) AS configuration_id, CAST(value ->> 3 AS bigint) AS version, \
             CAST(value ->> 4 AS bigint) AS position FROM jsonb_array_elements(CAST($1 AS jsonb))) AS d"
    };
}

row! {
    struct Behind {
        workspace_id: Id<Workspace>,
        number: i64,
        position: i64,
    }
}

impl Behind {
    /// The last position it has seen. A new workspace gets slots that were never offered to all, too.
    fn seen(&self) -> i64 {
        if self.position == 0 { -1 } else { self.position }
    }
}

row! {
    struct Offered {
        id: Id<Configuration>,
        workspace_id: Option<Id<Workspace>>,
        version: i64,
        position: i64,
        broadcast_position: i64,
        deleted: bool,
        updated_at: Timestamp,
    }
}

/// Whether the newest version of a slot is still to be laid out for a workspace that this was last done for at
/// `position`. Such a version waits for the worker as much as one that has its event.
pub fn is_outstanding(broadcast_position: i64, deleted: bool, position: i64) -> bool {
    // A new workspace gets slots that were never offered to all, too, and has nothing to delete. What belongs to one
    // workspace is delivered to it directly.
    if position == 0 { broadcast_position >= 0 && !deleted } else { broadcast_position > position }
}

/// Lays out what was offered to one workspace since it was last done. Returns how many events there are new.
pub async fn lay_out_workspace(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
) -> Result<usize, StorageError> {
    // Updating takes the row's lock, so two polls of one workspace take turns.
    const TAKE: &str = "UPDATE workspace_sync SET offered = offered + 1 \
         WHERE workspace_id = $1 AND EXISTS (SELECT 1 FROM liaison_configurations c WHERE c.customer_id = $2 \
             AND c.broadcast_position > CASE workspace_sync.position WHEN 0 THEN -1 ELSE workspace_sync.position END) \
         RETURNING workspace_id, position, (SELECT number FROM workspaces WHERE id = $1) AS number";
    let behind: Vec<Behind> = query(TAKE).bind(workspace).bind(customer).all(&mut *tx).await?;
    lay_out(tx, customer, &behind).await
}

/// The live workspaces of a customer to which something is to be laid out.
macro_rules! behind {
    () => {
        "SELECT s.workspace_id FROM workspace_sync s JOIN workspaces w ON w.id = s.workspace_id \
         WHERE s.customer_id = $1 AND w.deleted_at IS NULL \
         AND s.position < (SELECT MAX(c.broadcast_position) + CASE MAX(c.broadcast_position) WHEN 0 THEN 1 ELSE 0 END \
             FROM liaison_configurations c WHERE c.customer_id = $1) \
         ORDER BY s.workspace_id LIMIT $2"
    };
}

/// Lays out what was offered to all live workspaces of a customer, `limit` workspaces at a time. Returns
/// whether there may be more.
pub async fn lay_out_customer(tx: &mut Tx, customer: Id<Customer>, limit: i64) -> Result<bool, StorageError> {
    // Rows are locked in one order, and those that another process has laid out meanwhile are passed over.
    const TAKE: Sql = Sql::Each {
        sqlite: concat!(
            "UPDATE workspace_sync SET offered = offered + 1 WHERE workspace_id IN (",
            behind!(),
            ") RETURNING workspace_id, position, \
                 (SELECT number FROM workspaces w WHERE w.id = workspace_sync.workspace_id) AS number"
        ),
        postgres: concat!(
            "WITH behind AS MATERIALIZED (",
            behind!(),
            " FOR UPDATE OF s) UPDATE workspace_sync SET offered = offered + 1 FROM behind \
             WHERE workspace_sync.workspace_id = behind.workspace_id \
             RETURNING workspace_sync.workspace_id, position, \
                 (SELECT number FROM workspaces w WHERE w.id = workspace_sync.workspace_id) AS number"
        ),
    };
    let behind: Vec<Behind> = query(TAKE).bind(customer).bind(limit).all(&mut *tx).await?;
    lay_out(tx, customer, &behind).await?;
    Ok(i64::try_from(behind.len()).unwrap_or(i64::MAX) >= limit)
}

async fn lay_out(tx: &mut Tx, customer: Id<Customer>, behind: &[Behind]) -> Result<usize, StorageError> {
    const HEAD: &str = "SELECT head AS value FROM customer_sequences WHERE customer_id = $1";
    const OFFERED: &str = "SELECT id, workspace_id, version, position, broadcast_position, deleted, updated_at \
         FROM liaison_configurations WHERE customer_id = $1 AND broadcast_position > $2 AND broadcast_position <= $3 \
         ORDER BY broadcast_position";
    const MOVE: Sql = Sql::Each {
        sqlite: "UPDATE workspace_sync SET position = $2 WHERE workspace_id IN (SELECT unhex(value) FROM json_each($1))",
        postgres: "UPDATE workspace_sync SET position = $2 WHERE workspace_id = ANY($1)",
    };
    let Some(from) = behind.iter().map(Behind::seen).min() else { return Ok(0) };
    // Positions are handed out under the sequence's lock, so everything up to the head is committed.
    let head = query(HEAD).bind(customer).value::<i64>(&mut *tx).await?.unwrap_or_default();
    let offered: Vec<Offered> = query(OFFERED).bind(customer).bind(from).bind(head).all(&mut *tx).await?;
    let mut deliveries = Vec::new();
    for workspace in behind {
        for slot in &offered {
            let is_meant = slot.workspace_id.is_none_or(|only| only == workspace.workspace_id);
            if is_meant && is_outstanding(slot.broadcast_position, slot.deleted, workspace.position) {
                deliveries.push(Delivery {
                    id: event_id::derive(slot.updated_at, workspace.number, slot.position),
                    workspace: workspace.workspace_id,
                    configuration: slot.id,
                    version: slot.version,
                    position: slot.broadcast_position,
                });
            }
        }
    }
    write(tx, &deliveries, None).await?;
    let moved = behind.iter().map(|workspace| workspace.workspace_id.uuid()).collect();
    query(MOVE).bind(Value::Uuids(moved)).bind(head).execute(tx).await?;
    Ok(deliveries.len())
}

/// Takes the lock of a workspace and the number under which its next events are offered. Whoever makes an event of a
/// workspace pending takes it first, so that a watch that has seen a number has seen everything up to it.
///
/// # Errors
/// `Corrupt` where there is no such workspace.
pub(crate) async fn next_offer(tx: &mut Tx, workspace: Id<Workspace>) -> Result<i64, StorageError> {
    query(
        "UPDATE workspace_sync SET offered = offered + 1 WHERE workspace_id = $1 RETURNING offered AS value",
    )
    .bind(workspace)
    .value(tx)
    .await?
    .ok_or_else(|| StorageError::Corrupt("a workspace has no position".to_owned()))
}

/// Takes the locks of the workspaces of some events, as [`next_offer`] does, and offers nothing. Whoever decides by what
/// there is of newer events, and leaves an event open, takes them first: what is laid out at the same time would not
/// see that event, nor be seen.
pub(crate) async fn hold_workspaces(
    tx: &mut Tx,
    customer: Id<Customer>,
    events: &[Id<Event>],
) -> Result<(), StorageError> {
    // SQLite has one writer, which this transaction is.
    const HOLD: Sql = Sql::Each {
        sqlite: "SELECT y.position AS value FROM workspace_sync y WHERE y.customer_id = $2 AND y.workspace_id IN \
                 (SELECT e.workspace_id FROM liaison_configuration_events e WHERE e.id IN (SELECT unhex(value) FROM json_each($1))) \
             ORDER BY y.workspace_id",
        postgres: "SELECT y.position AS value FROM workspace_sync y WHERE y.customer_id = $2 AND y.workspace_id IN \
                 (SELECT e.workspace_id FROM liaison_configuration_events e WHERE e.id = ANY($1)) \
             ORDER BY y.workspace_id FOR UPDATE",
    };
    if !events.is_empty() {
        let events = events.iter().map(|event| event.uuid()).collect();
        query(HOLD).bind(Value::Uuids(events)).bind(customer).values::<i64>(tx).await?;
    }
    Ok(())
}

/// Delivers the newest versions to certain workspaces now.
pub(crate) async fn deliver(
    tx: &mut Tx,
    deliveries: &[Delivery],
    event_type: EventType,
) -> Result<Vec<Id<Event>>, StorageError> {
    // As laying out does: whoever writes events of a workspace has its row, so that they do not write past each other.
    const TAKE: Sql = Sql::Each {
        sqlite: "UPDATE workspace_sync SET offered = offered + 1 WHERE workspace_id IN (SELECT unhex(value) FROM json_each($1))",
        postgres: "UPDATE workspace_sync SET offered = offered + 1 WHERE workspace_id = ANY($1)",
    };
    let workspaces = deliveries.iter().map(|delivery| delivery.workspace.uuid()).collect();
    query(TAKE).bind(Value::Uuids(workspaces)).execute(&mut *tx).await?;
    write(tx, deliveries, Some(event_type)).await?;
    Ok(deliveries.iter().map(|delivery| delivery.id).collect())
}

/// Delivers an unchanged version to the workspaces that have not applied it, have nothing open for it, and
/// did not reject it.
pub(crate) async fn deliver_to_lagging(
    tx: &mut Tx,
    configuration: &ConfigurationRow,
    audience: &Audience,
    event_type: EventType,
) -> Result<Vec<Id<Event>>, StorageError> {
    // A workspace that is still to be laid out gets the version anyway.
    const LAGGING: &str = "SELECT w.id AS value FROM workspaces w \
         JOIN workspace_sync y ON y.workspace_id = w.id \
         JOIN liaison_configurations c ON c.id = $2 AND (c.workspace_id IS NULL OR c.workspace_id = w.id) \
         LEFT JOIN workspace_slots s ON s.workspace_id = w.id AND s.configuration_id = $2 \
         WHERE w.customer_id = $1 AND w.deleted_at IS NULL AND y.position >= c.broadcast_position \
         AND COALESCE(s.applied_version, 0) < c.version AND COALESCE(s.withheld_version, 0) < c.version \
         AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events e \
             WHERE e.workspace_id = w.id AND e.configuration_id = $2 AND e.is_open = TRUE AND e.version = c.version) \
         ORDER BY w.number";
    let customer = configuration.customer_id;
    let mut lagging: Vec<Id<Workspace>> =
        query(LAGGING).bind(customer).bind(configuration.id).values(&mut *tx).await?;
    if let Audience::Only(workspace) = audience {
        lagging.retain(|lagging| *lagging == workspace.id);
    }
    if lagging.is_empty() {
        return Ok(Vec::new());
    }
    let now = tx.now().await?;
    let position = next_position(tx, customer).await?;
    let deliveries: Vec<_> = lagging
        .into_iter()
        .map(|workspace| Delivery::again(workspace, configuration.id, configuration.version, position, now))
        .collect();
    tx.announce(customer);
    deliver(tx, &deliveries, event_type).await
}

/// Delivers every live slot of a customer to the workspaces that are behind on it, as when they come back into
/// service. Returns how many events there are new.
pub async fn offer_to_lagging(tx: &mut Tx, customer: Id<Customer>) -> Result<usize, StorageError> {
    const LIVE: &str = "SELECT id, customer_id, user_id, config_type, key_id, version, checksum, deleted, content, position, \
         broadcast_position, created_at, updated_at, restored_version FROM liaison_configurations \
         WHERE customer_id = $1 AND deleted = FALSE ORDER BY position";
    let slots: Vec<ConfigurationRow> = query(LIVE).bind(customer).all(&mut *tx).await?;
    let mut events = 0;
    for slot in &slots {
        events += deliver_to_lagging(tx, slot, &Audience::Everyone, EventType::Reconciled).await?.len();
    }
    Ok(events)
}

/// Writes events for the newest versions, in the place of what was waiting for the same slots. Without an event type
/// they are those of the versions themselves, with the version's type and time.
async fn write(
    tx: &mut Tx,
    deliveries: &[Delivery],
    event_type: Option<EventType>,
) -> Result<(), StorageError> {
    // A failed event is not tried again once there is newer content, and frees its slot if it was stuck.
    const SUPERSEDE: Sql = Sql::Each {
        sqlite: concat!(
            "UPDATE liaison_configuration_events SET \
                 status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'superseded' END, \
                 is_open = FALSE, stuck = FALSE, due_at = NULL, superseded_by = d.id, \
                 completed_at = COALESCE(completed_at, :now) FROM ",
            deliveries_sqlite!(),
            " WHERE liaison_configuration_events.workspace_id = d.workspace_id \
             AND liaison_configuration_events.configuration_id = d.configuration_id \
             AND liaison_configuration_events.id <> d.id \
             AND is_open = TRUE AND status IN ('pending', 'failed')"
        ),
        postgres: concat!(
            "UPDATE liaison_configuration_events SET \
                 status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'superseded' END, \
                 is_open = FALSE, stuck = FALSE, due_at = NULL, superseded_by = d.id, \
                 completed_at = COALESCE(completed_at, :now) FROM ",
            deliveries_postgres!(),
            " WHERE liaison_configuration_events.workspace_id = d.workspace_id \
             AND liaison_configuration_events.configuration_id = d.configuration_id \
             AND liaison_configuration_events.id <> d.id \
             AND is_open = TRUE AND status IN ('pending', 'failed')"
        ),
    };
    const INSERT: Sql = Sql::Each {
        sqlite: concat!(
            "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, configuration_id, user_id, \
                 config_type, key_id, event_type, version, status, position, offered, attempt, stuck, is_open, lease_micros, \
                 worker_id, claimed_by, outcome, error_message, created_at) \
             SELECT d.id, c.customer_id, d.workspace_id, c.id, c.user_id, c.config_type, c.key_id, COALESCE($2, v.event_type), \
                 v.version, 'pending', d.position, y.offered, 0, FALSE, TRUE, 0, '', '', '', '', \
                 CASE WHEN CAST($2 AS TEXT) IS NULL THEN v.created_at ELSE :now END FROM ",
            deliveries_sqlite!(),
            " JOIN liaison_configurations c ON c.id = d.configuration_id \
             JOIN liaison_configuration_versions v ON v.configuration_id = c.id AND v.version = d.version \
             JOIN workspace_sync y ON y.workspace_id = d.workspace_id \
             JOIN workspaces w ON w.id = d.workspace_id AND w.deleted_at IS NULL WHERE TRUE \
             ON CONFLICT (id) DO NOTHING"
        ),
        postgres: concat!(
            "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, configuration_id, user_id, \
                 config_type, key_id, event_type, version, status, position, offered, attempt, stuck, is_open, lease_micros, \
                 worker_id, claimed_by, outcome, error_message, created_at) \
             SELECT d.id, c.customer_id, d.workspace_id, c.id, c.user_id, c.config_type, c.key_id, COALESCE($2, v.event_type), \
                 v.version, 'pending', d.position, y.offered, 0, FALSE, TRUE, 0, '', '', '', '', \
                 CASE WHEN CAST($2 AS TEXT) IS NULL THEN v.created_at ELSE :now END FROM ",
            deliveries_postgres!(),
            " JOIN liaison_configurations c ON c.id = d.configuration_id \
             JOIN liaison_configuration_versions v ON v.configuration_id = c.id AND v.version = d.version \
             JOIN workspace_sync y ON y.workspace_id = d.workspace_id \
             JOIN workspaces w ON w.id = d.workspace_id AND w.deleted_at IS NULL \
             ON CONFLICT (id) DO NOTHING"
        ),
    };
    if deliveries.is_empty() {
        return Ok(());
    }
    // A workspace that was taken out of service before this had its lock gets nothing, which only a statement that
    // begins after that can see.
    let rows: serde_json::Value = deliveries.iter().map(Delivery::to_json).collect();
    let rows = rows.to_string();
    let superseded = query(SUPERSEDE).bind(&rows).execute(tx).await?;
    observe::superseded(tx, superseded);
    query(INSERT).bind(rows).bind(event_type.map(event_type_name)).execute(tx).await?;
    Ok(())
}
