//! How long the content of old versions is kept.

use std::time::Duration;

use agentrouter_storage::{Db, StorageError, query};

/// How long the content of a version is kept after a newer one replaced it. The newest is kept for ever.
pub const VERSIONS_KEPT: Duration = Duration::from_hours(30 * 24);

/// Deletes versions that were replaced longer ago than they are kept, at most `limit` of them. Returns how many went;
/// the caller comes back while there are `limit`.
pub async fn sweep_versions(db: &Db, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM liaison_configuration_versions WHERE (configuration_id, version) IN (\
         SELECT configuration_id, version FROM liaison_configuration_versions \
         WHERE replaced_at IS NOT NULL AND replaced_at <= $1 ORDER BY replaced_at LIMIT $2)";
    let mut tx = db.begin().await?;
    let before = tx.now().await?.minus(VERSIONS_KEPT);
    let swept = query(SWEEP).bind(before).bind(limit).execute(&mut tx).await?;
    tx.commit_unaudited("nothing shows them any more").await?;
    Ok(swept)
}
