//! MCP profiles: which servers and tools a user's key may reach. Each is the source of one slot.
//!
//! A profile may name servers that the catalog does not have, or not yet: it allows, and what is not there is not
//! reached.

mod convert;
mod rpc;
mod store;

use agentrouter_api::configurator::{ConfigType, EventType, McpProfileServer};
use agentrouter_delivery::{Slot, hold_user, regenerate};
use agentrouter_kernel::id::{self, Customer, Id, NameOrId};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::Tx;

pub use rpc::McpProfiles;

/// A stored profile.
#[derive(Debug, Clone, PartialEq)]
struct Profile {
    id: Id<id::McpProfile>,
    slug: String,
    user_id: String,
    key_id: String,
    display_name: String,
    /// Ordered by id, as the content has them.
    servers: Vec<McpProfileServer>,
    revision: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Profile {
    fn slot(&self, customer: Id<Customer>) -> Slot {
        Slot::per_key(customer, &self.user_id, ConfigType::McpProfile, &self.key_id)
    }
}

/// A profile to create.
#[derive(Debug)]
struct NewProfile {
    slug: String,
    user_id: String,
    key_id: String,
    display_name: String,
    servers: Vec<McpProfileServer>,
}

/// What an update does. Absent fields stay as they are.
#[derive(Debug)]
struct Change {
    display_name: Option<String>,
    servers: Option<Vec<McpProfileServer>>,
}

async fn create(tx: &mut Tx, customer: Id<Customer>, new: NewProfile) -> Result<Profile, Fault> {
    take_turns(tx, customer).await?;
    let user_id = hold_user(tx, customer, &new.user_id).await?;
    let now = tx.now().await?;
    let profile = Profile {
        id: Id::new(now),
        slug: new.slug,
        user_id,
        key_id: new.key_id,
        display_name: new.display_name,
        servers: new.servers,
        revision: 1,
        created_at: now,
        updated_at: now,
    };
    if !store::insert(tx, customer, &profile).await? {
        return Err(Fault::already_exists::<id::McpProfile>(&profile.slug));
    }
    regenerate(tx, &profile.slot(customer), EventType::Created).await?;
    Ok(profile)
}

/// Changes a profile and delivers what it allows. An update that changes nothing leaves the etag as it is.
async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::McpProfile>,
    expected_revision: Option<i64>,
    change: Change,
) -> Result<Profile, Fault> {
    take_turns(tx, customer).await?;
    let old = find_expected(tx, customer, name, expected_revision).await?;
    let mut new = old.clone();
    new.display_name = change.display_name.unwrap_or(new.display_name);
    new.servers = change.servers.unwrap_or(new.servers);
    if new == old {
        return Ok(old);
    }
    new.revision += 1;
    new.updated_at = tx.now().await?;
    if !store::update(tx, customer, &new).await? {
        return Err(Fault::etag_mismatch());
    }
    // Names for people are no part of the content.
    if new.servers != old.servers {
        regenerate(tx, &new.slot(customer), EventType::Updated).await?;
    }
    Ok(new)
}

/// Deletes a profile and tells the data planes. Returns its row id.
async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::McpProfile>,
    expected_revision: Option<i64>,
) -> Result<Id<id::McpProfile>, Fault> {
    take_turns(tx, customer).await?;
    let old = find_expected(tx, customer, name, expected_revision).await?;
    if !store::delete(tx, customer, &old).await? {
        return Err(Fault::etag_mismatch());
    }
    regenerate(tx, &old.slot(customer), EventType::Deleted).await?;
    Ok(old.id)
}

async fn find_expected(
    tx: &mut Tx,
    customer: Id<Customer>,
    name: &NameOrId<id::McpProfile>,
    expected_revision: Option<i64>,
) -> Result<Profile, Fault> {
    let found = store::find(tx, customer, name).await?.ok_or_else(|| not_found(name))?;
    match expected_revision {
        Some(expected) if expected != found.revision => Err(Fault::etag_mismatch()),
        _ => Ok(found),
    }
}

fn not_found(name: &NameOrId<id::McpProfile>) -> Fault {
    match name {
        NameOrId::Slug(slug) => Fault::not_found::<id::McpProfile>(slug),
        NameOrId::Id(id) => Fault::not_found::<id::McpProfile>(id),
    }
}

/// Changes of one customer's profiles follow each other: what is read after this stays until the transaction ends.
async fn take_turns(tx: &mut Tx, customer: Id<Customer>) -> Result<(), Fault> {
    Ok(tx.lock(&format!("mcp-profiles:{customer}")).await?)
}
