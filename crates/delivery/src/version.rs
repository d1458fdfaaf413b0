//! Versions of slots: new content becomes a new version, and a version is offered to workspaces.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::id::{self, Customer, Event, Id};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::scope::WorkspaceScope;
use agentrouter_storage::{Source, StorageError, Tx, query, row, scope};
use aws_lc_rs::digest;
use prost::Message;

use crate::event::timestamp;
use crate::generate::Origin;
use crate::layout::{self, Delivery};
use crate::names::{config_type_from_name, config_type_name, event_type_name};
use crate::slot::{SYSTEM_USER, Slot};
use crate::{event_id, generate, observe};

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
        /// The version whose content this one brought back; 0 for versions of their own.
        pub restored_version: i64,
    }
}

/// Columns of [`ConfigurationRow`].
pub const CONFIGURATION_COLUMNS: &str = "id, customer_id, user_id, config_type, key_id, version, checksum, \
     deleted, content, position, broadcast_position, created_at, updated_at, restored_version";

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
            restored_version: self.restored_version,
            payload: content.payload,
        })
    }
}

/// The broadcast position of slots that belong to one workspace, and are delivered to it directly.
const NEVER_OFFERED: i64 = -1;

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

/// Regenerates a slot after a change of what it is made from, for every workspace that it concerns. A source that is
/// gone makes a tombstone. A slot that was rolled back stays as it is unless its source has changed since.
pub async fn regenerate(tx: &mut Tx, slot: &Slot, event_type: EventType) -> Result<(), Fault> {
    lock_sequence(tx, slot.customer).await?;
    let payload = match generate::source(tx, slot).await? {
        Origin::Content(payload) => Some(payload),
        Origin::Gone if find(&mut *tx, slot).await?.is_none() => return Ok(()),
        Origin::Gone => None,
        Origin::Given => return Err(Fault::internal("this slot has no source to regenerate it from")),
    };
    let audience = narrowed(tx, slot, &Audience::Everyone).await?;
    let (configuration, updated) = follow(tx, slot, payload, event_type, &audience).await?;
    if updated {
        deliver_private(tx, &configuration, &audience, event_type).await?;
    }
    Ok(())
}

/// Stores content that is given, not generated, as a new version where it differs. Returns whether it did.
pub async fn put(
    tx: &mut Tx,
    slot: &Slot,
    payload: Payload,
    event_type: EventType,
) -> Result<(ConfigurationRow, bool), Fault> {
    lock_sequence(tx, slot.customer).await?;
    store(tx, slot, Content::of(Some(payload)), event_type, &Audience::Everyone).await
}

/// Regenerates a slot and offers it: new content as a new version; unchanged content only to workspaces that
/// have not applied it and have nothing open for it. A slot that was rolled back counts as unchanged until its source
/// changes.
///
/// # Errors
/// `CONFIGURATION_NOT_FOUND` where there is no content and never was; INVALID_ARGUMENT where the audience is another
/// workspace than the slot's.
pub async fn trigger(
    tx: &mut Tx,
    slot: &Slot,
    event_type: EventType,
    audience: &Audience,
) -> Result<Triggered, Fault> {
    lock_sequence(tx, slot.customer).await?;
    let audience = &narrowed(tx, slot, audience).await?;
    let (configuration, updated) = match generate::source(tx, slot).await? {
        Origin::Content(payload) => follow(tx, slot, Some(payload), event_type, audience).await?,
        Origin::Gone => {
            existing(tx, slot).await?;
            follow(tx, slot, None, event_type, audience).await?
        }
        Origin::Given => (existing(tx, slot).await?, false),
    };
    let events = match (updated, audience) {
        (true, Audience::Everyone) => offered_events(tx, &configuration).await?,
        (true, Audience::Only(_)) => deliver_private(tx, &configuration, audience, event_type).await?,
        (false, audience) => layout::deliver_to_lagging(tx, &configuration, audience, event_type).await?,
    };
    Ok(Triggered { configuration, updated, events })
}

/// Makes tombstones of all slots of a user, as when the user is deleted, and deletes what they were made from.
/// Returns how many there were.
pub async fn delete_user_slots(tx: &mut Tx, customer: Id<Customer>, user_id: &str) -> Result<usize, Fault> {
    const SOURCES: [&str; 2] = [
        "DELETE FROM byok_credentials WHERE customer_id = $1 AND user_id = $2",
        "DELETE FROM mcp_profiles WHERE customer_id = $1 AND user_id = $2",
    ];
    if user_id == SYSTEM_USER {
        return Ok(0);
    }
    for statement in SOURCES {
        query(statement).bind(customer).bind(user_id).execute(&mut *tx).await?;
    }
    delete_slots(tx, customer, user_id, None).await
}

