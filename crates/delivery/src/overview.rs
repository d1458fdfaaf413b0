//! The state of the whole installation in a few numbers, for the metrics of each replica.

use std::time::Duration;

use agentrouter_kernel::Timestamp;
use agentrouter_storage::{Db, StorageError, query, row};

/// How long after its last call a worker counts as online, in microseconds.
const ONLINE_MICROS: i64 = 120_000_000;

row! {
    struct Workspaces {
        online: i64,
        offline: i64,
    }
}

/// Reads the state and notes it in the metrics. The cost grows with the number of workspaces, so a job runs it now and
/// then, and never a scrape.
pub async fn observe(db: &Db) -> Result<(), StorageError> {
    // What was offered and has an event, of workspaces whose worker is there: one that never comes back would be
    // the oldest for ever. A workspace waits for nothing longer than it exists.
    const OLDEST_EVENT: &str = "SELECT MIN(CASE WHEN t.made > t.born THEN t.made ELSE t.born END) AS value FROM ( \
             SELECT w.created_at AS born, (SELECT e.created_at FROM liaison_configuration_events e \
                 WHERE e.workspace_id = s.workspace_id AND e.is_open = TRUE AND e.stuck = FALSE \
                 ORDER BY e.position LIMIT 1) AS made \
             FROM workspace_sync s JOIN workspaces w ON w.id = s.workspace_id \
             WHERE s.last_seen_at > :now - $1 AND w.deleted_at IS NULL) t WHERE t.made IS NOT NULL";
    // What was offered and nobody has laid out yet.
    const OLDEST_VERSION: &str = "SELECT MIN(CASE WHEN t.made > t.born THEN t.made ELSE t.born END) AS value FROM ( \
             SELECT w.created_at AS born, (SELECT MIN(c.updated_at) FROM liaison_configurations c \
                 WHERE c.customer_id = s.customer_id AND (c.workspace_id IS NULL OR c.workspace_id = s.workspace_id) \
                 AND c.broadcast_position > CASE s.position WHEN 0 THEN -1 ELSE s.position END \
                 AND (s.position > 0 OR c.deleted = FALSE)) AS made \
             FROM workspace_sync s JOIN workspaces w ON w.id = s.workspace_id \
             WHERE s.last_seen_at > :now - $1 AND w.deleted_at IS NULL) t WHERE t.made IS NOT NULL";
    const STUCK: &str =
        "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_events WHERE stuck = TRUE";
    const WORKSPACES: &str = "SELECT \
             CAST(COALESCE(SUM(CASE WHEN s.last_seen_at > :now - $1 THEN 1 ELSE 0 END), 0) AS BIGINT) AS online, \
             CAST(COALESCE(SUM(CASE WHEN s.last_seen_at > :now - $1 THEN 0 ELSE 1 END), 0) AS BIGINT) AS offline \
         FROM workspace_sync s JOIN workspaces w ON w.id = s.workspace_id WHERE w.deleted_at IS NULL";
    let event: Option<Timestamp> = query(OLDEST_EVENT).bind(ONLINE_MICROS).value(db).await?.flatten();
    let version: Option<Timestamp> = query(OLDEST_VERSION).bind(ONLINE_MICROS).value(db).await?.flatten();
    let stuck: i64 = query(STUCK).value(db).await?.unwrap_or_default();
    let workspaces: Workspaces = query(WORKSPACES).bind(ONLINE_MICROS).one(db).await?;
    let now = db.now().await?;
    let age = event.into_iter().chain(version).min().map_or(Duration::ZERO, |oldest| now.since(oldest));
    db.telemetry().metrics().fleet.set(age, stuck, workspaces.online, workspaces.offline);
    Ok(())
}
