//! Signals: what happened to a workspace that people want to be told of, written in the transaction that made it happen.
//! Whoever tells people takes them away; nothing here knows who that is.

use std::time::Duration;

use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Signal as SignalId, Workspace};
use agentrouter_storage::{Db, StorageError, Tx, query, row};

use crate::names::config_type_from_name;

/// How long a workspace counts as online after its worker last called.
pub const ONLINE_WITHIN: Duration = Duration::from_mins(2);

/// A slot's attempts are used up, or the data plane rejected it.
pub const SLOT_STUCK: &str = "slot.stuck";
/// An upgrade reached a phase that it does not leave by itself.
pub const UPGRADE_FINISHED: &str = "upgrade.finished";

row! {
    /// A signal that was taken, and what it is about.
    #[derive(Debug, Clone)]
    pub struct Signal {
        /// Row id.
        pub id: Id<SignalId>,
        /// The tenant.
        pub customer_id: Id<Customer>,
        /// Its slug.
        pub customer_slug: String,
        /// The workspace.
        pub workspace_id: Id<Workspace>,
        /// Its slug.
        pub workspace_slug: String,
        /// The slot's row, where it is about one.
        pub configuration_id: Option<Id<Configuration>>,
        /// What happened.
        pub kind: String,
        /// The version that it happened to; 0 where it is not about a slot.
        pub version: i64,
        /// More about it: a JSON object.
        pub data: String,
    }
}

/// Signals something about a workspace that is not about one slot. `data` is a JSON object.
pub async fn raise(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    kind: &'static str,
    data: &serde_json::Value,
) -> Result<(), StorageError> {
    insert(tx, customer, workspace, None, kind, 0, data).await
}

row! {
    struct StuckRow {
        customer_id: Id<Customer>,
        workspace_id: Id<Workspace>,
        configuration_id: Option<Id<Configuration>>,
        user_id: String,
        config_type: String,
        key_id: String,
        version: i64,
        attempt: i64,
        error_message: String,
    }
}

/// Signals that the slot of an event got stuck. Instructions have no slot, and whoever waits for one reads it.
pub(crate) async fn raise_stuck(tx: &mut Tx, event: Id<Event>) -> Result<(), StorageError> {
    const FIND: &str = "SELECT customer_id, workspace_id, configuration_id, user_id, config_type, key_id, version, \
             attempt, error_message \
         FROM liaison_configuration_events WHERE id = $1";
    let row: StuckRow = query(FIND).bind(event).one(&mut *tx).await?;
    let Some(configuration) = row.configuration_id else { return Ok(()) };
    let config_type = config_type_from_name(&row.config_type).unwrap_or_default();
    let data = serde_json::json!({
        "user_id": row.user_id,
        "config_type": config_type.as_str_name(),
        "key_id": row.key_id,
        "version": row.version,
        "event_id": event.to_string(),
        "attempts": row.attempt,
        "error_message": row.error_message,
    });
    insert(tx, row.customer_id, row.workspace_id, Some(configuration), SLOT_STUCK, row.version, &data).await
}

async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    configuration: Option<Id<Configuration>>,
    kind: &'static str,
    version: i64,
    data: &serde_json::Value,
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO workspace_signals \
             (id, customer_id, workspace_id, configuration_id, kind, version, data, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let now = tx.now().await?;
    query(INSERT)
        .bind(Id::<SignalId>::new(now))
        .bind(customer)
        .bind(workspace)
        .bind(configuration)
        .bind(kind)
        .bind(version)
        .bind(data.to_string())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(())
}

/// Whether there is any signal to take. Costs no transaction.
pub async fn is_waiting(db: &Db) -> Result<bool, StorageError> {
    const WAITING: &str = "SELECT EXISTS (SELECT 1 FROM workspace_signals) AS value";
    Ok(query(WAITING).value(db).await?.unwrap_or(false))
}

/// Takes up to `limit` signals away, the oldest first.
pub async fn take(tx: &mut Tx, limit: i64) -> Result<Vec<Signal>, StorageError> {
    const FIND: &str = "SELECT s.id, s.customer_id, c.slug AS customer_slug, s.workspace_id, w.slug AS workspace_slug, \
             s.configuration_id, s.kind, s.version, s.data \
         FROM workspace_signals s JOIN workspaces w ON w.id = s.workspace_id JOIN customers c ON c.id = s.customer_id \
         ORDER BY s.id LIMIT $1";
    const DELETE: &str = "DELETE FROM workspace_signals WHERE id = $1";
    let signals: Vec<Signal> = query(FIND).bind(limit).all(&mut *tx).await?;
    for signal in &signals {
        query(DELETE).bind(signal.id).execute(tx).await?;
    }
    Ok(signals)
}
