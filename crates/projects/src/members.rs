//! The rules of memberships. Each function is a part of a transaction that holds the project's row, so that two
//! changes of its members take turns.

use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Fault, Principal, Role};
use agentrouter_storage::{StorageError, Tx};

use crate::model::{Member, MemberRole, Project};
use crate::projects::check_revision;
use crate::store;

/// Makes an identity of the same customer a member.
///
/// # Errors
/// `IDENTITY_NOT_FOUND`, `MEMBER_ALREADY_EXISTS`.
pub(crate) async fn add(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    project: &Project,
    identity: Id<id::Identity>,
    role: MemberRole,
) -> Result<Member, Fault> {
    let no_identity = || Fault::not_found::<id::Identity>(identity);
    if !store::identity_exists(&mut *tx, customer, identity).await? {
        return Err(no_identity());
    }
    match store::insert_member(tx, customer, project.id, identity, role).await {
        Ok(added) => added.ok_or_else(|| Fault::already_exists::<id::Member>(identity)),
        // It was deleted since it was looked at.
        Err(StorageError::ForeignKey(_)) => Err(no_identity()),
        Err(error) => Err(error.into()),
    }
}

/// Changes the role of a member. The same role again is no write: the revision stays.
///
/// # Errors
/// `MEMBER_NOT_FOUND`, `ETAG_MISMATCH`, `LAST_PROJECT_ADMIN`.
pub(crate) async fn update(
    tx: &mut Tx,
    principal: &Principal,
    project: &Project,
    identity: Id<id::Identity>,
    role: MemberRole,
    expected: Option<i64>,
) -> Result<Member, Fault> {
    let member = find(tx, project, identity, expected).await?;
    if member.role == role {
        return Ok(member);
    }
    if role != MemberRole::Admin {
        check_last_admin(tx, principal, project, &member).await?;
    }
    Ok(store::update_member(tx, member.id, role).await?)
}

/// Ends a membership.
///
/// # Errors
/// `MEMBER_NOT_FOUND`, `ETAG_MISMATCH`, `LAST_PROJECT_ADMIN`.
pub(crate) async fn remove(
    tx: &mut Tx,
    principal: &Principal,
    project: &Project,
    identity: Id<id::Identity>,
    expected: Option<i64>,
) -> Result<Id<id::Member>, Fault> {
    let member = find(tx, project, identity, expected).await?;
    check_last_admin(tx, principal, project, &member).await?;
    store::delete_member(tx, member.id).await?;
    Ok(member.id)
}

async fn find(
    tx: &mut Tx,
    project: &Project,
    identity: Id<id::Identity>,
    expected: Option<i64>,
) -> Result<Member, Fault> {
    let found = store::find_member(tx, project.id, identity).await?;
    let member = found.ok_or_else(|| Fault::not_found::<id::Member>(identity))?;
    check_revision(member.revision, expected)?;
    Ok(member)
}

/// Project admins must not lock themselves out; admins of the customer can always get back in.
async fn check_last_admin(
    tx: &mut Tx,
    principal: &Principal,
    project: &Project,
    member: &Member,
) -> Result<(), Fault> {
    if member.role != MemberRole::Admin
        || principal.has(Role::Admin)
        || store::has_other_admin(tx, project.id, member.id).await?
    {
        return Ok(());
    }
    Err(Fault::precondition(
        "LAST_PROJECT_ADMIN",
        "only an admin of the customer can remove or demote the last admin of a project",
    ))
}
