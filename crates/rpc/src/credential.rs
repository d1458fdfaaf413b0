//! What a provider's credential is bound to. The service that seals it and the one that opens it for data planes are
//! apart, so they meet here.

use agentrouter_envelope::Aad;
use agentrouter_kernel::id::{Credential, Customer, Id, Provider};

/// Binds a provider's API key to its row, its provider and its tenant: copied to another one it does not open.
pub fn provider_credential_aad(
    customer: Id<Customer>,
    provider: Id<Provider>,
    credential: Id<Credential>,
) -> Aad {
    Aad::new("provider-credential")
        .with(customer.to_string())
        .with(provider.to_string())
        .with(credential.to_string())
}
