//! Starting, cancelling, rolling back and reporting upgrades.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::EventType;
use agentrouter_delivery::upgrade::{self, Mover, Phase, UpgradeRow};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Event, Id, Upgrade, Workspace};
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::{Source, Tx, scope};
use prost_types::value::Kind;

use super::convert;
use crate::events::reach;

/// Starts an upgrade of one workspace.
///
/// # Errors
/// `WORKSPACE_NOT_FOUND`; `UPGRADE_ACTIVE` where one is under way there.
pub(crate) async fn start(
    deps: &Deps,
    call: &Call,
    request: pb::TriggerUpdateRequest,
) -> Result<pb::TriggerUpdateResponse, Fault> {
    let parameters = convert::parameters(&request)?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    let workspace = scope::workspace(&mut *tx, customer.id, &request.workspace_id).await?.id;
    if !upgrade::lock_workspace(tx, customer.id, workspace).await? {
        return Err(Fault::not_found::<Workspace>(&request.workspace_id));
    }
    refuse_second(tx, workspace).await?;
    let metadata = &parameters.metadata;
    let event =
        agentrouter_delivery::instruct(tx, customer.id, workspace, EventType::Upgrade, metadata).await?;
    let target = &parameters.target_version;
    if !upgrade::insert(tx, event, customer.id, workspace, target, metadata).await? {
        return Err(active(None));
    }
    upgrade::free_stuck(tx, workspace, event).await?;
    let answer = pb::TriggerUpdateResponse {
        event_ids: vec![event.to_string()],
        ..pb::TriggerUpdateResponse::default()
    };
    write.commit(customer.id, event, answer).await
}

/// An upgrade as it is now.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`.
pub(crate) async fn get(
    deps: &Deps,
    call: &Call,
    request: pb::GetDataplaneUpgradeRequest,
) -> Result<pb::DataplaneUpgrade, Fault> {
    let id = convert::upgrade_id("event_id", &request.event_id)?;
    let customer = call.own_customer(&deps.db).await?;
    Ok(find(&deps.db, customer.id, None, id).await?.to_proto()?)
}

/// Cancels an upgrade: at once where no worker ever took it, else by an instruction. Changes nothing where there is
/// nothing to cancel any more.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`.
pub(crate) async fn cancel(
    deps: &Deps,
    call: &Call,
    request: pb::CancelDataplaneUpgradeRequest,
) -> Result<pb::CancelDataplaneUpgradeResponse, Fault> {
    let id = convert::upgrade_id("upgrade_event_id", &request.upgrade_event_id)?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    let found = find(&mut *tx, customer.id, None, id).await?;
    upgrade::lock_workspace(tx, customer.id, found.workspace_id).await?;
    let mut held = upgrade::hold(tx, &found).await?;
    let phase = held.upgrade.phase;
    if phase == Phase::Pending && !held.was_claimed() {
        let now = tx.now().await?;
        held.upgrade.enter(Phase::Cancelled, "cancelled before a worker took it", now);
        held.save(tx).await?;
    } else if phase.may_move(Mover::Person, Phase::Cancelling) {
        let event = instruct(tx, &held.upgrade, EventType::UpgradeCancel).await?;
        let now = tx.now().await?;
        held.upgrade.enter(Phase::Cancelling, "", now);
        held.upgrade.cancel_event_id = Some(event);
        held.save(tx).await?;
    }
    write.commit(customer.id, found.event_id, pb::CancelDataplaneUpgradeResponse { success: true }).await
}

/// Undoes a completed upgrade.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`; `UPGRADE_PHASE_MISMATCH` where it is not completed; `UPGRADE_ACTIVE` where another one is under
/// way in the workspace; `UPGRADE_NOT_CURRENT` where a newer one was completed there.
pub(crate) async fn roll_back(
    deps: &Deps,
    call: &Call,
    request: pb::RollbackDataplaneUpgradeRequest,
) -> Result<pb::RollbackDataplaneUpgradeResponse, Fault> {
    let id = convert::upgrade_id("upgrade_event_id", &request.upgrade_event_id)?;
    let customer = call.own_customer(&deps.db).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let tx = write.tx();
    let found = find(&mut *tx, customer.id, None, id).await?;
    if !upgrade::lock_workspace(tx, customer.id, found.workspace_id).await? {
        return Err(Fault::not_found::<Workspace>(&found.workspace_slug));
    }
    let mut held = upgrade::hold(tx, &found).await?;
    if !held.upgrade.phase.may_move(Mover::Person, Phase::RollingBack) {
        return Err(mismatch(&held.upgrade, "can be rolled back only once it is completed"));
    }
    refuse_second(tx, found.workspace_id).await?;
    if upgrade::is_overtaken(tx, &held.upgrade).await? {
        return Err(Fault::precondition(
            "UPGRADE_NOT_CURRENT",
            "a newer upgrade of the workspace was completed; roll that one back",
        ));
    }
    let event = instruct(tx, &held.upgrade, EventType::UpgradeRollback).await?;
    let now = tx.now().await?;
    held.upgrade.enter(Phase::RollingBack, "", now);
    held.upgrade.rollback_event_id = Some(event);
    held.save(tx).await?;
    upgrade::free_stuck(tx, found.workspace_id, event).await?;
    let answer = pb::RollbackDataplaneUpgradeResponse { success: true, rollback_event_id: event.to_string() };
    write.commit(customer.id, found.event_id, answer).await
}

