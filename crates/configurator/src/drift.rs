//! What a data plane reports that it runs, and the events that bring it back to what it should run.

use agentrouter_api::configurator as pb;
use agentrouter_delivery::drift::{self, Observed, Report, Scope};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::{Call, Deps};

use crate::events::reach;
use crate::presence::Presence;

const OBSERVED_MAX: usize = 20_000;

/// Reads a report.
pub(crate) fn report(
    observed: &[pb::ObservedSlot],
    is_complete: bool,
    violations: &mut Violations,
) -> Report {
    violations.require(observed.len() <= OBSERVED_MAX, "observed", "must have at most 20000 entries");
    let mut slots = Vec::with_capacity(observed.len().min(OBSERVED_MAX));
    for (index, slot) in observed.iter().take(OBSERVED_MAX).enumerate() {
        let field = |name: &str| format!("observed[{index}].{name}");
        let config_type = pb::ConfigType::try_from(slot.config_type).unwrap_or_default();
        let is_slot = !matches!(config_type, pb::ConfigType::Unspecified | pb::ConfigType::DataplaneUpgrade);
        violations.require(
            is_slot,
            &field("config_type"),
            "must be a type of configuration that has content",
        );
        violations.require(!slot.user_id.is_empty(), &field("user_id"), "is required");
        violations.text(&field("user_id"), &slot.user_id, 255);
        violations.text(&field("key_id"), &slot.key_id, 255);
        violations.text(&field("checksum"), &slot.checksum, 255);
        violations.require(slot.version >= 0, &field("version"), "must not be negative");
        slots.push(Observed {
            user_id: slot.user_id.clone(),
            config_type,
            key_id: slot.key_id.clone(),
            version: slot.version,
            checksum: slot.checksum.clone(),
        });
    }
    Report { slots, is_complete }
}

async fn heal(
    deps: &Deps,
    presence: &Presence,
    call: &Call,
    scope: Scope,
    (observed, is_complete): (&[pb::ObservedSlot], bool),
) -> Result<drift::Replayed, Fault> {
    let mut violations = Violations::new();
    let report = report(observed, is_complete, &mut violations);
    violations.finish()?;
    let (workspace, _) = call.principal()?.workspace_claim()?;
    let customer = reach(deps, call).await?.customer;
    presence.note(workspace);
    drift::heal(&deps.db, customer, workspace, scope, &report).await
}

/// Queues an event for every slot that the caller's workspace has drifted from.
pub(crate) async fn reconcile(
    deps: &Deps,
    presence: &Presence,
    call: &Call,
    request: pb::ReconcileWorkspaceRequest,
) -> Result<pb::ReconcileWorkspaceResponse, Fault> {
    let report = (request.observed.as_slice(), request.observed_complete);
    let replayed = heal(deps, presence, call, Scope::All, report).await?;
    Ok(pb::ReconcileWorkspaceResponse {
        replayed_total: count(replayed.total()),
        replayed_global: count(replayed.global),
        replayed_per_user: count(replayed.per_user),
        replayed_per_user_per_key: count(replayed.per_user_per_key),
    })
}

/// The same for the slots of users and their keys.
pub(crate) async fn full_sync(
    deps: &Deps,
    presence: &Presence,
    call: &Call,
    request: pb::FullSyncWorkspaceRequest,
) -> Result<pb::FullSyncWorkspaceResponse, Fault> {
    let report = (request.observed.as_slice(), request.observed_complete);
    let replayed = heal(deps, presence, call, Scope::Users, report).await?;
    Ok(pb::FullSyncWorkspaceResponse {
        replayed_total: count(replayed.total()),
        replayed_per_user: count(replayed.per_user),
        replayed_per_user_per_key: count(replayed.per_user_per_key),
    })
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