/// Makes tombstones of a user's slots of one type, or of all. Returns how many there were.
pub async fn delete_slots(
    tx: &mut Tx,
    customer: Id<Customer>,
    user_id: &str,
    config_type: Option<ConfigType>,
) -> Result<usize, Fault> {
    const LIVE: &str = "SELECT config_type, key_id FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id = $2 AND config_type = COALESCE($3, config_type) AND deleted = FALSE \
         ORDER BY config_type, key_id";
    row! {
        struct LiveSlot {
            config_type: String,
            key_id: String,
        }
    }
    lock_sequence(tx, customer).await?;
    let slots: Vec<LiveSlot> = query(LIVE)
        .bind(customer)
        .bind(user_id)
        .bind(config_type.map(config_type_name))
        .all(&mut *tx)
        .await?;
    for live in &slots {
        let config_type = config_type_from_name(&live.config_type)
            .ok_or_else(|| StorageError::Corrupt(format!("config type {}", live.config_type)))?;
        let slot = Slot::per_key(customer, user_id, config_type, &live.key_id);
        store(tx, &slot, Content::of(None), EventType::Deleted, &Audience::Everyone).await?;
    }
    Ok(slots.len())
}

/// The slot's row, if it was ever written.
pub async fn find(source: impl Source, slot: &Slot) -> Result<Option<ConfigurationRow>, StorageError> {
    let sql = format!(
        "SELECT {CONFIGURATION_COLUMNS} FROM liaison_configurations \
         WHERE customer_id = $1 AND user_id = $2 AND config_type = $3 AND key_id = $4"
    );
    query(sql)
        .bind(slot.customer)
        .bind(&slot.user_id)
        .bind(config_type_name(slot.config_type))
        .bind(&slot.key_id)
        .optional(source)
        .await
}

