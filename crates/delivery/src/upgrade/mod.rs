//! Upgrades of data planes: the phase that each one is in, and how its instructions move it.
//!
//! An upgrade is started by an instruction and may be followed by two more, a cancel and a rollback. A worker completes
//! an instruction when the data plane has done what it says, so how an event ends moves the phase, and so do the
//! worker's reports. Both follow one table, [`MOVES`]. Here is what every such change needs, in the transaction that
//! makes it; what people and workers may ask for is the configurator's.
//!
//! Invariants: at most one upgrade per workspace is under way (a unique index holds it); an upgrade that ended moves
//! only by a rollback; an instruction that nobody needs any more is not delivered again.
//!
//! Locks are taken in one order: the customer's sequence, the workspace, events, the upgrade. Whoever ends an event
//! holds that event already, so nothing here touches another event of the upgrade from there.

mod phase;
mod store;

pub use phase::{MOVES, Mover, Phase};
pub use store::{
    Instruction, UpgradeRow, active_in, find, forget_credentials, insert, is_overtaken, of_workspace,
};

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{StorageError, Tx, query};
use store::Part;

use crate::signal::{self, UPGRADE_FINISHED};

/// An upgrade that nobody else changes until the transaction ends, and neither its events.
#[derive(Debug)]
pub struct Held {
    /// The upgrade.
    pub upgrade: UpgradeRow,
    /// The event that started it; none where it is not kept any more.
    pub start: Option<Instruction>,
    /// The phase that is stored.
    stored: Phase,
}

/// Takes the locks that [`crate::instruct`] takes, in its order, before any other of this module. Instructions and the
/// retirement of a workspace so take turns. Returns whether the workspace is in service.
pub async fn lock_workspace(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
) -> Result<bool, StorageError> {
    const LIVE: &str = "SELECT w.id AS value FROM workspaces w JOIN customers c ON c.id = w.customer_id \
         WHERE w.id = $1 AND w.customer_id = $2 AND w.deleted_at IS NULL AND c.deleted_at IS NULL";
    lock_starts(tx, customer).await?;
    lock_sync(tx, workspace).await?;
    Ok(query(LIVE).bind(workspace).bind(customer).value::<Id<Workspace>>(tx).await?.is_some())
}

/// Keeps upgrades of a customer from being started, cancelled or rolled back until the transaction ends. Comes before
/// any lock of workspaces and events.
pub(crate) async fn lock_starts(tx: &mut Tx, customer: Id<Customer>) -> Result<(), StorageError> {
    const LOCK: &str = "UPDATE customer_sequences SET head = head WHERE customer_id = $1";
    query(LOCK).bind(customer).execute(tx).await.map(|_| ())
}

async fn lock_sync(tx: &mut Tx, workspace: Id<Workspace>) -> Result<(), StorageError> {
    const LOCK: &str = "UPDATE workspace_sync SET position = position WHERE workspace_id = $1";
    query(LOCK).bind(workspace).execute(tx).await.map(|_| ())
}

/// Holds an upgrade with its events. `found` tells which one; it may be out of date by now.
///
/// # Errors
/// `Corrupt` where the upgrade is gone.
pub async fn hold(tx: &mut Tx, found: &UpgradeRow) -> Result<Held, StorageError> {
    let gone = || StorageError::Corrupt(format!("the upgrade {} is gone", found.event_id));
    lock_sync(tx, found.workspace_id).await?;
    // Cancels and rollbacks come with the workspace's lock, so there are no more of them from here on.
    let known = find(&mut *tx, found.customer_id, None, found.event_id).await?.ok_or_else(gone)?;
    let start = store::hold_instruction(tx, known.start_event()).await?;
    for event in [known.cancel_event_id, known.rollback_event_id].into_iter().flatten() {
        store::hold_instruction(tx, event).await?;
    }
    let upgrade = store::hold(tx, known.event_id).await?.ok_or_else(gone)?;
    let stored = upgrade.phase;
    Ok(Held { upgrade, start, stored })
}

impl Held {
    /// Whether a worker holds the event that started it, or held it once.
    pub fn was_claimed(&self) -> bool {
        self.start.as_ref().is_some_and(|start| start.acknowledged_at.is_some())
    }

