//! Claims and completions of many events with few statements. What a batch answers for each event is what the single
//! call would have answered.
//!
//! The events whose claim or completion is plain go in one statement; the others, few as a rule, go one by one.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use agentrouter_kernel::id::{Event, Id};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::{Db, Sql, StorageError, Tx, query, row};
use uuid::Uuid;

use crate::claim::{Claim, Claimed, Reach, acknowledge_in, micros, random_token};
use crate::complete::{Completion, Ended, Outcome, complete_in, follow_up};
use crate::layout::hold_workspaces;
use crate::observe;

/// The most events of one batch.
pub const BATCH_MAX: usize = 100;

/// One claim of a batch.
#[derive(Debug, Clone)]
pub struct Ask {
    /// What the caller may reach.
    pub reach: Reach,
    /// The event.
    pub event: Id<Event>,
    /// Who claims it.
    pub worker: String,
    /// For how long.
    pub lease: Duration,
}

/// One report of a batch.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the caller may reach.
    pub reach: Reach,
    /// What is reported.
    pub completion: Completion,
}

/// Claims events for a worker, with a result for each, in their order.
///
/// # Errors
/// Those of the database. What concerns one event is in its result.
pub async fn acknowledge(
    db: &Db,
    reach: &Reach,
    events: &[Id<Event>],
    worker: &str,
    lease: Duration,
) -> Result<Vec<Result<Claimed, Fault>>, Fault> {
    let ask =
        |event: &Id<Event>| Ask { reach: reach.clone(), event: *event, worker: worker.to_owned(), lease };
    acknowledge_all(db, &events.iter().map(ask).collect::<Vec<_>>()).await
}

/// [`acknowledge`] for claims of several callers.
pub(crate) async fn acknowledge_all(db: &Db, asks: &[Ask]) -> Result<Vec<Result<Claimed, Fault>>, Fault> {
    let mut tx = db.begin().await?;
    let mut taken = take(&mut tx, asks).await?;
    let mut results = Vec::with_capacity(asks.len());
    for ask in asks {
        // An event that is named twice is claimed by its first mention; the second one finds it held.
        results.push(if let Some(claim) = taken.remove(&ask.event) {
            Ok(Claimed::Held(claim))
        } else {
            let claimed = acknowledge_in(&mut tx, &ask.reach, ask.event, &ask.worker, ask.lease).await;
            own(&tx, claimed)?
        });
        if let Some(Ok(claimed)) = results.last() {
            observe::answered(&mut tx, claimed);
        }
    }
    tx.commit_unaudited("the event rows tell").await?;
    Ok(results)
}

/// Reports events, with a result for each, in their order.
///
/// # Errors
/// Those of the database. What concerns one event is in its result.
pub async fn complete(
    db: &Db,
    reach: &Reach,
    completions: &[Completion],
) -> Result<Vec<Result<bool, Fault>>, Fault> {
    let report = |completion: &Completion| Report { reach: reach.clone(), completion: completion.clone() };
    complete_all(db, &completions.iter().map(report).collect::<Vec<_>>()).await
}

/// [`complete`] for reports of several callers.
pub(crate) async fn complete_all(db: &Db, reports: &[Report]) -> Result<Vec<Result<bool, Fault>>, Fault> {
    let mut tx = db.begin().await?;
    let mut failed: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for Report { reach, completion } in reports {
        if matches!(completion.outcome, Outcome::Failed { .. }) {
            failed.entry(reach.customer).or_default().push(completion.event);
        }
    }
    for (customer, events) in failed {
        hold_workspaces(&mut tx, customer, &events).await?;
    }
    let ended = end(&mut tx, reports).await?;
    record_applied(&mut tx, reports, &ended).await?;
    let mut first: HashSet<Id<Event>> = HashSet::new();
    let mut results = Vec::with_capacity(reports.len());
    for Report { reach, completion } in reports {
        let by_this = ended.get(&completion.event).filter(|_| first.insert(completion.event));
        results.push(if let Some(ended) = by_this {
            follow_up(&mut tx, ended, completion).await?;
            Ok(true)
        } else {
            let done = complete_in(&mut tx, reach, completion).await;
            own(&tx, done)?
        });
    }
    tx.commit_unaudited("the event rows tell").await?;
    Ok(results)
}

