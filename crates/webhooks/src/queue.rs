//! The queue of deliveries: written with the fact, claimed under a lease, ended by the holder of the claim.

use std::collections::HashMap;
use std::time::Duration;

use agentrouter_kernel::id::{Customer, Id, Webhook, WebhookDelivery, WebhookMessage};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Db, StorageError, Tx, query, row};
use serde_json::Value;
use uuid::Uuid;

use crate::message;
use crate::model::{Delivery, EventType, State};
use crate::store::{self, Taker};

/// How long a claim holds: longer than any attempt may take, so that it only ends where the replica died.
const LEASE: Duration = Duration::from_secs(30);
/// How many messages are under way to one webhook at a time, so that a slow one does not take all places.
const PER_WEBHOOK: i64 = 4;
/// How long ended deliveries are kept.
const RETENTION: Duration = Duration::from_hours(30 * 24);

/// Queues messages in one transaction. The webhooks of a customer are read once.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    takers: HashMap<Id<Customer>, Vec<Taker>>,
}

impl Outbox {
    /// Queues a message for every webhook of a customer that takes it.
    pub(crate) async fn tell(
        &mut self,
        tx: &mut Tx,
        customer: Id<Customer>,
        kind: EventType,
        data: &Value,
    ) -> Result<(), Fault> {
        let takers = match self.takers.get(&customer) {
            Some(known) => known,
            None => self.takers.entry(customer).or_insert(store::takers(tx, customer).await?),
        };
        let mut webhooks = Vec::new();
        for taker in takers {
            if taker.takes(kind) {
                webhooks.push(taker.id);
            }
        }
        if webhooks.is_empty() {
            return Ok(());
        }
        let now = tx.now().await?;
        let message = Id::new(now);
        let payload = message::body(kind, now, data)?;
        for webhook in webhooks {
            insert(tx, customer, webhook, message, kind, &payload).await?;
        }
        Ok(())
    }
}

/// Queues a message for one webhook.
pub(crate) async fn tell_one(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<Webhook>,
    kind: EventType,
    data: &Value,
) -> Result<Delivery, Fault> {
    let now = tx.now().await?;
    let payload = message::body(kind, now, data)?;
    Ok(insert(tx, customer, webhook, Id::new(now), kind, &payload).await?)
}

async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<Webhook>,
    message: Id<WebhookMessage>,
    kind: EventType,
    payload: &str,
) -> Result<Delivery, StorageError> {
    const INSERT: &str = "INSERT INTO webhook_deliveries (id, customer_id, webhook_id, message_id, event_type, \
             payload, state, attempts, due_at, last_status, last_error, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, 'pending', 0, $7, 0, '', $7) \
         RETURNING id, webhook_id, message_id, event_type, state, attempts, last_status, last_error, created_at, \
             last_attempt_at, due_at, ended_at";
    let now = tx.now().await?;
    query(INSERT)
        .bind(Id::<WebhookDelivery>::new(now))
        .bind(customer)
        .bind(webhook)
        .bind(message)
        .bind(kind.as_str())
        .bind(payload)
        .bind(now)
        .one(tx)
        .await
}

row! {
    /// A delivery that this replica holds.
    #[derive(Debug, Clone)]
    pub(crate) struct Claimed {
        /// Row id.
        pub(crate) id: Id<WebhookDelivery>,
        /// The tenant.
        pub(crate) customer_id: Id<Customer>,
        /// The webhook.
        pub(crate) webhook_id: Id<Webhook>,
        /// The message.
        pub(crate) message_id: Id<WebhookMessage>,
        /// Its text.
        pub(crate) payload: String,
        /// Attempts, this one included.
        pub(crate) attempts: i64,
        /// Fences the claim.
        pub(crate) claim_token: Uuid,
        /// When it was claimed, by the database's clock.
        pub(crate) last_attempt_at: Timestamp,
    }
}

