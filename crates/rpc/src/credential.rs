//! What stored secrets are bound to. Those who seal them, open them and wrap them anew are apart, so they meet here.

use agentrouter_envelope::Aad;
use agentrouter_kernel::id::{Credential, Customer, Id, Provider, Upgrade, Webhook, Workspace};

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

/// Binds a key that a user brought to its row, its owner and its tenant: copied to another one it does not open.
pub fn byok_credential_aad(
    customer: Id<Customer>,
    user_id: &str,
    key_address: &str,
    credential: Id<Credential>,
) -> Aad {
    Aad::new("byok-credential")
        .with(customer.to_string())
        .with(user_id)
        .with(key_address)
        .with(credential.to_string())
}

/// Binds one login of an upgrade to its row, its tenant, its workspace, its upgrade and its slot: copied to any other
/// one it does not open.
pub fn upgrade_credential_aad(
    row: Id<Credential>,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    upgrade: Id<Upgrade>,
    slot: &str,
) -> Aad {
    Aad::new("upgrade-credential")
        .with(row.to_string())
        .with(customer.to_string())
        .with(workspace.to_string())
        .with(upgrade.to_string())
        .with(slot)
}

/// Binds the signing secrets of a webhook to it and its tenant: copied to another one they do not open. The one before a
/// rotation is the same value in another column.
pub fn webhook_secret_aad(customer: Id<Customer>, webhook: Id<Webhook>) -> Aad {
    Aad::new("webhook-secret").with(customer.to_string()).with(webhook.to_string())
}
