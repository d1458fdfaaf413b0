//! Instructions: events that tell a worker to do something once, such as an upgrade.
//!
//! They have no slot, so nothing supersedes them and they take no part in the limit of one pending and one in-flight
//! event per slot: a cancel reaches a running upgrade. Claims, leases, retries and completions are those of all events.
//! What an instruction means, and the phases it leads through, is the caller's.

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_storage::{Tx, query};
use prost::Message;

use crate::layout::next_offer;
use crate::names::{config_type_name, event_type_name};
use crate::slot::SYSTEM_USER;
use crate::version::next_position;

/// Queues an instruction for one workspace and returns the id of its event, which is pending at once.
///
/// `event_type` is one of the upgrade types, and `metadata` what the worker reads from the event. The workspace must be
/// a live one of the customer; the caller has resolved it.
///
/// # Errors
/// INTERNAL where the database fails.
pub async fn instruct(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    event_type: EventType,
    metadata: &prost_types::Struct,
) -> Result<Id<Event>, Fault> {
    const INSERT: &str = "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, configuration_id, \
             user_id, config_type, key_id, event_type, version, status, position, offered, attempt, stuck, is_open, \
             lease_micros, worker_id, claimed_by, outcome, error_message, metadata, created_at) \
         VALUES ($1, $2, $3, NULL, $4, $5, '', $6, 0, 'pending', $7, $8, 0, FALSE, TRUE, 0, '', '', '', '', $9, $10)";
    let now = tx.now().await?;
    // The sequence first, as triggers do, then the workspace: whoever takes both takes them in this order.
    let position = next_position(tx, customer).await?;
    let offered = next_offer(tx, workspace).await?;
    let event = Id::<Event>::new(now);
    query(INSERT)
        .bind(event)
        .bind(customer)
        .bind(workspace)
        .bind(SYSTEM_USER)
        .bind(config_type_name(ConfigType::DataplaneUpgrade))
        .bind(event_type_name(event_type))
        .bind(position)
        .bind(offered)
        .bind(metadata.encode_to_vec())
        .bind(now)
        .execute(tx)
        .await?;
    tx.announce(customer);
    Ok(event)
}