/// Lets what concerns one event be its result. Where the database failed, nothing of the transaction can be stored any
/// more, and that concerns all.
fn own<T>(tx: &Tx, result: Result<T, Fault>) -> Result<Result<T, Fault>, Fault> {
    match result {
        Err(fault) if tx.is_broken() || fault.kind() == FaultKind::Internal => Err(fault),
        other => Ok(other),
    }
}

row! {
    struct Taken {
        id: Id<Event>,
        claim_token: Uuid,
        attempt: i64,
        due_at: Timestamp,
    }
}

/// Takes the pending ones among events, as a single claim does.
async fn take(tx: &mut Tx, asks: &[Ask]) -> Result<HashMap<Id<Event>, Claim>, StorageError> {
    // Rows are locked in the order of their ids, so that batches that overlap do not wait for each other in a ring.
    const TAKE: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET status = 'acknowledged', attempt = attempt + 1, \
                 worker_id = d.worker, claim_token = d.token, claimed_by = d.credential, lease_micros = d.lease, \
                 due_at = :now + d.lease, acknowledged_at = :now, outcome = '' \
             FROM (SELECT unhex(value ->> 0) AS id, unhex(value ->> 1) AS token, value ->> 2 AS worker, value ->> 3 AS credential, \
                 value ->> 4 AS lease, unhex(value ->> 5) AS customer, unhex(value ->> 6) AS workspace FROM json_each($1)) AS d \
             WHERE liaison_configuration_events.id = d.id AND customer_id = d.customer \
             AND workspace_id = COALESCE(d.workspace, workspace_id) \
             AND CASE status WHEN 'pending' THEN TRUE ELSE FALSE END \
             AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events o \
                 WHERE o.workspace_id = liaison_configuration_events.workspace_id \
                 AND o.configuration_id = liaison_configuration_events.configuration_id AND o.status = 'acknowledged') \
             RETURNING id, claim_token, attempt, due_at",
        postgres: "WITH d AS MATERIALIZED (SELECT CAST(value ->> 0 AS uuid) AS id, CAST(value ->> 1 AS uuid) AS token, \
                 value ->> 2 AS worker, value ->> 3 AS credential, CAST(value ->> 4 AS bigint) AS lease, \
                 CAST(value ->> 5 AS uuid) AS customer, CAST(value ->> 6 AS uuid) AS workspace \
                 FROM jsonb_array_elements(CAST($1 AS jsonb))), \
             l AS MATERIALIZED (SELECT d.* FROM d JOIN liaison_configuration_events e ON e.id = d.id \
                 ORDER BY e.id FOR UPDATE OF e) \
             UPDATE liaison_configuration_events t SET status = 'acknowledged', attempt = attempt + 1, \
                 worker_id = l.worker, claim_token = l.token, claimed_by = l.credential, lease_micros = l.lease, \
                 due_at = :now + l.lease, acknowledged_at = :now, outcome = '' \
             FROM l WHERE t.id = l.id AND t.customer_id = l.customer AND t.workspace_id = COALESCE(l.workspace, t.workspace_id) \
             AND CASE t.status WHEN 'pending' THEN TRUE ELSE FALSE END \
             AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events o WHERE o.workspace_id = t.workspace_id \
                 AND o.configuration_id = t.configuration_id AND o.status = 'acknowledged') \
             RETURNING t.id, t.claim_token, t.attempt, t.due_at",
    };
    let mut unique = HashSet::new();
    let mut rows = Vec::with_capacity(asks.len());
    for ask in asks.iter().filter(|ask| unique.insert(ask.event)) {
        rows.push(serde_json::json!([
            hex(ask.event.uuid()),
            hex(random_token()?),
            ask.worker,
            ask.reach.credential,
            micros(ask.lease),
            hex(ask.reach.customer.uuid()),
            ask.reach.workspace.map(|workspace| hex(workspace.uuid())),
        ]));
    }
    let taken: Vec<Taken> = query(TAKE).bind(serde_json::Value::from(rows).to_string()).all(&mut *tx).await?;
    for claim in &taken {
        observe::claimed(tx, claim.id).await?;
    }
    Ok(taken
        .into_iter()
        .map(|row| {
            (row.id, Claim { token: row.claim_token, attempt: row.attempt, lease_expires_at: row.due_at })
        })
        .collect())
}

