//! Signing secrets, and what they sign: symmetric signatures of Standard Webhooks, version 1.

use agentrouter_envelope::{Keyring, Secret, SecretBytes, random_bytes};
use agentrouter_kernel::id::{Customer, Id, Webhook, WebhookMessage};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_rpc::credential::webhook_secret_aad;
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Length of a secret in bytes; the standard asks for 24 to 64.
const LENGTH: usize = 32;

/// A new secret: as it is shown, once, and as it is stored.
#[derive(Debug)]
pub(crate) struct NewSecret {
    /// `whsec_` and base64.
    pub(crate) text: Secret,
    /// Sealed for its webhook.
    pub(crate) sealed: Vec<u8>,
}

impl NewSecret {
    pub(crate) fn generate(
        keyring: &Keyring,
        customer: Id<Customer>,
        webhook: Id<Webhook>,
    ) -> Result<Self, Fault> {
        let bytes = Zeroizing::new(random_bytes::<LENGTH>()?);
        let text = Zeroizing::new(STANDARD.encode(*bytes));
        Ok(Self {
            text: Secret::new(format!("whsec_{}", *text)),
            sealed: keyring.seal(&webhook_secret_aad(customer, webhook), &*bytes)?,
        })
    }
}

/// Opens a stored secret.
pub(crate) fn open(
    keyring: &Keyring,
    customer: Id<Customer>,
    webhook: Id<Webhook>,
    sealed: &[u8],
) -> Result<SecretBytes, Fault> {
    Ok(keyring.open(&webhook_secret_aad(customer, webhook), sealed)?)
}

/// The header `webhook-signature`: one signature for each secret, separated by blanks, so that a receiver that knows
/// either the new or the old secret finds its own.
pub(crate) fn signatures(
    secrets: &[SecretBytes],
    message: Id<WebhookMessage>,
    sent_at: Timestamp,
    body: &str,
) -> String {
    let content = format!("{message}.{}.{body}", sent_at.as_secs());
    let sign = |secret: &SecretBytes| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose());
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, content.as_bytes())))
    };
    secrets.iter().map(sign).collect::<Vec<_>>().join(" ")
}
