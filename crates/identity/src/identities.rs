//! The rules of identities.

use agentrouter_delivery as delivery;
use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_kernel::{Fault, Principal, Role};
use agentrouter_storage::Tx;

use crate::api_keys as key_rules;
use crate::model::{IdentityChange, KeyState, NewIdentity, check_ceiling};
use crate::store::identities::{self, IdentityRow};
use crate::store::{api_keys, subjects as store_subjects, tokens};
use crate::subjects::{self, Mapper};

pub(crate) async fn create(tx: &mut Tx, mapper: Mapper<'_>, new: &NewIdentity) -> Result<IdentityRow, Fault> {
    let customer = mapper.customer.id;
    lock_email(tx, customer, &new.email).await?;
    let id = Id::new(tx.now().await?);
    if !identities::insert(tx, customer, id, new).await? {
        return Err(Fault::already_exists::<id::Identity>(&new.email));
    }
    subjects::replace(tx, mapper, id, &new.external_subjects).await?;
    get(tx, customer, id).await
}

/// Changes names and users. A change that changes nothing succeeds and writes nothing.
pub(crate) async fn update(
    tx: &mut Tx,
    mapper: Mapper<'_>,
    id: Id<id::Identity>,
    change: IdentityChange,
    expected_revision: Option<i64>,
) -> Result<IdentityRow, Fault> {
    let customer = mapper.customer.id;
    if let Some(email) = &change.email {
        lock_email(tx, customer, email).await?;
    }
    let old = lock(tx, customer, id).await?;
    check_revision(&old, expected_revision)?;
    let display_name = change.display_name.unwrap_or_else(|| old.display_name.clone());
    let email = change.email.unwrap_or_else(|| old.email.clone());
    let is_remapped = match &change.external_subjects {
        Some(wanted) => subjects::replace(tx, mapper, id, wanted).await?,
        None => false,
    };
    if display_name == old.display_name && email == old.email && !is_remapped {
        return Ok(old);
    }
    if email != old.email && identities::email_is_taken(tx, customer, id, &email).await? {
        return Err(Fault::already_exists::<id::Identity>(&email));
    }
    if !identities::update(tx, customer, id, (&display_name, &email), old.revision).await? {
        return Err(Fault::etag_mismatch());
    }
    get(tx, customer, id).await
}

/// Deletes an identity and ends whatever acts for it: memberships, keys, sessions and configured slots.
pub(crate) async fn delete(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<id::Identity>,
    expected_revision: Option<i64>,
) -> Result<(), Fault> {
    let identity = lock(tx, customer, id).await?;
    check_revision(&identity, expected_revision)?;
    for subject in store_subjects::of_identity(&mut *tx, customer, id).await? {
        check_ceiling(caller, Role::parse(&subject.role))?;
    }
    let keys = api_keys::of_identity(tx, customer, id).await?;
    for key in &keys {
        check_ceiling(caller, key.role())?;
    }
    let ended = keys.iter().filter(|key| key.state == KeyState::Active);
    let operators = ended.filter(|key| key.role().is_some_and(key_rules::is_operator)).count();
    key_rules::check_operator_remains(tx, operators).await?;

    // Tokens go before the keys by which some of them are found.
    tokens::delete_of_identity(tx, customer, id).await?;
    api_keys::delete_of_identity(tx, customer, id).await?;
    store_subjects::delete_of_identity(tx, customer, id).await?;
    identities::delete_memberships(tx, customer, id).await?;
    delivery::delete_user_slots(tx, customer, &id.to_string()).await?;
    if !identities::delete(tx, customer, id, identity.revision).await? {
        return Err(Fault::etag_mismatch());
    }
    Ok(())
}

/// Checks that an identity of the customer exists, and keeps it until the transaction ends.
pub(crate) async fn hold(tx: &mut Tx, customer: Id<Customer>, id: Id<id::Identity>) -> Result<(), Fault> {
    existing(id, identities::hold(tx, customer, id).await?).map(|_| ())
}

async fn lock(tx: &mut Tx, customer: Id<Customer>, id: Id<id::Identity>) -> Result<IdentityRow, Fault> {
    existing(id, identities::lock(tx, customer, id).await?)
}

async fn get(tx: &mut Tx, customer: Id<Customer>, id: Id<id::Identity>) -> Result<IdentityRow, Fault> {
    existing(id, identities::find(tx, customer, id).await?)
}

fn existing(id: Id<id::Identity>, found: Option<IdentityRow>) -> Result<IdentityRow, Fault> {
    found.ok_or_else(|| Fault::not_found::<id::Identity>(id))
}

fn check_revision(identity: &IdentityRow, expected: Option<i64>) -> Result<(), Fault> {
    match expected {
        Some(expected) if expected != identity.revision => Err(Fault::etag_mismatch()),
        _ => Ok(()),
    }
}

/// Whoever gives out an e-mail address takes turns with whoever else does.
async fn lock_email(tx: &mut Tx, customer: Id<Customer>, email: &str) -> Result<(), Fault> {
    if !email.is_empty() {
        tx.lock(&format!("identity-email:{customer}:{email}")).await?;
    }
    Ok(())
}
