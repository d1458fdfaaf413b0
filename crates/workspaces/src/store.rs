//! The SQL of workspaces.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Configuration, Customer, Event, Id, NameOrId};
use agentrouter_rpc::list::ListSpec;
use agentrouter_storage::list::labels_to_text;
use agentrouter_storage::{Source, StorageError, Tx, query, row};

use crate::model::{NewWorkspace, Workspace};

macro_rules! columns {
    () => {
        "id, slug, number, display_name, labels, revision, created_at, updated_at, deleted_at, \
         (SELECT last_seen_at FROM workspace_sync WHERE workspace_sync.workspace_id = workspaces.id) AS last_seen_at"
    };
}

const fn field(name: &'static str, column: &'static str, kind: FieldKind, sortable: bool) -> Field {
    Field { name, column, kind, sortable }
}

/// ListWorkspaces: of a customer, with archived ones or without.
pub(crate) const WORKSPACES: ListSpec = ListSpec {
    select: concat!(
        "SELECT ",
        columns!(),
        " FROM workspaces WHERE customer_id = $1 AND (deleted_at IS NULL OR $2 = TRUE)"
    ),
    fields: &[
        field("workspace_id", "slug", FieldKind::Text, true),
        field("display_name", "display_name", FieldKind::Text, true),
        field("created_at", "created_at", FieldKind::Time, true),
        field("updated_at", "updated_at", FieldKind::Time, true),
        field("labels", "labels", FieldKind::Labels, false),
    ],
    default_order: "",
    id_column: "id",
};

/// A live workspace of a customer.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    name: &NameOrId<id::Workspace>,
) -> Result<Option<Workspace>, StorageError> {
    const BY_SLUG: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM workspaces WHERE customer_id = $1 AND slug = $2 AND deleted_at IS NULL"
    );
    const BY_ID: &str = concat!(
        "SELECT ",
        columns!(),
        " FROM workspaces WHERE customer_id = $1 AND id = $2 AND deleted_at IS NULL"
    );
    match name {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(customer).bind(slug).optional(source).await,
        NameOrId::Id(id) => query(BY_ID).bind(customer).bind(*id).optional(source).await,
    }
}

/// Inserts a workspace under the next number, and where delivery starts for it. None where the slug is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    new: &NewWorkspace,
    now: Timestamp,
) -> Result<Option<Workspace>, StorageError> {
    const INSERT: &str = concat!(
        "INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
         SELECT $1, $2, $3, COALESCE(MAX(highest), 0) + 1, $4, $5, 1, $6, $6 FROM ( \
             SELECT MAX(number) AS highest FROM workspaces UNION ALL SELECT highest FROM retired_workspace_numbers) numbers \
         WHERE TRUE \
         ON CONFLICT (customer_id, slug) DO NOTHING RETURNING ",
        columns!()
    );
    const START: &str = "INSERT INTO workspace_sync (workspace_id, customer_id, position) VALUES ($1, $2, 0)";
    // Numbers are unique across customers, and none is given twice: event ids carry them. Whoever waits here sees the
    // number of the one before.
    tx.lock("workspace-number").await?;
    let inserted: Option<Workspace> = query(INSERT)
        .bind(Id::<id::Workspace>::new(now))
        .bind(customer)
        .bind(&new.slug)
        .bind(&new.display_name)
        .bind(labels_to_text(&new.labels))
        .bind(now)
        .optional(&mut *tx)
        .await?;
    if let Some(workspace) = &inserted {
        query(START).bind(workspace.id).bind(customer).execute(tx).await?;
    }
    Ok(inserted)
}

/// Writes a changed workspace in the place of the revision before it. False where that one is gone, or archived.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    workspace: &Workspace,
) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE workspaces SET display_name = $3, labels = $4, revision = $5, updated_at = $6, \
         deleted_at = $7 WHERE customer_id = $1 AND id = $2 AND revision = $5 - 1 AND deleted_at IS NULL";
    let updated = query(UPDATE)
        .bind(customer)
        .bind(workspace.id)
        .bind(&workspace.display_name)
        .bind(labels_to_text(&workspace.labels))
        .bind(workspace.revision)
        .bind(workspace.updated_at)
        .bind(workspace.deleted_at)
        .execute(tx)
        .await?;
    Ok(updated > 0)
}

row! {
    /// What moves with every call of a workspace's worker, and the time it was read at.
    #[derive(Debug)]
    pub(crate) struct SyncRow {
        /// The encoded doctor observation.
        pub(crate) doctor_runtime: Option<Vec<u8>>,
        /// The stored clock.
        pub(crate) now: Timestamp,
    }
}

