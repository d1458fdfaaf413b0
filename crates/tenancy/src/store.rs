//! The statements over customers.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Source, StorageError, Tx, query};

use crate::model::{Customer, NewCustomer};

macro_rules! columns {
    () => {
        "id, slug, display_name, description, labels, revision, created_at, updated_at, deleted_at"
    };
}

const FIELDS: &[Field] = &[
    Field { name: "customer_id", column: "slug", kind: FieldKind::Text, sortable: true },
    Field { name: "display_name", column: "display_name", kind: FieldKind::Text, sortable: true },
    Field { name: "description", column: "description", kind: FieldKind::Text, sortable: true },
    Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
    Field { name: "updated_at", column: "updated_at", kind: FieldKind::Time, sortable: true },
    Field { name: "labels", column: "labels", kind: FieldKind::Labels, sortable: false },
];

/// All customers but those that are being purged. `$1`: whether archived ones, too.
pub(crate) const ALL: ListSpec = ListSpec {
    select: concat!(
        "SELECT ",
        columns!(),
        " FROM customers WHERE (deleted_at IS NULL OR $1 = TRUE) AND purge_began_at IS NULL"
    ),
    fields: FIELDS,
    default_order: "customer_id",
    id_column: "id",
};

/// One customer. `$1`: whether it may be archived; `$2`: which one.
pub(crate) const ONE: ListSpec = ListSpec {
    select: concat!(
        "SELECT ",
        columns!(),
        " FROM customers WHERE (deleted_at IS NULL OR $1 = TRUE) AND purge_began_at IS NULL AND id = $2"
    ),
    ..ALL
};

/// A live customer.
pub(crate) async fn find(
    source: impl Source,
    id: Id<id::Customer>,
) -> Result<Option<Customer>, StorageError> {
    const FIND: &str = concat!("SELECT ", columns!(), " FROM customers WHERE id = $1 AND deleted_at IS NULL");
    query(FIND).bind(id).optional(source).await
}

/// Holds the row of a live customer until the transaction ends.
pub(crate) async fn lock(tx: &mut Tx, id: Id<id::Customer>) -> Result<Option<Customer>, StorageError> {
    const LOCK: &str = concat!(
        "UPDATE customers SET revision = revision WHERE id = $1 AND deleted_at IS NULL RETURNING ",
        columns!()
    );
    query(LOCK).bind(id).optional(tx).await
}

/// Holds the row of a customer, archived or not, until the transaction ends; with `being_purged` even one that cannot
/// come back.
pub(crate) async fn lock_any(
    tx: &mut Tx,
    name: &NameOrId<id::Customer>,
    being_purged: bool,
) -> Result<Option<Customer>, StorageError> {
    const BY_SLUG: &str = concat!(
        "UPDATE customers SET revision = revision WHERE slug = $1 AND (purge_began_at IS NULL OR $2 = TRUE) RETURNING ",
        columns!()
    );
    const BY_ID: &str = concat!(
        "UPDATE customers SET revision = revision WHERE id = $1 AND (purge_began_at IS NULL OR $2 = TRUE) RETURNING ",
        columns!()
    );
    match name {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(slug).bind(being_purged).optional(tx).await,
        NameOrId::Id(id) => query(BY_ID).bind(*id).bind(being_purged).optional(tx).await,
    }
}

/// Inserts a customer; none where its slug is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    new: &NewCustomer,
    now: Timestamp,
) -> Result<Option<Customer>, StorageError> {
    const INSERT: &str = concat!(
        "INSERT INTO customers (",
        columns!(),
        ") VALUES ($1, $2, $3, $4, $5, 1, $6, $6, NULL) ON CONFLICT (slug) DO NOTHING RETURNING ",
        columns!()
    );
    query(INSERT)
        .bind(Id::<id::Customer>::new(now))
        .bind(&new.slug)
        .bind(&new.display_name)
        .bind(&new.description)
        .bind(&new.labels)
        .bind(now)
        .optional(tx)
        .await
}

