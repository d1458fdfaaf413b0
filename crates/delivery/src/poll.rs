//! Reading events: what waits for a worker, and single events by their id.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, Source, StorageError, Tx, query, row};

use crate::claim::Reach;
use crate::event::{EventRow, select_events};
use crate::event_id;
use crate::layout::{lay_out_customer, lay_out_workspace};
use crate::retention::HISTORY_KEPT;
use crate::settle::settle_workspace;

/// How many workspaces are laid out in one transaction.
const BATCH: i64 = 1_000;

/// The events of a workspace that a worker could claim, oldest first.
pub async fn pending_of_workspace(
    db: &Db,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    limit: i64,
) -> Result<Vec<EventRow>, StorageError> {
    // What is pending while an older version of its slot is in flight waits for that one to end. The tenant is asked
    // of the workspace: asked of the event, SQLite would walk all of the customer's.
    const PENDING: &str = select_events!(
        "WHERE e.workspace_id = $1 AND w.customer_id = $2 AND e.is_open = TRUE AND e.status = 'pending' \
         AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = e.workspace_id \
             AND o.configuration_id = e.configuration_id AND o.status = 'acknowledged') \
         ORDER BY e.position, e.id LIMIT $3"
    );
    catch_up(db, customer, workspace).await?;
    query(PENDING).bind(workspace).bind(customer).bind(limit).all(db).await
}

/// Lays out what was offered to a workspace, and settles what time has brought about. Most of the time there is neither,
/// and it only reads.
pub async fn catch_up(db: &Db, customer: Id<Customer>, workspace: Id<Workspace>) -> Result<(), StorageError> {
    // The sequence moves for single workspaces, too; only what was offered to all is laid out.
    const NEWS: &str = "SELECT CAST(CASE WHEN EXISTS (SELECT 1 FROM workspace_sync s WHERE s.workspace_id = $1 \
             AND EXISTS (SELECT 1 FROM liaison_configurations c WHERE c.customer_id = s.customer_id \
                 AND c.broadcast_position > CASE s.position WHEN 0 THEN -1 ELSE s.position END)) \
         OR EXISTS (SELECT 1 FROM liaison_configuration_events e WHERE e.workspace_id = $1 AND e.is_open = TRUE \
             AND e.due_at <= :now) THEN 1 ELSE 0 END AS BIGINT) AS value";
    if query(NEWS).bind(workspace).value::<i64>(db).await? == Some(1) {
        let mut tx = db.begin().await?;
        lay_out_workspace(&mut tx, customer, workspace).await?;
        settle_workspace(&mut tx, workspace).await?;
        tx.commit_unaudited("the event rows tell").await?;
    }
    Ok(())
}

/// The same for all workspaces of a customer.
pub async fn pending_of_customer(
    db: &Db,
    customer: Id<Customer>,
    limit: i64,
) -> Result<Vec<EventRow>, StorageError> {
    const PENDING: &str = select_events!(
        "WHERE e.customer_id = $1 AND w.deleted_at IS NULL AND e.is_open = TRUE AND e.status = 'pending' \
         AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = e.workspace_id \
             AND o.configuration_id = e.configuration_id AND o.status = 'acknowledged') \
         ORDER BY e.position, e.id LIMIT $2"
    );
    catch_up_customer(db, customer).await?;
    query(PENDING).bind(customer).bind(limit).all(db).await
}

/// Lays out what was offered to all live workspaces of a customer, many in one transaction.
pub async fn catch_up_customer(db: &Db, customer: Id<Customer>) -> Result<(), StorageError> {
    const BEHIND: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM workspace_sync s \
         JOIN workspaces w ON w.id = s.workspace_id \
         WHERE s.customer_id = $1 AND w.deleted_at IS NULL AND s.position < (SELECT MAX(c.broadcast_position) + \
             CASE MAX(c.broadcast_position) WHEN 0 THEN 1 ELSE 0 END FROM liaison_configurations c WHERE c.customer_id = $1)";
    let mut more = query(BEHIND).bind(customer).value::<i64>(db).await?.unwrap_or_default() > 0;
    while more {
        let mut tx = db.begin().await?;
        more = lay_out_customer(&mut tx, customer, BATCH).await?;
        tx.commit_unaudited("the event rows tell").await?;
    }
    Ok(())
}

