//! Completions: the first one decides, a stale one changes nothing.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::{Db, StorageError, Tx, query, row};
use prost::Message;
use uuid::Uuid;

use crate::ATTEMPTS_MAX;
use crate::claim::Reach;
use crate::event::{EventRow, timestamp};
use crate::layout::hold_workspaces;
use crate::observe;
use crate::poll;
use crate::settle::withhold;
use crate::signal::raise_stuck;
use crate::upgrade;

/// The longest kept error message, in bytes.
pub const MESSAGE_MAX: usize = 4096;
/// The longest message that is kept of an attempt once there was another one, in bytes.
const FAILURE_MESSAGE_MAX: usize = 1024;

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
        /// The version that the data plane went back to, where it did so by itself.
        running: Option<i64>,
    },
}

impl Outcome {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Applied { .. } => "applied",
            Self::Failed { .. } => "failed",
        }
    }
}

row! {
    /// An event that a report has ended.
    #[derive(Debug, Clone)]
    pub(crate) struct Ended {
        pub(crate) id: Id<Event>,
        pub(crate) customer_id: Id<Customer>,
        pub(crate) workspace_id: Id<Workspace>,
        pub(crate) configuration_id: Option<Id<Configuration>>,
        pub(crate) version: i64,
        pub(crate) attempt: i64,
        pub(crate) completed_at: Timestamp,
        /// A newer version that waits.
        pub(crate) newer: Option<Id<Event>>,
    }
}

/// What a report brings as proof that it may end the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The token of the claim.
    Token,
    /// The name of the holder.
    Worker,
    /// Neither: only the credential that made the claim may do so.
    Bare,
}

impl Completion {
    /// What it brings as proof.
    pub fn proof(&self) -> Proof {
        match (self.token, self.worker.as_str()) {
            (Some(_), _) => Proof::Token,
            (None, "") => Proof::Bare,
            (None, _) => Proof::Worker,
        }
    }

    pub(crate) fn message(&self) -> &str {
        match &self.outcome {
            Outcome::Applied { .. } => "",
            Outcome::Failed { message, .. } => bounded(message, MESSAGE_MAX),
        }
    }

    pub(crate) fn encoded_resources(&self) -> Option<Vec<u8>> {
        (!self.resources.is_empty()).then(|| {
            pb::CompleteEventRequest { resources: self.resources.clone(), ..Default::default() }
                .encode_to_vec()
        })
    }
}

impl Proof {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Worker => "worker",
            Self::Bare => "bare",
        }
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

/// [`complete`] inside a transaction. Changes nothing where it fails.
///
/// # Errors
/// Those of [`complete`].
pub async fn complete_in(tx: &mut Tx, reach: &Reach, completion: &Completion) -> Result<bool, Fault> {
    if matches!(completion.outcome, Outcome::Failed { .. }) {
        hold_workspaces(tx, reach.customer, &[completion.event]).await?;
    }
    let Some(ended) = end(tx, reach, completion).await? else {
        return explain(tx, reach, completion).await;
    };
    if let Outcome::Applied { version, checksum } = &completion.outcome
        && let Some(configuration) = ended.configuration_id
    {
        record_applied(tx, &ended, configuration, *version, checksum).await?;
    }
    follow_up(tx, &ended, completion).await?;
    Ok(true)
}

/// What follows an ended attempt, beside the version that was applied.
pub(crate) async fn follow_up(
    tx: &mut Tx,
    ended: &Ended,
    completion: &Completion,
) -> Result<(), StorageError> {
    observe::completed(tx, ended, completion).await?;
    if let Outcome::Failed { permanent, running, .. } = &completion.outcome {
        note_failure(tx, ended, completion).await?;
        record_rollback(tx, ended, *running).await?;
        after_failure(tx, ended, *permanent).await?;
    }
    if ended.newer.is_some() {
        // It could not be claimed as long as this one was held.
        tx.announce(ended.customer_id);
    }
    if ended.configuration_id.is_none() {
        upgrade::follow(tx, ended.id).await?;
    }
    Ok(())
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
         RETURNING id, customer_id, workspace_id, configuration_id, version, attempt, completed_at, \
             (SELECT n.id FROM liaison_configuration_events n \
              WHERE n.workspace_id = liaison_configuration_events.workspace_id \
              AND n.configuration_id = liaison_configuration_events.configuration_id AND n.status = 'pending') AS newer";
    query(END)
        .bind(completion.event)
        .bind(reach.customer)
        .bind(reach.workspace)
        .bind(completion.outcome.name())
        .bind(completion.message())
        .bind(completion.encoded_resources())
        .bind(completion.proof().name())
        .bind(completion.token)
        .bind(&completion.worker)
        .bind(&reach.credential)
        .optional(tx)
        .await
}

/// Why a report was not covered by a current claim.
pub(crate) async fn explain(tx: &mut Tx, reach: &Reach, completion: &Completion) -> Result<bool, Fault> {
    let Some(row) = poll::resolve(tx, reach, completion.event).await? else {
        return Err(Fault::not_found::<Event>(completion.event));
    };
    let bare = completion.proof() == Proof::Bare;
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
    observe::stale(tx);
    Err(stale(&row))
}

pub(crate) fn stale(row: &EventRow) -> Fault {
    let what = if row.status == "superseded" {
        "the event was superseded by a newer one"
    } else {
        "the claim is not current any more: its lease ended, or another worker holds the event"
    };
    Fault::new(FaultKind::Aborted, "STALE_CLAIM", what)
}