/// Inserts what every customer has from its beginning: its event sequence and its default project.
pub(crate) async fn insert_belongings(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    now: Timestamp,
) -> Result<(), StorageError> {
    const SEQUENCE: &str = "INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)";
    const PROJECT: &str = "INSERT INTO projects (id, customer_id, slug, display_name, description, labels, \
         is_default, revision, created_at, updated_at) \
         VALUES ($1, $2, 'default', 'Default', '', '{}', TRUE, 1, $3, $3)";
    query(SEQUENCE).bind(customer).execute(tx).await?;
    query(PROJECT).bind(Id::<id::Project>::new(now)).bind(customer).bind(now).execute(tx).await?;
    Ok(())
}

/// Writes the fields that people edit.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: &Customer,
    now: Timestamp,
) -> Result<Customer, StorageError> {
    const UPDATE: &str = concat!(
        "UPDATE customers SET display_name = $2, description = $3, labels = $4, revision = revision + 1, \
         updated_at = $5 WHERE id = $1 RETURNING ",
        columns!()
    );
    query(UPDATE)
        .bind(customer.id)
        .bind(&customer.display_name)
        .bind(&customer.description)
        .bind(&customer.labels)
        .bind(now)
        .one(tx)
        .await
}

/// Archives a customer or brings it back.
pub(crate) async fn set_deleted_at(
    tx: &mut Tx,
    id: Id<id::Customer>,
    deleted_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Customer, StorageError> {
    const SET: &str = concat!(
        "UPDATE customers SET deleted_at = $2, updated_at = $3, revision = revision + 1 \
         WHERE id = $1 RETURNING ",
        columns!()
    );
    query(SET).bind(id).bind(deleted_at).bind(now).one(tx).await
}

/// Whether somebody could still call as an operator if a customer were archived.
pub(crate) async fn has_operator_key_elsewhere(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    now: Timestamp,
) -> Result<bool, StorageError> {
    const FIND: &str = "SELECT EXISTS (\
         SELECT 1 FROM api_keys JOIN customers ON customers.id = api_keys.customer_id \
         WHERE api_keys.kind = 'management' AND api_keys.role = 'operator' \
         AND api_keys.revoked_at IS NULL AND (api_keys.expires_at IS NULL OR api_keys.expires_at > $2) \
         AND customers.deleted_at IS NULL AND customers.id <> $1) AS value";
    Ok(query(FIND).bind(customer).bind(now).value(tx).await?.unwrap_or(false))
}

/// Marks an archived customer as one that is being purged.
pub(crate) async fn mark_purge(tx: &mut Tx, id: Id<id::Customer>) -> Result<(), StorageError> {
    const MARK: &str = "UPDATE customers SET purge_began_at = :now \
         WHERE id = $1 AND deleted_at IS NOT NULL AND purge_began_at IS NULL";
    query(MARK).bind(id).execute(tx).await?;
    Ok(())
}

/// The customers that are being purged.
pub(crate) async fn marked(source: impl Source) -> Result<Vec<Id<id::Customer>>, StorageError> {
    const MARKED: &str = "SELECT id AS value FROM customers WHERE purge_began_at IS NOT NULL ORDER BY id";
    query(MARKED).values(source).await
}

/// Takes the row of a customer that was purged.
pub(crate) async fn delete_marked(tx: &mut Tx, id: Id<id::Customer>) -> Result<(), StorageError> {
    const DELETE: &str = "DELETE FROM customers WHERE id = $1 AND purge_began_at IS NOT NULL";
    query(DELETE).bind(id).execute(tx).await?;
    Ok(())
}

/// Remembers the highest number among the workspaces of a customer. The caller holds the lock under which numbers are
/// given.
pub(crate) async fn keep_highest_number(tx: &mut Tx, id: Id<id::Customer>) -> Result<(), StorageError> {
    const KEEP: &str = "INSERT INTO retired_workspace_numbers (highest) \
         SELECT MAX(number) FROM workspaces WHERE customer_id = $1 HAVING MAX(number) IS NOT NULL \
         ON CONFLICT (highest) DO NOTHING";
    const LOWER: &str = "DELETE FROM retired_workspace_numbers \
         WHERE highest < (SELECT MAX(highest) FROM retired_workspace_numbers)";
    query(KEEP).bind(id).execute(&mut *tx).await?;
    query(LOWER).execute(tx).await?;
    Ok(())
}
