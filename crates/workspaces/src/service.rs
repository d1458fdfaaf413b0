//! What happens to workspaces, each inside the caller's transaction.

use agentrouter_delivery::revocation;
use agentrouter_kernel::id::{self, Customer, Id, NameOrId};
use agentrouter_kernel::{Fault, Principal};
use agentrouter_rpc::call::unauthenticated;
use agentrouter_storage::{Source, Tx};

use crate::model::{Change, NewWorkspace, Workspace};
use crate::store;

/// Creates a workspace. Every live configuration of the customer is queued for it by where it starts.
///
/// # Errors
/// `WORKSPACE_ALREADY_EXISTS`, also where the slug belongs to an archived workspace.
pub async fn create_workspace(
    tx: &mut Tx,
    customer: Id<Customer>,
    new: NewWorkspace,
) -> Result<Workspace, Fault> {
    let now = tx.now().await?;
    store::insert(tx, customer, &new, now)
        .await?
        .ok_or_else(|| Fault::already_exists::<id::Workspace>(new.slug))
}

/// A live workspace of a customer.
///
/// # Errors
/// `WORKSPACE_NOT_FOUND`.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    name: &NameOrId<id::Workspace>,
) -> Result<Workspace, Fault> {
    store::find(source, customer, name).await?.ok_or_else(|| match name {
        NameOrId::Slug(slug) => Fault::not_found::<id::Workspace>(slug),
        NameOrId::Id(id) => Fault::not_found::<id::Workspace>(id),
    })
}

/// Changes a workspace. An update that changes nothing leaves the etag as it is.
///
/// # Errors
/// `WORKSPACE_NOT_FOUND`, `ETAG_MISMATCH`.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Workspace>,
    expected_revision: Option<i64>,
    change: Change,
) -> Result<Workspace, Fault> {
    let old = find_expected(tx, customer, name, expected_revision).await?;
    let new = change.apply(&old);
    if new == old {
        return Ok(old);
    }
    write(tx, customer, new).await
}

/// Archives a workspace: nothing is delivered to it any more, and authentication refuses its tokens. Returns its row
/// id.
///
/// # Errors
/// `WORKSPACE_NOT_FOUND`, also for an archived one; `ETAG_MISMATCH`.
pub(crate) async fn archive(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Workspace>,
    expected_revision: Option<i64>,
) -> Result<Id<id::Workspace>, Fault> {
    let old = find_expected(tx, customer, name, expected_revision).await?;
    let deleted_at = Some(tx.now().await?);
    let archived = write(tx, customer, Workspace { deleted_at, ..old }).await?;
    agentrouter_delivery::retire_workspace(tx, customer, archived.id).await?;
    Ok(archived.id)
}

/// Checks that a caller with a workspace token names its own workspace.
///
/// # Errors
/// PERMISSION_DENIED `WORKSPACE_MISMATCH`, whether or not the named workspace exists; `WORKSPACE_CLAIM_REQUIRED` for
/// any other credential.
pub(crate) fn check_own(principal: &Principal, name: &NameOrId<id::Workspace>) -> Result<(), Fault> {
    let (own, own_slug) = principal.workspace_claim()?;
    let is_own = match name {
        NameOrId::Slug(slug) => slug == own_slug,
        NameOrId::Id(id) => *id == own,
    };
    if is_own {
        Ok(())
    } else {
        Err(Fault::denied("WORKSPACE_MISMATCH", "a workspace token works for its own workspace only"))
    }
}

/// Checks that the token a worker called with still works, and keeps it from being revoked until the transaction ends.
/// The answer that let the call in may be a moment old, and a token that was revoked must not live on as another one.
///
/// # Errors
/// UNAUTHENTICATED where it does not.
pub(crate) async fn hold_token(tx: &mut Tx, worker: &Principal) -> Result<(), Fault> {
    let token = Id::parse(&worker.credential_id).ok_or_else(unauthenticated)?;
    if revocation::hold_issued(tx, worker.customer, token).await? { Ok(()) } else { Err(unauthenticated()) }
}

async fn find_expected(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::Workspace>,
    expected_revision: Option<i64>,
) -> Result<Workspace, Fault> {
    // Changes of a customer's workspaces take turns; without an etag, the last one wins.
    tx.lock(&format!("workspaces:{customer}")).await?;
    let found = find(tx, customer, name).await?;
    if expected_revision.is_some_and(|expected| expected != found.revision) {
        return Err(Fault::etag_mismatch());
    }
    Ok(found)
}

async fn write(tx: &mut Tx, customer: Id<Customer>, changed: Workspace) -> Result<Workspace, Fault> {
    let updated_at = tx.now().await?;
    let next = Workspace { revision: changed.revision + 1, updated_at, ..changed };
    // The customer's archival does not take turns with us.
    if store::update(tx, customer, &next).await? { Ok(next) } else { Err(Fault::etag_mismatch()) }
}
