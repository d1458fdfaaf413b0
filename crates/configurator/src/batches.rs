//! Claims and completions of many events, and giving them back.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_delivery::batch::{self, BATCH_MAX};
use agentrouter_delivery::claim::{LEASE_BOUNDS, LEASE_DEFAULT};
use agentrouter_delivery::redrive;
use agentrouter_kernel::id::Event;
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::convert::duration;
use agentrouter_rpc::{Call, Deps, Write};

use crate::events::{WORKER_ID_MAX, acknowledged, claim_token, completion, reach};

/// Claims events for a worker.
pub(crate) async fn acknowledge(
    deps: &Deps,
    call: &Call,
    request: pb::BatchAcknowledgeEventsRequest,
) -> Result<pb::BatchAcknowledgeEventsResponse, Fault> {
    let mut violations = Violations::new();
    check_size("event_ids", request.event_ids.len(), &mut violations);
    violations.text("worker_id", &request.worker_id, WORKER_ID_MAX);
    let lease: Duration = duration("lease", request.lease, LEASE_DEFAULT, LEASE_BOUNDS, &mut violations);
    let mut events = Vec::with_capacity(request.event_ids.len().min(BATCH_MAX));
    for (index, event) in request.event_ids.iter().take(BATCH_MAX).enumerate() {
        events.extend(violations.id::<Event>(&format!("event_ids[{index}]"), event));
    }
    violations.finish()?;
    let reach = reach(deps, call).await?;
    let claimed = batch::acknowledge(&deps.db, &reach, &events, &request.worker_id, lease).await?;
    let results = request
        .event_ids
        .into_iter()
        .zip(claimed)
        .map(|(event_id, claimed)| match claimed {
            Ok(claimed) => pb::AcknowledgeResult {
                event_id,
                response: Some(acknowledged(claimed)),
                error_reason: String::new(),
            },
            Err(fault) => {
                pb::AcknowledgeResult { event_id, response: None, error_reason: fault.reason().to_owned() }
            }
        })
        .collect();
    Ok(pb::BatchAcknowledgeEventsResponse { results })
}

/// Reports events as applied or failed.
pub(crate) async fn complete(
    deps: &Deps,
    call: &Call,
    request: pb::BatchCompleteEventsRequest,
) -> Result<pb::BatchCompleteEventsResponse, Fault> {
    let mut violations = Violations::new();
    check_size("completions", request.completions.len(), &mut violations);
    let mut event_ids = Vec::with_capacity(request.completions.len().min(BATCH_MAX));
    let mut completions = Vec::with_capacity(request.completions.len().min(BATCH_MAX));
    for (index, report) in request.completions.into_iter().take(BATCH_MAX).enumerate() {
        event_ids.push(report.event_id.clone());
        completions.extend(completion(report, &format!("completions[{index}]."), &mut violations));
    }
    violations.finish()?;
    let reach = reach(deps, call).await?;
    let done = batch::complete(&deps.db, &reach, &completions).await?;
    let results = event_ids
        .into_iter()
        .zip(done)
        .map(|(event_id, done)| match done {
            Ok(success) => pb::CompleteResult {
                event_id,
                response: Some(pb::CompleteEventResponse { success }),
                error_reason: String::new(),
            },
            Err(fault) => {
                pb::CompleteResult { event_id, response: None, error_reason: fault.reason().to_owned() }
            }
        })
        .collect();
    Ok(pb::BatchCompleteEventsResponse { results })
}

fn check_size(field: &str, size: usize, violations: &mut Violations) {
    violations.require((1..=BATCH_MAX).contains(&size), field, "must have 1 to 100 entries");
}

/// Gives a claim back.
pub(crate) async fn release(
    deps: &Deps,
    call: &Call,
    request: pb::ReleaseEventRequest,
) -> Result<pb::ReleaseEventResponse, Fault> {
    let mut violations = Violations::new();
    let event = violations.id::<Event>("event_id", &request.event_id);
    let token = claim_token("claim_token", &request.claim_token, &mut violations);
    violations.text("worker_id", &request.worker_id, WORKER_ID_MAX);
    violations.finish()?;
    let (Some(event), Some(token)) = (event, token) else {
        return Err(Fault::internal("a field was refused without a violation"));
    };
    let reach = reach(deps, call).await?;
    redrive::release(&deps.db, &reach, event, token, &request.worker_id).await?;
    Ok(pb::ReleaseEventResponse {})
}

/// Frees a failed event for another round of attempts.
pub(crate) async fn retry(
    deps: &Deps,
    call: &Call,
    request: pb::RetryEventRequest,
) -> Result<pb::ConfigurationEvent, Fault> {
    let mut violations = Violations::new();
    let event = violations.id::<Event>("event_id", &request.event_id);
    violations.finish()?;
    let event = event.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let row = redrive::retry(write.tx(), customer.id, event).await?;
    let answer = row.to_proto()?;
    write.commit(customer.id, event, answer).await
}
