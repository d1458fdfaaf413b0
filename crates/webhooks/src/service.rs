//! The rules of webhooks. Each function is a part of the caller's transaction.

use std::time::Duration;

use agentrouter_envelope::{Keyring, Secret};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_storage::{Source, Tx};
use serde_json::json;

use crate::model::{Change, Delivery, Disabled, EventType, Settings, Webhook};
use crate::secret::NewSecret;
use crate::{queue, store};

/// A webhook of a customer.
///
/// # Errors
/// `WEBHOOK_NOT_FOUND`.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
) -> Result<Webhook, Fault> {
    let found = store::find(source, customer, webhook).await?;
    found.ok_or_else(|| Fault::not_found::<id::Webhook>(webhook))
}

/// Creates a webhook and its secret, which is known only now.
pub(crate) async fn create(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    settings: Settings,
    enabled: bool,
) -> Result<(Webhook, Secret), Fault> {
    let now = tx.now().await?;
    let webhook = Webhook {
        id: Id::new(now),
        settings,
        disabled: (!enabled).then_some(Disabled::Requested),
        previous_secret_expires_at: None,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    let secret = NewSecret::generate(keyring, customer, webhook.id)?;
    store::insert(tx, customer, &webhook, secret.sealed).await?;
    Ok((webhook, secret.text))
}

/// Changes a webhook. Changing nothing is no write: the revision stays.
///
/// # Errors
/// `WEBHOOK_NOT_FOUND`, `ETAG_MISMATCH`.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
    expected: Option<i64>,
    change: Change,
) -> Result<Webhook, Fault> {
    let before = at_revision(tx, customer, webhook, expected).await?;
    let mut after = change.apply(&before);
    if after == before {
        return Ok(before);
    }
    after.revision += 1;
    after.updated_at = tx.now().await?;
    if !store::update(tx, customer, &after).await? {
        return Err(Fault::etag_mismatch());
    }
    if before.disabled.is_none() && after.disabled.is_some() {
        queue::cancel_pending(tx, customer, webhook).await?;
    }
    Ok(after)
}

/// Deletes a webhook with its deliveries.
///
/// # Errors
/// As [`update`].
pub(crate) async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
    expected: Option<i64>,
) -> Result<(), Fault> {
    let before = at_revision(tx, customer, webhook, expected).await?;
    if store::delete(tx, customer, &before).await? { Ok(()) } else { Err(Fault::etag_mismatch()) }
}

/// Gives a webhook a new secret, which is known only now. The old one signs on until the overlap ends; one that was
/// replaced before it does not.
///
/// # Errors
/// `WEBHOOK_NOT_FOUND`.
pub(crate) async fn rotate_secret(
    tx: &mut Tx,
    keyring: &Keyring,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
    overlap: Duration,
) -> Result<(Webhook, Secret), Fault> {
    let secret = NewSecret::generate(keyring, customer, webhook)?;
    let end = tx.now().await?.plus(overlap);
    let end = (!overlap.is_zero()).then_some(end);
    let rotated = store::rotate_secret(tx, customer, webhook, secret.sealed, end).await?;
    let rotated = rotated.ok_or_else(|| Fault::not_found::<id::Webhook>(webhook))?;
    Ok((rotated, secret.text))
}

/// Queues a test message.
///
/// # Errors
/// `WEBHOOK_NOT_FOUND`, `WEBHOOK_DISABLED`.
pub(crate) async fn test(
    tx: &mut Tx,
    customer: Id<Customer>,
    customer_slug: &str,
    webhook: Id<id::Webhook>,
) -> Result<Delivery, Fault> {
    store::hold(tx, customer, webhook).await?;
    let found = find(&mut *tx, customer, webhook).await?;
    if found.disabled.is_some() {
        return Err(Fault::precondition("WEBHOOK_DISABLED", "the webhook is disabled; enable it first"));
    }
    let data = json!({"customer_id": customer_slug, "webhook_id": webhook.to_string()});
    queue::tell_one(tx, customer, webhook, EventType::Test, &data).await
}

async fn at_revision(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
    expected: Option<i64>,
) -> Result<Webhook, Fault> {
    store::hold(tx, customer, webhook).await?;
    let found = find(&mut *tx, customer, webhook).await?;
    if expected.is_some_and(|expected| expected != found.revision) {
        return Err(Fault::etag_mismatch());
    }
    Ok(found)
}
