//! Claims: exactly one worker holds an event, under a lease, with a token that fences it.

use std::time::Duration;

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Db, StorageError, Tx, query, row};
use uuid::Uuid;

use crate::observe;
use crate::poll;
use crate::settle::settle_workspace;

/// How long a claim holds where the worker does not say.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(30);
/// The shortest and the longest lease.
pub const LEASE_BOUNDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_mins(15));

/// What a caller may reach: the events of a customer, or of one of its workspaces.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The tenant.
    pub customer: Id<Customer>,
    /// The only workspace, for workspace tokens.
    pub workspace: Option<Id<Workspace>>,
    /// The credential that calls.
    pub credential: String,
}

/// A claim that was made or renewed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Fences the claim.
    pub token: Uuid,
    /// Attempts used, this one included.
    pub attempt: i64,
    /// When the claim ends.
    pub lease_expires_at: Timestamp,
}

/// The answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// The worker holds the event now.
    Held(Claim),
    /// It does not; whoever does, if anybody.
    Refused {
        /// The holder's worker id.
        holder: String,
    },
}

row! {
    struct Taken {
        attempt: i64,
        due_at: Timestamp,
    }
}

/// Claims an event for a worker.
///
/// # Errors
/// `EVENT_NOT_FOUND` where the caller may not know of such an event.
pub async fn acknowledge(
    db: &Db,
    reach: &Reach,
    event: Id<Event>,
    worker: &str,
    lease: Duration,
) -> Result<Claimed, Fault> {
    let mut tx = db.begin().await?;
    let claimed = acknowledge_in(&mut tx, reach, event, worker, lease).await?;
    observe::answered(&mut tx, &claimed);
    tx.commit_unaudited("the event row tells").await?;
    Ok(claimed)
}

/// [`acknowledge`] inside a transaction, for batches.
pub async fn acknowledge_in(
    tx: &mut Tx,
    reach: &Reach,
    event: Id<Event>,
    worker: &str,
    lease: Duration,
) -> Result<Claimed, Fault> {
    if let Some(claim) = take(tx, reach, event, worker, lease).await? {
        return Ok(Claimed::Held(claim));
    }
    // Not simply pending. Look closer, and settle what time has brought about.
    let Some(mut row) = poll::resolve(tx, reach, event).await? else {
        return Err(Fault::not_found::<Event>(event));
    };
    let now = tx.now().await?;
    let is_held = row.status == "acknowledged" && row.due_at.is_some_and(|due| due > now);
    if !is_held {
        settle_workspace(tx, row.workspace_id).await?;
        if let Some(claim) = take(tx, reach, event, worker, lease).await? {
            return Ok(Claimed::Held(claim));
        }
        let Some(settled) = poll::find(&mut *tx, reach, event).await? else {
            return Ok(Claimed::Refused { holder: String::new() });
        };
        row = settled;
    }
    if row.status != "acknowledged" {
        return Ok(Claimed::Refused { holder: String::new() });
    }
    if !worker.is_empty()
        && row.worker_id == worker
        && let Some(token) = row.claim_token
        && let Some(claim) = renew(tx, reach, event, token, worker, Some(lease)).await?
    {
        return Ok(Claimed::Held(claim));
    }
    Ok(Claimed::Refused { holder: row.worker_id })
}

/// Takes a pending event, if nothing of its slot is in flight.
async fn take(
    tx: &mut Tx,
    reach: &Reach,
    event: Id<Event>,
    worker: &str,
    lease: Duration,
) -> Result<Option<Claim>, StorageError> {
    // `CASE` hides the status from PostgreSQL's planner: a plain comparison implies the predicate of a partial
    // index, which it then scans as a whole in place of one look-up by id.
    const TAKE: &str = "UPDATE liaison_configuration_events SET status = 'acknowledged', attempt = attempt + 1, \
             worker_id = $2, claim_token = $3, claimed_by = $4, lease_micros = $5, due_at = :now + $5, \
             acknowledged_at = :now, outcome = '' \
         WHERE id = $1 AND customer_id = $6 AND workspace_id = COALESCE($7, workspace_id) \
         AND CASE status WHEN 'pending' THEN TRUE ELSE FALSE END \
         AND NOT EXISTS (SELECT 1 FROM liaison_configuration_events o \
             WHERE o.workspace_id = liaison_configuration_events.workspace_id \
             AND o.configuration_id = liaison_configuration_events.configuration_id AND o.status = 'acknowledged') \
         RETURNING attempt, due_at";
    let token = random_token()?;
    let taken: Option<Taken> = query(TAKE)
        .bind(event)
        .bind(worker)
        .bind(token)
        .bind(&reach.credential)
        .bind(micros(lease))
        .bind(reach.customer)
        .bind(reach.workspace)
        .optional(&mut *tx)
        .await?;
    if taken.is_some() {
        observe::claimed(tx, event).await?;
    }
    Ok(taken.map(|taken| Claim { token, attempt: taken.attempt, lease_expires_at: taken.due_at }))
}

/// A token that nobody can guess.
pub(crate) fn random_token() -> Result<Uuid, StorageError> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StorageError::Corrupt("no randomness".to_owned()))?;
    Ok(Uuid::from_bytes(bytes))
}

/// The stored form of a length of time.
pub(crate) fn micros(length: Duration) -> i64 {
    i64::try_from(length.as_micros()).unwrap_or(i64::MAX)
}

/// Renews a claim that is still good; none where it is not.
pub async fn renew(
    tx: &mut Tx,
    reach: &Reach,
    event: Id<Event>,
    token: Uuid,
    worker: &str,
    lease: Option<Duration>,
) -> Result<Option<Claim>, StorageError> {
    const RENEW: &str = "UPDATE liaison_configuration_events SET due_at = :now + COALESCE($6, lease_micros), \
             lease_micros = COALESCE($6, lease_micros) \
         WHERE id = $1 AND customer_id = $2 AND workspace_id = COALESCE($3, workspace_id) \
         AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND claim_token = $4 AND worker_id = $5 AND due_at > :now \
         RETURNING attempt, due_at";
    let renewed: Option<Taken> = query(RENEW)
        .bind(event)
        .bind(reach.customer)
        .bind(reach.workspace)
        .bind(token)
        .bind(worker)
        .bind(lease.map(micros))
        .optional(&mut *tx)
        .await?;
    if renewed.is_some() {
        observe::renewed(tx);
    }
    Ok(renewed.map(|renewed| Claim { token, attempt: renewed.attempt, lease_expires_at: renewed.due_at }))
}
