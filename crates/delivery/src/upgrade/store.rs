//! The rows of upgrades.

use agentrouter_api::configurator as pb;
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Customer, Event, Id, Upgrade, Workspace};
use agentrouter_storage::{Source, StorageError, Tx, query, row};
use prost::Message;

use super::phase::Phase;
use crate::event::timestamp;

row! {
    /// An upgrade with the slug of its workspace.
    #[derive(Debug, Clone, PartialEq)]
    pub struct UpgradeRow {
        /// The event that started it.
        pub event_id: Id<Upgrade>,
        /// The tenant.
        pub customer_id: Id<Customer>,
        /// The workspace that is upgraded.
        pub workspace_id: Id<Workspace>,
        /// Slug of that workspace.
        pub workspace_slug: String,
        /// Where it stands.
        pub phase: Phase,
        /// A sentence for people.
        pub message: String,
        /// The release it leads to.
        pub target_version: String,
        /// Encoded parameters.
        pub metadata: Vec<u8>,
        /// JSON array of the credential slots it waits for.
        pub required_credentials: String,
        /// The release that runs; empty where nobody said.
        pub running_version: String,
        /// The release that failed; empty for none.
        pub failed_version: String,
        /// The event of its cancel.
        pub cancel_event_id: Option<Id<Event>>,
        /// The event of its newest rollback.
        pub rollback_event_id: Option<Id<Event>>,
        /// When it was started.
        pub created_at: Timestamp,
        /// When it last changed.
        pub updated_at: Timestamp,
        /// When it ended; none while it is under way.
        pub ended_at: Option<Timestamp>,
    }
}

/// What an event means to its upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Start,
    Cancel,
    Rollback,
}

macro_rules! columns {
    () => {
        "event_id, customer_id, workspace_id, \
         (SELECT w.slug FROM workspaces w WHERE w.id = dataplane_upgrades.workspace_id) AS workspace_slug, \
         phase, message, target_version, metadata, required_credentials, running_version, failed_version, \
         cancel_event_id, rollback_event_id, created_at, updated_at, ended_at"
    };
}

impl UpgradeRow {
    /// The event that started it.
    pub fn start_event(&self) -> Id<Event> {
        Id::from_uuid(self.event_id.uuid())
    }

    /// What an event of this upgrade means to it.
    pub(super) fn part(&self, event: Id<Event>) -> Option<Part> {
        if self.start_event() == event {
            Some(Part::Start)
        } else if self.cancel_event_id == Some(event) {
            Some(Part::Cancel)
        } else {
            (self.rollback_event_id == Some(event)).then_some(Part::Rollback)
        }
    }

    /// The credential slots it waits for.
    ///
    /// # Errors
    /// `Corrupt` where the row holds no list.
    pub fn required_slots(&self) -> Result<Vec<String>, StorageError> {
        serde_json::from_str(&self.required_credentials)
            .map_err(|error| StorageError::Corrupt(format!("the slots of {}: {error}", self.event_id)))
    }

    /// Names the credential slots it waits for.
    pub fn set_required_slots(&mut self, slots: &[String]) {
        self.required_credentials = serde_json::Value::from(slots).to_string();
    }

    /// The parameters it was started with.
    ///
    /// # Errors
    /// `Corrupt` where the row holds something else.
    pub fn parameters(&self) -> Result<prost_types::Struct, StorageError> {
        prost_types::Struct::decode(self.metadata.as_slice())
            .map_err(|error| StorageError::Corrupt(format!("the parameters of {}: {error}", self.event_id)))
    }

    /// The upgrade on the wire.
    ///
    /// # Errors
    /// `Corrupt` where a stored value cannot be read.
    pub fn to_proto(&self) -> Result<pb::DataplaneUpgrade, StorageError> {
        Ok(pb::DataplaneUpgrade {
            event_id: self.event_id.to_string(),
            workspace_id: self.workspace_slug.clone(),
            phase: self.phase.to_proto().into(),
            message: self.message.clone(),
            metadata: Some(self.parameters()?),
            required_credentials: self.required_slots()?,
            running_version: self.running_version.clone(),
            failed_version: self.failed_version.clone(),
            rollback_event_id: self.rollback_event_id.map(|id| id.to_string()).unwrap_or_default(),
            created_at: Some(timestamp(self.created_at)),
            updated_at: Some(timestamp(self.updated_at)),
        })
    }
}

