//! Purging: an archived customer goes for good, with everything in it.
//!
//! It takes many transactions, so that a big customer holds nobody up. The first one marks the customer, and is where
//! the purge is audited: from then on it cannot come back, and whoever finds the mark goes on. The last one takes the
//! customer's row, and with it frees the slug.
//!
//! What stays: the audit entry of the purge itself, in the operator's customer; and the highest number of the purged
//! workspaces, because numbers stand in event ids and none is given twice. The customer's own audit entries go: they
//! hold what its people did.

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::{Db, StorageError, Tx, purge::Plan};

use crate::model::Customer;
use crate::store;

/// How many rows one transaction takes.
const STEP: i64 = 1_000;

/// Marks an archived customer. Marking it again changes nothing.
///
/// # Errors
/// `CUSTOMER_NOT_ARCHIVED`.
pub(crate) async fn begin(tx: &mut Tx, customer: &Customer) -> Result<(), Fault> {
    if customer.deleted_at.is_none() {
        return Err(Fault::not_archived::<id::Customer>(&customer.slug));
    }
    // Whoever creates a workspace takes the same lock, and so sees the number that stays.
    tx.lock("workspace-number").await?;
    store::keep_highest_number(tx, customer.id).await?;
    Ok(store::mark_purge(tx, customer.id).await?)
}

/// Takes everything of a marked customer, and its row.
///
/// # Errors
/// Those of any statement. What is left stays marked, and the next call goes on.
pub(crate) async fn finish(db: &Db, customer: Id<id::Customer>) -> Result<(), StorageError> {
    let plan = Plan::read(db).await?;
    for step in 0..plan.len() {
        loop {
            let mut tx = begin_step(db, customer).await?;
            let gone = plan.step(&mut tx, step, customer, STEP).await?;
            tx.commit_unaudited("the purge was audited when it began").await?;
            // Not fewer than a step: others may have removed some of the rows that it was to remove.
            if gone == 0 {
                break;
            }
        }
    }
    // A call that was admitted just before the customer was archived may have left a denial since.
    let mut tx = begin_step(db, customer).await?;
    for step in 0..plan.len() {
        plan.step(&mut tx, step, customer, STEP).await?;
    }
    store::delete_marked(&mut tx, customer).await?;
    tx.commit_unaudited("the purge was audited when it began").await
}

/// Goes on with purges whose process ended before them. Returns how many that were.
///
/// # Errors
/// Those of any statement; the next call goes on.
pub async fn finish_purges(db: &Db) -> Result<usize, StorageError> {
    let marked = store::marked(db).await?;
    let mut finished = Ok(marked.len());
    for customer in &marked {
        // One that cannot be finished does not hold the others up.
        if let Err(error) = finish(db, *customer).await {
            finished = Err(error);
        }
    }
    finished
}

/// Two that purge the same customer take turns.
async fn begin_step(db: &Db, customer: Id<id::Customer>) -> Result<Tx, StorageError> {
    let mut tx = db.begin().await?;
    tx.lock(&format!("purge:{customer}")).await?;
    Ok(tx)
}
