//! Turns changes into versions of configurations, and versions into events for workspaces.
//!
//! Everything here runs inside the caller's transaction, so that a change, its new version and its delivery
//! are one. Services call [`regenerate`] after they changed what a slot is made from.

mod slot;

pub use slot::{SYSTEM_USER, Slot};

use agentrouter_api::configurator::EventType;
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_storage::Tx;

/// Regenerates a slot from the store; where its content changed, it gets a new version that is delivered to
/// every workspace of the customer.
pub async fn regenerate(_tx: &mut Tx, _slot: &Slot, _event_type: EventType) -> Result<(), Fault> {
    Ok(())
}

/// Makes tombstones of all slots of a user, as when the user is deleted.
pub async fn delete_user_slots(_tx: &mut Tx, _customer: Id<Customer>, _user_id: &str) -> Result<(), Fault> {
    Ok(())
}

/// Takes a workspace out of service: its open events are superseded.
pub async fn retire_workspace(_tx: &mut Tx, _customer: Id<Customer>, _workspace: Id<Workspace>) -> Result<(), Fault> {
    Ok(())
}
