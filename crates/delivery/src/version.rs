//! Versions of slots: new content becomes a new version, and a version is offered to workspaces.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::id::{self, Customer, Event, Id, Workspace};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::scope::WorkspaceScope;
use agentrouter_storage::{StorageError, Tx, query, row};
use aws_lc_rs::digest;
use prost::Message;

use crate::event::timestamp;
use crate::layout::{self, Delivery};
use crate::names::{config_type_from_name, config_type_name, event_type_name};
use crate::slot::{SYSTEM_USER, Slot};
use crate::{event_id, generate};

row! {
    /// The newest content of a slot, as it is stored.
    #[derive(Debug, Clone)]
    pub struct ConfigurationRow {
        /// Row id.
        pub id: Id<id::Configuration>,
        /// The tenant.
        pub customer_id: Id<Customer>,
        /// The user of the slot.
        pub user_id: String,
        /// Stored name of the type.
        pub config_type: String,
        /// The key of the slot.
        pub key_id: String,
        /// The version.
        pub version: i64,
        /// SHA-256 of the content, in hexadecimal.
        pub checksum: String,
        /// Whether it is a tombstone.
        pub deleted: bool,
        /// The encoded payload.
        pub content: Vec<u8>,
        /// Position of this version in the customer's sequence.
        pub position: i64,
        /// Position of the newest delivery to all workspaces; 0 where there was none.
        pub broadcast_position: i64,
        /// When the slot was first written.
        pub created_at: Timestamp,
        /// When this version was written.
        pub updated_at: Timestamp,
    }
}

/// Columns of [`ConfigurationRow`].
pub const CONFIGURATION_COLUMNS: &str = "id, customer_id, user_id, config_type, key_id, version, checksum, \
     deleted, content, position, broadcast_position, created_at, updated_at";

impl ConfigurationRow {
    /// The configuration on the wire. Credentials in it have no value yet.
    ///
    /// # Errors
    /// `Corrupt` where the stored payload cannot be read.
    pub fn to_proto(&self, customer_slug: &str) -> Result<pb::Configuration, StorageError> {
        let content = pb::Configuration::decode(self.content.as_slice())
            .map_err(|error| StorageError::Corrupt(format!("configuration {}: {error}", self.id)))?;
        Ok(pb::Configuration {
            id: self.id.to_string(),
            customer_id: customer_slug.to_owned(),
            user_id: self.user_id.clone(),
            config_type: config_type_from_name(&self.config_type).unwrap_or_default().into(),
            key_id: self.key_id.clone(),
            version: self.version,
            checksum: self.checksum.clone(),
            deleted: self.deleted,
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
            payload: content.payload,
        })
    }
}

/// Who a new version is offered to.
#[derive(Debug, Clone)]
pub enum Audience {
    /// Every live workspace of the customer.
    Everyone,
    /// One workspace. The others are then behind until they reconcile.
    Only(WorkspaceScope),
}

/// What a trigger did.
#[derive(Debug, Clone)]
pub struct Triggered {
    /// The slot as it is now.
    pub configuration: ConfigurationRow,
    /// Whether its content changed.
    pub updated: bool,
    /// The events of the trigger.
    pub events: Vec<Id<Event>>,
}

/// Regenerates a slot after a change of what it is made from, for every workspace of the customer.
pub async fn regenerate(tx: &mut Tx, slot: &Slot, event_type: EventType) -> Result<(), Fault> {
    lock_sequence(tx, slot.customer).await?;
    let payload = generate::content(tx, slot).await?;
    store(tx, slot, payload, event_type, &Audience::Everyone).await.map(|_| ())
}

