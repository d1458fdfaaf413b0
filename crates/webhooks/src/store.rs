//! The SQL of webhooks.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_rpc::list::ListSpec;
use agentrouter_storage::list::labels_to_text;
use agentrouter_storage::{Source, StorageError, Tx, query, row};

use crate::model::{Disabled, EventType, Webhook, event_types_from_text, event_types_to_text};

macro_rules! columns {
    () => {
        "id, display_name, url, event_types, labels, disabled_reason, previous_secret_expires_at, revision, \
         created_at, updated_at"
    };
}

const fn field(name: &'static str, column: &'static str, kind: FieldKind, sortable: bool) -> Field {
    Field { name, column, kind, sortable }
}

/// ListWebhooks.
pub(crate) const WEBHOOKS: ListSpec = ListSpec {
    select: concat!("SELECT ", columns!(), " FROM webhooks WHERE customer_id = $1"),
    fields: &[
        field("display_name", "display_name", FieldKind::Text, true),
        field("url", "url", FieldKind::Text, true),
        field("created_at", "created_at", FieldKind::Time, true),
        field("updated_at", "updated_at", FieldKind::Time, true),
        field("labels", "labels", FieldKind::Labels, false),
    ],
    default_order: "",
    id_column: "id",
};

/// ListWebhookDeliveries: of a webhook of a customer.
pub(crate) const DELIVERIES: ListSpec = ListSpec {
    select: "SELECT id, webhook_id, message_id, event_type, state, attempts, last_status, last_error, created_at, \
             last_attempt_at, due_at, ended_at \
         FROM webhook_deliveries WHERE customer_id = $1 AND webhook_id = $2",
    fields: &[
        field("event_type", "event_type", FieldKind::Text, true),
        field("created_at", "created_at", FieldKind::Time, true),
    ],
    default_order: "created_at desc",
    id_column: "id",
};

/// A webhook of a customer.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
) -> Result<Option<Webhook>, StorageError> {
    const FIND: &str = concat!("SELECT ", columns!(), " FROM webhooks WHERE customer_id = $1 AND id = $2");
    query(FIND).bind(customer).bind(webhook).optional(source).await
}

/// Inserts a webhook with its sealed secret.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: &Webhook,
    secret: Vec<u8>,
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO webhooks (id, customer_id, display_name, url, event_types, labels, \
             disabled_reason, secret, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
    let settings = &webhook.settings;
    query(INSERT)
        .bind(webhook.id)
        .bind(customer)
        .bind(&settings.display_name)
        .bind(&settings.url)
        .bind(event_types_to_text(&settings.event_types))
        .bind(labels_to_text(&settings.labels))
        .bind(Disabled::name(webhook.disabled))
        .bind(secret)
        .bind(webhook.revision)
        .bind(webhook.created_at)
        .bind(webhook.updated_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Writes a changed webhook in the place of the revision before it. False where that one is gone.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: &Webhook,
) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE webhooks SET display_name = $3, url = $4, event_types = $5, labels = $6, \
             disabled_reason = $7, revision = $8, updated_at = $9 \
         WHERE customer_id = $1 AND id = $2 AND revision = $8 - 1";
    let settings = &webhook.settings;
    let updated = query(UPDATE)
        .bind(customer)
        .bind(webhook.id)
        .bind(&settings.display_name)
        .bind(&settings.url)
        .bind(event_types_to_text(&settings.event_types))
        .bind(labels_to_text(&settings.labels))
        .bind(Disabled::name(webhook.disabled))
        .bind(webhook.revision)
        .bind(webhook.updated_at)
        .execute(tx)
        .await?;
    Ok(updated > 0)
}

/// Gives a webhook a new secret; the current one becomes the previous one until `previous_expires_at`. None where
/// there is no such webhook.
pub(crate) async fn rotate_secret(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
    secret: Vec<u8>,
    previous_expires_at: Option<Timestamp>,
) -> Result<Option<Webhook>, StorageError> {
    const ROTATE: &str = concat!(
        "UPDATE webhooks SET secret = $3, previous_secret_expires_at = $4, \
             previous_secret = CASE WHEN CAST($4 AS BIGINT) IS NULL THEN NULL ELSE secret END, \
             revision = revision + 1, updated_at = $5 \
         WHERE customer_id = $1 AND id = $2 RETURNING ",
        columns!()
    );
    let now = tx.now().await?;
    query(ROTATE)
        .bind(customer)
        .bind(webhook)
        .bind(secret)
        .bind(previous_expires_at)
        .bind(now)
        .optional(tx)
        .await
}

