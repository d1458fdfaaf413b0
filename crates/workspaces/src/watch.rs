//! Which watched workspaces changed. Asked once a second for all streams of the process together, and not at all while
//! there are none: an idle stream costs a place in a map.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use agentrouter_delivery::signal::ONLINE_WITHIN;
use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Db, Sql, StorageError, Value, query, row};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How soon a change is seen.
const LOOK: Duration = Duration::from_secs(1);

/// The watched workspaces.
#[derive(Debug, Default)]
pub struct StatusWatch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    workspaces: HashMap<Id<Workspace>, Entry>,
    is_closed: bool,
}

#[derive(Debug)]
struct Entry {
    news: watch::Sender<u64>,
    last: Option<Trace>,
}

row! {
    /// What moves whenever the status of a workspace does, or more often.
    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Trace {
        workspace_id: Id<Workspace>,
        revision: i64,
        deleted_at: Option<Timestamp>,
        is_online: bool,
        doctor_runtime: Option<Vec<u8>>,
        laid_out: i64,
        head: i64,
        open_events: i64,
        open_weight: i64,
        acknowledged_at: Option<i64>,
        completed_at: Option<i64>,
        slots: i64,
        applied_at: Option<i64>,
        upgrade_at: Option<i64>,
    }
}

impl StatusWatch {
    /// Waits for changes of a workspace. Subscribe before the first read, so that nothing is missed between the two.
    /// After shutdown there are none.
    pub(crate) fn subscribe(&self, workspace: Id<Workspace>) -> watch::Receiver<u64> {
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if watched.is_closed {
            return watch::channel(0).1;
        }
        let entry = watched.workspaces.entry(workspace);
        entry.or_insert_with(|| Entry { news: watch::channel(0).0, last: None }).news.subscribe()
    }

    /// Looks again and again until shutdown, and then ends every stream.
    pub async fn run(&self, db: &Db, shutdown: &CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.look(db).await {
                tracing::warn!(job = "status", error = %Fault::from(error), "a background job failed");
            }
        }
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        watched.is_closed = true;
        watched.workspaces.clear();
    }

    /// Wakes the streams of workspaces that changed since the last look.
    async fn look(&self, db: &Db) -> Result<(), StorageError> {
        let workspaces: Vec<_> = {
            let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            watched.workspaces.retain(|_, entry| entry.news.receiver_count() > 0);
            watched.workspaces.keys().map(|id| id.uuid()).collect()
        };
        if workspaces.is_empty() {
            return Ok(());
        }
        let threshold = i64::try_from(ONLINE_WITHIN.as_micros()).unwrap_or(i64::MAX);
        let traces: Vec<Trace> = query(TRACES).bind(Value::Uuids(workspaces)).bind(threshold).all(db).await?;
        let mut watched = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for trace in traces {
            let Some(entry) = watched.workspaces.get_mut(&trace.workspace_id) else { continue };
            // The first look may be later than the stream's first read, so it counts as a change, too.
            if entry.last.as_ref() != Some(&trace) {
                entry.last = Some(trace);
                entry.news.send_modify(|count| *count = count.wrapping_add(1));
            }
        }
        Ok(())
    }
}

macro_rules! traces {
    ($named:literal) => {
        concat!(
            "SELECT y.workspace_id, w.revision, COALESCE(w.deleted_at, c.deleted_at) AS deleted_at, \
             (y.last_seen_at IS NOT NULL AND y.last_seen_at >= :now - $2) AS is_online, y.doctor_runtime, \
             y.position AS laid_out, q.head, \
             (SELECT COUNT(*) FROM liaison_configuration_events e \
                 WHERE e.workspace_id = y.workspace_id AND e.is_open = TRUE) AS open_events, \
             (SELECT CAST(COALESCE(SUM(e.attempt * 8 + CASE WHEN e.stuck = TRUE THEN 4 ELSE 0 END \
                     + CASE e.status WHEN 'pending' THEN 1 WHEN 'acknowledged' THEN 2 ELSE 3 END), 0) AS BIGINT) \
                 FROM liaison_configuration_events e \
                 WHERE e.workspace_id = y.workspace_id AND e.is_open = TRUE) AS open_weight, \
             (SELECT MAX(e.acknowledged_at) FROM liaison_configuration_events e \
                 WHERE e.workspace_id = y.workspace_id AND e.is_open = TRUE) AS acknowledged_at, \
             (SELECT MAX(e.completed_at) FROM liaison_configuration_events e \
                 WHERE e.workspace_id = y.workspace_id AND e.is_open = TRUE) AS completed_at, \
             (SELECT COUNT(*) FROM workspace_slots s WHERE s.workspace_id = y.workspace_id) AS slots, \
             (SELECT MAX(s.applied_at) FROM workspace_slots s WHERE s.workspace_id = y.workspace_id) AS applied_at, \
             (SELECT MAX(u.updated_at) FROM dataplane_upgrades u WHERE u.workspace_id = y.workspace_id) AS upgrade_at \
             FROM workspace_sync y JOIN workspaces w ON w.id = y.workspace_id \
             JOIN customers c ON c.id = y.customer_id JOIN customer_sequences q ON q.customer_id = y.customer_id \
             WHERE y.workspace_id ",
            $named
        )
    };
}

const TRACES: Sql = Sql::Each {
    sqlite: traces!("IN (SELECT unhex(value) FROM json_each($1))"),
    postgres: traces!("= ANY($1)"),
};
