//! What time brings about: leases that ran out, and failed events that are due again.

use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, StorageError, Tx, query, row};

use crate::ATTEMPTS_MAX;
use crate::complete::failure_line;
use crate::layout::next_offer;
use crate::observe;
use crate::signal::raise_stuck;
use crate::upgrade;

row! {
    struct DueEvent {
        id: Id<Event>,
        configuration_id: Option<Id<Configuration>>,
        customer_id: Id<Customer>,
        version: i64,
        status: String,
        attempt: i64,
        worker_id: String,
        newer: Option<Id<Event>>,
    }
}

/// What is noted of an attempt whose worker let its lease run out.
const DIED: &str = "the worker stopped answering";

/// Settles the events of one workspace: a claim whose lease ran out becomes pending again, is superseded where
/// a newer version waits, or is stuck where its attempts are used up; a failed event that is due becomes pending,
/// unless a newer version has come past it. Returns how many changed.
pub async fn settle_workspace(tx: &mut Tx, workspace: Id<Workspace>) -> Result<u64, StorageError> {
    // A failure and a newer version may have been written at the same time, without seeing each other.
    const DUE: &str = "SELECT e.id, e.configuration_id, e.customer_id, e.version, e.status, e.attempt, e.worker_id, COALESCE( \
             (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = e.workspace_id \
              AND n.configuration_id = e.configuration_id AND n.status = 'pending'), \
             (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = e.workspace_id \
              AND n.configuration_id = e.configuration_id AND n.status = 'acknowledged' AND n.id <> e.id), \
             (SELECT s.applied_event_id FROM workspace_slots s WHERE s.workspace_id = e.workspace_id \
              AND s.configuration_id = e.configuration_id AND s.applied_version > e.version), \
             (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = e.workspace_id \
              AND n.configuration_id = e.configuration_id AND n.status = 'failed' AND n.is_open = TRUE \
              AND n.version > e.version ORDER BY n.version DESC LIMIT 1)) AS newer \
         FROM liaison_configuration_events e \
         WHERE e.workspace_id = $1 AND e.is_open = TRUE AND e.stuck = FALSE AND e.due_at <= :now \
         AND e.status IN ('acknowledged', 'failed')";
    // Every update asks again whether the event is due, so a completion or renewal in between stands.
    const REOPEN: &str = "UPDATE liaison_configuration_events SET status = 'pending', due_at = NULL, offered = $2, \
         failures = failures || $3 WHERE id = $1 AND status = 'acknowledged' AND due_at <= :now";
    const SUPERSEDE: &str = "UPDATE liaison_configuration_events SET status = 'superseded', is_open = FALSE, \
         due_at = NULL, superseded_by = $2, completed_at = :now WHERE id = $1 AND status = 'acknowledged' AND due_at <= :now";
    const GIVE_UP: &str = "UPDATE liaison_configuration_events SET status = 'failed', stuck = TRUE, due_at = NULL, \
         error_message = $2, failures = failures || $3, completed_at = :now WHERE id = $1 AND status = 'acknowledged' AND due_at <= :now";
    const RETRY: &str = "UPDATE liaison_configuration_events SET status = 'pending', due_at = NULL, completed_at = NULL, offered = $2 \
         WHERE id = $1 AND is_open = TRUE AND status = 'failed' AND stuck = FALSE AND due_at <= :now";
    const OVERTAKE: &str = "UPDATE liaison_configuration_events SET is_open = FALSE, due_at = NULL, superseded_by = $2 \
         WHERE id = $1 AND is_open = TRUE AND status = 'failed' AND stuck = FALSE AND due_at <= :now";
    let mut changed = 0;
    if query(DUE).bind(workspace).all::<DueEvent>(&mut *tx).await?.is_empty() {
        return Ok(0);
    }
    let offered = next_offer(tx, workspace).await?;
    // Again, now that nobody else writes events of the workspace: a newer version may have come in between.
    let due: Vec<DueEvent> = query(DUE).bind(workspace).all(&mut *tx).await?;
    let now = tx.now().await?;
    let mut instructions = Vec::new();
    for event in due {
        let death = failure_line(event.attempt, &event.worker_id, DIED, now);
        let has_failed = event.status == "failed";
        let settled = match event.newer {
            Some(newer) if has_failed => query(OVERTAKE).bind(event.id).bind(newer).execute(tx).await?,
            Some(newer) => query(SUPERSEDE).bind(event.id).bind(newer).execute(tx).await?,
            None if has_failed => query(RETRY).bind(event.id).bind(offered).execute(tx).await?,
            None if event.attempt >= ATTEMPTS_MAX => {
                let given_up = query(GIVE_UP).bind(event.id).bind(DIED).bind(death).execute(tx).await?;
                observe::stuck(tx, given_up);
                if let (1, Some(configuration)) = (given_up, event.configuration_id) {
                    withhold(tx, event.customer_id, workspace, configuration, event.version).await?;
                    raise_stuck(tx, event.id).await?;
                }
                given_up
            }
            None => query(REOPEN).bind(event.id).bind(offered).bind(death).execute(tx).await?,
        };
        if !has_failed {
            observe::lease_expired(tx, settled);
        }
        changed += settled;
        instructions.extend(event.configuration_id.is_none().then_some(event.id));
    }
    // Once all events are held: whoever holds an upgrade waits for no event.
    for instruction in instructions {
        upgrade::follow(tx, instruction).await?;
    }
    Ok(changed)
}

/// Notes that a version must not be offered to a workspace again until there is a newer one.
pub(crate) async fn withhold(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    configuration: Id<Configuration>,
    version: i64,
) -> Result<(), StorageError> {
    const WITHHOLD: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, withheld_version) VALUES ($1, $2, $3, 0, '', $4) \
         ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET withheld_version = excluded.withheld_version";
    query(WITHHOLD).bind(workspace).bind(configuration).bind(customer).bind(version).execute(tx).await?;
    Ok(())
}

row! {
    struct Due {
        workspace_id: Id<Workspace>,
        customer_id: Id<Customer>,
    }
}

/// Settles up to `limit` workspaces that have something due, and wakes whoever waits for them. Returns how many events
/// changed: none, when this has nothing left to do.
pub async fn settle_due(db: &Db, limit: i64) -> Result<u64, StorageError> {
    const DUE: &str = "SELECT DISTINCT workspace_id, customer_id FROM liaison_configuration_events \
         WHERE due_at IS NOT NULL AND due_at <= :now LIMIT $1";
    let due: Vec<Due> = query(DUE).bind(limit).all(db).await?;
    let mut changed = 0;
    for workspace in &due {
        match settle_one(db, workspace).await {
            Ok(settled) => changed += settled,
            Err(error @ StorageError::Unavailable(_)) => return Err(error),
            // The others are not made to wait for one.
            Err(error) => {
                tracing::error!(%error, workspace = %workspace.workspace_id, "a workspace could not be settled");
            }
        }
    }
    Ok(changed)
}

async fn settle_one(db: &Db, due: &Due) -> Result<u64, StorageError> {
    let mut tx = db.begin().await?;
    let changed = settle_workspace(&mut tx, due.workspace_id).await?;
    tx.announce(due.customer_id);
    tx.commit_unaudited("the event rows tell").await?;
    Ok(changed)
}
