//! How long finished events are kept.

use std::time::Duration;

use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Sql, StorageError, Tx, Value, query};
use uuid::Uuid;

/// How long an event is kept once it was applied, superseded or overtaken.
pub const HISTORY_KEPT: Duration = Duration::from_hours(30 * 24);

/// Deletes up to `limit` finished events that are no longer kept. Returns how many that were; as many as the limit
/// means that there may be more.
pub async fn sweep_events(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    // An id begins with a time that is no later than the end of its event, so the oldest come first without an index of
    // their own, which every completion would have to write to.
    const OLD: &str = "SELECT id AS value FROM liaison_configuration_events \
         WHERE id < $1 AND is_open = FALSE AND completed_at < $2 ORDER BY id LIMIT $3";
    const DELETE: Sql = Sql::Each {
        sqlite: "DELETE FROM liaison_configuration_events WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND is_open = FALSE",
        postgres: "DELETE FROM liaison_configuration_events WHERE id = ANY($1) AND is_open = FALSE",
    };
    let horizon = tx.now().await?.minus(HISTORY_KEPT);
    let millis = u128::try_from(horizon.as_micros() / 1_000).unwrap_or_default();
    let before = Uuid::from_u128(millis << 80);
    let old: Vec<Id<Event>> = query(OLD).bind(before).bind(horizon).bind(limit).values(&mut *tx).await?;
    if old.is_empty() {
        return Ok(0);
    }
    query(DELETE).bind(Value::Uuids(old.iter().map(|id| id.uuid()).collect())).execute(tx).await
}