/// Claims up to `places` deliveries that are due: at most one of each webhook, first of those that have the fewest under
/// way.
pub(crate) async fn claim(db: &Db, places: i64) -> Result<Vec<Claimed>, StorageError> {
    const DUE: &str = "SELECT CAST(1 AS BIGINT) AS value WHERE EXISTS (\
         SELECT 1 FROM webhook_deliveries WHERE state = 'pending' AND due_at <= :now)";
    const HEADS: &str = "SELECT head AS value FROM ( \
             SELECT (SELECT d.id FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending' \
                     AND d.due_at <= :now ORDER BY d.due_at, d.id LIMIT 1) AS head, \
                 (SELECT COUNT(*) FROM webhook_deliveries f WHERE f.webhook_id = w.id \
                     AND f.claim_token IS NOT NULL AND f.due_at > :now) AS under_way \
             FROM webhooks w WHERE w.disabled_reason = '') heads \
         WHERE head IS NOT NULL AND under_way < $1 ORDER BY under_way, head LIMIT $2";
    // Whoever comes second finds that the delivery is not due any more.
    const CLAIM: &str = "UPDATE webhook_deliveries SET claim_token = $2, attempts = attempts + 1, \
             due_at = :now + $3, last_attempt_at = :now \
         WHERE id = $1 AND state = 'pending' AND due_at <= :now \
         RETURNING id, customer_id, webhook_id, message_id, payload, attempts, claim_token, last_attempt_at";
    if query(DUE).value::<i64>(db).await?.is_none() {
        return Ok(Vec::new());
    }
    let heads: Vec<Id<WebhookDelivery>> = query(HEADS).bind(PER_WEBHOOK).bind(places).values(db).await?;
    if heads.is_empty() {
        return Ok(Vec::new());
    }
    let lease = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
    let mut tx = db.begin().await?;
    let mut claimed = Vec::with_capacity(heads.len());
    for head in heads {
        let token = agentrouter_envelope::random_bytes()
            .map_err(|_| StorageError::Corrupt("no randomness".to_owned()))?;
        let token = Uuid::from_bytes(token);
        claimed.extend(query(CLAIM).bind(head).bind(token).bind(lease).optional(&mut tx).await?);
    }
    tx.commit_unaudited("the delivery row tells").await?;
    Ok(claimed)
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The receiver took the message.
    Delivered,
    /// It is to be sent again after this time.
    Retry(Duration),
    /// It is not sent again.
    GiveUp,
    /// The receiver does not want any message any more.
    Gone,
}

/// Ends the attempt of a claim. What the claim does not cover any more is left as it is.
pub(crate) async fn finish(
    db: &Db,
    claimed: &Claimed,
    ending: Ending,
    status: u16,
    error: &str,
) -> Result<(), StorageError> {
    const FINISH: &str = "UPDATE webhook_deliveries SET state = $3, claim_token = NULL, last_status = $4, \
             last_error = $5, due_at = :now + $6, ended_at = CASE WHEN $3 = 'pending' THEN NULL ELSE :now END \
         WHERE id = $1 AND claim_token = $2";
    let (state, delay) = match ending {
        Ending::Delivered => (State::Delivered, None),
        Ending::Retry(delay) => (State::Pending, Some(delay)),
        Ending::GiveUp | Ending::Gone => (State::Failed, None),
    };
    let delay = delay.map(|delay| i64::try_from(delay.as_micros()).unwrap_or(i64::MAX));
    let mut tx = db.begin().await?;
    if ending == Ending::Gone {
        // The webhook before its deliveries, as whoever disables or deletes it.
        store::hold(&mut tx, claimed.customer_id, claimed.webhook_id).await?;
    }
    let finished = query(FINISH)
        .bind(claimed.id)
        .bind(claimed.claim_token)
        .bind(state.as_str())
        .bind(i64::from(status))
        .bind(error)
        .bind(delay)
        .execute(&mut tx)
        .await?;
    if finished > 0 && ending == Ending::Gone {
        store::set_gone(&mut tx, claimed.customer_id, claimed.webhook_id).await?;
        cancel_pending(&mut tx, claimed.customer_id, claimed.webhook_id).await?;
    }
    tx.commit_unaudited("the delivery row tells").await
}

/// Ends what still waits for a webhook that was disabled.
pub(crate) async fn cancel_pending(
    tx: &mut Tx,
    customer: Id<Customer>,
    webhook: Id<Webhook>,
) -> Result<(), StorageError> {
    const CANCEL: &str = "UPDATE webhook_deliveries SET state = 'cancelled', claim_token = NULL, due_at = NULL, \
             ended_at = :now \
         WHERE customer_id = $1 AND webhook_id = $2 AND state = 'pending'";
    query(CANCEL).bind(customer).bind(webhook).execute(tx).await?;
    Ok(())
}

/// Forgets a bounded number of deliveries that ended long ago, and secrets whose overlap is over.
///
/// # Errors
/// Those of any statement.
pub async fn sweep_ended(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM webhook_deliveries WHERE id IN ( \
         SELECT id FROM webhook_deliveries WHERE ended_at <= $1 LIMIT $2)";
    let before = tx.now().await?.minus(RETENTION);
    store::forget_previous_secrets(tx).await?;
    query(SWEEP).bind(before).bind(limit).execute(tx).await
}
