//! Idempotency records: the answer of a write, kept for 24 hours under the caller's key and written in the
//! transaction of the write itself.

use std::time::Duration;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};

use crate::error::StorageError;
use crate::query::query;
use crate::{Source, Tx};

/// How long an answer is kept.
pub const RETENTION: Duration = Duration::from_hours(24);

/// What a record is kept under.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The credential that called.
    pub caller: String,
    /// Full name of the RPC.
    pub method: String,
    /// The key the caller chose.
    pub key: String,
    /// SHA-256 of the request, to tell a repeat from a reuse.
    pub request_hash: Vec<u8>,
}

crate::row! {
    struct Record {
        request_hash: Vec<u8>,
        response: Vec<u8>,
        expires_at: Timestamp,
    }
}

/// The kept answer of an earlier call with this key, if there is one.
///
/// # Errors
/// ABORTED with the reason `IDEMPOTENCY_KEY_REUSED` where the earlier request was another one.
pub async fn find(
    source: impl Source,
    key: &IdempotencyKey,
    now: Timestamp,
) -> Result<Option<Vec<u8>>, Fault> {
    const FIND: &str = "SELECT request_hash, response, expires_at FROM idempotency_records \
         WHERE caller = $1 AND method = $2 AND idempotency_key = $3";
    let record: Option<Record> =
        query(FIND).bind(&key.caller).bind(&key.method).bind(&key.key).optional(source).await?;
    match record {
        Some(record) if record.expires_at <= now => Ok(None),
        Some(record) if record.request_hash == key.request_hash => Ok(Some(record.response)),
        Some(_) => Err(Fault::new(
            FaultKind::Aborted,
            "IDEMPOTENCY_KEY_REUSED",
            "the idempotency key was used with another request; use a new one",
        )),
        None => Ok(None),
    }
}

/// Keeps the answer of this transaction's write in a customer. Two calls that race with the same key cannot both
/// commit: the second one gets `Conflict`.
pub async fn keep(
    tx: &mut Tx,
    key: &IdempotencyKey,
    customer: Id<Customer>,
    response: Vec<u8>,
) -> Result<(), StorageError> {
    const FORGET: &str = "DELETE FROM idempotency_records \
         WHERE caller = $1 AND method = $2 AND idempotency_key = $3 AND expires_at <= $4";
    const KEEP: &str = "INSERT INTO idempotency_records \
         (caller, method, idempotency_key, request_hash, response, created_at, expires_at, customer_id) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let now = tx.now().await?;
    query(FORGET).bind(&key.caller).bind(&key.method).bind(&key.key).bind(now).execute(tx).await?;
    query(KEEP)
        .bind(&key.caller)
        .bind(&key.method)
        .bind(&key.key)
        .bind(key.request_hash.clone())
        .bind(response)
        .bind(now)
        .bind(now.plus(RETENTION))
        .bind(customer)
        .execute(tx)
        .await?;
    Ok(())
}

/// Forgets a bounded number of expired records; returns how many.
pub async fn sweep(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM idempotency_records WHERE (caller, method, idempotency_key) IN (\
         SELECT caller, method, idempotency_key FROM idempotency_records WHERE expires_at <= $1 LIMIT $2)";
    let now = tx.now().await?;
    query(SWEEP).bind(now).bind(limit).execute(tx).await
}
