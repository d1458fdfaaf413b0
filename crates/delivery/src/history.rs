//! How long the content of old versions is kept.

use std::time::Duration;

use agentrouter_storage::{StorageError, Tx, query};

/// How long the content of a version is kept after a newer one replaced it. The newest is kept for ever.
pub const VERSIONS_KEPT: Duration = Duration::from_hours(30 * 24);

/// Deletes versions that were replaced longer ago than they are kept, at most `limit` of them. Returns how many went;
/// the caller comes back while there are `limit`.
pub async fn sweep_versions(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM liaison_configuration_versions WHERE (configuration_id, version) IN (\
         SELECT configuration_id, version FROM liaison_configuration_versions \
         WHERE replaced_at IS NOT NULL AND replaced_at <= $1 ORDER BY replaced_at LIMIT $2)";
    let before = tx.now().await?.minus(VERSIONS_KEPT);
    query(SWEEP).bind(before).bind(limit).execute(tx).await
}
