//! Who may do what with a project.
//!
//! A role in the customer reaches every project: viewers read, admins and operators write. A session also reaches
//! the projects its identity is a member of: members read, project admins write. Whoever has neither must not
//! learn that the project exists.

use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_kernel::{CredentialKind, Fault, Principal, Role};
use agentrouter_storage::{Db, Tx};

use crate::model::{MemberRole, Project};
use crate::store;

/// What a call does with a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Write,
}

impl Need {
    fn customer_role(self) -> Role {
        match self {
            Self::Read => Role::Viewer,
            Self::Write => Role::Admin,
        }
    }
}

/// A live project that the caller may read.
///
/// # Errors
/// `PROJECT_NOT_FOUND`, the same whether there is none or the caller may not know of it.
pub(crate) async fn read(
    db: &Db,
    principal: &Principal,
    customer: Id<id::Customer>,
    name: &str,
) -> Result<Project, Fault> {
    let found = store::find(db, customer, &NameOrId::parse(name)).await?;
    let project = found.ok_or_else(|| Fault::not_found::<id::Project>(name))?;
    let membership = match member_identity(principal, Need::Read) {
        Some(identity) => store::role_of(db, customer, project.id, identity).await?,
        None => None,
    };
    decide(principal, Need::Read, membership, name).map(|()| project)
}

/// A live project that the caller may write, held until the transaction ends.
///
/// # Errors
/// Those of [`read`]; PERMISSION_DENIED `PROJECT_ROLE_REQUIRED` where the caller may only read it.
pub(crate) async fn write(
    tx: &mut Tx,
    principal: &Principal,
    customer: Id<id::Customer>,
    name: &str,
) -> Result<Project, Fault> {
    let found = store::lock(tx, customer, &NameOrId::parse(name)).await?;
    let live = found.filter(|project| project.deleted_at.is_none());
    let project = live.ok_or_else(|| Fault::not_found::<id::Project>(name))?;
    let membership = match member_identity(principal, Need::Write) {
        Some(identity) => store::role_of(tx, customer, project.id, identity).await?,
        None => None,
    };
    decide(principal, Need::Write, membership, name).map(|()| project)
}

/// The identity whose membership counts, where the role in the customer is not enough. Only sessions act for an
/// identity; a key that names one is no more than its role.
fn member_identity(principal: &Principal, need: Need) -> Option<Id<id::Identity>> {
    let by_membership =
        principal.credential == CredentialKind::Session && !principal.has(need.customer_role());
    principal.identity.filter(|_| by_membership)
}

fn decide(
    principal: &Principal,
    need: Need,
    membership: Option<MemberRole>,
    name: &str,
) -> Result<(), Fault> {
    let may_read = principal.has(Role::Viewer) || membership.is_some();
    let may_write = principal.has(Role::Admin) || membership == Some(MemberRole::Admin);
    match need {
        _ if !may_read => Err(Fault::not_found::<id::Project>(name)),
        Need::Write if !may_write => Err(Fault::denied(
            "PROJECT_ROLE_REQUIRED",
            "this call needs the role admin in the project, or in its customer",
        )),
        _ => Ok(()),
    }
}