    /// Writes the upgrade and, where it ended or is being cancelled, takes those of its instructions out of delivery
    /// that no worker holds and nobody needs any more.
    pub async fn save(self, tx: &mut Tx) -> Result<UpgradeRow, StorageError> {
        let Self { upgrade, stored, .. } = self;
        save(tx, &upgrade, stored).await?;
        let ended = upgrade.phase.has_ended();
        if ended || upgrade.phase == Phase::Cancelling {
            store::withdraw(tx, upgrade.start_event(), upgrade.cancel_event_id).await?;
        }
        if ended {
            for event in [upgrade.cancel_event_id, upgrade.rollback_event_id].into_iter().flatten() {
                store::withdraw(tx, event, None).await?;
            }
        }
        Ok(upgrade)
    }
}

impl UpgradeRow {
    /// Enters a phase and settles what goes with it: when it ended, which release runs and which one failed, as far as
    /// that follows from the phase. Whoever knows better says so afterwards.
    pub fn enter(&mut self, phase: Phase, message: impl Into<String>, now: Timestamp) {
        let before = std::mem::replace(&mut self.phase, phase);
        self.message = message.into();
        self.updated_at = now;
        self.ended_at = phase.has_ended().then_some(now);
        self.set_required_slots(&[]);
        match phase {
            Phase::Completed if before != Phase::RollingBack => {
                self.running_version.clone_from(&self.target_version);
                self.failed_version.clear();
            }
            Phase::Failed if self.failed_version.is_empty() => {
                self.failed_version.clone_from(&self.target_version);
            }
            // Which release it was before, only the data plane knows.
            Phase::RolledBack => self.running_version.clear(),
            _ => {}
        }
    }
}

/// Writes an upgrade whose `stored` phase is another or the same, wakes whoever waits for it, signals that it ended,
/// and deletes credentials that are of no more use.
async fn save(tx: &mut Tx, upgrade: &UpgradeRow, stored: Phase) -> Result<(), StorageError> {
    store::write(tx, upgrade).await?;
    if upgrade.phase.has_ended() && upgrade.phase != stored {
        raise_finished(tx, upgrade).await?;
    }
    if upgrade.phase.has_ended() || upgrade.phase == Phase::Cancelling {
        forget_credentials(tx, upgrade.event_id).await?;
    }
    tx.announce(upgrade.customer_id);
    Ok(())
}

/// Signals that an upgrade entered a phase in which it is over. One that is rolled back does so a second time.
async fn raise_finished(tx: &mut Tx, upgrade: &UpgradeRow) -> Result<(), StorageError> {
    let data = serde_json::json!({
        "event_id": upgrade.event_id.to_string(),
        "phase": upgrade.phase.to_proto().as_str_name(),
        "message": upgrade.message,
        "target_version": upgrade.target_version,
        "running_version": upgrade.running_version,
        "failed_version": upgrade.failed_version,
    });
    signal::raise(tx, upgrade.customer_id, upgrade.workspace_id, UPGRADE_FINISHED, &data).await
}

/// Notes that a new instruction of the workspace takes the place of those that got stuck.
pub async fn free_stuck(tx: &mut Tx, workspace: Id<Workspace>, newer: Id<Event>) -> Result<(), StorageError> {
    store::free_stuck(tx, workspace, newer).await
}

/// Moves the phase after an instruction was completed, given back, found expired or made pending again, in the same
/// transaction. Does nothing where the event belongs to no upgrade.
pub(crate) async fn follow(tx: &mut Tx, event: Id<Event>) -> Result<(), StorageError> {
    let Some(found) = store::upgrade_of(tx, event).await? else { return Ok(()) };
    // Read only once the upgrade is held: until then another of its events may end.
    let Some(upgrade) = store::hold(tx, found).await? else { return Ok(()) };
    let Some(told) = store::instruction(tx, event).await? else { return Ok(()) };
    match upgrade.part(event) {
        Some(Part::Start) => after_start(tx, upgrade, event, &told).await,
        Some(Part::Cancel) => after_cancel(tx, upgrade, event, &told).await,
        Some(Part::Rollback) => after_rollback(tx, upgrade, event, &told).await,
        None => Ok(()),
    }
}

