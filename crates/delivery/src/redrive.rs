//! Giving events back: a worker that stops, and a person who lets a stuck slot try again.

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id};
use agentrouter_storage::{Db, StorageError, Tx, query};
use uuid::Uuid;

use crate::claim::Reach;
use crate::complete::stale;
use crate::event::EventRow;
use crate::layout::next_offer;
use crate::state::State;
use crate::{poll, upgrade};

/// Gives a claim back, without using an attempt: the event is pending again at once, or superseded where a newer
/// version waits.
///
/// # Errors
/// `EVENT_NOT_FOUND`; ABORTED `STALE_CLAIM` where the claim is not the current one, or its lease ended.
pub async fn release(
    db: &Db,
    reach: &Reach,
    event: Id<Event>,
    token: Uuid,
    worker: &str,
) -> Result<(), Fault> {
    const RELEASE: &str = "UPDATE liaison_configuration_events SET status = 'pending', due_at = NULL, \
             attempt = CASE WHEN attempt > 0 THEN attempt - 1 ELSE 0 END, offered = $4 \
         WHERE id = $1 AND status = 'acknowledged' AND due_at > :now AND claim_token = $2 AND ($3 = '' OR worker_id = $3)";
    const SUPERSEDE: &str = "UPDATE liaison_configuration_events SET status = 'superseded', is_open = FALSE, due_at = NULL, \
             attempt = CASE WHEN attempt > 0 THEN attempt - 1 ELSE 0 END, superseded_by = $4, completed_at = :now \
         WHERE id = $1 AND status = 'acknowledged' AND due_at > :now AND claim_token = $2 AND ($3 = '' OR worker_id = $3)";
    let mut tx = db.begin().await?;
    let row = existing(&mut tx, reach, event).await?;
    // Nothing newer can come between this and the end of the transaction.
    let offered = next_offer(&mut tx, row.workspace_id).await?;
    let released = match pending(&mut tx, &row).await? {
        Some(newer) => {
            query(SUPERSEDE).bind(event).bind(token).bind(worker).bind(newer).execute(&mut tx).await?
        }
        None => query(RELEASE).bind(event).bind(token).bind(worker).bind(offered).execute(&mut tx).await?,
    };
    if released == 0 {
        return Err(stale(&row));
    }
    if row.configuration_id.is_none() {
        upgrade::follow(&mut tx, event).await?;
    }
    tx.announce(row.customer_id);
    Ok(tx.commit_unaudited("the event row tells").await?)
}

/// Frees a failed event for another round of attempts, stuck or not, and returns it as it is then. What its data plane
/// refused may be offered to it again.
///
/// # Errors
/// `EVENT_NOT_FOUND`; FAILED_PRECONDITION `EVENT_NOT_FAILED` where it has not failed, or a newer version took its
/// place; `UPGRADE_ENDED` for an instruction of an upgrade that does not wait for it any more.
pub async fn retry(tx: &mut Tx, customer: Id<Customer>, event: Id<Event>) -> Result<EventRow, Fault> {
    const RETRY: &str = "UPDATE liaison_configuration_events SET status = 'pending', stuck = FALSE, attempt = 0, due_at = NULL, \
             outcome = '', failures = '', completed_at = NULL, offered = $2 \
         WHERE id = $1 AND status = 'failed' AND is_open = TRUE";
    const OFFER: &str = "UPDATE workspace_slots SET withheld_version = 0, failed_version = 0 \
         WHERE workspace_id = $1 AND configuration_id = $2 AND withheld_version = $3";
    let reach = Reach { customer, workspace: None, credential: String::new() };
    let row = existing(tx, &reach, event).await?;
    let offered = next_offer(tx, row.workspace_id).await?;
    let has_newer = pending(tx, &row).await?.is_some();
    if has_newer || query(RETRY).bind(event).bind(offered).execute(&mut *tx).await? == 0 {
        let state = State::of(&row).filter(|state| !matches!(state, State::Failed | State::Stuck));
        let what = match state {
            Some(State::Pending | State::Acknowledged) => "it is on its way already",
            Some(State::Applied) => "it was applied",
            _ => "a newer version took its place",
        };
        return Err(Fault::precondition("EVENT_NOT_FAILED", format!("the event cannot be retried: {what}")));
    }
    if let Some(configuration) = row.configuration_id {
        query(OFFER).bind(row.workspace_id).bind(configuration).bind(row.version).execute(&mut *tx).await?;
    } else {
        upgrade::check_retry(tx, event).await?;
        upgrade::follow(tx, event).await?;
    }
    tx.announce(customer);
    existing(tx, &reach, event).await
}

async fn existing(tx: &mut Tx, reach: &Reach, event: Id<Event>) -> Result<EventRow, Fault> {
    poll::resolve(tx, reach, event).await?.ok_or_else(|| Fault::not_found::<Event>(event))
}

/// The event that waits for the same slot, if another one does.
async fn pending(tx: &mut Tx, row: &EventRow) -> Result<Option<Id<Event>>, StorageError> {
    const PENDING: &str = "SELECT id AS value FROM liaison_configuration_events \
         WHERE workspace_id = $1 AND configuration_id = $2 AND status = 'pending' AND id <> $3";
    let Some(configuration): Option<Id<Configuration>> = row.configuration_id else { return Ok(None) };
    query(PENDING).bind(row.workspace_id).bind(configuration).bind(row.id).value(tx).await
}