/// What the worker of a workspace told last.
pub(crate) async fn find_sync(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Id<id::Workspace>,
) -> Result<SyncRow, StorageError> {
    const FIND: &str =
        "SELECT doctor_runtime, :now AS now FROM workspace_sync WHERE customer_id = $1 AND workspace_id = $2";
    query(FIND).bind(customer).bind(workspace).one(source).await
}

row! {
    /// A slot as one workspace has it, with one of its open events: as many rows as there are, or one without.
    #[derive(Debug, Clone)]
    pub(crate) struct SlotRow {
        /// The slot's row.
        pub(crate) id: Id<Configuration>,
        /// The user of the slot.
        pub(crate) user_id: String,
        /// Stored name of the type.
        pub(crate) config_type: String,
        /// The key of the slot.
        pub(crate) key_id: String,
        /// The newest version.
        pub(crate) version: i64,
        /// Whether that is a tombstone.
        pub(crate) deleted: bool,
        /// Position of that version in the customer's sequence.
        pub(crate) position: i64,
        /// Position of the newest delivery to all workspaces.
        pub(crate) broadcast_position: i64,
        /// When the version was written.
        pub(crate) updated_at: Timestamp,
        /// Position up to which events are laid out for the workspace.
        pub(crate) laid_out: i64,
        /// The version that runs.
        pub(crate) applied_version: Option<i64>,
        /// Since when.
        pub(crate) applied_at: Option<Timestamp>,
        /// The event that applied it.
        pub(crate) applied_event_id: Option<Id<Event>>,
        /// The version that the data plane went back from last, if it ever did.
        pub(crate) failed_version: Option<i64>,
        /// An open event.
        pub(crate) event_id: Option<Id<Event>>,
        /// Stored name of its status.
        pub(crate) status: Option<String>,
        /// Whether its attempts are used up.
        pub(crate) stuck: Option<bool>,
        /// When its lease ends.
        pub(crate) due_at: Option<Timestamp>,
        /// Why its last attempt failed.
        pub(crate) error_message: Option<String>,
    }
}

/// Every slot of a workspace with its open events, the newest event of a slot last. One statement, so that slots and
/// events belong to the same moment.
pub(crate) async fn slots(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Id<id::Workspace>,
) -> Result<Vec<SlotRow>, StorageError> {
    const SLOTS: &str = "SELECT c.id, c.user_id, c.config_type, c.key_id, c.version, c.deleted, c.position, \
             c.broadcast_position, c.updated_at, y.position AS laid_out, \
             s.applied_version, s.applied_at, s.applied_event_id, s.failed_version, \
             e.id AS event_id, e.status, e.stuck, e.due_at, e.error_message \
         FROM workspace_sync y \
         JOIN liaison_configurations c ON c.customer_id = y.customer_id \
             AND (c.workspace_id IS NULL OR c.workspace_id = y.workspace_id) \
         LEFT JOIN workspace_slots s ON s.workspace_id = y.workspace_id AND s.configuration_id = c.id \
         LEFT JOIN liaison_configuration_events e ON e.workspace_id = y.workspace_id \
             AND e.configuration_id = c.id AND e.is_open = TRUE \
         WHERE y.customer_id = $1 AND y.workspace_id = $2 \
         ORDER BY c.config_type, c.user_id, c.key_id, e.position, e.id";
    query(SLOTS).bind(customer).bind(workspace).all(source).await
}

row! {
    /// An open instruction.
    #[derive(Debug, Clone)]
    pub(crate) struct InstructionRow {
        /// Stored name of its status.
        pub(crate) status: String,
        /// Whether its attempts are used up.
        pub(crate) stuck: bool,
        /// When its lease ends.
        pub(crate) due_at: Option<Timestamp>,
    }
}

/// The open instructions of a workspace.
pub(crate) async fn instructions(
    source: impl Source,
    customer: Id<Customer>,
    workspace: Id<id::Workspace>,
) -> Result<Vec<InstructionRow>, StorageError> {
    // By the workspace first: SQLite would walk the customer's whole history instead of the few open events.
    const INSTRUCTIONS: &str = "SELECT e.status, e.stuck, e.due_at FROM workspace_sync y \
         JOIN liaison_configuration_events e ON e.workspace_id = y.workspace_id \
             AND e.is_open = TRUE AND e.configuration_id IS NULL \
         WHERE y.customer_id = $1 AND y.workspace_id = $2";
    query(INSTRUCTIONS).bind(customer).bind(workspace).all(source).await
}
