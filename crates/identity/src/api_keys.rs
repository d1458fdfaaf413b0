//! The rules of API keys.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::{self as delivery, Slot};
use agentrouter_envelope::Secret;
use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_kernel::{CredentialKind, Fault, Principal, Role, Timestamp};
use agentrouter_rpc::call::unauthenticated;
use agentrouter_storage::Tx;

use crate::identities;
use crate::keys::NewKey;
use crate::model::{KeyKind, KeyState, NewApiKey, actor, check_ceiling};
use crate::store::api_keys::{self, ApiKeyRow};

/// Creates a key for somebody, and returns it with its text.
pub(crate) async fn create(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    new: &NewApiKey,
) -> Result<(ApiKeyRow, Secret), Fault> {
    check_ceiling(caller, new.role)?;
    if let Some(identity) = new.identity {
        identities::hold(tx, customer, identity).await?;
    }
    let now = tx.now().await?;
    if new.expires_at.is_some_and(|end| end <= now) {
        return Err(Fault::invalid_field("expires_at", "must be in the future"));
    }
    let key = NewKey::generate(new.kind)?;
    let id = Id::new(now);
    api_keys::insert(tx, customer, id, new, (&key.shown_prefix, &actor(caller))).await?;
    add_secret(tx, id, &key).await?;
    let row = get(tx, caller, customer, id).await?;
    deliver(tx, customer, &row).await?;
    Ok((row, key.text))
}

/// Revokes a key for good. Revoking it again changes nothing and succeeds.
pub(crate) async fn revoke(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<id::ApiKey>,
) -> Result<ApiKeyRow, Fault> {
    let key = get(tx, caller, customer, id).await?;
    check_ceiling(caller, key.role())?;
    let is_live_operator = key.state == KeyState::Active && key.role().is_some_and(is_operator);
    check_operator_remains(tx, usize::from(is_live_operator)).await?;
    if !api_keys::revoke(tx, id).await? {
        return Ok(key);
    }
    let row = get(tx, caller, customer, id).await?;
    deliver(tx, customer, &row).await?;
    Ok(row)
}

/// Gives a key a new secret. The old ones, and the sessions that were made with them, end after `overlap`.
pub(crate) async fn rotate(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<id::ApiKey>,
    overlap: Duration,
) -> Result<(ApiKeyRow, Secret), Fault> {
    let key = get(tx, caller, customer, id).await?;
    check_ceiling(caller, key.role())?;
    let new = NewKey::generate(key.kind)?;
    // This also takes the row's lock: of two rotations at once, the second ends the first one's secret.
    if !api_keys::set_prefix(tx, id, &new).await? {
        return Err(Fault::precondition(
            "API_KEY_NOT_ACTIVE",
            "the key is revoked or expired; create another one",
        ));
    }
    if caller.credential == CredentialKind::ApiKey && Id::parse(&caller.credential_id) == Some(id) {
        // A secret that ended must not get itself another one. Asked behind the lock, so that two who ask take turns.
        hold_presented(tx, caller, id).await?;
    }
    let end = tx.now().await?.plus(overlap);
    api_keys::end_secrets(tx, id, end).await?;
    add_secret(tx, id, &new).await?;
    let row = get(tx, caller, customer, id).await?;
    deliver(tx, customer, &row).await?;
    Ok((row, new.text))
}

/// Checks that the secret of a key that a caller presented still works, and keeps it working until the transaction
/// ends. Returns when it ends by itself.
///
/// The caller was authenticated a moment ago, by an answer that may be older still. Who makes something that is to end
/// with a secret asks here: a rotation then either comes first, and is seen, or waits, and sees what was made.
///
/// # Errors
/// UNAUTHENTICATED where it does not.
pub(crate) async fn hold_presented(
    tx: &mut Tx,
    caller: &Principal,
    id: Id<id::ApiKey>,
) -> Result<Option<Timestamp>, Fault> {
    let secret = caller.secret.ok_or_else(unauthenticated)?;
    api_keys::hold(tx, caller.customer, id).await?;
    let live = api_keys::find_live(tx, &secret.0).await?;
    let live = live.filter(|live| live.id == id).ok_or_else(unauthenticated)?;
    Ok(live.end())
}

/// Whether a role reaches every customer.
pub(crate) fn is_operator(role: Role) -> bool {
    role == Role::Operator
}

/// FAILED_PRECONDITION where no operator key would be left after `ended` live ones of them end: nobody could make
/// another one.
pub(crate) async fn check_operator_remains(tx: &mut Tx, ended: usize) -> Result<(), Fault> {
    if ended == 0 {
        return Ok(());
    }
    // Two calls that each leave one must not both go through.
    tx.lock(OPERATOR_KEYS_LOCK).await?;
    let live = usize::try_from(api_keys::live_operator_keys(tx).await?).unwrap_or_default();
    if live > ended {
        return Ok(());
    }
    Err(Fault::precondition(
        "LAST_OPERATOR_KEY",
        "this would end the last operator key; create another one first",
    ))
}

/// The lock under which operator keys are taken out of service.
const OPERATOR_KEYS_LOCK: &str = "operator-keys";

async fn get(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<id::ApiKey>,
) -> Result<ApiKeyRow, Fault> {
    let found = api_keys::find(tx, customer, id, caller.is_operator()).await?;
    found.ok_or_else(|| Fault::not_found::<id::ApiKey>(id))
}

async fn add_secret(tx: &mut Tx, id: Id<id::ApiKey>, key: &NewKey) -> Result<(), Fault> {
    if api_keys::insert_secret(tx, id, &key.hash).await? {
        return Ok(());
    }
    Err(Fault::internal("two keys of 256 random bits are equal"))
}

/// Tells the data planes of a change to a user's gateway keys.
async fn deliver(tx: &mut Tx, customer: Id<Customer>, key: &ApiKeyRow) -> Result<(), Fault> {
    let (KeyKind::Gateway, Some(identity)) = (key.kind, key.identity_id) else { return Ok(()) };
    let slot = Slot::per_user(customer, identity.to_string(), ConfigType::UserKeys);
    delivery::regenerate(tx, &slot, EventType::Updated).await?;
    Ok(())
}
