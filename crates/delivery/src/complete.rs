//! Completions: the first one decides, a stale one changes nothing.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_kernel::{Fault, FaultKind};
use agentrouter_storage::{Db, StorageError, Tx, query, row};
use prost::Message;
use uuid::Uuid;

use crate::ATTEMPTS_MAX;
use crate::claim::Reach;
use crate::event::EventRow;
use crate::poll;
use crate::settle::withhold;

/// The longest kept error message, in bytes.
pub const MESSAGE_MAX: usize = 4096;

/// A worker's report on an event.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The event.
    pub event: Id<Event>,
    /// How it ended.
    pub outcome: Outcome,
    /// The token of the claim.
    pub token: Option<Uuid>,
    /// The worker; empty where it does not say.
    pub worker: String,
    /// What became of each resource.
    pub resources: Vec<pb::ResourceResult>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The data plane runs it.
    Applied {
        /// The version that runs, where it is not the event's.
        version: Option<i64>,
        /// Its checksum, where the worker knows it.
        checksum: String,
    },
    /// It does not.
    Failed {
        /// Why.
        message: String,
        /// Whether trying again is useless.
        permanent: bool,
    },
}

impl Outcome {
    fn name(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Failed { .. } => "failed",
        }
    }
}

row! {
    struct Ended {
        customer_id: Id<Customer>,
        workspace_id: Id<Workspace>,
        configuration_id: Option<Id<Configuration>>,
        version: i64,
        attempt: i64,
    }
}

/// Reports an event. Returns whether it is applied or failed as reported: a bare report (no token, no worker)
/// that the current claim does not cover is answered with no, instead of an error.
///
/// # Errors
/// `EVENT_NOT_FOUND`; ABORTED `STALE_CLAIM` where the claim is not current any more; FAILED_PRECONDITION
/// `EVENT_ALREADY_COMPLETED` where it was completed differently.
pub async fn complete(db: &Db, reach: &Reach, completion: &Completion) -> Result<bool, Fault> {
    let mut tx = db.begin().await?;
    let done = complete_in(&mut tx, reach, completion).await?;
    tx.commit_unaudited("the event row tells").await?;
    Ok(done)
}

/// [`complete`] inside a transaction, for batches. Changes nothing where it fails.
pub async fn complete_in(tx: &mut Tx, reach: &Reach, completion: &Completion) -> Result<bool, Fault> {
    let Some(ended) = end(tx, reach, completion).await? else {
        return explain(tx, reach, completion).await;
    };
    match &completion.outcome {
        Outcome::Applied { version, checksum } => {
            if let Some(configuration) = ended.configuration_id {
                record_applied(tx, completion.event, &ended, configuration, *version, checksum).await?;
            }
        }
        Outcome::Failed { permanent, .. } => {
            after_failure(tx, completion.event, &ended, *permanent).await?;
        }
    }
    Ok(true)
}

/// Ends the current claim, if the report is covered by it.
async fn end(tx: &mut Tx, reach: &Reach, completion: &Completion) -> Result<Option<Ended>, StorageError> {
    // The lease decides, not whether somebody noticed that it is over.
    const END: &str = "UPDATE liaison_configuration_events SET status = $4, outcome = $4, error_message = $5, \
             resources = $6, is_open = FALSE, due_at = NULL, completed_at = :now \
         WHERE id = $1 AND customer_id = $2 AND workspace_id = COALESCE($3, workspace_id) \
         AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND due_at > :now \
         AND (($7 = 'token' AND claim_token = $8 AND ($9 = '' OR worker_id = $9)) \
             OR ($7 = 'worker' AND worker_id = $9) \
             OR ($7 = 'bare' AND claimed_by = $10)) \
         RETURNING customer_id, workspace_id, configuration_id, version, attempt";
    let proof = match (completion.token, completion.worker.as_str()) {
        (Some(_), _) => "token",
        (None, "") => "bare",
        (None, _) => "worker",
    };
    let message = match &completion.outcome {
        Outcome::Applied { .. } => "",
        Outcome::Failed { message, .. } => bounded(message),
    };
    let resources = (!completion.resources.is_empty()).then(|| {
        pb::CompleteEventRequest { resources: completion.resources.clone(), ..Default::default() }
            .encode_to_vec()
    });
    query(END)
        .bind(completion.event)
        .bind(reach.customer)
        .bind(reach.workspace)
        .bind(completion.outcome.name())
        .bind(message)
        .bind(resources)
        .bind(proof)
        .bind(completion.token)
        .bind(&completion.worker)
        .bind(&reach.credential)
        .optional(tx)
        .await
}