/// An event that the caller may know of.
pub async fn find(
    source: impl Source,
    reach: &Reach,
    event: Id<Event>,
) -> Result<Option<EventRow>, StorageError> {
    const FIND: &str = select_events!(
        "WHERE e.id = $1 AND e.customer_id = $2 AND e.workspace_id = COALESCE($3, e.workspace_id)"
    );
    query(FIND).bind(event).bind(reach.customer).bind(reach.workspace).optional(source).await
}

/// [`find`], for events that a trigger named but nobody laid out yet, too.
pub async fn resolve(tx: &mut Tx, reach: &Reach, event: Id<Event>) -> Result<Option<EventRow>, StorageError> {
    row! {
        struct Named {
            workspace_id: Id<Workspace>,
            configuration_id: Id<Configuration>,
            created_at: Timestamp,
        }
    }
    const NAMED: &str = "SELECT w.id AS workspace_id, v.configuration_id, v.created_at \
         FROM workspaces w JOIN liaison_configuration_versions v ON v.customer_id = w.customer_id \
         WHERE w.number = $1 AND v.position = $2 AND w.customer_id = $3 AND w.id = COALESCE($4, w.id) AND w.deleted_at IS NULL";
    if let Some(row) = find(&mut *tx, reach, event).await? {
        return Ok(Some(row));
    }
    let (number, position) = event_id::parts(event);
    let named: Option<Named> = query(NAMED)
        .bind(number)
        .bind(position)
        .bind(reach.customer)
        .bind(reach.workspace)
        .optional(&mut *tx)
        .await?;
    let Some(named) = named.filter(|named| event_id::derive(named.created_at, number, position) == event)
    else {
        return Ok(None);
    };
    lay_out_workspace(tx, reach.customer, named.workspace_id).await?;
    if let Some(row) = find(&mut *tx, reach, event).await? {
        return Ok(Some(row));
    }
    if tx.now().await?.minus(HISTORY_KEPT) > named.created_at {
        // Its row may have been swept, however it ended.
        return Ok(None);
    }
    keep_superseded(tx, event, named.workspace_id, named.configuration_id, position).await?;
    find(&mut *tx, reach, event).await
}

/// Writes the row of an event whose version was overtaken before anybody looked, so that it has a history.
async fn keep_superseded(
    tx: &mut Tx,
    event: Id<Event>,
    workspace: Id<Workspace>,
    configuration: Id<Configuration>,
    position: i64,
) -> Result<(), StorageError> {
    // Its successor is looked for where the history is in order, and among what is open.
    const KEEP: &str = "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, configuration_id, user_id, \
             config_type, key_id, event_type, version, status, position, attempt, stuck, is_open, lease_micros, worker_id, \
             claimed_by, outcome, error_message, created_at, completed_at, superseded_by) \
         SELECT $1, c.customer_id, $2, c.id, c.user_id, c.config_type, c.key_id, v.event_type, v.version, 'superseded', \
             v.position, 0, FALSE, FALSE, 0, '', '', '', '', v.created_at, :now, \
             COALESCE((SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = $2 AND n.is_open = FALSE \
                 AND n.position > v.position AND n.configuration_id = $3 AND n.version > v.version ORDER BY n.position LIMIT 1), \
             (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = $2 AND n.is_open = TRUE \
                 AND n.position > v.position AND n.configuration_id = $3 AND n.version > v.version ORDER BY n.position LIMIT 1)) \
         FROM liaison_configurations c JOIN liaison_configuration_versions v ON v.configuration_id = c.id \
         WHERE c.id = $3 AND v.position = $4 AND v.version < c.version \
         ON CONFLICT (id) DO NOTHING";
    query(KEEP).bind(event).bind(workspace).bind(configuration).bind(position).execute(tx).await?;
    Ok(())
}
