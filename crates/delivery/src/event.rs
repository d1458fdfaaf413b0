//! Events as they are stored, and as they go out.

use agentrouter_api::configurator as pb;
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::{StorageError, row};
use prost::Message;
use uuid::Uuid;

use crate::{complete, names};

row! {
    /// An event with the slug of its workspace.
    #[derive(Debug, Clone)]
    pub struct EventRow {
        /// Row id.
        pub id: Id<Event>,
        /// The tenant.
        pub customer_id: Id<Customer>,
        /// The workspace it is for.
        pub workspace_id: Id<Workspace>,
        /// Slug of that workspace.
        pub workspace_slug: String,
        /// The slot's row; none for instructions.
        pub configuration_id: Option<Id<Configuration>>,
        /// The user of the slot.
        pub user_id: String,
        /// Stored name of the type of configuration.
        pub config_type: String,
        /// The key of the slot.
        pub key_id: String,
        /// Stored name of the event type.
        pub event_type: String,
        /// The version it delivers.
        pub version: i64,
        /// Stored name of the status.
        pub status: String,
        /// Its place in the customer's sequence.
        pub position: i64,
        /// The number under which it was last offered to its workspace.
        pub offered: i64,
        /// Attempts used.
        pub attempt: i64,
        /// Whether attempts are used up.
        pub stuck: bool,
        /// Whether it may still be delivered, or is stuck.
        pub is_open: bool,
        /// When the lease ends, or the next attempt is due.
        pub due_at: Option<Timestamp>,
        /// How long a claim holds.
        pub lease_micros: i64,
        /// Who holds or last held it.
        pub worker_id: String,
        /// Token of the last claim.
        pub claim_token: Option<Uuid>,
        /// Credential of the last claim.
        pub claimed_by: String,
        /// How the last claim was completed: `applied`, `failed`, or empty.
        pub outcome: String,
        /// Why the last attempt failed.
        pub error_message: String,
        /// Every failed attempt, a line each.
        pub failures: String,
        /// Encoded results per resource.
        pub resources: Option<Vec<u8>>,
        /// Encoded parameters of instructions.
        pub metadata: Option<Vec<u8>>,
        /// The event that took its place.
        pub superseded_by: Option<Id<Event>>,
        /// When it came to be.
        pub created_at: Timestamp,
        /// When it was last claimed.
        pub acknowledged_at: Option<Timestamp>,
        /// When it ended.
        pub completed_at: Option<Timestamp>,
    }
}

/// Selects [`EventRow`]s from `liaison_configuration_events e` joined with `workspaces w`.
macro_rules! select_events {
    ($condition:literal) => {
        concat!(
            "SELECT e.id, e.customer_id, e.workspace_id, w.slug AS workspace_slug, e.configuration_id, e.user_id, ",
            "e.config_type, e.key_id, e.event_type, e.version, e.status, e.position, e.offered, e.attempt, e.stuck, e.is_open, e.due_at, ",
            "e.lease_micros, e.worker_id, e.claim_token, e.claimed_by, e.outcome, e.error_message, e.failures, e.resources, ",
            "e.metadata, e.superseded_by, e.created_at, e.acknowledged_at, e.completed_at ",
            "FROM liaison_configuration_events e JOIN workspaces w ON w.id = e.workspace_id ",
            $condition
        )
    };
}
pub(crate) use select_events;

impl EventRow {
    /// The status.
    pub fn status(&self) -> pb::EventStatus {
        names::status_from_name(&self.status).unwrap_or_default()
    }

    /// The event on the wire.
    ///
    /// # Errors
    /// `Corrupt` where a stored message cannot be read.
    pub fn to_proto(&self) -> Result<pb::ConfigurationEvent, StorageError> {
        let corrupt =
            |error: prost::DecodeError| StorageError::Corrupt(format!("event {}: {error}", self.id));
        let metadata =
            self.metadata.as_deref().map(prost_types::Struct::decode).transpose().map_err(corrupt)?;
        let resources =
            self.resources.as_deref().map(pb::CompleteEventRequest::decode).transpose().map_err(corrupt)?;
        let failed = self.status() == pb::EventStatus::Failed;
        Ok(pb::ConfigurationEvent {
            id: self.id.to_string(),
            workspace_id: self.workspace_slug.clone(),
            user_id: self.user_id.clone(),
            config_type: names::config_type_from_name(&self.config_type).unwrap_or_default().into(),
            key_id: self.key_id.clone(),
            event_type: names::event_type_from_name(&self.event_type).unwrap_or_default().into(),
            version: self.version,
            status: self.status().into(),
            attempt: i32::try_from(self.attempt).unwrap_or(i32::MAX),
            worker_id: self.worker_id.clone(),
            error_message: self.error_message.clone(),
            superseded_by: self.superseded_by.map(|id| id.to_string()).unwrap_or_default(),
            metadata,
            created_at: Some(timestamp(self.created_at)),
            acknowledged_at: self.acknowledged_at.map(timestamp),
            completed_at: self.completed_at.map(timestamp),
            stuck: self.stuck,
            not_before: self.due_at.filter(|_| failed).map(timestamp),
            resources: resources.map(|message| message.resources).unwrap_or_default(),
            failures: complete::failures(&self.failures)?,
        })
    }
}

pub(crate) fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_secs(), nanos: time.subsec_nanos() }
}