/// Why a report was not covered by a current claim.
async fn explain(tx: &mut Tx, reach: &Reach, completion: &Completion) -> Result<bool, Fault> {
    let Some(row) = poll::resolve(tx, reach, completion.event).await? else {
        return Err(Fault::not_found::<Event>(completion.event));
    };
    let bare = completion.token.is_none() && completion.worker.is_empty();
    let same_claim = match (completion.token, completion.worker.as_str()) {
        (Some(token), worker) => {
            row.claim_token == Some(token) && (worker.is_empty() || worker == row.worker_id)
        }
        (None, "") => row.claimed_by == reach.credential,
        (None, worker) => worker == row.worker_id,
    };
    // A repeat of the completion that decided.
    if same_claim && !row.outcome.is_empty() {
        return if row.outcome == completion.outcome.name() {
            Ok(true)
        } else if bare {
            Ok(false)
        } else {
            Err(Fault::precondition("EVENT_ALREADY_COMPLETED", "the event was completed with another result"))
        };
    }
    if bare {
        return Ok(false);
    }
    Err(stale(&row))
}

fn stale(row: &EventRow) -> Fault {
    let what = if row.status == "superseded" {
        "the event was superseded by a newer one"
    } else {
        "the claim is not current any more: its lease ended, or another worker holds the event"
    };
    Fault::new(FaultKind::Aborted, "STALE_CLAIM", what)
}

async fn record_applied(
    tx: &mut Tx,
    event: Id<Event>,
    ended: &Ended,
    configuration: Id<Configuration>,
    version: Option<i64>,
    checksum: &str,
) -> Result<(), StorageError> {
    // A late completion never takes the applied version back.
    const APPLIED: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, applied_at, applied_event_id, withheld_version) \
         VALUES ($1, $2, $3, $4, $5, :now, $6, 0) \
         ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET applied_version = excluded.applied_version, \
             applied_checksum = excluded.applied_checksum, applied_at = excluded.applied_at, \
             applied_event_id = excluded.applied_event_id \
         WHERE workspace_slots.applied_version <= excluded.applied_version";
    query(APPLIED)
        .bind(ended.workspace_id)
        .bind(configuration)
        .bind(ended.customer_id)
        .bind(version.unwrap_or(ended.version))
        .bind(checksum)
        .bind(event)
        .execute(tx)
        .await?;
    Ok(())
}

/// Decides what follows a failed attempt: another one after a delay, a newer version that waits already, or
/// a stuck slot.
async fn after_failure(
    tx: &mut Tx,
    event: Id<Event>,
    ended: &Ended,
    permanent: bool,
) -> Result<(), StorageError> {
    const NEWER: &str = "SELECT id AS value FROM liaison_configuration_events \
         WHERE workspace_id = $1 AND configuration_id = $2 AND status = 'pending'";
    const SUPERSEDED: &str = "UPDATE liaison_configuration_events SET superseded_by = $2 WHERE id = $1";
    const STUCK: &str = "UPDATE liaison_configuration_events SET is_open = TRUE, stuck = TRUE WHERE id = $1";
    const RETRY: &str =
        "UPDATE liaison_configuration_events SET is_open = TRUE, due_at = :now + $2 WHERE id = $1";
    if let Some(configuration) = ended.configuration_id {
        let newer: Option<Id<Event>> =
            query(NEWER).bind(ended.workspace_id).bind(configuration).value(&mut *tx).await?;
        if let Some(newer) = newer {
            query(SUPERSEDED).bind(event).bind(newer).execute(tx).await?;
            return Ok(());
        }
    }
    if permanent || ended.attempt >= ATTEMPTS_MAX {
        query(STUCK).bind(event).execute(tx).await?;
        if let Some(configuration) = ended.configuration_id {
            withhold(tx, ended.customer_id, ended.workspace_id, configuration, ended.version).await?;
        }
        return Ok(());
    }
    let delay = i64::try_from(retry_delay(ended.attempt).as_micros()).unwrap_or(i64::MAX);
    query(RETRY).bind(event).bind(delay).execute(tx).await?;
    tx.announce(ended.customer_id);
    Ok(())
}

/// How long a slot waits after its `attempt`th failure: 2 s, three times as long each time, at most 300 s.
pub fn retry_delay(attempt: i64) -> Duration {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or_default().min(10);
    Duration::from_secs((2 * 3u64.pow(exponent)).min(300))
}

fn bounded(message: &str) -> &str {
    &message[..message.floor_char_boundary(MESSAGE_MAX)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays() {
        let delays: Vec<_> = (1..=7).map(|attempt| retry_delay(attempt).as_secs()).collect();
        assert_eq!(delays, [2, 6, 18, 54, 162, 300, 300]);
    }

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(bounded("short"), "short");
        assert_eq!(bounded(&"é".repeat(3000)).len(), MESSAGE_MAX);
    }
}
