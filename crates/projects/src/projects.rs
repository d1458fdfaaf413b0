//! The rules of projects. Each function is a part of the caller's transaction, and is given a project whose row
//! that transaction holds.

use agentrouter_kernel::Fault;
use agentrouter_kernel::archive::check_undelete;
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_storage::Tx;

use crate::model::{Changes, NewProject, Project};
use crate::store;

/// Creates a project.
///
/// # Errors
/// `PROJECT_ALREADY_EXISTS` where the slug is taken, by an archived project too.
pub(crate) async fn create(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    new: NewProject,
) -> Result<Project, Fault> {
    let now = tx.now().await?;
    let created = store::insert(tx, customer, &new, now).await?;
    created.ok_or_else(|| Fault::already_exists::<id::Project>(&new.slug))
}

/// Changes a live project. Changing nothing is no write: the revision stays.
pub(crate) async fn update(
    tx: &mut Tx,
    before: Project,
    changes: Changes,
    expected: Option<i64>,
) -> Result<Project, Fault> {
    check_revision(before.revision, expected)?;
    let after = changes.apply(&before);
    if after == before {
        return Ok(before);
    }
    let now = tx.now().await?;
    Ok(store::update(tx, &after, now).await?)
}

/// Archives a live project. Its memberships stay, and count again once it is brought back.
///
/// # Errors
/// `DEFAULT_PROJECT` for the customer's default project.
pub(crate) async fn archive(tx: &mut Tx, project: &Project, expected: Option<i64>) -> Result<(), Fault> {
    check_revision(project.revision, expected)?;
    if project.is_default {
        return Err(Fault::precondition(
            "DEFAULT_PROJECT",
            "the default project of a customer cannot be archived",
        ));
    }
    let now = tx.now().await?;
    store::set_deleted_at(tx, project.id, Some(now), now).await?;
    Ok(())
}

/// Brings an archived project back.
pub(crate) async fn undelete(tx: &mut Tx, customer: Id<id::Customer>, name: &str) -> Result<Project, Fault> {
    let project = lock_any(tx, customer, name).await?;
    let now = tx.now().await?;
    check_undelete::<id::Project>(name, project.deleted_at, now)?;
    Ok(store::set_deleted_at(tx, project.id, None, now).await?)
}

/// Deletes an archived project for good.
///
/// # Errors
/// `PROJECT_NOT_ARCHIVED` for a live one.
pub(crate) async fn purge(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    name: &str,
) -> Result<Id<id::Project>, Fault> {
    let project = lock_any(tx, customer, name).await?;
    if project.deleted_at.is_none() {
        return Err(Fault::not_archived::<id::Project>(name));
    }
    store::delete(tx, project.id).await?;
    Ok(project.id)
}

/// Refuses a write that is based on another revision than the current one.
pub(crate) fn check_revision(current: i64, expected: Option<i64>) -> Result<(), Fault> {
    match expected {
        Some(expected) if expected != current => Err(Fault::etag_mismatch()),
        _ => Ok(()),
    }
}

async fn lock_any(tx: &mut Tx, customer: Id<id::Customer>, name: &str) -> Result<Project, Fault> {
    let found = store::lock(tx, customer, &NameOrId::parse(name)).await?;
    found.ok_or_else(|| Fault::not_found::<id::Project>(name))
}
