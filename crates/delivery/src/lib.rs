//! Turns changes into versions of configurations, and versions into events for workspaces.
//!
//! Everything that writes runs inside the caller's transaction, so that a change, its new version and its
//! delivery are one. Services call [`regenerate`] after they changed what a slot is made from.
//!
//! Events are laid out lazily (`docs/adr/0001-event-tables.md`): a new version only moves the customer's
//! sequence, and the first read for a workspace writes its events. Invariants, per workspace and slot: at most
//! one pending and one in-flight event (unique indexes hold it); versions only grow; the applied version never
//! goes back; a claim is only good with its token and until its lease ends.
//!
//! Deliberately absent: who may call (the services), and how workers are woken (the storage crate's notifier).

pub mod batch;
pub mod browse;
pub mod claim;
pub mod complete;
pub mod drift;
pub mod event;
pub mod event_id;
pub mod group;
pub mod instruction;
pub mod poll;
pub mod redrive;
pub mod revocation;
pub mod rollback;
pub mod rollout;
pub mod signal;
pub mod state;
pub mod upgrade;
pub mod version;
pub mod watch;

mod adopt;
mod generate;
mod history;
mod layout;
mod names;
mod observe;
mod overview;
mod retention;
mod settle;
mod slot;
mod user;

pub use adopt::adopt;
pub use complete::retry_delay;
pub use drift::resync;
pub use generate::{enabled_providers, profile_servers_from_text, profile_servers_to_text};
pub use history::{VERSIONS_KEPT, sweep_versions};
pub use instruction::instruct;
pub use layout::{is_outstanding, lay_out_customer, lay_out_workspace, offer_to_lagging};
pub use names::{config_type_from_name, config_type_name, event_type_name, status_from_name, status_name};
pub use overview::observe as observe_fleet;
pub use retention::{HISTORY_KEPT, sweep_events};
pub use settle::{settle_due, settle_workspace};
pub use slot::{SYSTEM_USER, Slot};
pub use user::{canonical_user, hold_user};
pub use version::{Audience, Triggered, delete_slots, delete_user_slots, put, regenerate, release, trigger};

use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_storage::{Sql, Tx, query};

/// How often an event is tried before its slot is stuck in a workspace.
pub const ATTEMPTS_MAX: i64 = 5;

/// Takes a workspace out of service: its open events are superseded, its instructions too, and its upgrade is
/// cancelled.
pub async fn retire_workspace(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
) -> Result<(), Fault> {
    retire(tx, customer, Some(workspace)).await
}

/// Takes all workspaces of a customer out of service.
pub async fn retire_customer(tx: &mut Tx, customer: Id<Customer>) -> Result<(), Fault> {
    retire(tx, customer, None).await
}

async fn retire(tx: &mut Tx, customer: Id<Customer>, workspace: Option<Id<Workspace>>) -> Result<(), Fault> {
    const RETIRE: &str = "UPDATE liaison_configuration_events \
         SET status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'superseded' END, \
             is_open = FALSE, stuck = FALSE, due_at = NULL, completed_at = COALESCE(completed_at, :now) \
         WHERE workspace_id IN (SELECT id FROM workspaces WHERE customer_id = $1 AND id = COALESCE($2, id)) \
         AND is_open = TRUE";
    const HOLD: Sql = Sql::Each {
        sqlite: "SELECT position AS value FROM workspace_sync \
             WHERE customer_id = $1 AND workspace_id = COALESCE($2, workspace_id) ORDER BY workspace_id",
        postgres: "SELECT position AS value FROM workspace_sync \
             WHERE customer_id = $1 AND workspace_id = COALESCE($2, workspace_id) ORDER BY workspace_id FOR UPDATE",
    };
    upgrade::lock_starts(tx, customer).await?;
    // Who is laying events out has the lock of the workspace; who comes after this finds it out of service.
    query(HOLD).bind(customer).bind(workspace).values::<i64>(&mut *tx).await?;
    query(RETIRE).bind(customer).bind(workspace).execute(tx).await?;
    upgrade::retire(tx, customer, workspace).await?;
    tx.announce(customer);
    Ok(())
}
