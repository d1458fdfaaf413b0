//! Versions that a workspace runs already, because somebody put them there by hand.

use agentrouter_api::configurator::EventType;
use agentrouter_kernel::Fault;
use agentrouter_storage::{Tx, query};

use crate::generate::{self, Origin};
use crate::slot::Slot;
use crate::version::{Audience, ConfigurationRow, follow, lock_sequence, narrowed};

/// Regenerates the slot of one workspace and records that the workspace has applied it: no event is queued, and what
/// waited to be delivered of the slot is not delivered any more. A version that a worker holds may still end.
///
/// # Errors
/// INTERNAL for slots that belong to no workspace; `WORKSPACE_NOT_FOUND`.
pub async fn adopt(tx: &mut Tx, slot: &Slot) -> Result<ConfigurationRow, Fault> {
    const APPLIED: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, applied_at, withheld_version) VALUES ($1, $2, $3, $4, $5, :now, 0) \
         ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET applied_version = excluded.applied_version, \
             applied_checksum = excluded.applied_checksum, applied_at = excluded.applied_at, applied_event_id = NULL \
         WHERE workspace_slots.applied_version <= excluded.applied_version";
    const RETIRE: &str = "UPDATE liaison_configuration_events \
         SET status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'superseded' END, \
             is_open = FALSE, stuck = FALSE, due_at = NULL, completed_at = COALESCE(completed_at, :now) \
         WHERE workspace_id = $1 AND configuration_id = $2 AND is_open = TRUE AND status IN ('pending', 'failed')";
    lock_sequence(tx, slot.customer).await?;
    let audience = narrowed(tx, slot, &Audience::Everyone).await?;
    let (Origin::Content(payload), Audience::Only(workspace)) =
        (generate::source(tx, slot).await?, &audience)
    else {
        return Err(Fault::internal("only a slot that belongs to a workspace is adopted"));
    };
    let (row, _) = follow(tx, slot, Some(payload), EventType::Updated, &audience).await?;
    query(APPLIED)
        .bind(workspace.id)
        .bind(row.id)
        .bind(slot.customer)
        .bind(row.version)
        .bind(&row.checksum)
        .execute(&mut *tx)
        .await?;
    query(RETIRE).bind(workspace.id).bind(row.id).execute(tx).await?;
    Ok(row)
}
