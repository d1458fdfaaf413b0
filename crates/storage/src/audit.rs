//! The audit log: who did what, written in the transaction that did it.

use agentrouter_kernel::id::{Audit, Customer, Id};
use agentrouter_kernel::{Principal, Timestamp};

use crate::error::StorageError;
use crate::query::query;
use crate::{Db, Tx};

/// Where a call came from, for the audit log.
#[derive(Debug, Clone, Default)]
pub struct CallOrigin {
    /// Id of the request, as in the logs.
    pub request_id: String,
    /// Network address of the caller.
    pub peer: String,
}

/// What an audit entry says beside who.
#[derive(Debug, Clone)]
#[must_use = "an audit entry belongs to a commit"]
pub struct AuditEntry {
    /// The customer it happened in.
    pub customer: Id<Customer>,
    /// What was done, such as `customer.create`.
    pub action: String,
    /// Row id of what it was done to.
    pub target: String,
    /// Where the call came from.
    pub origin: CallOrigin,
}

const INSERT: &str = "INSERT INTO audit_entries (id, customer_id, created_at, actor_kind, actor_id, identity_id, action, target, outcome, reason, request_id, peer, count) \
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 1)";

pub(crate) async fn record(
    tx: &mut Tx,
    principal: &Principal,
    entry: AuditEntry,
) -> Result<(), StorageError> {
    let now = tx.now().await?;
    insert(tx, principal, &entry, "succeeded", "", now).await
}

/// Records a denied call in a transaction of its own: the call's was rolled back. Repeats of the same denial
/// within a minute are counted on the first entry.
pub async fn record_denial(
    db: &Db,
    principal: &Principal,
    entry: &AuditEntry,
    reason: &str,
) -> Result<(), StorageError> {
    const COALESCE: &str = "UPDATE audit_entries SET count = count + 1 WHERE id = (\
         SELECT id FROM audit_entries WHERE customer_id = $1 AND created_at > $2 AND actor_id = $3 AND action = $4 \
         AND reason = $5 AND outcome = 'denied' AND target = $6 ORDER BY created_at DESC LIMIT 1)";
    let mut tx = db.begin().await?;
    let now = tx.now().await?;
    let coalesced = query(COALESCE)
        .bind(entry.customer)
        .bind(now.minus(std::time::Duration::from_mins(1)))
        .bind(&principal.credential_id)
        .bind(&entry.action)
        .bind(reason)
        .bind(&entry.target)
        .execute(&mut tx)
        .await?;
    if coalesced == 0 {
        insert(&mut tx, principal, entry, "denied", reason, now).await?;
    }
    tx.commit_unaudited("it is the audit entry").await
}

async fn insert(
    tx: &mut Tx,
    principal: &Principal,
    entry: &AuditEntry,
    outcome: &str,
    reason: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    query(INSERT)
        .bind(Id::<Audit>::new(now))
        .bind(entry.customer)
        .bind(now)
        .bind(principal.credential.as_str())
        .bind(&principal.credential_id)
        .bind(principal.identity)
        .bind(&entry.action)
        .bind(&entry.target)
        .bind(outcome)
        .bind(reason)
        .bind(&entry.origin.request_id)
        .bind(&entry.origin.peer)
        .execute(tx)
        .await?;
    Ok(())
}
