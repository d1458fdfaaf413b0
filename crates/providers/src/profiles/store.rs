//! The SQL of MCP profiles.

use agentrouter_delivery::{profile_servers_from_text, profile_servers_to_text};
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Customer, Id, NameOrId};
use agentrouter_rpc::list::ListSpec;
use agentrouter_storage::{FromRow, Row, Source, StorageError, Tx, query};

use super::Profile;

macro_rules! select {
    ($condition:literal) => {
        concat!(
            "SELECT id, slug, user_id, key_id, display_name, servers, revision, created_at, updated_at \
             FROM mcp_profiles WHERE customer_id = $1",
            $condition
        )
    };
}

const fn field(name: &'static str, column: &'static str, kind: FieldKind) -> Field {
    Field { name, column, kind, sortable: true }
}

/// ListMcpProfiles.
pub(super) const LIST: ListSpec = ListSpec {
    select: select!(""),
    fields: &[
        field("mcp_profile_id", "slug", FieldKind::Text),
        field("user_id", "user_id", FieldKind::Text),
        field("key_id", "key_id", FieldKind::Text),
        field("display_name", "display_name", FieldKind::Text),
        field("created_at", "created_at", FieldKind::Time),
        field("updated_at", "updated_at", FieldKind::Time),
    ],
    default_order: "",
    id_column: "id",
};

impl FromRow for Profile {
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        Ok(Self {
            id: row.get("id")?,
            slug: row.get("slug")?,
            user_id: row.get("user_id")?,
            key_id: row.get("key_id")?,
            display_name: row.get("display_name")?,
            servers: profile_servers_from_text(&row.get::<String>("servers")?)?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

/// A profile of a customer.
pub(super) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    name: &NameOrId<id::McpProfile>,
) -> Result<Option<Profile>, StorageError> {
    match name {
        NameOrId::Slug(slug) => {
            query(select!(" AND slug = $2")).bind(customer).bind(slug).optional(source).await
        }
        NameOrId::Id(id) => query(select!(" AND id = $2")).bind(customer).bind(*id).optional(source).await,
    }
}

/// Inserts a profile. False where the slug is taken, or the key has a profile.
pub(super) async fn insert(tx: &mut Tx, customer: Id<Customer>, new: &Profile) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO mcp_profiles (id, customer_id, slug, user_id, key_id, display_name, servers, \
         revision, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) ON CONFLICT DO NOTHING";
    let inserted = query(INSERT)
        .bind(new.id)
        .bind(customer)
        .bind(&new.slug)
        .bind(&new.user_id)
        .bind(&new.key_id)
        .bind(&new.display_name)
        .bind(profile_servers_to_text(&new.servers))
        .bind(new.revision)
        .bind(new.created_at)
        .execute(tx)
        .await?;
    Ok(inserted > 0)
}

/// Writes a changed profile in the place of the revision before it. False where that one is gone.
pub(super) async fn update(tx: &mut Tx, customer: Id<Customer>, new: &Profile) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE mcp_profiles SET display_name = $3, servers = $4, revision = $5, updated_at = $6 \
         WHERE customer_id = $1 AND id = $2 AND revision = $5 - 1";
    let updated = query(UPDATE)
        .bind(customer)
        .bind(new.id)
        .bind(&new.display_name)
        .bind(profile_servers_to_text(&new.servers))
        .bind(new.revision)
        .bind(new.updated_at)
        .execute(tx)
        .await?;
    Ok(updated > 0)
}

/// Deletes a profile. False where this revision is gone.
pub(super) async fn delete(tx: &mut Tx, customer: Id<Customer>, old: &Profile) -> Result<bool, StorageError> {
    const DELETE: &str = "DELETE FROM mcp_profiles WHERE customer_id = $1 AND id = $2 AND revision = $3";
    Ok(query(DELETE).bind(customer).bind(old.id).bind(old.revision).execute(tx).await? > 0)
}
