//! The values of credentials, for those who may see them.

use std::collections::HashMap;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_envelope::Aad;
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Credential, Customer, Id, Provider};
use agentrouter_rpc::Deps;
use agentrouter_rpc::credential::provider_credential_aad;
use agentrouter_storage::{query, row};

use crate::byok;

row! {
    struct ProviderCredential {
        id: Id<Credential>,
        provider_id: Id<Provider>,
        version: i64,
        sealed: Vec<u8>,
    }
}

/// A credential as it is stored, with what it is bound to.
pub(crate) struct Sealed {
    pub(crate) version: i64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) aad: Aad,
}

/// Puts the values of credentials into a configuration.
pub(crate) async fn reveal(
    deps: &Deps,
    customer: Id<Customer>,
    configuration: &mut pb::Configuration,
) -> Result<(), Fault> {
    let (user_id, key_id) = (&configuration.user_id, &configuration.key_id);
    let mut credentials: Vec<&mut pb::Credential> = match &mut configuration.payload {
        Some(Payload::Providers(payload)) => {
            payload.providers.iter_mut().filter_map(|provider| provider.credential.as_mut()).collect()
        }
        Some(Payload::Byok(payload)) => {
            payload.backends.iter_mut().filter_map(|backend| backend.credential.as_mut()).collect()
        }
        _ => return Ok(()),
    };
    if credentials.is_empty() {
        return Ok(());
    }
    let stored = if configuration.config_type == i32::from(pb::ConfigType::Providers) {
        of_providers(deps, customer).await?
    } else {
        byok::sealed(deps, customer, user_id, key_id).await?
    };
    for credential in &mut credentials {
        // A credential that was rotated or removed since is delivered with the next version.
        let Some(row) = stored.get(&credential.id).filter(|row| row.version == credential.version) else {
            continue;
        };
        let plain = deps.keyring.open(&row.aad, &row.bytes)?;
        let text = plain.into_text().ok_or_else(|| Fault::internal("a credential is not text"))?;
        text.expose().clone_into(&mut credential.value);
    }
    Ok(())
}

async fn of_providers(deps: &Deps, customer: Id<Customer>) -> Result<HashMap<String, Sealed>, Fault> {
    const SEALED: &str = "SELECT id, provider_id, version, sealed FROM credentials WHERE customer_id = $1";
    let rows: Vec<ProviderCredential> = query(SEALED).bind(customer).all(&deps.db).await?;
    let sealed = |row: ProviderCredential| {
        let aad = provider_credential_aad(customer, row.provider_id, row.id);
        (row.id.to_string(), Sealed { version: row.version, bytes: row.sealed, aad })
    };
    Ok(rows.into_iter().map(sealed).collect())
}