/// An upgrade, by one of its events, that this customer and, where given, this workspace may know of.
pub async fn find(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Option<Id<Workspace>>,
    event: Id<Upgrade>,
) -> Result<Option<UpgradeRow>, StorageError> {
    const FIND: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM dataplane_upgrades WHERE (event_id = $1 OR cancel_event_id = $1 OR rollback_event_id = $1) \
         AND customer_id = $2 AND workspace_id = COALESCE($3, workspace_id)"
    );
    query(FIND).bind(event).bind(customer).bind(workspace).optional(source).await
}

/// The upgrade of a workspace that is under way, or else the one that ended last.
pub async fn of_workspace(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
) -> Result<Option<UpgradeRow>, StorageError> {
    const NEWEST: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM dataplane_upgrades WHERE customer_id = $1 AND workspace_id = $2 \
         ORDER BY CASE WHEN ended_at IS NULL THEN 0 ELSE 1 END, ended_at DESC, created_at DESC, event_id DESC LIMIT 1"
    );
    query(NEWEST).bind(customer).bind(workspace).optional(source).await
}

/// Whether a newer upgrade of the workspace has completed, so that this one's release runs no more.
pub async fn is_overtaken(tx: &mut Tx, upgrade: &UpgradeRow) -> Result<bool, StorageError> {
    const NEWER: &str = "SELECT event_id AS value FROM dataplane_upgrades WHERE workspace_id = $1 AND event_id <> $2 \
         AND created_at >= $3 AND phase = 'completed'";
    let newer: Option<Id<Upgrade>> = query(NEWER)
        .bind(upgrade.workspace_id)
        .bind(upgrade.event_id)
        .bind(upgrade.created_at)
        .value(tx)
        .await?;
    Ok(newer.is_some())
}

/// The upgrade of a workspace that is under way.
pub async fn active_in(tx: &mut Tx, workspace: Id<Workspace>) -> Result<Option<Id<Upgrade>>, StorageError> {
    const ACTIVE: &str =
        "SELECT event_id AS value FROM dataplane_upgrades WHERE workspace_id = $1 AND ended_at IS NULL";
    query(ACTIVE).bind(workspace).value(tx).await
}

/// Writes a new upgrade. Returns false where one is under way in the workspace.
pub async fn insert(
    tx: &mut Tx,
    event: Id<Event>,
    customer: Id<Customer>,
    workspace: Id<Workspace>,
    target_version: &str,
    metadata: &prost_types::Struct,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO dataplane_upgrades (event_id, customer_id, workspace_id, phase, message, target_version, \
             metadata, required_credentials, running_version, failed_version, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, '', $5, $6, '[]', '', '', $7, $7) ON CONFLICT DO NOTHING";
    let now = tx.now().await?;
    let inserted = query(INSERT)
        .bind(event)
        .bind(customer)
        .bind(workspace)
        .bind(Phase::Pending)
        .bind(target_version)
        .bind(metadata.encode_to_vec())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(inserted == 1)
}

/// Holds an upgrade until the transaction ends, and reads it.
pub(super) async fn hold(tx: &mut Tx, upgrade: Id<Upgrade>) -> Result<Option<UpgradeRow>, StorageError> {
    const HOLD: &str = concat!(
        "UPDATE dataplane_upgrades SET updated_at = updated_at WHERE event_id = $1 RETURNING ",
        columns!()
    );
    query(HOLD).bind(upgrade).optional(tx).await
}

/// The upgrade that an event belongs to, without holding it.
pub(super) async fn upgrade_of(tx: &mut Tx, event: Id<Event>) -> Result<Option<Id<Upgrade>>, StorageError> {
    const OF_EVENT: &str = "SELECT event_id AS value FROM dataplane_upgrades \
         WHERE event_id = $1 OR cancel_event_id = $1 OR rollback_event_id = $1";
    query(OF_EVENT).bind(event).value(tx).await
}