/// Deletes a webhook at this revision with its deliveries. False where it is gone.
pub(crate) async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: &Webhook,
) -> Result<bool, StorageError> {
    // The row first, so that nobody queues another delivery in between.
    const HOLD: &str =
        "UPDATE webhooks SET revision = revision WHERE customer_id = $1 AND id = $2 AND revision = $3";
    const DELIVERIES: &str = "DELETE FROM webhook_deliveries WHERE customer_id = $1 AND webhook_id = $2";
    const WEBHOOK: &str = "DELETE FROM webhooks WHERE customer_id = $1 AND id = $2";
    let held = query(HOLD).bind(customer).bind(webhook.id).bind(webhook.revision).execute(tx).await?;
    if held == 0 {
        return Ok(false);
    }
    query(DELIVERIES).bind(customer).bind(webhook.id).execute(tx).await?;
    query(WEBHOOK).bind(customer).bind(webhook.id).execute(tx).await?;
    Ok(true)
}

row! {
    struct TakerRow {
        id: Id<id::Webhook>,
        event_types: String,
    }
}

/// A webhook as far as it decides what is queued for it.
#[derive(Debug, Clone)]
pub(crate) struct Taker {
    /// Row id.
    pub(crate) id: Id<id::Webhook>,
    event_types: Vec<EventType>,
}

impl Taker {
    /// Whether it takes messages of a type.
    pub(crate) fn takes(&self, kind: EventType) -> bool {
        self.event_types.is_empty() || self.event_types.contains(&kind)
    }
}

/// The enabled webhooks of a customer, held until the transaction ends: none of them is deleted before what is queued
/// for it is written.
pub(crate) async fn takers(tx: &mut Tx, customer: Id<Customer>) -> Result<Vec<Taker>, StorageError> {
    const TAKERS: &str = "UPDATE webhooks SET revision = revision WHERE customer_id = $1 AND disabled_reason = '' \
         RETURNING id, event_types";
    let rows: Vec<TakerRow> = query(TAKERS).bind(customer).all(tx).await?;
    rows.into_iter()
        .map(|row| Ok(Taker { id: row.id, event_types: event_types_from_text(&row.event_types)? }))
        .collect()
}

row! {
    /// What it takes to send to a webhook.
    #[derive(Debug)]
    pub(crate) struct Target {
        /// Where messages go.
        pub(crate) url: String,
        /// The sealed secret.
        pub(crate) secret: Vec<u8>,
        /// The sealed secret before it, while the two overlap.
        pub(crate) previous_secret: Option<Vec<u8>>,
    }
}

/// Where to send what is queued for a webhook, and what to sign it with.
pub(crate) async fn target(
    source: impl Source,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
) -> Result<Option<Target>, StorageError> {
    const TARGET: &str = "SELECT url, secret, \
             CASE WHEN previous_secret_expires_at > :now THEN previous_secret ELSE NULL END AS previous_secret \
         FROM webhooks WHERE customer_id = $1 AND id = $2";
    query(TARGET).bind(customer).bind(webhook).optional(source).await
}

/// Holds the row of a webhook until the transaction ends.
pub(crate) async fn hold(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
) -> Result<(), StorageError> {
    const HOLD: &str = "UPDATE webhooks SET revision = revision WHERE customer_id = $1 AND id = $2";
    query(HOLD).bind(customer).bind(webhook).execute(tx).await?;
    Ok(())
}

/// Notes that the receiver of a webhook is gone.
pub(crate) async fn set_gone(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<id::Webhook>,
) -> Result<(), StorageError> {
    const GONE: &str = "UPDATE webhooks SET disabled_reason = $3, revision = revision + 1, updated_at = :now \
         WHERE customer_id = $1 AND id = $2 AND disabled_reason = ''";
    query(GONE).bind(customer).bind(webhook).bind(Disabled::name(Some(Disabled::Gone))).execute(tx).await?;
    Ok(())
}

/// Forgets secrets whose overlap ended; returns how many.
pub(crate) async fn forget_previous_secrets(tx: &mut Tx) -> Result<u64, StorageError> {
    const FORGET: &str = "UPDATE webhooks SET previous_secret = NULL, previous_secret_expires_at = NULL \
         WHERE previous_secret_expires_at <= :now";
    query(FORGET).execute(tx).await
}
