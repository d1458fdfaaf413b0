//! What is counted of deliveries, and how they show in traces. Everything is told once it is committed, and only then;
//! what is refused is told at once, since its transaction comes to nothing.
//!
//! A version keeps the context of the call that made it, and its deliveries lead back to that. Where traces are off, or
//! the call is not sampled, they cost no statement.

use std::time::{Duration, SystemTime};

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Event, Id, Workspace};
use agentrouter_storage::{StorageError, Tx, query, row};
use agentrouter_telemetry::Tracer;
use agentrouter_telemetry::metrics::{self, DeliveryMetrics};
use agentrouter_telemetry::trace::{KeyValue, Step};
use uuid::Uuid;

use crate::claim::Claimed;
use crate::complete::{Completion, Ended, Outcome, Proof};

fn count(tx: &mut Tx, count: impl FnOnce(&DeliveryMetrics) + Send + Sync + 'static) {
    tx.on_commit(|telemetry| count(&telemetry.metrics().delivery));
}

/// A version was stored.
pub(crate) async fn stored(
    tx: &mut Tx,
    configuration: Id<Configuration>,
    version: i64,
) -> Result<(), StorageError> {
    const KEEP: &str = "UPDATE liaison_configuration_versions SET traceparent = $3 \
         WHERE configuration_id = $1 AND version = $2";
    count(tx, |delivery| _ = delivery.versions.inc());
    let Some(context) = tx.telemetry().tracer().and_then(Tracer::current) else { return Ok(()) };
    query(KEEP).bind(configuration).bind(version).bind(context).execute(tx).await?;
    Ok(())
}

/// Events gave way to newer ones.
pub(crate) fn superseded(tx: &mut Tx, events: u64) {
    count(tx, move |delivery| _ = delivery.supersessions.inc_by(events));
}

/// A worker got an event.
pub(crate) async fn claimed(tx: &mut Tx, event: Id<Event>) -> Result<(), StorageError> {
    count(tx, |delivery| delivery.claim(metrics::Claim::Granted));
    trace(tx, event).await
}

/// A worker holds an event for longer.
pub(crate) fn renewed(tx: &mut Tx) {
    count(tx, |delivery| delivery.claim(metrics::Claim::Renewed));
}

/// A worker asked for an event, and got it or did not.
pub(crate) fn answered(tx: &mut Tx, claimed: &Claimed) {
    if matches!(claimed, Claimed::Refused { .. }) {
        count(tx, |delivery| delivery.claim(metrics::Claim::Refused));
    }
}

/// A worker's report ended an event.
pub(crate) async fn completed(
    tx: &mut Tx,
    ended: &Ended,
    completion: &Completion,
) -> Result<(), StorageError> {
    if completion.proof() == Proof::Bare {
        count(tx, |delivery| _ = delivery.bare_completions.inc());
    }
    if matches!(completion.outcome, Outcome::Failed { .. }) {
        count(tx, |delivery| delivery.completion(metrics::Ended::Failed));
    } else {
        count(tx, |delivery| delivery.completion(metrics::Ended::Applied));
        if ended.configuration_id.is_some() {
            // The id of an event tells when its version was made, or when a repetition was decided; and a new
            // workspace was not there to wait for old versions.
            let made = made_at(ended.id.uuid()).max(made_at(ended.workspace_id.uuid()));
            let took = ended.completed_at.since(made);
            count(tx, move |delivery| delivery.converged(took));
        }
    }
    trace(tx, ended.id).await
}

/// A report was refused, because its claim is not current any more.
pub(crate) fn stale(tx: &Tx) {
    tx.telemetry().metrics().delivery.stale_completions.inc();
}

/// Leases ran out.
pub(crate) fn lease_expired(tx: &mut Tx, claims: u64) {
    count(tx, move |delivery| _ = delivery.lease_expiries.inc_by(claims));
}

/// Slots got stuck.
pub(crate) fn stuck(tx: &mut Tx, slots: u64) {
    count(tx, move |delivery| _ = delivery.stuck.inc_by(slots));
}

/// The time in an id, to the millisecond.
fn made_at(id: Uuid) -> Timestamp {
    let millis = i64::try_from(id.as_u128() >> 80).unwrap_or_default();
    Timestamp::from_micros(millis.saturating_mul(1_000))
}

row! {
    struct Traced {
        workspace_id: Id<Workspace>,
        config_type: String,
        version: i64,
        attempt: i64,
        status: String,
        created_at: Timestamp,
        acknowledged_at: Option<Timestamp>,
        completed_at: Option<Timestamp>,
        traceparent: Option<String>,
    }
}

/// Tells the traces of the call and of the trigger that an event was claimed or has ended.
async fn trace(tx: &mut Tx, event: Id<Event>) -> Result<(), StorageError> {
    const TRACED: &str = "SELECT e.workspace_id, e.config_type, e.version, e.attempt, e.status, e.created_at, \
             e.acknowledged_at, e.completed_at, v.traceparent \
         FROM liaison_configuration_events e LEFT JOIN liaison_configuration_versions v \
             ON v.configuration_id = e.configuration_id AND v.version = e.version WHERE e.id = $1";
    if tx.telemetry().tracer().is_none() {
        return Ok(());
    }
    let Some(traced): Option<Traced> = query(TRACED).bind(event).optional(&mut *tx).await? else {
        return Ok(());
    };
    let now = tx.now().await?;
    let (name, start, end) = if traced.status == "acknowledged" {
        ("delivery.wait", traced.created_at, traced.acknowledged_at.unwrap_or(now))
    } else {
        let claimed_at = traced.acknowledged_at.unwrap_or(traced.created_at);
        ("delivery.apply", claimed_at, traced.completed_at.unwrap_or(now))
    };
    let step = Step {
        name,
        start: system_time(start),
        end: system_time(end.max(start)),
        attributes: vec![
            KeyValue::new("agentrouter.workspace.id", traced.workspace_id.to_string()),
            KeyValue::new("agentrouter.event.id", event.to_string()),
            KeyValue::new("agentrouter.event.status", traced.status),
            KeyValue::new("agentrouter.event.attempt", traced.attempt),
            KeyValue::new("agentrouter.config.type", traced.config_type),
            KeyValue::new("agentrouter.config.version", traced.version),
        ],
    };
    tx.on_commit(move |telemetry| {
        if let Some(tracer) = telemetry.tracer() {
            tracer.deliver(traced.traceparent.as_deref(), step);
        }
    });
    Ok(())
}

fn system_time(time: Timestamp) -> SystemTime {
    let micros = u64::try_from(time.as_micros()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
}
