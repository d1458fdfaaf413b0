//! How far a version of a slot has spread.

use agentrouter_kernel::id::{Customer, Event, Id, Workspace};
use agentrouter_storage::{Source, StorageError, query, row};

use crate::event_id;
use crate::version::ConfigurationRow;

row! {
    /// Workspaces, by how far a version has come there.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Spread {
        /// They should run it.
        pub wanted: i64,
        /// Their worker holds it.
        pub in_flight: i64,
        /// They wait for their worker.
        pub pending: i64,
        /// They run it, or a newer one.
        pub applied: i64,
        /// The last attempt failed, and another one follows.
        pub failed: i64,
        /// No attempt follows.
        pub stuck: i64,
    }
}

row! {
    /// A workspace that does not run the version.
    #[derive(Debug, Clone)]
    pub struct Lagging {
        /// The workspace.
        pub workspace_id: Id<Workspace>,
        /// Its slug.
        pub slug: String,
        /// The number that its event ids carry.
        pub number: i64,
        /// The version that runs; 0 for none.
        pub applied_version: i64,
        /// The version that the data plane went back from by itself; 0 for none.
        pub failed_version: i64,
        /// `in_flight`, `pending`, `failed`, `stuck`, or empty where nothing is on its way.
        pub stands: String,
        /// The event that brings it.
        pub event_id: Option<Id<Event>>,
        /// Why the last attempt failed.
        pub error_message: Option<String>,
    }
}

impl Lagging {
    /// The event that brings the version, laid out or not.
    pub fn event(&self, slot: &ConfigurationRow) -> Option<Id<Event>> {
        let is_waiting = self.stands == "pending";
        self.event_id
            .or_else(|| is_waiting.then(|| event_id::derive(slot.updated_at, self.number, slot.position)))
    }
}

/// Each live workspace that should run version `$3` of slot `$2`, with its newest open event that brings it. A
/// tombstone concerns only those that ran the slot. Nothing is laid out for it: what is still to be counts as pending.
macro_rules! workspaces {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            " FROM (SELECT w.id AS workspace_id, w.slug, w.number, COALESCE(s.applied_version, 0) AS applied_version, \
                 COALESCE(s.failed_version, 0) AS failed_version, e.id AS event_id, e.error_message, \
                 CASE WHEN COALESCE(s.applied_version, 0) >= $3 THEN 'applied' \
                     WHEN e.stuck = TRUE THEN 'stuck' WHEN e.status = 'failed' THEN 'failed' \
                     WHEN e.status = 'acknowledged' AND e.due_at > :now THEN 'in_flight' \
                     WHEN e.id IS NOT NULL THEN 'pending' \
                     WHEN y.position = 0 AND c.deleted = FALSE THEN 'pending' \
                     WHEN y.position > 0 AND c.broadcast_position > y.position THEN 'pending' ELSE '' END AS stands, \
                 CASE WHEN c.deleted = TRUE AND s.applied_version IS NULL AND e.id IS NULL THEN 0 ELSE 1 END AS is_meant \
             FROM workspaces w JOIN workspace_sync y ON y.workspace_id = w.id \
             JOIN liaison_configurations c ON c.id = $2 AND (c.workspace_id IS NULL OR c.workspace_id = w.id) \
             LEFT JOIN workspace_slots s ON s.workspace_id = w.id AND s.configuration_id = c.id \
             LEFT JOIN liaison_configuration_events e ON e.id = (SELECT o.id FROM liaison_configuration_events o \
                 WHERE o.workspace_id = w.id AND o.configuration_id = $2 AND o.is_open = TRUE AND o.version >= $3 \
                 ORDER BY CASE o.status WHEN 'acknowledged' THEN 0 ELSE 1 END, o.version DESC LIMIT 1) \
             WHERE w.customer_id = $1 AND w.deleted_at IS NULL) x WHERE x.is_meant = 1",
            $after
        )
    };
}

/// Counts the workspaces.
pub async fn spread(
    source: impl Source,
    customer: Id<Customer>,
    slot: &ConfigurationRow,
    version: i64,
) -> Result<Spread, StorageError> {
    const SPREAD: &str = workspaces!(
        "SELECT CAST(COUNT(*) AS BIGINT) AS wanted, \
             CAST(COALESCE(SUM(CASE x.stands WHEN 'in_flight' THEN 1 ELSE 0 END), 0) AS BIGINT) AS in_flight, \
             CAST(COALESCE(SUM(CASE x.stands WHEN 'pending' THEN 1 ELSE 0 END), 0) AS BIGINT) AS pending, \
             CAST(COALESCE(SUM(CASE x.stands WHEN 'applied' THEN 1 ELSE 0 END), 0) AS BIGINT) AS applied, \
             CAST(COALESCE(SUM(CASE x.stands WHEN 'failed' THEN 1 ELSE 0 END), 0) AS BIGINT) AS failed, \
             CAST(COALESCE(SUM(CASE x.stands WHEN 'stuck' THEN 1 ELSE 0 END), 0) AS BIGINT) AS stuck",
        ""
    );
    query(SPREAD).bind(customer).bind(slot.id).bind(version).one(source).await
}

/// The workspaces that do not run the version, by slug, after one.
pub async fn lagging(
    source: impl Source,
    customer: Id<Customer>,
    slot: &ConfigurationRow,
    version: i64,
    after: &str,
    limit: i64,
) -> Result<Vec<Lagging>, StorageError> {
    const LAGGING: &str = workspaces!(
        "SELECT x.workspace_id, x.slug, x.number, x.applied_version, x.failed_version, x.stands, x.event_id, x.error_message",
        " AND x.stands <> 'applied' AND x.slug > $4 ORDER BY x.slug LIMIT $5"
    );
    query(LAGGING).bind(customer).bind(slot.id).bind(version).bind(after).bind(limit).all(source).await
}