async fn after_start(
    tx: &mut Tx,
    upgrade: UpgradeRow,
    event: Id<Event>,
    told: &Instruction,
) -> Result<(), StorageError> {
    let was_reported = told.outcome == "failed";
    match (told.status.as_str(), upgrade.phase) {
        ("applied", phase) if phase.is_forward() => step(tx, upgrade, Phase::Completed, "").await,
        ("applied" | "superseded", _) => Ok(()),
        // Whoever asked for the cancel wants no further attempt, and a failed one leaves the old release running.
        (_, Phase::Cancelling) if was_reported => {
            store::withdraw(tx, event, upgrade.cancel_event_id).await?;
            step(tx, upgrade, Phase::Cancelled, &told.error_message).await
        }
        (_, Phase::Cancelling) => {
            let cancel = match upgrade.cancel_event_id {
                Some(cancel) => store::instruction(tx, cancel).await?,
                None => None,
            };
            if !told.stuck {
                store::withdraw(tx, event, upgrade.cancel_event_id).await?;
                if cancel.is_some_and(|cancel| cancel.is_live()) {
                    return Ok(());
                }
            }
            step(tx, upgrade, Phase::Failed, "the worker stopped answering while it was to cancel").await
        }
        (_, phase) if phase.is_forward() => {
            if told.stuck {
                step(tx, upgrade, Phase::Failed, &told.error_message).await
            } else {
                Ok(())
            }
        }
        // It stays to be seen that the upgrade failed.
        (_, Phase::Failed) if told.stuck => Ok(()),
        _ => store::withdraw(tx, event, None).await.map(|_| ()),
    }
}

async fn after_cancel(
    tx: &mut Tx,
    mut upgrade: UpgradeRow,
    event: Id<Event>,
    told: &Instruction,
) -> Result<(), StorageError> {
    match (told.status.as_str(), upgrade.phase) {
        ("applied", Phase::Cancelling) => step(tx, upgrade, Phase::Cancelled, "").await,
        ("applied" | "superseded", _) => Ok(()),
        (_, Phase::Cancelling) if told.stuck => {
            let message = format!("the cancel failed: {}", told.error_message);
            let start = store::instruction(tx, upgrade.start_event()).await?;
            if start.is_some_and(|start| start.is_held()) {
                // The upgrade itself still comes to an end.
                upgrade.message = message;
                return save(tx, &upgrade, Phase::Cancelling).await;
            }
            step(tx, upgrade, Phase::Failed, &message).await
        }
        (_, Phase::Cancelling) => Ok(()),
        _ => store::withdraw(tx, event, None).await.map(|_| ()),
    }
}

async fn after_rollback(
    tx: &mut Tx,
    upgrade: UpgradeRow,
    event: Id<Event>,
    told: &Instruction,
) -> Result<(), StorageError> {
    match (told.status.as_str(), upgrade.phase) {
        ("applied", Phase::RollingBack) => step(tx, upgrade, Phase::RolledBack, "").await,
        ("applied" | "superseded", _) => Ok(()),
        (_, Phase::RollingBack) if told.stuck => {
            let message = format!("the rollback failed: {}", told.error_message);
            step(tx, upgrade, Phase::Completed, &message).await
        }
        (_, Phase::RollingBack) => Ok(()),
        _ => store::withdraw(tx, event, None).await.map(|_| ()),
    }
}

/// Moves an upgrade as its worker says by how it ended an event.
async fn step(tx: &mut Tx, mut upgrade: UpgradeRow, to: Phase, message: &str) -> Result<(), StorageError> {
    debug_assert!(upgrade.phase.may_move(Mover::Worker, to), "{:?} to {to:?}", upgrade.phase);
    let now = tx.now().await?;
    let stored = upgrade.phase;
    upgrade.enter(to, message, now);
    save(tx, &upgrade, stored).await
}

/// Checks that an event may be tried again by a person: an instruction only while its upgrade waits for it.
///
/// # Errors
/// FAILED_PRECONDITION `UPGRADE_ENDED` where it does not any more.
pub(crate) async fn check_retry(tx: &mut Tx, event: Id<Event>) -> Result<(), Fault> {
    let Some(found) = store::upgrade_of(tx, event).await? else { return Ok(()) };
    let Some(upgrade) = store::hold(tx, found).await? else { return Ok(()) };
    let is_awaited = match upgrade.part(event) {
        Some(Part::Start) => upgrade.phase.is_forward() && upgrade.phase != Phase::Cancelling,
        Some(Part::Cancel) => upgrade.phase == Phase::Cancelling,
        Some(Part::Rollback) => upgrade.phase == Phase::RollingBack,
        None => false,
    };
    if is_awaited {
        return Ok(());
    }
    Err(Fault::precondition(
        "UPGRADE_ENDED",
        format!("the upgrade {} is {}; start a new one", upgrade.event_id, upgrade.phase.name()),
    ))
}

/// Cancels what is under way in a workspace that goes out of service, or in all of a customer's. Its events are closed
/// already.
pub(crate) async fn retire(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Option<Id<Workspace>>,
) -> Result<(), StorageError> {
    for upgrade in store::cancel_all(tx, customer, workspace).await? {
        raise_finished(tx, &upgrade).await?;
    }
    Ok(())
}