/// Ends the claims that their reports cover, as a single report does.
async fn end(tx: &mut Tx, reports: &[Report]) -> Result<HashMap<Id<Event>, Ended>, StorageError> {
    const END: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET status = d.outcome, outcome = d.outcome, error_message = d.message, \
                 resources = d.resources, is_open = FALSE, due_at = NULL, completed_at = :now \
             FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS outcome, value ->> 2 AS message, unhex(value ->> 3) AS resources, \
                 value ->> 4 AS proof, unhex(value ->> 5) AS token, value ->> 6 AS worker, value ->> 7 AS credential, \
                 unhex(value ->> 8) AS customer, unhex(value ->> 9) AS workspace FROM json_each($1)) AS d \
             WHERE liaison_configuration_events.id = d.id AND customer_id = d.customer \
             AND workspace_id = COALESCE(d.workspace, workspace_id) \
             AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND due_at > :now \
             AND ((d.proof = 'token' AND claim_token = d.token AND (d.worker = '' OR worker_id = d.worker)) \
                 OR (d.proof = 'worker' AND worker_id = d.worker) OR (d.proof = 'bare' AND claimed_by = d.credential)) \
             RETURNING id, customer_id, workspace_id, configuration_id, version, attempt, completed_at, \
                 (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = liaison_configuration_events.workspace_id \
                  AND n.configuration_id = liaison_configuration_events.configuration_id AND n.status = 'pending') AS newer",
        postgres: "WITH d AS MATERIALIZED (SELECT CAST(value ->> 0 AS uuid) AS id, value ->> 1 AS outcome, value ->> 2 AS message, \
                 decode(value ->> 3, 'hex') AS resources, value ->> 4 AS proof, CAST(value ->> 5 AS uuid) AS token, \
                 value ->> 6 AS worker, value ->> 7 AS credential, CAST(value ->> 8 AS uuid) AS customer, \
                 CAST(value ->> 9 AS uuid) AS workspace FROM jsonb_array_elements(CAST($1 AS jsonb))), \
             l AS MATERIALIZED (SELECT d.* FROM d JOIN liaison_configuration_events e ON e.id = d.id ORDER BY e.id FOR UPDATE OF e) \
             UPDATE liaison_configuration_events t SET status = l.outcome, outcome = l.outcome, error_message = l.message, \
                 resources = l.resources, is_open = FALSE, due_at = NULL, completed_at = :now \
             FROM l WHERE t.id = l.id AND t.customer_id = l.customer AND t.workspace_id = COALESCE(l.workspace, t.workspace_id) \
             AND CASE t.status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND t.due_at > :now \
             AND ((l.proof = 'token' AND t.claim_token = l.token AND (l.worker = '' OR t.worker_id = l.worker)) \
                 OR (l.proof = 'worker' AND t.worker_id = l.worker) OR (l.proof = 'bare' AND t.claimed_by = l.credential)) \
             RETURNING t.id, t.customer_id, t.workspace_id, t.configuration_id, t.version, t.attempt, t.completed_at, \
                 (SELECT n.id FROM liaison_configuration_events n WHERE n.workspace_id = t.workspace_id \
                  AND n.configuration_id = t.configuration_id AND n.status = 'pending') AS newer",
    };
    let mut unique = HashSet::new();
    let rows: serde_json::Value = reports
        .iter()
        .filter(|report| unique.insert(report.completion.event))
        .map(|Report { reach, completion }| {
            serde_json::json!([
                hex(completion.event.uuid()),
                completion.outcome.name(),
                completion.message(),
                completion.encoded_resources().map(|bytes| crate::generate::hex(&bytes)),
                completion.proof().name(),
                completion.token.map(hex),
                completion.worker,
                reach.credential,
                hex(reach.customer.uuid()),
                reach.workspace.map(|workspace| hex(workspace.uuid())),
            ])
        })
        .collect();
    let ended: Vec<Ended> = query(END).bind(rows.to_string()).all(tx).await?;
    Ok(ended.into_iter().map(|ended| (ended.id, ended)).collect())
}

