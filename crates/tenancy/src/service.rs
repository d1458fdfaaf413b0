//! The rules of customers. Each function is a part of the caller's transaction.

use agentrouter_kernel::Fault;
use agentrouter_kernel::archive::check_undelete;
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_storage::Tx;

use crate::model::{Changes, Customer, NewCustomer};
use crate::store;

/// Held while the last operator key may be at stake, so that two archives cannot each rely on the key of the
/// other's customer.
const OPERATOR_KEYS_LOCK: &str = "operator-keys";

/// Creates a customer with its event sequence and its default project.
///
/// # Errors
/// `CUSTOMER_ALREADY_EXISTS` where the slug is taken, by an archived customer too.
pub async fn create_customer(tx: &mut Tx, new: NewCustomer) -> Result<Customer, Fault> {
    let now = tx.now().await?;
    let created = store::insert(tx, &new, now).await?;
    let customer = created.ok_or_else(|| Fault::already_exists::<id::Customer>(&new.slug))?;
    store::insert_belongings(tx, customer.id, now).await?;
    Ok(customer)
}

/// Changes a live customer. Changing nothing is no write: the revision stays.
pub(crate) async fn update(
    tx: &mut Tx,
    id: Id<id::Customer>,
    changes: Changes,
    expected: Option<i64>,
) -> Result<Customer, Fault> {
    let before = lock(tx, id, expected).await?;
    let after = changes.apply(&before);
    if after == before {
        return Ok(before);
    }
    let now = tx.now().await?;
    Ok(store::update(tx, &after, now).await?)
}

/// Archives a live customer: open events of its workspaces are superseded, and authentication refuses whoever
/// belongs to it from the commit on.
///
/// # Errors
/// `LAST_OPERATOR_KEY` where nobody could call as an operator afterwards, and so bring it back.
pub(crate) async fn archive(
    tx: &mut Tx,
    id: Id<id::Customer>,
    expected: Option<i64>,
) -> Result<Customer, Fault> {
    tx.lock(OPERATOR_KEYS_LOCK).await?;
    lock(tx, id, expected).await?;
    let now = tx.now().await?;
    if !store::has_operator_key_elsewhere(tx, id, now).await? {
        return Err(Fault::precondition(
            "LAST_OPERATOR_KEY",
            "no live operator key would be left in another customer; create one there first",
        ));
    }
    agentrouter_delivery::retire_customer(tx, id).await?;
    Ok(store::set_deleted_at(tx, id, Some(now), now).await?)
}

/// Brings an archived customer back.
pub(crate) async fn undelete(tx: &mut Tx, archived: &Customer) -> Result<Customer, Fault> {
    let now = tx.now().await?;
    check_undelete::<id::Customer>(&archived.slug, archived.deleted_at, now)?;
    let customer = store::set_deleted_at(tx, archived.id, None, now).await?;
    // Archiving superseded what its workspaces were waiting for.
    agentrouter_delivery::offer_to_lagging(tx, customer.id).await?;
    Ok(customer)
}

/// Holds a customer, archived or not, by the name in a request; with `being_purged` even one that cannot come back.
pub(crate) async fn lock_any(tx: &mut Tx, name: &str, being_purged: bool) -> Result<Customer, Fault> {
    let found = store::lock_any(tx, &NameOrId::parse(name), being_purged).await?;
    found.ok_or_else(|| Fault::not_found::<id::Customer>(name))
}

async fn lock(tx: &mut Tx, id: Id<id::Customer>, expected: Option<i64>) -> Result<Customer, Fault> {
    let found = store::lock(tx, id).await?.ok_or_else(|| Fault::not_found::<id::Customer>(id))?;
    if expected.is_some_and(|expected| expected != found.revision) {
        return Err(Fault::etag_mismatch());
    }
    Ok(found)
}