/// Regenerates a slot and offers it: new content as a new version; unchanged content only to workspaces that
/// have not applied it and have nothing open for it.
///
/// # Errors
/// `CONFIGURATION_NOT_FOUND` where the content is given, not generated, and never was.
pub async fn trigger(
    tx: &mut Tx,
    slot: &Slot,
    event_type: EventType,
    audience: &Audience,
) -> Result<Triggered, Fault> {
    lock_sequence(tx, slot.customer).await?;
    let payload = match generate::content(tx, slot).await? {
        Some(payload) => Some(payload),
        None => stored_payload(tx, slot).await?,
    };
    let (configuration, updated) = store(tx, slot, payload, event_type, audience).await?;
    let events = match (updated, audience) {
        (true, Audience::Everyone) => offered_events(tx, &configuration).await?,
        (true, Audience::Only(workspace)) => {
            layout::deliver(tx, &[Delivery::newest(&configuration, workspace)], event_type).await?
        }
        (false, audience) => layout::deliver_to_lagging(tx, &configuration, audience, event_type).await?,
    };
    Ok(Triggered { configuration, updated, events })
}

/// Makes tombstones of all slots of a user, as when the user is deleted. Returns how many there were.
pub async fn delete_user_slots(tx: &mut Tx, customer: Id<Customer>, user_id: &str) -> Result<usize, Fault> {
    const LIVE: &str = "SELECT config_type, key_id FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id = $2 AND deleted = FALSE ORDER BY config_type, key_id";
    row! {
        struct LiveSlot {
            config_type: String,
            key_id: String,
        }
    }
    if user_id == SYSTEM_USER {
        return Ok(0);
    }
    lock_sequence(tx, customer).await?;
    let slots: Vec<LiveSlot> = query(LIVE).bind(customer).bind(user_id).all(&mut *tx).await?;
    for live in &slots {
        let config_type = config_type_from_name(&live.config_type)
            .ok_or_else(|| StorageError::Corrupt(format!("config type {}", live.config_type)))?;
        let slot = Slot::per_key(customer, user_id, config_type, &live.key_id);
        store(tx, &slot, None, EventType::Deleted, &Audience::Everyone).await?;
    }
    Ok(slots.len())
}

/// The slot's row, if it was ever written.
pub async fn find(tx: &mut Tx, slot: &Slot) -> Result<Option<ConfigurationRow>, StorageError> {
    let sql = format!(
        "SELECT {CONFIGURATION_COLUMNS} FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id = $2 AND config_type = $3 AND key_id = $4"
    );
    query(sql)
        .bind(slot.customer)
        .bind(&slot.user_id)
        .bind(config_type_name(slot.config_type))
        .bind(&slot.key_id)
        .optional(tx)
        .await
}

/// Makes the triggers of a customer take turns: whoever holds the sequence sees everything that was committed
/// before, so versions follow the order of commits and have no holes.
async fn lock_sequence(tx: &mut Tx, customer: Id<Customer>) -> Result<(), StorageError> {
    query("UPDATE customer_sequences SET head = head WHERE customer_id = $1")
        .bind(customer)
        .execute(tx)
        .await?;
    Ok(())
}

/// The next position of a customer's sequence.
pub(crate) async fn next_position(tx: &mut Tx, customer: Id<Customer>) -> Result<i64, StorageError> {
    query("UPDATE customer_sequences SET head = head + 1 WHERE customer_id = $1 RETURNING head AS value")
        .bind(customer)
        .value(tx)
        .await?
        .ok_or_else(|| StorageError::Corrupt("a customer has no sequence".to_owned()))
}

async fn stored_payload(tx: &mut Tx, slot: &Slot) -> Result<Option<Payload>, Fault> {
    let existing = find(tx, slot).await?.ok_or_else(|| {
        Fault::new(FaultKind::NotFound, "CONFIGURATION_NOT_FOUND", "this slot has no content to deliver")
    })?;
    let content = pb::Configuration::decode(existing.content.as_slice()).map_err(Fault::internal)?;
    Ok(content.payload)
}

