//! The wire's messages and the model, in both directions.

use std::time::Duration;

use agentrouter_api::workspaces as pb;
use agentrouter_envelope::Secret;
use agentrouter_kernel::check::DISPLAY_NAME_MAX;
use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::convert::{duration, etag, mask_paths, timestamp};
use agentrouter_storage::StorageError;

use crate::model::{Change, Delivery, Disabled, EventType, Settings, State, Webhook};
use crate::target::TargetPolicy;

/// How long two secrets overlap where the request does not say, and at most.
const OVERLAP_DEFAULT: Duration = Duration::from_hours(24);
const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);

/// The webhook that a path names.
///
/// # Errors
/// INVALID_ARGUMENT where the customer or the webhook is not named.
pub(crate) fn webhook_id(customer: &str, webhook: &str) -> Result<Id<id::Webhook>, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", customer);
    let id = violations.id("webhook_id", webhook);
    violations.finish()?;
    id.ok_or_else(|| Fault::internal("an id was refused without a violation"))
}

/// The webhook whose secret is to be rotated, and how long the old one goes on.
pub(crate) fn rotation(
    request: &pb::RotateWebhookSecretRequest,
) -> Result<(Id<id::Webhook>, Duration), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let id = violations.id("webhook_id", &request.webhook_id);
    let bounds = (Duration::ZERO, OVERLAP_MAX);
    let overlap = duration("overlap", request.overlap, OVERLAP_DEFAULT, bounds, &mut violations);
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    Ok((id, overlap))
}

/// A new webhook, and whether it is enabled.
pub(crate) fn new_webhook(
    request: &pb::CreateWebhookRequest,
    policy: TargetPolicy,
) -> Result<(Settings, bool), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    check_url(&mut violations, policy, &request.url);
    let event_types = event_types(&mut violations, &request.event_types);
    violations.labels("labels", &request.labels);
    violations.finish()?;
    let settings = Settings {
        display_name: request.display_name.clone(),
        url: request.url.clone(),
        event_types,
        labels: request.labels.clone(),
    };
    Ok((settings, request.enabled.unwrap_or(true)))
}

const MUTABLE: &[&str] = &["display_name", "url", "event_types", "labels", "enabled"];
const IGNORED: &[&str] = &[
    "id",
    "customer_id",
    "webhook_id",
    "disabled_reason",
    "previous_secret_expires_at",
    "created_at",
    "updated_at",
    "etag",
    "update_mask",
];

/// The webhook that an update names, and what it does to it.
pub(crate) fn change(
    request: &pb::UpdateWebhookRequest,
    policy: TargetPolicy,
) -> Result<(Id<id::Webhook>, Change), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let id = violations.id("webhook_id", &request.webhook_id);
    let mask = UpdateMask::new(mask_paths(request.update_mask.clone()), MUTABLE, IGNORED, &mut violations);
    let types = (!request.event_types.is_empty()).then(|| request.event_types.clone());
    let change = Change {
        display_name: mask.pick("display_name", request.display_name.clone()),
        url: mask.pick("url", request.url.clone()),
        event_types: mask.pick("event_types", types).map(|types| event_types(&mut violations, &types)),
        labels: mask.pick("labels", (!request.labels.is_empty()).then(|| request.labels.clone())),
        enabled: mask.pick("enabled", request.enabled),
    };
    if let Some(display_name) = &change.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(url) = &change.url {
        check_url(&mut violations, policy, url);
    }
    if let Some(labels) = &change.labels {
        violations.labels("labels", labels);
    }
    violations.finish()?;
    let id = id.ok_or_else(|| Fault::internal("an id was refused without a violation"))?;
    Ok((id, change))
}

fn check_url(violations: &mut Violations, policy: TargetPolicy, url: &str) {
    let before = violations.count();
    violations.http_url("url", url);
    if violations.count() == before
        && let Err(refused) = policy.check(url)
    {
        violations.add("url", refused.to_string());
    }
}

/// Known types, each once, in their own order; a violation for every other name.
fn event_types(violations: &mut Violations, names: &[String]) -> Vec<EventType> {
    let mut types = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        if let Some(kind) = EventType::parse(name) {
            types.push(kind);
        } else {
            let known = EventType::CHOICES.map(EventType::as_str).join(", ");
            violations.add(format!("event_types[{index}]"), format!("must be one of {known}"));
        }
    }
    types.sort_unstable();
    types.dedup();
    types
}

pub(crate) fn webhook(webhook: Webhook, customer_slug: &str) -> pb::Webhook {
    let disabled_reason = match webhook.disabled {
        None => pb::WebhookDisabledReason::Unspecified,
        Some(Disabled::Requested) => pb::WebhookDisabledReason::Requested,
        Some(Disabled::Gone) => pb::WebhookDisabledReason::Gone,
    };
    let settings = webhook.settings;
    pb::Webhook {
        id: webhook.id.to_string(),
        customer_id: customer_slug.to_owned(),
        display_name: settings.display_name,
        url: settings.url,
        event_types: settings.event_types.iter().map(|kind| kind.as_str().to_owned()).collect(),
        labels: settings.labels,
        enabled: webhook.disabled.is_none(),
        disabled_reason: disabled_reason.into(),
        previous_secret_expires_at: webhook.previous_secret_expires_at.map(timestamp),
        created_at: Some(timestamp(webhook.created_at)),
        updated_at: Some(timestamp(webhook.updated_at)),
        etag: etag(webhook.revision),
    }
}

pub(crate) fn created(created: Webhook, secret: &Secret, customer_slug: &str) -> pb::CreateWebhookResponse {
    pb::CreateWebhookResponse {
        webhook: Some(webhook(created, customer_slug)),
        secret: secret.expose().to_owned(),
    }
}

pub(crate) fn rotated(
    rotated: Webhook,
    secret: &Secret,
    customer_slug: &str,
) -> pb::RotateWebhookSecretResponse {
    pb::RotateWebhookSecretResponse {
        webhook: Some(webhook(rotated, customer_slug)),
        secret: secret.expose().to_owned(),
    }
}

/// # Errors
/// `Corrupt` where the stored state is unknown.
pub(crate) fn delivery(delivery: Delivery) -> Result<pb::WebhookDelivery, StorageError> {
    let state = match State::from_name(&delivery.state) {
        Some(State::Pending) => pb::WebhookDeliveryState::Pending,
        Some(State::Delivered) => pb::WebhookDeliveryState::Delivered,
        Some(State::Failed) => pb::WebhookDeliveryState::Failed,
        Some(State::Cancelled) => pb::WebhookDeliveryState::Cancelled,
        None => return Err(StorageError::Corrupt(format!("a delivery is {:?}", delivery.state))),
    };
    Ok(pb::WebhookDelivery {
        id: delivery.id.to_string(),
        webhook_id: delivery.webhook_id.to_string(),
        message_id: delivery.message_id.to_string(),
        event_type: delivery.event_type,
        state: state.into(),
        attempts: i32::try_from(delivery.attempts).unwrap_or(i32::MAX),
        last_status_code: i32::try_from(delivery.last_status).unwrap_or_default(),
        last_error: delivery.last_error,
        created_at: Some(timestamp(delivery.created_at)),
        last_attempt_at: delivery.last_attempt_at.map(timestamp),
        next_attempt_at: delivery.due_at.map(timestamp),
        ended_at: delivery.ended_at.map(timestamp),
    })
}
