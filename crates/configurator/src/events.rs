//! The traffic with workers: polls, claims, completions.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_delivery::batch::{Ask, Report};
use agentrouter_delivery::claim::{self, Claimed, LEASE_BOUNDS, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{Completion, Outcome};
use agentrouter_delivery::drift::Scope;
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::group::Groups;
use agentrouter_delivery::poll;
use agentrouter_kernel::id::{Event, Id, Workspace};
use agentrouter_kernel::{Fault, Principal, Violations};
use agentrouter_rpc::convert::{duration, timestamp};
use agentrouter_rpc::{Call, Deps};
use agentrouter_storage::{query, scope};
use prost::Message;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::configurations::limit;
use crate::drift;
use crate::presence::Presence;
use crate::wait::Waiter;

/// The longest that a poll is held open.
const WAIT_MAX: Duration = Duration::from_mins(1);
pub(crate) const WORKER_ID_MAX: usize = 255;
const HELD_MAX: usize = 1000;
const RESOURCES_MAX: usize = 1000;

/// What a caller may reach.
pub(crate) async fn reach(deps: &Deps, call: &Call) -> Result<Reach, Fault> {
    let caller = call.principal()?;
    Ok(Reach {
        customer: call.own_customer(&deps.db).await?.id,
        workspace: caller.workspace.as_ref().map(|(id, _)| *id),
        credential: caller.credential_id.clone(),
    })
}

/// The workspace that a request names: a workspace token may name its own only, and learns nothing of others.
pub(crate) async fn named_workspace(
    deps: &Deps,
    caller: &Principal,
    reach: &Reach,
    name: &str,
) -> Result<Option<Id<Workspace>>, Fault> {
    match &caller.workspace {
        Some((id, slug)) if name.is_empty() || name == slug || name == id.to_string() => Ok(Some(*id)),
        Some(_) => {
            Err(Fault::denied("WORKSPACE_MISMATCH", "a workspace token reaches its own workspace only"))
        }
        None if name.is_empty() => Ok(None),
        None => Ok(Some(scope::workspace(&deps.db, reach.customer, name).await?.id)),
    }
}

/// Events that wait for a worker.
pub(crate) async fn list_pending(
    deps: &Deps,
    presence: &Presence,
    shutdown: &CancellationToken,
    call: &Call,
    request: pb::ListPendingEventsRequest,
) -> Result<pb::ListPendingEventsResponse, Fault> {
    let mut violations = Violations::new();
    let wait = duration("wait", request.wait, Duration::ZERO, (Duration::ZERO, WAIT_MAX), &mut violations);
    violations.text("worker_id", &request.worker_id, WORKER_ID_MAX);
    violations.require(request.held.len() <= HELD_MAX, "held", "must have at most 1000 entries");
    let held = held_claims(&request.held, &mut violations);
    let report = drift::report(&request.observed, request.observed_complete, &mut violations);
    if let Some(doctor) = &request.doctor_runtime {
        check_doctor(doctor, &mut violations);
    }
    violations.finish()?;
    let limit = limit("limit", request.limit)?;
    let reach = reach(deps, call).await?;
    let workspace = named_workspace(deps, call.principal()?, &reach, &request.workspace_id).await?;
    let mut renewed = Vec::new();
    // An API key only looks; the worker of a workspace also reports.
    if let Some(own) = reach.workspace {
        presence.note(own);
        renewed = renew(deps, &reach, &request.worker_id, &held).await?;
        if let Some(doctor) = &request.doctor_runtime {
            observe_doctor(deps, own, doctor).await?;
        }
        if !report.is_empty() {
            agentrouter_delivery::drift::heal(&deps.db, reach.customer, own, Scope::All, &report).await?;
        }
    }
    let mut waiter = Waiter::new(&deps.db, reach.customer, wait, shutdown);
    let rows = loop {
        let rows = match workspace {
            Some(workspace) => poll::pending_of_workspace(&deps.db, reach.customer, workspace, limit).await?,
            None => poll::pending_of_customer(&deps.db, reach.customer, limit).await?,
        };
        if !rows.is_empty() || !waiter.news().await {
            break rows;
        }
    };
    let events = rows.iter().map(EventRow::to_proto).collect::<Result<_, _>>()?;
    Ok(pb::ListPendingEventsResponse { events, renewed })
}

fn check_doctor(doctor: &pb::DoctorRuntime, violations: &mut Violations) {
    let short = [
        ("schedule", &doctor.schedule),
        ("pod_phase", &doctor.pod_phase),
        ("reason", &doctor.reason),
        ("image", &doctor.image),
    ];
    for (name, value) in short {
        violations.text(&format!("doctor_runtime.{name}"), value, 255);
    }
    violations.text("doctor_runtime.message", &doctor.message, 1024);
    violations.require(doctor.active_jobs >= 0, "doctor_runtime.active_jobs", "must not be negative");
}

fn held_claims(held: &[pb::HeldEvent], violations: &mut Violations) -> Vec<(Id<Event>, Uuid)> {
    let mut claims = Vec::with_capacity(held.len().min(HELD_MAX));
    for (index, held) in held.iter().take(HELD_MAX).enumerate() {
        let event = violations.id(&format!("held[{index}].event_id"), &held.event_id);
        let token = claim_token(&format!("held[{index}].claim_token"), &held.claim_token, violations);
        claims.extend(event.zip(token));
    }
    claims
}

async fn renew(
    deps: &Deps,
    reach: &Reach,
    worker: &str,
    held: &[(Id<Event>, Uuid)],
) -> Result<Vec<pb::Claim>, Fault> {
    if held.is_empty() {
        return Ok(Vec::new());
    }
    let mut tx = deps.db.begin().await?;
    let mut renewed = Vec::with_capacity(held.len());
    for (event, token) in held {
        if let Some(claim) = claim::renew(&mut tx, reach, *event, *token, worker, None).await? {
            renewed.push(pb::Claim {
                event_id: event.to_string(),
                claim_token: token.to_string(),
                attempt: i32::try_from(claim.attempt).unwrap_or(i32::MAX),
                lease_expires_at: Some(timestamp(claim.lease_expires_at)),
            });
        }
    }
    tx.commit_unaudited("the event rows tell").await?;
    Ok(renewed)
}

async fn observe_doctor(
    deps: &Deps,
    workspace: Id<Workspace>,
    doctor: &pb::DoctorRuntime,
) -> Result<(), Fault> {
    const OBSERVE: &str =
        "UPDATE workspace_sync SET doctor_runtime = $2, last_seen_at = :now WHERE workspace_id = $1";
    let mut tx = deps.db.begin().await?;
    query(OBSERVE).bind(workspace).bind(doctor.encode_to_vec()).execute(&mut tx).await?;
    Ok(tx.commit_unaudited("an observation is not a mutation by a person").await?)
}

/// Claims an event.
pub(crate) async fn acknowledge(
    deps: &Deps,
    groups: &Groups,
    call: &Call,
    request: pb::AcknowledgeEventRequest,
) -> Result<pb::AcknowledgeEventResponse, Fault> {
    let mut violations = Violations::new();
    let event = violations.id::<Event>("event_id", &request.event_id);
    violations.text("worker_id", &request.worker_id, WORKER_ID_MAX);
    let lease = duration("lease", request.lease, LEASE_DEFAULT, LEASE_BOUNDS, &mut violations);
    violations.finish()?;
    let event = event.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let reach = reach(deps, call).await?;
    Ok(acknowledged(groups.acknowledge(Ask { reach, event, worker: request.worker_id, lease }).await?))
}

/// The answer to a claim.
pub(crate) fn acknowledged(claimed: Claimed) -> pb::AcknowledgeEventResponse {
    match claimed {
        Claimed::Held(claim) => pb::AcknowledgeEventResponse {
            success: true,
            claim_token: claim.token.to_string(),
            attempt: i32::try_from(claim.attempt).unwrap_or(i32::MAX),
            lease_expires_at: Some(timestamp(claim.lease_expires_at)),
            holder: String::new(),
        },
        Claimed::Refused { holder } => pb::AcknowledgeEventResponse { holder, ..Default::default() },
    }
}

/// Reports an event as applied or failed.
pub(crate) async fn complete(
    deps: &Deps,
    groups: &Groups,
    call: &Call,
    request: pb::CompleteEventRequest,
) -> Result<pb::CompleteEventResponse, Fault> {
    let mut violations = Violations::new();
    let completion = completion(request, "", &mut violations);
    violations.finish()?;
    let completion = completion.ok_or_else(|| Fault::internal("a report was refused without a violation"))?;
    let reach = reach(deps, call).await?;
    let success = groups.complete(Report { reach, completion }).await?;
    Ok(pb::CompleteEventResponse { success })
}

/// Reads a report whose fields stand under `path`; none where a violation was noted.
pub(crate) fn completion(
    request: pb::CompleteEventRequest,
    path: &str,
    violations: &mut Violations,
) -> Option<Completion> {
    let field = |name: &str| format!("{path}{name}");
    let before = violations.count();
    let event = violations.id(&field("event_id"), &request.event_id);
    let token = match request.claim_token.as_str() {
        "" => None,
        text => claim_token(&field("claim_token"), text, violations),
    };
    violations.text(&field("worker_id"), &request.worker_id, WORKER_ID_MAX);
    violations.text(&field("applied_checksum"), &request.applied_checksum, 255);
    violations.require(request.applied_version >= 0, &field("applied_version"), "must not be negative");
    violations.require(
        request.resources.len() <= RESOURCES_MAX,
        &field("resources"),
        "must have at most 1000 entries",
    );
    for (index, resource) in request.resources.iter().take(RESOURCES_MAX).enumerate() {
        violations.text(&field(&format!("resources[{index}].resource")), &resource.resource, 255);
        violations.text(&field(&format!("resources[{index}].reason")), &resource.reason, 1024);
    }
    if violations.count() > before {
        return None;
    }
    let outcome = if request.success {
        Outcome::Applied {
            version: (request.applied_version > 0).then_some(request.applied_version),
            checksum: request.applied_checksum,
        }
    } else {
        Outcome::Failed {
            // What a data plane said is kept as well as it can be: no text may have this character.
            message: request.error_message.replace('\0', " "),
            permanent: request.permanent,
            running: (request.applied_version > 0).then_some(request.applied_version),
        }
    };
    Some(Completion {
        event: event?,
        outcome,
        token,
        worker: request.worker_id,
        resources: request.resources,
    })
}

pub(crate) fn claim_token(field: &str, text: &str, violations: &mut Violations) -> Option<Uuid> {
    let token = Uuid::try_parse(text).ok();
    violations.require(token.is_some(), field, "must be the token of a claim");
    token
}