async fn record_applied(
    tx: &mut Tx,
    ended: &Ended,
    configuration: Id<Configuration>,
    version: Option<i64>,
    checksum: &str,
) -> Result<(), StorageError> {
    // A late completion never takes the applied version back, and none takes it past what there is.
    const APPLIED: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, applied_at, applied_event_id, withheld_version) \
         SELECT $1, c.id, $3, CASE WHEN $4 > c.version THEN c.version ELSE $4 END, $5, :now, $6, 0 \
         FROM liaison_configurations c WHERE c.id = $2 \
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
        .bind(ended.id)
        .execute(tx)
        .await?;
    Ok(())
}

/// Keeps a failed attempt beside those before it.
async fn note_failure(tx: &mut Tx, ended: &Ended, completion: &Completion) -> Result<(), StorageError> {
    const NOTE: &str = "UPDATE liaison_configuration_events SET failures = failures || $2 WHERE id = $1";
    const WORKER: &str = "SELECT worker_id AS value FROM liaison_configuration_events WHERE id = $1";
    let worker = query(WORKER).bind(ended.id).value::<String>(&mut *tx).await?.unwrap_or_default();
    let failure = failure_line(ended.attempt, &worker, completion.message(), tx.now().await?);
    query(NOTE).bind(ended.id).bind(failure).execute(tx).await?;
    Ok(())
}

/// A failed attempt as it is stored: a line of JSON.
pub(crate) fn failure_line(attempt: i64, worker: &str, message: &str, failed_at: Timestamp) -> String {
    let message = bounded(message, FAILURE_MESSAGE_MAX);
    format!("{}\n", serde_json::json!([attempt, worker, message, failed_at.as_micros()]))
}

/// Reads the lines of [`failure_line`].
pub(crate) fn failures(lines: &str) -> Result<Vec<pb::FailedAttempt>, StorageError> {
    let corrupt = |error| StorageError::Corrupt(format!("failed attempts: {error}"));
    lines
        .lines()
        .map(|line| {
            let (attempt, worker_id, message, failed_at): (i32, String, String, i64) =
                serde_json::from_str(line).map_err(corrupt)?;
            let failed_at = Some(timestamp(Timestamp::from_micros(failed_at)));
            Ok(pb::FailedAttempt { attempt, worker_id, message, failed_at })
        })
        .collect()
}

/// Notes that the data plane tried a version and went back by itself: the one way for the applied version to go back.
async fn record_rollback(tx: &mut Tx, ended: &Ended, running: Option<i64>) -> Result<(), StorageError> {
    const ROLLED_BACK: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, applied_at, withheld_version, failed_version) \
         SELECT $1, c.id, $3, CASE WHEN $4 > c.version THEN c.version ELSE $4 END, '', :now, 0, $5 \
         FROM liaison_configurations c WHERE c.id = $2 \
         ON CONFLICT (workspace_id, configuration_id) DO UPDATE SET applied_version = excluded.applied_version, \
             applied_checksum = '', applied_at = excluded.applied_at, failed_version = excluded.failed_version";
    let (Some(running), Some(configuration)) = (running, ended.configuration_id) else { return Ok(()) };
    query(ROLLED_BACK)
        .bind(ended.workspace_id)
        .bind(configuration)
        .bind(ended.customer_id)
        .bind(running)
        .bind(ended.version)
        .execute(tx)
        .await?;
    Ok(())
}

/// Decides what follows a failed attempt: another one after a delay, a newer version that waits already, or
/// a stuck slot.
async fn after_failure(tx: &mut Tx, ended: &Ended, permanent: bool) -> Result<(), StorageError> {
    const SUPERSEDED: &str = "UPDATE liaison_configuration_events SET superseded_by = $2 WHERE id = $1";
    const STUCK: &str = "UPDATE liaison_configuration_events SET is_open = TRUE, stuck = TRUE WHERE id = $1";
    const RETRY: &str =
        "UPDATE liaison_configuration_events SET is_open = TRUE, due_at = :now + $2 WHERE id = $1";
    if let Some(newer) = ended.newer {
        query(SUPERSEDED).bind(ended.id).bind(newer).execute(tx).await?;
        return Ok(());
    }
    if permanent || ended.attempt >= ATTEMPTS_MAX {
        query(STUCK).bind(ended.id).execute(tx).await?;
        observe::stuck(tx, 1);
        if let Some(configuration) = ended.configuration_id {
            withhold(tx, ended.customer_id, ended.workspace_id, configuration, ended.version).await?;
            raise_stuck(tx, ended.id).await?;
        }
        return Ok(());
    }
    let delay = i64::try_from(retry_delay(ended.attempt).as_micros()).unwrap_or(i64::MAX);
    query(RETRY).bind(ended.id).bind(delay).execute(tx).await?;
    tx.announce(ended.customer_id);
    Ok(())
}

/// How long a slot waits after its `attempt`th failure: 2 s, three times as long each time, at most 300 s.
pub fn retry_delay(attempt: i64) -> Duration {
    let exponent = u32::try_from(attempt.saturating_sub(1)).unwrap_or_default().min(10);
    Duration::from_secs((2 * 3u64.pow(exponent)).min(300))
}

fn bounded(message: &str, bytes: usize) -> &str {
    &message[..message.floor_char_boundary(bytes)]
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
        assert_eq!(bounded("short", MESSAGE_MAX), "short");
        assert_eq!(bounded(&"é".repeat(3000), MESSAGE_MAX).len(), MESSAGE_MAX);
    }
}
