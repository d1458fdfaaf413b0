//! The wire's messages and the model, in both directions.

use agentrouter_api::configurator::{ConfigType, DataplaneUpgrade, DoctorRuntime};
use agentrouter_api::workspaces as pb;
use agentrouter_delivery::{SYSTEM_USER, Slot as DeliverySlot};
use agentrouter_kernel::check::DISPLAY_NAME_MAX;
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::IssuedToken;
use agentrouter_rpc::convert::{etag, mask_paths, timestamp};

use crate::model::{Change, NewWorkspace, Workspace};
use crate::status::{Slot, Status};

/// The workspace that a path names.
///
/// # Errors
/// INVALID_ARGUMENT where the customer or the workspace is not named.
pub(crate) fn workspace_name(customer: &str, workspace: &str) -> Result<NameOrId<id::Workspace>, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", customer);
    let name = violations.name("workspace_id", workspace);
    violations.finish()?;
    Ok(name)
}

pub(crate) fn new_workspace(request: &pb::CreateWorkspaceRequest) -> Result<NewWorkspace, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    violations.slug("workspace_id", &request.workspace_id);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    violations.labels("labels", &request.labels);
    violations.finish()?;
    Ok(NewWorkspace {
        slug: request.workspace_id.clone(),
        display_name: request.display_name.clone(),
        labels: request.labels.clone(),
    })
}

const MUTABLE: &[&str] = &["display_name", "labels"];
const IGNORED: &[&str] = &[
    "id",
    "customer_id",
    "workspace_id",
    "state",
    "last_seen_at",
    "created_at",
    "updated_at",
    "archived_at",
    "etag",
    "update_mask",
];

/// The workspace that an update names, and what it does to it.
pub(crate) fn change(
    request: &pb::UpdateWorkspaceRequest,
) -> Result<(NameOrId<id::Workspace>, Change), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let name = violations.name("workspace_id", &request.workspace_id);
    let mask = UpdateMask::new(mask_paths(request.update_mask.clone()), MUTABLE, IGNORED, &mut violations);
    let change = Change {
        display_name: mask.pick("display_name", request.display_name.clone()),
        labels: mask.pick("labels", (!request.labels.is_empty()).then(|| request.labels.clone())),
    };
    if let Some(display_name) = &change.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(labels) = &change.labels {
        violations.labels("labels", labels);
    }
    violations.finish()?;
    Ok((name, change))
}

pub(crate) fn workspace(workspace: Workspace, customer_slug: &str) -> pb::Workspace {
    let state = match workspace.deleted_at {
        None => pb::WorkspaceState::Active,
        Some(_) => pb::WorkspaceState::Archived,
    };
    pb::Workspace {
        id: workspace.id.to_string(),
        customer_id: customer_slug.to_owned(),
        workspace_id: workspace.slug,
        display_name: workspace.display_name,
        labels: workspace.labels,
        state: state.into(),
        last_seen_at: workspace.last_seen_at.map(timestamp),
        created_at: Some(timestamp(workspace.created_at)),
        updated_at: Some(timestamp(workspace.updated_at)),
        archived_at: workspace.deleted_at.map(timestamp),
        etag: etag(workspace.revision),
    }
}

pub(crate) fn issued(token: &IssuedToken) -> pb::IssueWorkspaceTokenResponse {
    pb::IssueWorkspaceTokenResponse {
        token: token.token.expose().to_owned(),
        jti: token.jti.clone(),
        expires_at: Some(timestamp(token.expires_at)),
    }
}

pub(crate) fn renewed(token: &IssuedToken) -> pb::RenewWorkspaceTokenResponse {
    pb::RenewWorkspaceTokenResponse {
        token: token.token.expose().to_owned(),
        jti: token.jti.clone(),
        expires_at: Some(timestamp(token.expires_at)),
    }
}

/// What a resync is to queue: one slot of a customer, or none for all of them.
#[derive(Debug)]
pub(crate) struct Wanted<'a>(Option<(ConfigType, &'a str, &'a str)>);

impl Wanted<'_> {
    pub(crate) fn of(&self, customer: Id<id::Customer>) -> Option<DeliverySlot> {
        let (config_type, user_id, key_id) = self.0?;
        Some(DeliverySlot::per_key(customer, user_id, config_type, key_id))
    }
}

/// The workspace that a resync names, and what it is to queue. Without a user it is the slot of the whole customer.
pub(crate) fn resync(
    request: &pb::ResyncWorkspaceRequest,
) -> Result<(NameOrId<id::Workspace>, Wanted<'_>), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let name = violations.name("workspace_id", &request.workspace_id);
    let wanted = match ConfigType::try_from(request.config_type) {
        Ok(ConfigType::Unspecified) => {
            let names_slot = !request.user_id.is_empty() || !request.key_id.is_empty();
            violations.require(!names_slot, "config_type", "is required to name a slot");
            None
        }
        Ok(config_type) => {
            let user_id = if request.user_id.is_empty() { SYSTEM_USER } else { &request.user_id };
            Some((config_type, user_id, request.key_id.as_str()))
        }
        Err(_) => {
            violations.add("config_type", "is no type of configuration");
            None
        }
    };
    violations.finish()?;
    Ok((name, Wanted(wanted)))
}

pub(crate) fn resynced(queued: usize) -> pb::ResyncWorkspaceResponse {
    pb::ResyncWorkspaceResponse { replayed_total: i32::try_from(queued).unwrap_or(i32::MAX) }
}

pub(crate) fn status(
    workspace: pb::Workspace,
    status: Status,
    doctor_runtime: Option<DoctorRuntime>,
    upgrade: Option<DataplaneUpgrade>,
) -> pb::WorkspaceStatus {
    pb::WorkspaceStatus {
        workspace: Some(workspace),
        online: status.online,
        converged: status.converged,
        slots: status.slots.into_iter().map(slot).collect(),
        pending_events: status.events.pending,
        in_flight_events: status.events.in_flight,
        stuck_events: status.events.stuck,
        doctor_runtime,
        upgrade,
    }
}

fn slot(slot: Slot) -> pb::SlotStatus {
    let base = pb::SlotStatus {
        user_id: slot.user_id,
        config_type: slot.config_type.into(),
        key_id: slot.key_id,
        desired_version: slot.desired_version,
        applied_version: slot.applied_version,
        applied_at: slot.applied_at.map(timestamp),
        failed_version: slot.failed_version,
        ..pb::SlotStatus::default()
    };
    match slot.newest_event {
        None => base,
        Some(event) => pb::SlotStatus {
            event_status: event.status.into(),
            event_id: event.id.to_string(),
            stuck: event.stuck,
            error_message: event.error_message,
            ..base
        },
    }
}
