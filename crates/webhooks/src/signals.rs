//! Slots that got stuck, and what else delivery signals; and stuck slots that run again.
//!
//! That a slot got stuck is written where it happens, so that no one misses it however soon it is over. That it runs
//! again is found by looking: the applied version stays at least as high.

use agentrouter_delivery::config_type_from_name;
use agentrouter_delivery::signal::{self, Signal};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Configuration, Customer, Id, Workspace};
use agentrouter_storage::{Db, Source, StorageError, Tx, query, row};
use serde_json::{Value, json};

use crate::model::EventType;
use crate::queue::Outbox;

/// How many signals one transaction tells of.
const STEP: i64 = 200;

/// Tells what was signalled, and which stuck slots run again. Returns how many that were.
///
/// # Errors
/// Those of any statement; the next call goes on.
pub async fn tell_signals(db: &Db) -> Result<usize, Fault> {
    let mut told = 0;
    while signal::is_waiting(db).await? {
        let mut tx = db.begin().await?;
        // Replicas take turns, and whoever comes second finds nothing left.
        tx.lock("webhook-signals").await?;
        let signals = signal::take(&mut tx, STEP).await?;
        let mut outbox = Outbox::default();
        for signal in &signals {
            tell(&mut tx, &mut outbox, signal).await?;
        }
        tx.commit_unaudited("nobody did anything").await?;
        told += signals.len();
    }
    Ok(told + tell_recovered(db).await?)
}

async fn tell(tx: &mut Tx, outbox: &mut Outbox, signal: &Signal) -> Result<(), Fault> {
    let Some(kind) = EventType::parse(&signal.kind) else {
        tracing::warn!(kind = signal.kind, "a signal of an unknown kind is dropped");
        return Ok(());
    };
    if let (EventType::SlotStuck, Some(configuration)) = (kind, signal.configuration_id) {
        note_stuck(tx, signal, configuration).await?;
    }
    let mut data = json!({
        "customer_id": signal.customer_slug,
        "workspace_id": signal.workspace_slug,
        "workspace_row_id": signal.workspace_id.to_string(),
    });
    let more = serde_json::from_str(&signal.data)
        .map_err(|error| StorageError::Corrupt(format!("signal {}: {error}", signal.id)))?;
    if let (Value::Object(data), Value::Object(more)) = (&mut data, more) {
        data.extend(more);
    }
    outbox.tell(tx, signal.customer_id, kind, &data).await
}

async fn note_stuck(
    tx: &mut Tx,
    signal: &Signal,
    configuration: Id<Configuration>,
) -> Result<(), StorageError> {
    const NOTE: &str = "INSERT INTO webhook_stuck_slots (workspace_id, configuration_id, customer_id, version, told_at) \
         VALUES ($1, $2, $3, $4, :now) \
         ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET version = excluded.version, told_at = excluded.told_at";
    query(NOTE)
        .bind(signal.workspace_id)
        .bind(configuration)
        .bind(signal.customer_id)
        .bind(signal.version)
        .execute(tx)
        .await?;
    Ok(())
}

row! {
    #[derive(Debug)]
    struct Recovered {
        workspace_id: Id<Workspace>,
        customer_id: Id<Customer>,
        configuration_id: Id<Configuration>,
        workspace_slug: String,
        customer_slug: String,
        user_id: String,
        config_type: String,
        key_id: String,
        applied_version: i64,
        is_archived: bool,
    }
}

impl Recovered {
    fn data(&self) -> Value {
        let config_type = config_type_from_name(&self.config_type).unwrap_or_default();
        json!({
            "customer_id": self.customer_slug,
            "workspace_id": self.workspace_slug,
            "workspace_row_id": self.workspace_id.to_string(),
            "user_id": self.user_id,
            "config_type": config_type.as_str_name(),
            "key_id": self.key_id,
            "version": self.applied_version,
        })
    }
}

async fn tell_recovered(db: &Db) -> Result<usize, Fault> {
    const FORGET: &str = "DELETE FROM webhook_stuck_slots \
         WHERE customer_id = $1 AND workspace_id = $2 AND configuration_id = $3";
    let mut told = 0;
    while !find_recovered(db, 1).await?.is_empty() {
        let mut tx = db.begin().await?;
        tx.lock("webhook-signals").await?;
        let recovered = find_recovered(&mut tx, STEP).await?;
        let mut outbox = Outbox::default();
        for slot in &recovered {
            query(FORGET)
                .bind(slot.customer_id)
                .bind(slot.workspace_id)
                .bind(slot.configuration_id)
                .execute(&mut tx)
                .await?;
            if !slot.is_archived {
                outbox.tell(&mut tx, slot.customer_id, EventType::SlotRecovered, &slot.data()).await?;
            }
        }
        tx.commit_unaudited("nobody did anything").await?;
        told += recovered.len();
    }
    Ok(told)
}

async fn find_recovered(source: impl Source, limit: i64) -> Result<Vec<Recovered>, StorageError> {
    // Those of archived workspaces are forgotten without a word.
    const FIND: &str = "SELECT b.workspace_id, b.customer_id, b.configuration_id, w.slug AS workspace_slug, \
             c.slug AS customer_slug, l.user_id, l.config_type, l.key_id, s.applied_version, \
             (w.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL) AS is_archived \
         FROM webhook_stuck_slots b \
         JOIN workspace_slots s ON s.workspace_id = b.workspace_id AND s.configuration_id = b.configuration_id \
         JOIN liaison_configurations l ON l.id = b.configuration_id \
         JOIN workspaces w ON w.id = b.workspace_id JOIN customers c ON c.id = b.customer_id \
         WHERE s.applied_version >= b.version OR w.deleted_at IS NOT NULL OR c.deleted_at IS NOT NULL LIMIT $1";
    query(FIND).bind(limit).all(source).await
}