/// Writes an upgrade that is held.
pub(super) async fn write(tx: &mut Tx, upgrade: &UpgradeRow) -> Result<(), StorageError> {
    const WRITE: &str = "UPDATE dataplane_upgrades SET phase = $2, message = $3, required_credentials = $4, \
         running_version = $5, failed_version = $6, cancel_event_id = $7, rollback_event_id = $8, updated_at = $9, \
         ended_at = $10 WHERE event_id = $1";
    query(WRITE)
        .bind(upgrade.event_id)
        .bind(upgrade.phase)
        .bind(&upgrade.message)
        .bind(&upgrade.required_credentials)
        .bind(&upgrade.running_version)
        .bind(&upgrade.failed_version)
        .bind(upgrade.cancel_event_id)
        .bind(upgrade.rollback_event_id)
        .bind(upgrade.updated_at)
        .bind(upgrade.ended_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Deletes the submitted credentials of an upgrade.
pub async fn forget_credentials(tx: &mut Tx, upgrade: Id<Upgrade>) -> Result<u64, StorageError> {
    const FORGET: &str = "DELETE FROM dataplane_upgrade_credentials WHERE event_id = $1";
    query(FORGET).bind(upgrade).execute(tx).await
}

row! {
    /// An event of an upgrade, as far as the upgrade cares.
    #[derive(Debug, Clone)]
    pub struct Instruction {
        /// Stored name of the status.
        pub status: String,
        /// How the last claim was completed; empty where it was not.
        pub outcome: String,
        /// Whether its attempts are used up.
        pub stuck: bool,
        /// Whether it may still be delivered, or is stuck.
        pub is_open: bool,
        /// Why the last attempt failed.
        pub error_message: String,
        /// When it was last claimed.
        pub acknowledged_at: Option<Timestamp>,
    }
}

impl Instruction {
    /// Whether a worker holds it, or may come to.
    pub(super) fn is_live(&self) -> bool {
        self.is_open && !self.stuck
    }

    /// Whether a worker holds it. Its lease may have run out.
    pub(super) fn is_held(&self) -> bool {
        self.status == "acknowledged"
    }
}

macro_rules! instruction {
    () => {
        "status, outcome, stuck, is_open, error_message, acknowledged_at"
    };
}

/// Reads an event. None where it is not kept any more.
pub(super) async fn instruction(tx: &mut Tx, event: Id<Event>) -> Result<Option<Instruction>, StorageError> {
    const READ: &str = concat!("SELECT ", instruction!(), " FROM liaison_configuration_events WHERE id = $1");
    query(READ).bind(event).optional(tx).await
}

/// Reads an event and holds it until the transaction ends, so that no worker claims or ends it meanwhile.
pub(super) async fn hold_instruction(
    tx: &mut Tx,
    event: Id<Event>,
) -> Result<Option<Instruction>, StorageError> {
    const HOLD: &str = concat!(
        "UPDATE liaison_configuration_events SET version = version WHERE id = $1 RETURNING ",
        instruction!()
    );
    query(HOLD).bind(event).optional(tx).await
}

/// Takes an event that no worker holds out of delivery. Returns whether there was anything to take.
pub(super) async fn withdraw(
    tx: &mut Tx,
    event: Id<Event>,
    superseded_by: Option<Id<Event>>,
) -> Result<bool, StorageError> {
    const WITHDRAW: &str = "UPDATE liaison_configuration_events \
         SET status = CASE WHEN status = 'failed' THEN 'failed' ELSE 'superseded' END, \
             is_open = FALSE, stuck = FALSE, due_at = NULL, superseded_by = $2, completed_at = COALESCE(completed_at, :now) \
         WHERE id = $1 AND is_open = TRUE AND CASE status WHEN 'acknowledged' THEN FALSE ELSE TRUE END";
    Ok(query(WITHDRAW).bind(event).bind(superseded_by).execute(tx).await? == 1)
}

/// Frees a workspace from the instructions that got stuck in it: a newer one has come.
pub(super) async fn free_stuck(
    tx: &mut Tx,
    workspace: Id<Workspace>,
    newer: Id<Event>,
) -> Result<(), StorageError> {
    const FREE: &str = "UPDATE liaison_configuration_events SET is_open = FALSE, stuck = FALSE, due_at = NULL, superseded_by = $2 \
         WHERE workspace_id = $1 AND is_open = TRUE AND stuck = TRUE AND configuration_id IS NULL AND id <> $2";
    query(FREE).bind(workspace).bind(newer).execute(tx).await?;
    Ok(())
}

/// Cancels what is under way in the workspaces that go out of service. Returns it.
pub(super) async fn cancel_all(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: Option<Id<Workspace>>,
) -> Result<Vec<UpgradeRow>, StorageError> {
    const CANCEL: &str = concat!(
        "UPDATE dataplane_upgrades SET phase = 'cancelled', message = 'the workspace was taken out of service', \
             required_credentials = '[]', updated_at = :now, ended_at = :now \
         WHERE customer_id = $1 AND workspace_id = COALESCE($2, workspace_id) AND ended_at IS NULL RETURNING ",
        columns!()
    );
    const FORGET: &str = "DELETE FROM dataplane_upgrade_credentials \
         WHERE customer_id = $1 AND workspace_id = COALESCE($2, workspace_id)";
    let cancelled = query(CANCEL).bind(customer).bind(workspace).all(&mut *tx).await?;
    query(FORGET).bind(customer).bind(workspace).execute(tx).await?;
    Ok(cancelled)
}
