//! Transactions that wait for each other.

use std::time::{Duration, Instant};

use agentrouter_storage::{Engine, Tx, query};

/// How long somebody may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until so many transactions wait for this one, or for one that does. On SQLite nobody can once it has begun, and
/// this returns at once.
///
/// # Panics
/// Where they do not come.
pub async fn until_awaited(tx: &mut Tx, by: i64) {
    // Not `pg_stat_activity`, which stands still inside a transaction.
    const WAITING: &str = "WITH RECURSIVE waiting (pid) AS (\
         SELECT pid FROM pg_locks WHERE NOT granted AND pg_backend_pid() = ANY(pg_blocking_pids(pid)) \
         UNION SELECT l.pid FROM pg_locks l JOIN waiting w ON w.pid = ANY(pg_blocking_pids(l.pid)) \
         WHERE NOT l.granted) SELECT COUNT(*) AS value FROM waiting";
    let deadline = Instant::now() + PATIENCE;
    while tx.engine() == Engine::Postgres {
        let waiting = query(WAITING).value::<i64>(&mut *tx).await.expect("PostgreSQL answers");
        if waiting >= Some(by) {
            return;
        }
        assert!(Instant::now() < deadline, "{waiting:?} wait for the transaction, and not {by}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