/// Moves the applied versions, as a single report does.
async fn record_applied(
    tx: &mut Tx,
    reports: &[Report],
    ended: &HashMap<Id<Event>, Ended>,
) -> Result<(), StorageError> {
    const APPLIED: Sql = Sql::Each {
        sqlite: "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
                 applied_checksum, applied_at, applied_event_id, withheld_version) \
             SELECT d.workspace_id, c.id, c.customer_id, CASE WHEN d.version > c.version THEN c.version ELSE d.version END, \
                 d.checksum, :now, d.event_id, 0 \
             FROM (SELECT unhex(value ->> 0) AS workspace_id, unhex(value ->> 1) AS configuration_id, value ->> 2 AS version, \
                 value ->> 3 AS checksum, unhex(value ->> 4) AS event_id, unhex(value ->> 5) AS customer FROM json_each($1)) AS d \
             JOIN liaison_configurations c ON c.id = d.configuration_id AND c.customer_id = d.customer WHERE TRUE \
             ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET applied_version = excluded.applied_version, \
                 applied_checksum = excluded.applied_checksum, applied_at = excluded.applied_at, \
                 applied_event_id = excluded.applied_event_id \
             WHERE workspace_slots.applied_version <= excluded.applied_version",
        postgres: "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
                 applied_checksum, applied_at, applied_event_id, withheld_version) \
             SELECT d.workspace_id, c.id, c.customer_id, CASE WHEN d.version > c.version THEN c.version ELSE d.version END, \
                 d.checksum, :now, d.event_id, 0 \
             FROM (SELECT CAST(value ->> 0 AS uuid) AS workspace_id, CAST(value ->> 1 AS uuid) AS configuration_id, \
                 CAST(value ->> 2 AS bigint) AS version, value ->> 3 AS checksum, CAST(value ->> 4 AS uuid) AS event_id, \
                 CAST(value ->> 5 AS uuid) AS customer FROM jsonb_array_elements(CAST($1 AS jsonb))) AS d \
             JOIN liaison_configurations c ON c.id = d.configuration_id AND c.customer_id = d.customer ORDER BY d.workspace_id, c.id \
             ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET applied_version = excluded.applied_version, \
                 applied_checksum = excluded.applied_checksum, applied_at = excluded.applied_at, \
                 applied_event_id = excluded.applied_event_id \
             WHERE workspace_slots.applied_version <= excluded.applied_version",
    };
    let mut unique = HashSet::new();
    let mut rows = Vec::new();
    for Report { completion, .. } in reports.iter().filter(|report| unique.insert(report.completion.event)) {
        if let Outcome::Applied { version, checksum } = &completion.outcome
            && let Some(ended) = ended.get(&completion.event)
            && let Some(configuration) = ended.configuration_id
        {
            rows.push(serde_json::json!([
                hex(ended.workspace_id.uuid()),
                hex(configuration.uuid()),
                version.unwrap_or(ended.version),
                checksum,
                hex(ended.id.uuid()),
                hex(ended.customer_id.uuid()),
            ]));
        }
    }
    if !rows.is_empty() {
        query(APPLIED).bind(serde_json::Value::from(rows).to_string()).execute(tx).await?;
    }
    Ok(())
}

fn hex(uuid: Uuid) -> String {
    uuid.simple().to_string()
}
