//! What the calls of workers do to the state.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use tokio::time::Instant;
use tonic::Status;

use super::{Claim, State, Sweep, stale_claim};

pub(super) fn renew(state: &mut State, worker_id: &str, held: &pb::HeldEvent) -> Option<pb::Claim> {
    let delivery = state.delivery_mut(&held.event_id).ok()?;
    let claim = delivery.claim.as_mut().filter(|claim| {
        claim.worker_id == worker_id && claim.token == held.claim_token && claim.ends > Instant::now()
    })?;
    claim.ends = Instant::now() + claim.lease;
    delivery.renewals += 1;
    Some(pb::Claim {
        event_id: held.event_id.clone(),
        claim_token: held.claim_token.clone(),
        ..Default::default()
    })
}

pub(super) fn claim(
    state: &mut State,
    request: pb::AcknowledgeEventRequest,
) -> Result<pb::AcknowledgeEventResponse, Status> {
    let lease = request.lease.map_or(Duration::from_secs(30), |lease| lease.try_into().unwrap_or_default());
    let delivery = state.delivery_mut(&request.event_id)?;
    let attempt = delivery.event.attempt;
    let (token, attempt) = match &delivery.claim {
        Some(claim) if claim.ends > Instant::now() && claim.worker_id == request.worker_id => {
            (claim.token.clone(), attempt)
        }
        Some(claim) if claim.ends > Instant::now() => {
            let holder = claim.worker_id.clone();
            return Ok(pb::AcknowledgeEventResponse { holder, ..Default::default() });
        }
        _ => (format!("claim-{}-{}", request.event_id, attempt + 1), attempt + 1),
    };
    delivery.event.attempt = attempt;
    let ends = Instant::now() + lease;
    delivery.claim = Some(Claim { worker_id: request.worker_id, token: token.clone(), lease, ends });
    Ok(pb::AcknowledgeEventResponse { success: true, claim_token: token, attempt, ..Default::default() })
}

pub(super) fn complete(
    state: &mut State,
    request: pb::CompleteEventRequest,
) -> Result<pb::CompleteEventResponse, Status> {
    let delivery = state.delivery_mut(&request.event_id)?;
    let current = delivery.claim.as_ref().is_some_and(|claim| {
        claim.token == request.claim_token
            && claim.worker_id == request.worker_id
            && claim.ends > Instant::now()
    });
    match &delivery.completion {
        Some(first) if *first == request => {}
        None if current => delivery.completion = Some(request),
        _ => return Err(stale_claim()),
    }
    Ok(pb::CompleteEventResponse { success: true })
}

pub(super) fn fetch(state: &State, request: &pb::GetConfigurationRequest) -> pb::GetConfigurationResponse {
    let wanted = |configuration: &&pb::Configuration| {
        request.queries.iter().any(|query| {
            query.user_id == configuration.user_id
                && query.config_type == configuration.config_type
                && query.key_id == configuration.key_id
                && query.current_version < configuration.version
        })
    };
    pb::GetConfigurationResponse {
        configurations: state.configurations.iter().filter(wanted).cloned().collect(),
    }
}

pub(super) fn release(
    state: &mut State,
    request: pb::ReleaseEventRequest,
) -> Result<pb::ReleaseEventResponse, Status> {
    let delivery = state.delivery_mut(&request.event_id)?;
    if delivery.claim.as_ref().is_none_or(|claim| claim.token != request.claim_token) {
        return Err(stale_claim());
    }
    delivery.claim = None;
    delivery.event.attempt -= 1;
    state.released.push(request.event_id);
    Ok(pb::ReleaseEventResponse {})
}

/// Notes what was observed. Nothing has drifted.
pub(super) fn sweep(
    state: &mut State,
    full_sync: bool,
    observed: &[pb::ObservedSlot],
    is_complete: bool,
) -> Result<i32, Status> {
    if !state.syncs {
        return Err(Status::unimplemented("there are no sweeps"));
    }
    let observed = observed.iter().map(|slot| (slot.user_id.clone(), slot.version)).collect();
    state.sweeps.push(Sweep { full_sync, observed, is_complete });
    Ok(0)
}

pub(super) fn report_upgrade(
    state: &mut State,
    request: pb::ReportDataplaneUpgradeRequest,
) -> Result<pb::DataplaneUpgrade, Status> {
    if state.upgrade.refuses.contains(&request.phase()) {
        return Err(Status::failed_precondition("the upgrade does not become that"));
    }
    state.upgrade.reports.push(request);
    Ok(pb::DataplaneUpgrade::default())
}
