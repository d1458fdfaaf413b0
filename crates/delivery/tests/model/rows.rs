//! The rows of a customer, as they are after a step.

use std::collections::BTreeMap;

use agentrouter_delivery::state::State;
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, query, row};
use uuid::Uuid;

/// A slot in a workspace.
pub(crate) type Place = (Id<Workspace>, Id<Configuration>);

row! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct EventRow {
        pub(crate) id: Id<Event>,
        pub(crate) workspace_id: Id<Workspace>,
        pub(crate) configuration_id: Id<Configuration>,
        pub(crate) version: i64,
        pub(crate) status: String,
        pub(crate) stuck: bool,
        pub(crate) is_open: bool,
        pub(crate) attempt: i64,
        pub(crate) due_at: Option<Timestamp>,
        pub(crate) worker_id: String,
        pub(crate) claim_token: Option<Uuid>,
        pub(crate) outcome: String,
        pub(crate) superseded_by: Option<Id<Event>>,
    }
}

impl EventRow {
    pub(crate) fn place(&self) -> Place {
        (self.workspace_id, self.configuration_id)
    }

    pub(crate) fn state(&self) -> State {
        let state = match (self.status.as_str(), self.stuck) {
            ("pending", false) => State::Pending,
            ("acknowledged", false) => State::Acknowledged,
            ("applied", false) => State::Applied,
            ("superseded", false) => State::Superseded,
            ("failed", true) => State::Stuck,
            ("failed", false) if self.is_open => State::Failed,
            ("failed", false) => State::Overtaken,
            _ => panic!("contradictory: {self:?}"),
        };
        assert_eq!(state.is_open(), self.is_open, "{self:?}");
        state
    }

    /// Whether somebody holds it, and its lease is not over.
    pub(crate) fn is_held(&self, now: Timestamp) -> bool {
        self.state() == State::Acknowledged && self.due_at.is_some_and(|due| due > now)
    }
}

row! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct SlotRow {
        pub(crate) id: Id<Configuration>,
        pub(crate) config_type: String,
        pub(crate) version: i64,
        pub(crate) checksum: String,
        pub(crate) deleted: bool,
        pub(crate) broadcast_position: i64,
    }
}

row! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub(crate) struct Ran {
        workspace_id: Id<Workspace>,
        configuration_id: Id<Configuration>,
        pub(crate) applied_version: i64,
        pub(crate) withheld_version: i64,
    }
}

row! {
    struct Kept {
        configuration_id: Id<Configuration>,
        version: i64,
        position: i64,
    }
}

row! {
    struct Cursor {
        workspace_id: Id<Workspace>,
        position: i64,
    }
}

/// Everything that steps may change.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rows {
    pub(crate) events: BTreeMap<Id<Event>, EventRow>,
    pub(crate) slots: BTreeMap<Id<Configuration>, SlotRow>,
    pub(crate) ran: BTreeMap<Place, Ran>,
    /// How far each workspace was laid out.
    pub(crate) cursors: BTreeMap<Id<Workspace>, i64>,
    /// The versions of each slot with their positions.
    pub(crate) versions: BTreeMap<Id<Configuration>, Vec<(i64, i64)>>,
}

impl Rows {
    pub(crate) async fn read(db: &Db, customer: Id<Customer>) -> Self {
        const EVENTS: &str = "SELECT id, workspace_id, configuration_id, version, status, stuck, is_open, attempt, due_at, \
             worker_id, claim_token, outcome, superseded_by FROM liaison_configuration_events WHERE customer_id = $1";
        const SLOTS: &str = "SELECT id, config_type, version, checksum, deleted, broadcast_position \
             FROM liaison_configurations WHERE customer_id = $1";
        const RAN: &str = "SELECT workspace_id, configuration_id, applied_version, withheld_version \
             FROM workspace_slots WHERE customer_id = $1";
        const CURSORS: &str = "SELECT workspace_id, position FROM workspace_sync WHERE customer_id = $1";
        const VERSIONS: &str = "SELECT configuration_id, version, position FROM liaison_configuration_versions \
             WHERE customer_id = $1 ORDER BY configuration_id, version";
        let events: Vec<EventRow> = query(EVENTS).bind(customer).all(db).await.unwrap();
        let slots: Vec<SlotRow> = query(SLOTS).bind(customer).all(db).await.unwrap();
        let ran: Vec<Ran> = query(RAN).bind(customer).all(db).await.unwrap();
        let cursors: Vec<Cursor> = query(CURSORS).bind(customer).all(db).await.unwrap();
        let kept: Vec<Kept> = query(VERSIONS).bind(customer).all(db).await.unwrap();
        let mut versions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for row in kept {
            versions.entry(row.configuration_id).or_default().push((row.version, row.position));
        }
        Self {
            events: events.into_iter().map(|row| (row.id, row)).collect(),
            slots: slots.into_iter().map(|row| (row.id, row)).collect(),
            ran: ran.into_iter().map(|row| ((row.workspace_id, row.configuration_id), row)).collect(),
            cursors: cursors.into_iter().map(|row| (row.workspace_id, row.position)).collect(),
            versions,
        }
    }

    pub(crate) fn applied(&self, place: Place) -> i64 {
        self.ran.get(&place).map_or(0, |ran| ran.applied_version)
    }

    /// The events of a place in this state.
    pub(crate) fn at(&self, place: Place, state: State) -> impl Iterator<Item = &EventRow> {
        self.events.values().filter(move |event| event.place() == place && event.state() == state)
    }
}
