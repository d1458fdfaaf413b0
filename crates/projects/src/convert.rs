//! Messages from and to the model, and what is wrong with the shape of a request.

use agentrouter_api::tenancy as pb;
use agentrouter_kernel::check::{DESCRIPTION_MAX, DISPLAY_NAME_MAX};
use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::convert::{etag, mask_paths, timestamp};

use crate::model::{Changes, Member, MemberRole, NewProject, Project};

const MUTABLE: &[&str] = &["display_name", "description", "labels"];
const IGNORED: &[&str] = &[
    "id",
    "customer_id",
    "project_id",
    "state",
    "created_at",
    "updated_at",
    "archived_at",
    "etag",
    "update_mask",
];

pub(crate) fn project(project: Project, customer_slug: &str) -> pb::Project {
    let state = match project.deleted_at {
        Some(_) => pb::ProjectState::Archived,
        None => pb::ProjectState::Active,
    };
    pb::Project {
        id: project.id.to_string(),
        customer_id: customer_slug.to_owned(),
        project_id: project.slug,
        display_name: project.display_name,
        description: project.description,
        state: state.into(),
        labels: project.labels,
        created_at: Some(timestamp(project.created_at)),
        updated_at: Some(timestamp(project.updated_at)),
        archived_at: project.deleted_at.map(timestamp),
        etag: etag(project.revision),
    }
}

pub(crate) fn member(member: &Member, customer_slug: &str, project_slug: &str) -> pb::ProjectMember {
    pb::ProjectMember {
        id: member.id.to_string(),
        customer_id: customer_slug.to_owned(),
        project_id: project_slug.to_owned(),
        identity_id: member.identity_id.to_string(),
        role: member.role.as_str().to_owned(),
        created_at: Some(timestamp(member.created_at)),
        updated_at: Some(timestamp(member.updated_at)),
        etag: etag(member.revision),
    }
}

/// Checks the names in a path.
pub(crate) fn check_names(customer_id: &str, project_id: &str) -> Result<(), Fault> {
    let mut violations = Violations::new();
    names(customer_id, project_id, &mut violations);
    violations.finish()
}

pub(crate) fn new_project(request: &pb::CreateProjectRequest) -> Result<NewProject, Fault> {
    let mut violations = Violations::new();
    violations.require(!request.customer_id.is_empty(), "customer_id", "is required");
    violations.slug("project_id", &request.project_id);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    violations.text("description", &request.description, DESCRIPTION_MAX);
    violations.labels("labels", &request.labels);
    violations.finish()?;
    Ok(NewProject {
        slug: request.project_id.clone(),
        display_name: request.display_name.clone(),
        description: request.description.clone(),
        labels: request.labels.clone(),
    })
}

pub(crate) fn changes(request: &pb::UpdateProjectRequest) -> Result<Changes, Fault> {
    let mut violations = Violations::new();
    names(&request.customer_id, &request.project_id, &mut violations);
    let mask = UpdateMask::new(mask_paths(request.update_mask.clone()), MUTABLE, IGNORED, &mut violations);
    let labels = (!request.labels.is_empty()).then(|| request.labels.clone());
    let changes = Changes {
        display_name: mask.pick("display_name", request.display_name.clone()),
        description: mask.pick("description", request.description.clone()),
        labels: mask.pick("labels", labels),
    };
    if let Some(display_name) = &changes.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(description) = &changes.description {
        violations.text("description", description, DESCRIPTION_MAX);
    }
    if let Some(labels) = &changes.labels {
        violations.labels("labels", labels);
    }
    violations.finish()?;
    Ok(changes)
}

/// The identity and the role of a request that gives an identity a role.
pub(crate) fn grant(
    (customer_id, project_id): (&str, &str),
    identity_id: &str,
    role: &str,
) -> Result<(Id<id::Identity>, MemberRole), Fault> {
    let mut violations = Violations::new();
    names(customer_id, project_id, &mut violations);
    let identity = violations.id("identity_id", identity_id);
    let role = MemberRole::parse(role);
    violations.require(role.is_some(), "role", "must be admin or member");
    violations.finish()?;
    identity.zip(role).ok_or_else(|| Fault::internal("a field was refused without a violation"))
}

/// The identity of a request that names a membership.
pub(crate) fn membership(
    (customer_id, project_id): (&str, &str),
    identity_id: &str,
) -> Result<Id<id::Identity>, Fault> {
    let mut violations = Violations::new();
    names(customer_id, project_id, &mut violations);
    let identity = violations.id("identity_id", identity_id);
    violations.finish()?;
    identity.ok_or_else(|| Fault::internal("a field was refused without a violation"))
}

fn names(customer_id: &str, project_id: &str, violations: &mut Violations) {
    violations.require(!customer_id.is_empty(), "customer_id", "is required");
    violations.require(!project_id.is_empty(), "project_id", "is required");
}