/// Stores content, as a new version where it differs. No payload makes a tombstone.
async fn store(
    tx: &mut Tx,
    slot: &Slot,
    payload: Option<Payload>,
    event_type: EventType,
    audience: &Audience,
) -> Result<(ConfigurationRow, bool), Fault> {
    const INSERT: &str = "INSERT INTO liaison_configurations (id, customer_id, user_id, config_type, key_id, \
         workspace_id, version, checksum, deleted, content, event_type, position, broadcast_position, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    const UPDATE: &str = "UPDATE liaison_configurations SET version = $2, checksum = $3, deleted = $4, content = $5, \
         event_type = $6, position = $7, broadcast_position = $8, updated_at = $9 WHERE id = $1";
    const KEEP: &str = "INSERT INTO liaison_configuration_versions \
         (configuration_id, version, customer_id, position, checksum, deleted, content, event_type, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let deleted = payload.is_none();
    let content = pb::Configuration { payload, ..pb::Configuration::default() }.encode_to_vec();
    let checksum = generate::hex(digest::digest(&digest::SHA256, &content).as_ref());
    let existing = find(tx, slot).await?;
    if let Some(existing) = &existing
        && existing.checksum == checksum
        && existing.deleted == deleted
    {
        return Ok((existing.clone(), false));
    }
    let now = tx.now().await?;
    let position = next_position(tx, slot.customer).await?;
    let broadcast_position = match audience {
        Audience::Everyone => position,
        Audience::Only(_) => existing.as_ref().map_or(0, |existing| existing.broadcast_position),
    };
    let is_new = existing.is_none();
    let row = ConfigurationRow {
        id: existing.as_ref().map_or_else(|| Id::new(now), |existing| existing.id),
        customer_id: slot.customer,
        user_id: slot.user_id.clone(),
        config_type: config_type_name(slot.config_type),
        key_id: slot.key_id.clone(),
        version: existing.as_ref().map_or(1, |existing| existing.version + 1),
        checksum,
        deleted,
        content,
        position,
        broadcast_position,
        created_at: existing.map_or(now, |existing| existing.created_at),
        updated_at: now,
    };
    if is_new {
        query(INSERT)
            .bind(row.id)
            .bind(row.customer_id)
            .bind(&row.user_id)
            .bind(&row.config_type)
            .bind(&row.key_id)
            .bind(slot.only_workspace())
            .bind(row.version)
            .bind(&row.checksum)
            .bind(row.deleted)
            .bind(row.content.clone())
            .bind(event_type_name(event_type))
            .bind(row.position)
            .bind(row.broadcast_position)
            .bind(row.created_at)
            .bind(row.updated_at)
            .execute(tx)
            .await?;
    } else {
        query(UPDATE)
            .bind(row.id)
            .bind(row.version)
            .bind(&row.checksum)
            .bind(row.deleted)
            .bind(row.content.clone())
            .bind(event_type_name(event_type))
            .bind(row.position)
            .bind(row.broadcast_position)
            .bind(row.updated_at)
            .execute(tx)
            .await?;
    }
    query(KEEP)
        .bind(row.id)
        .bind(row.version)
        .bind(row.customer_id)
        .bind(row.position)
        .bind(&row.checksum)
        .bind(row.deleted)
        .bind(row.content.clone())
        .bind(event_type_name(event_type))
        .bind(now)
        .execute(tx)
        .await?;
    tx.announce(slot.customer);
    Ok((row, true))
}

/// The events that a version offered to everyone will have: their ids follow from what they deliver.
async fn offered_events(
    tx: &mut Tx,
    configuration: &ConfigurationRow,
) -> Result<Vec<Id<Event>>, StorageError> {
    const NUMBERS: &str = "SELECT number AS value FROM workspaces WHERE customer_id = $1 AND deleted_at IS NULL ORDER BY number";
    const NUMBER: &str =
        "SELECT number AS value FROM workspaces WHERE customer_id = $1 AND deleted_at IS NULL AND id = $2";
    let only = Id::<Workspace>::parse(&configuration.key_id)
        .filter(|_| configuration.config_type == config_type_name(ConfigType::ProxyUrl));
    let numbers: Vec<i64> = match only {
        Some(workspace) => query(NUMBER).bind(configuration.customer_id).bind(workspace).values(tx).await?,
        None => query(NUMBERS).bind(configuration.customer_id).values(tx).await?,
    };
    Ok(numbers
        .into_iter()
        .map(|number| event_id::derive(configuration.updated_at, number, configuration.position))
        .collect())
}
