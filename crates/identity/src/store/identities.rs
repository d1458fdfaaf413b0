//! Identities.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{Customer, Id, Identity};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Source, Sql, StorageError, Tx, query, row};

use crate::model::{IdentityKind, NewIdentity};

row! {
    /// An identity.
    #[derive(Debug, Clone)]
    pub(crate) struct IdentityRow {
        pub(crate) id: Id<Identity>,
        pub(crate) display_name: String,
        pub(crate) email: String,
        pub(crate) kind: IdentityKind,
        pub(crate) revision: i64,
        pub(crate) created_at: Timestamp,
        pub(crate) updated_at: Timestamp,
    }
}

/// Identities of the customer `$1`.
macro_rules! select {
    ($($more:literal),*) => {
        concat!(
            "SELECT id, display_name, email, kind, revision, created_at, updated_at \
             FROM identities WHERE customer_id = $1",
            $($more),*
        )
    };
}

pub(crate) const LIST: ListSpec = ListSpec {
    select: select!(),
    fields: &[
        Field { name: "display_name", column: "display_name", kind: FieldKind::Text, sortable: true },
        Field { name: "email", column: "email", kind: FieldKind::Text, sortable: true },
        Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
        Field { name: "updated_at", column: "updated_at", kind: FieldKind::Time, sortable: true },
    ],
    default_order: "",
    id_column: "id",
};

pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    id: Id<Identity>,
) -> Result<Option<IdentityRow>, StorageError> {
    query(select!(" AND id = $2")).bind(customer).bind(id).optional(source).await
}

/// Finds an identity and keeps everybody else from changing, deleting or referring to it until the transaction ends.
pub(crate) async fn lock(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
) -> Result<Option<IdentityRow>, StorageError> {
    const LOCK: Sql =
        Sql::Each { sqlite: select!(" AND id = $2"), postgres: select!(" AND id = $2", " FOR UPDATE") };
    query(LOCK).bind(customer).bind(id).optional(tx).await
}

/// Finds an identity and keeps it from being deleted until the transaction ends, for rows that refer to it.
pub(crate) async fn hold(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
) -> Result<Option<IdentityRow>, StorageError> {
    const HOLD: Sql =
        Sql::Each { sqlite: select!(" AND id = $2"), postgres: select!(" AND id = $2", " FOR KEY SHARE") };
    query(HOLD).bind(customer).bind(id).optional(tx).await
}

/// Inserts an identity; false where its e-mail address is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
    new: &NewIdentity,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO identities \
         (id, customer_id, display_name, email, kind, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, 1, $6, $6) ON CONFLICT DO NOTHING";
    let now = tx.now().await?;
    let inserted = query(INSERT)
        .bind(id)
        .bind(customer)
        .bind(&new.display_name)
        .bind(&new.email)
        .bind(new.kind.as_str())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(inserted == 1)
}

/// Whether another identity has this e-mail address.
pub(crate) async fn email_is_taken(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
    email: &str,
) -> Result<bool, StorageError> {
    const TAKEN: &str = "SELECT id AS value FROM identities WHERE customer_id = $1 AND email = $2 AND id <> $3 AND email <> ''";
    let other = query(TAKEN).bind(customer).bind(email).bind(id).value::<Id<Identity>>(tx).await?;
    Ok(other.is_some())
}

/// Writes names over the revision that was read; false where it is no longer the newest.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
    (display_name, email): (&str, &str),
    revision: i64,
) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE identities \
         SET display_name = $1, email = $2, updated_at = $3, revision = revision + 1 \
         WHERE id = $4 AND customer_id = $5 AND revision = $6";
    let now = tx.now().await?;
    let updated = query(UPDATE)
        .bind(display_name)
        .bind(email)
        .bind(now)
        .bind(id)
        .bind(customer)
        .bind(revision)
        .execute(tx)
        .await?;
    Ok(updated == 1)
}

/// Ends the memberships of an identity.
pub(crate) async fn delete_memberships(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
) -> Result<(), StorageError> {
    const DELETE: &str = "DELETE FROM project_members WHERE identity_id = $1 AND customer_id = $2";
    query(DELETE).bind(id).bind(customer).execute(tx).await?;
    Ok(())
}

/// Deletes the revision that was read; false where it is no longer the newest.
pub(crate) async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Identity>,
    revision: i64,
) -> Result<bool, StorageError> {
    const DELETE: &str = "DELETE FROM identities WHERE id = $1 AND customer_id = $2 AND revision = $3";
    let deleted = query(DELETE).bind(id).bind(customer).bind(revision).execute(tx).await?;
    Ok(deleted == 1)
}