/// Makes the triggers of a customer take turns: whoever holds the sequence sees everything that was committed
/// before, so versions follow the order of commits and have no holes.
pub(crate) async fn lock_sequence(tx: &mut Tx, customer: Id<Customer>) -> Result<(), StorageError> {
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

async fn existing(tx: &mut Tx, slot: &Slot) -> Result<ConfigurationRow, Fault> {
    find(&mut *tx, slot).await?.ok_or_else(|| {
        Fault::new(FaultKind::NotFound, "CONFIGURATION_NOT_FOUND", "this slot has no content to deliver")
    })
}

/// Whom a slot concerns: one that belongs to a workspace, that one only. Such a slot takes no part in what is offered
/// to all, or every poll would step over the private slots of the whole fleet.
pub(crate) async fn narrowed(tx: &mut Tx, slot: &Slot, audience: &Audience) -> Result<Audience, Fault> {
    let Some(own) = slot.only_workspace() else { return Ok(audience.clone()) };
    if let Audience::Only(workspace) = audience
        && workspace.id != own
    {
        return Err(Fault::invalid_field("workspace_id", "must be the workspace that the slot belongs to"));
    }
    scope::workspace(tx, slot.customer, &own.to_string()).await.map(Audience::Only)
}

/// Delivers a new version to the one workspace it is for; nothing where it is offered to all.
pub(crate) async fn deliver_private(
    tx: &mut Tx,
    configuration: &ConfigurationRow,
    audience: &Audience,
    event_type: EventType,
) -> Result<Vec<Id<Event>>, StorageError> {
    match audience {
        Audience::Everyone => Ok(Vec::new()),
        Audience::Only(workspace) => {
            layout::deliver(tx, &[Delivery::newest(configuration, workspace)], event_type).await
        }
    }
}

/// What a version holds.
pub(crate) struct Content {
    /// The encoded payload.
    pub(crate) bytes: Vec<u8>,
    /// Its SHA-256, in hexadecimal.
    pub(crate) checksum: String,
    pub(crate) deleted: bool,
    /// The version that it was brought back from; 0 where it was not.
    pub(crate) restored_version: i64,
    /// While a rollback stands: the checksum of what the source gave when it was made.
    pub(crate) source_checksum: String,
}

impl Content {
    /// No payload makes a tombstone.
    pub(crate) fn of(payload: Option<Payload>) -> Self {
        let deleted = payload.is_none();
        let bytes = pb::Configuration { payload, ..pb::Configuration::default() }.encode_to_vec();
        let checksum = generate::hex(digest::digest(&digest::SHA256, &bytes).as_ref());
        Self { bytes, checksum, deleted, restored_version: 0, source_checksum: String::new() }
    }
}

/// Stores what the source of a slot gives, unless the slot was rolled back and its source has not changed since.
pub(crate) async fn follow(
    tx: &mut Tx,
    slot: &Slot,
    payload: Option<Payload>,
    event_type: EventType,
    audience: &Audience,
) -> Result<(ConfigurationRow, bool), Fault> {
    const KEPT: &str = "SELECT source_checksum AS value FROM liaison_configurations WHERE id = $1";
    let content = Content::of(payload);
    if let Some(existing) = find(&mut *tx, slot).await?.filter(|existing| existing.restored_version > 0) {
        let kept: String = query(KEPT).bind(existing.id).value(&mut *tx).await?.unwrap_or_default();
        if kept == content.checksum {
            return Ok((existing, false));
        }
        // The source may have come to what was brought back. Then the slot follows it again.
        release(tx, slot).await?;
    }
    store(tx, slot, content, event_type, audience).await
}

/// Lets a slot that was rolled back follow its source again, from the next regeneration on.
pub async fn release(tx: &mut Tx, slot: &Slot) -> Result<(), StorageError> {
    const RELEASE: &str = "UPDATE liaison_configurations SET source_checksum = '' \
         WHERE customer_id = $1 AND user_id = $2 AND config_type = $3 AND key_id = $4 AND source_checksum <> ''";
    query(RELEASE)
        .bind(slot.customer)
        .bind(&slot.user_id)
        .bind(config_type_name(slot.config_type))
        .bind(&slot.key_id)
        .execute(tx)
        .await?;
    Ok(())
}

/// Stores content, as a new version where it differs.
pub(crate) async fn store(
    tx: &mut Tx,
    slot: &Slot,
    content: Content,
    event_type: EventType,
    audience: &Audience,
) -> Result<(ConfigurationRow, bool), Fault> {
    const INSERT: &str = "INSERT INTO liaison_configurations (id, customer_id, user_id, config_type, key_id, \
         workspace_id, version, checksum, deleted, content, event_type, position, broadcast_position, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
    const UPDATE: &str = "UPDATE liaison_configurations SET version = $2, checksum = $3, deleted = $4, content = $5, \
         event_type = $6, position = $7, broadcast_position = $8, updated_at = $9, restored_version = $10, \
         source_checksum = $11 WHERE id = $1";
    const REPLACE: &str = "UPDATE liaison_configuration_versions SET replaced_at = $3 \
         WHERE configuration_id = $1 AND version = $2";
    const KEEP: &str = "INSERT INTO liaison_configuration_versions \
         (configuration_id, version, customer_id, position, checksum, deleted, content, event_type, created_at, restored_version) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let existing = find(&mut *tx, slot).await?;
    if let Some(existing) = &existing
        && existing.checksum == content.checksum
        && existing.deleted == content.deleted
    {
        return Ok((existing.clone(), false));
    }
    let now = tx.now().await?;
    let position = next_position(tx, slot.customer).await?;
    let broadcast_position = match audience {
        Audience::Everyone => position,
        Audience::Only(_) if slot.only_workspace().is_some() => NEVER_OFFERED,
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
        checksum: content.checksum,
        deleted: content.deleted,
        content: content.bytes,
        position,
        broadcast_position,
        created_at: existing.map_or(now, |existing| existing.created_at),
        updated_at: now,
        restored_version: content.restored_version,
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
            .bind(row.restored_version)
            .bind(content.source_checksum)
            .execute(tx)
            .await?;
        query(REPLACE).bind(row.id).bind(row.version - 1).bind(now).execute(tx).await?;
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
        .bind(row.restored_version)
        .execute(tx)
        .await?;
    observe::stored(tx, row.id, row.version).await?;
    tx.announce(slot.customer);
    Ok((row, true))
}

/// The events that a version offered to everyone will have: their ids follow from what they deliver.
async fn offered_events(
    tx: &mut Tx,
    configuration: &ConfigurationRow,
) -> Result<Vec<Id<Event>>, StorageError> {
    const NUMBERS: &str = "SELECT number AS value FROM workspaces WHERE customer_id = $1 AND deleted_at IS NULL ORDER BY number";
    let numbers: Vec<i64> = query(NUMBERS).bind(configuration.customer_id).values(tx).await?;
    Ok(numbers
        .into_iter()
        .map(|number| event_id::derive(configuration.updated_at, number, configuration.position))
        .collect())
}
