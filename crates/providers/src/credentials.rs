//! The sealed API keys of providers. A value is plain only between the request and the seal.

use agentrouter_envelope::{Keyring, Secret};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id, Provider};
use agentrouter_rpc::credential::provider_credential_aad;
use agentrouter_storage::Tx;
use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::model::KeyChange;
use crate::store::{self, CredentialRow};

/// What a change did to a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is as it was: the same value, or none as before.
    Unchanged,
    /// It has a new value, and a new version.
    Stored,
    /// It is gone.
    Removed,
}

/// Applies a change to the credential of a provider.
///
/// The same value again is no change: configurations carry the version, and data planes would be told for nothing.
pub(crate) async fn change(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    provider: Id<Provider>,
    change: &KeyChange,
) -> Result<Outcome, Fault> {
    match change {
        KeyChange::Keep => Ok(Outcome::Unchanged),
        KeyChange::Set(value) => set(tx, keyring, customer, provider, value).await,
        KeyChange::Remove => {
            let removed = store::delete_credential(tx, customer, provider).await?;
            Ok(if removed { Outcome::Removed } else { Outcome::Unchanged })
        }
    }
}

async fn set(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    provider: Id<Provider>,
    value: &Secret,
) -> Result<Outcome, Fault> {
    let now = tx.now().await?;
    let Some(stored) = store::find_credential(&mut *tx, customer, provider).await? else {
        let id = Id::new(now);
        let sealed =
            keyring.seal(&provider_credential_aad(customer, provider, id), value.expose().as_bytes())?;
        store::insert_credential(tx, customer, provider, &CredentialRow { id, sealed }, now).await?;
        return Ok(Outcome::Stored);
    };
    let aad = provider_credential_aad(customer, provider, stored.id);
    match keyring.open(&aad, &stored.sealed) {
        Ok(old) if verify_slices_are_equal(old.expose(), value.expose().as_bytes()).is_ok() => {
            return Ok(Outcome::Unchanged);
        }
        Ok(_) => {}
        // A value that cannot be opened is no use to anyone, and replacing it is the way out.
        Err(error) => {
            tracing::warn!(%error, credential = %stored.id, "a stored credential does not open and is replaced");
        }
    }
    let sealed = keyring.seal(&aad, value.expose().as_bytes())?;
    store::rotate_credential(tx, customer, &CredentialRow { id: stored.id, sealed }, now).await?;
    Ok(Outcome::Stored)
}