/// Takes down what a worker tells of an upgrade. The same phase again changes its details only.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`; `UPGRADE_PHASE_MISMATCH` where the phase does not follow the one it is in.
pub(crate) async fn report(
    deps: &Deps,
    call: &Call,
    request: pb::ReportDataplaneUpgradeRequest,
) -> Result<pb::DataplaneUpgrade, Fault> {
    let report = convert::report(request)?;
    let reach = reach(deps, call).await?;
    let mut tx = deps.db.begin().await?;
    let found = find(&mut tx, reach.customer, reach.workspace, report.upgrade).await?;
    let mut held = upgrade::hold(&mut tx, &found).await?;
    let before = held.upgrade.clone();
    let now = tx.now().await?;
    let upgrade = &mut held.upgrade;
    if upgrade.phase == report.phase {
        if !report.message.is_empty() {
            upgrade.message = report.message;
        }
    } else if upgrade.phase.may_move(Mover::Worker, report.phase) {
        upgrade.enter(report.phase, report.message, now);
    } else {
        return Err(mismatch(upgrade, &format!("does not become {}", report.phase.name())));
    }
    upgrade.set_required_slots(&report.required_slots);
    for (kept, told) in [
        (&mut upgrade.running_version, report.running_version),
        (&mut upgrade.failed_version, report.failed_version),
    ] {
        if !told.is_empty() {
            *kept = told;
        }
    }
    if *upgrade == before {
        return Ok(before.to_proto()?);
    }
    upgrade.updated_at = now;
    let saved = held.save(&mut tx).await?;
    tx.commit_unaudited("the row of the upgrade tells").await?;
    Ok(saved.to_proto()?)
}

/// An upgrade that the caller may know of.
///
/// # Errors
/// `UPGRADE_NOT_FOUND`.
pub(super) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Option<Id<Workspace>>,
    id: Id<Upgrade>,
) -> Result<UpgradeRow, Fault> {
    upgrade::find(source, customer, workspace, id).await?.ok_or_else(|| Fault::not_found::<Upgrade>(id))
}

/// FAILED_PRECONDITION for a call that the phase of an upgrade forbids.
pub(super) fn mismatch(upgrade: &UpgradeRow, what: &str) -> Fault {
    let message = format!("the upgrade {} is {} and {what}", upgrade.event_id, upgrade.phase.name());
    Fault::precondition("UPGRADE_PHASE_MISMATCH", message)
}

async fn refuse_second(tx: &mut Tx, workspace: Id<Workspace>) -> Result<(), Fault> {
    match upgrade::active_in(tx, workspace).await? {
        Some(other) => Err(active(Some(other))),
        None => Ok(()),
    }
}

fn active(other: Option<Id<Upgrade>>) -> Fault {
    let other = other.map(|id| format!(" ({id})")).unwrap_or_default();
    let message = format!("an upgrade of this workspace is under way{other}; wait for its end, or cancel it");
    Fault::precondition("UPGRADE_ACTIVE", message)
}

/// Sends an instruction about an upgrade. The worker finds in it what the upgrade was started with.
async fn instruct(tx: &mut Tx, upgrade: &UpgradeRow, event_type: EventType) -> Result<Id<Event>, Fault> {
    let mut metadata = upgrade.parameters()?;
    let id = Kind::StringValue(upgrade.event_id.to_string());
    metadata.fields.insert("upgrade_event_id".to_owned(), id.into());
    let (customer, workspace) = (upgrade.customer_id, upgrade.workspace_id);
    agentrouter_delivery::instruct(tx, customer, workspace, event_type, &metadata).await
}
