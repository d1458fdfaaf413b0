//! The SQL of providers, their credentials and MCP servers.

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{self, Credential, Customer, Id, NameOrId};
use agentrouter_rpc::list::ListSpec;
use agentrouter_storage::list::labels_to_text;
use agentrouter_storage::{FromRow, Row, Source, StorageError, Tx, query, row};

use crate::model::{McpServer, NewProvider, Provider, Schema, Settings};

macro_rules! provider_columns {
    () => {
        "id, slug, display_name, schema_name, base_url, models, priority, weight, enabled, labels, revision, \
         created_at, updated_at, \
         EXISTS (SELECT 1 FROM credentials WHERE credentials.provider_id = providers.id) AS has_api_key"
    };
}

macro_rules! mcp_server_columns {
    () => {
        "customer_id, id, url, name, description, icon_url, categories, authentication, requires_auth, is_enabled, \
         revision, created_at, updated_at"
    };
}

const fn field(name: &'static str, column: &'static str, kind: FieldKind, sortable: bool) -> Field {
    Field { name, column, kind, sortable }
}

/// ListProviders.
pub(crate) const PROVIDERS: ListSpec = ListSpec {
    select: concat!("SELECT ", provider_columns!(), " FROM providers WHERE customer_id = $1"),
    fields: &[
        field("provider_id", "slug", FieldKind::Text, true),
        field("display_name", "display_name", FieldKind::Text, true),
        field("base_url", "base_url", FieldKind::Text, true),
        field("created_at", "created_at", FieldKind::Time, true),
        field("updated_at", "updated_at", FieldKind::Time, true),
        field("labels", "labels", FieldKind::Labels, false),
    ],
    default_order: "",
    id_column: "id",
};

/// ListMcpServers. Catalog identifiers are texts, unique inside the customer: the order must name `id` to be total,
/// and the column in the place of the row id is the same for every row.
pub(crate) const MCP_SERVERS: ListSpec = ListSpec {
    select: concat!("SELECT ", mcp_server_columns!(), " FROM mcp_catalog_servers WHERE customer_id = $1"),
    fields: &[
        field("id", "id", FieldKind::Text, true),
        field("name", "name", FieldKind::Text, true),
        field("url", "url", FieldKind::Text, true),
        field("created_at", "created_at", FieldKind::Time, true),
        field("updated_at", "updated_at", FieldKind::Time, true),
    ],
    default_order: "id",
    id_column: "customer_id",
};

impl FromRow for Provider {
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        let schema: String = row.get("schema_name")?;
        Ok(Self {
            id: row.get("id")?,
            slug: row.get("slug")?,
            settings: Settings {
                display_name: row.get("display_name")?,
                schema: Schema::parse(&schema)
                    .ok_or_else(|| StorageError::Corrupt(format!("provider schema {schema:?}")))?,
                base_url: row.get("base_url")?,
                models: texts(&row.get::<String>("models")?)?,
                priority: small(row.get("priority")?)?,
                weight: small(row.get("weight")?)?,
                labels: row.get("labels")?,
            },
            enabled: row.get("enabled")?,
            has_api_key: row.get("has_api_key")?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

/// A provider of a customer.
pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    name: &NameOrId<id::Provider>,
) -> Result<Option<Provider>, StorageError> {
    const BY_SLUG: &str =
        concat!("SELECT ", provider_columns!(), " FROM providers WHERE customer_id = $1 AND slug = $2");
    const BY_ID: &str =
        concat!("SELECT ", provider_columns!(), " FROM providers WHERE customer_id = $1 AND id = $2");
    match name {
        NameOrId::Slug(slug) => query(BY_SLUG).bind(customer).bind(slug).optional(source).await,
        NameOrId::Id(id) => query(BY_ID).bind(customer).bind(*id).optional(source).await,
    }
}

/// Inserts a provider at its first revision. False where the slug is taken.
pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<id::Provider>,
    new: &NewProvider,
    now: Timestamp,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
         priority, weight, labels, enabled, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, $12, $12) ON CONFLICT (customer_id, slug) DO NOTHING";
    let settings = &new.settings;
    let inserted = query(INSERT)
        .bind(id)
        .bind(customer)
        .bind(&new.slug)
        .bind(&settings.display_name)
        .bind(settings.schema.as_str())
        .bind(&settings.base_url)
        .bind(texts_to_json(&settings.models))
        .bind(settings.priority)
        .bind(settings.weight)
        .bind(labels_to_text(&settings.labels))
        .bind(new.enabled)
        .bind(now)
        .execute(tx)
        .await?;
    Ok(inserted > 0)
}

/// Writes a changed provider in the place of the revision before it. False where that one is gone.
pub(crate) async fn update(
    tx: &mut Tx,
    customer: Id<Customer>,
    provider: &Provider,
) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE providers SET display_name = $3, schema_name = $4, base_url = $5, models = $6, \
         priority = $7, weight = $8, labels = $9, enabled = $10, revision = $11, updated_at = $12 \
         WHERE customer_id = $1 AND id = $2 AND revision = $11 - 1";
    let settings = &provider.settings;
    let updated = query(UPDATE)
        .bind(customer)
        .bind(provider.id)
        .bind(&settings.display_name)
        .bind(settings.schema.as_str())
        .bind(&settings.base_url)
        .bind(texts_to_json(&settings.models))
        .bind(settings.priority)
        .bind(settings.weight)
        .bind(labels_to_text(&settings.labels))
        .bind(provider.enabled)
        .bind(provider.revision)
        .bind(provider.updated_at)
        .execute(tx)
        .await?;
    Ok(updated > 0)
}

/// Deletes a provider with its credential. False where this revision is gone.
pub(crate) async fn delete(
    tx: &mut Tx,
    customer: Id<Customer>,
    provider: &Provider,
) -> Result<bool, StorageError> {
    const DELETE: &str = "DELETE FROM providers WHERE customer_id = $1 AND id = $2 AND revision = $3";
    delete_credential(tx, customer, provider.id).await?;
    let deleted = query(DELETE).bind(customer).bind(provider.id).bind(provider.revision).execute(tx).await?;
    Ok(deleted > 0)
}

row! {
    /// A credential as it is stored.
    #[derive(Debug)]
    pub(crate) struct CredentialRow {
        /// Row id, the same through every rotation.
        pub(crate) id: Id<Credential>,
        /// The sealed value.
        pub(crate) sealed: Vec<u8>,
    }
}

/// The credential of a provider.
pub(crate) async fn find_credential(
    source: impl Source,
    customer: Id<Customer>,
    provider: Id<id::Provider>,
) -> Result<Option<CredentialRow>, StorageError> {
    const FIND: &str = "SELECT id, sealed FROM credentials WHERE customer_id = $1 AND provider_id = $2";
    query(FIND).bind(customer).bind(provider).optional(source).await
}

/// Inserts a provider's first credential.
pub(crate) async fn insert_credential(
    tx: &mut Tx,
    customer: Id<Customer>,
    provider: Id<id::Provider>,
    credential: &CredentialRow,
    now: Timestamp,
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO credentials (id, customer_id, provider_id, version, sealed, created_at, updated_at) \
         VALUES ($1, $2, $3, 1, $4, $5, $5)";
    query(INSERT)
        .bind(credential.id)
        .bind(customer)
        .bind(provider)
        .bind(credential.sealed.as_slice())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(())
}

/// Gives a credential a new value, and with it the next version.
pub(crate) async fn rotate_credential(
    tx: &mut Tx,
    customer: Id<Customer>,
    credential: &CredentialRow,
    now: Timestamp,
) -> Result<(), StorageError> {
    const ROTATE: &str = "UPDATE credentials SET version = version + 1, sealed = $3, updated_at = $4 \
         WHERE customer_id = $1 AND id = $2";
    query(ROTATE)
        .bind(customer)
        .bind(credential.id)
        .bind(credential.sealed.as_slice())
        .bind(now)
        .execute(tx)
        .await?;
    Ok(())
}

/// Deletes the credential of a provider. False where it has none.
pub(crate) async fn delete_credential(
    tx: &mut Tx,
    customer: Id<Customer>,
    provider: Id<id::Provider>,
) -> Result<bool, StorageError> {
    const DELETE: &str = "DELETE FROM credentials WHERE customer_id = $1 AND provider_id = $2";
    Ok(query(DELETE).bind(customer).bind(provider).execute(tx).await? > 0)
}

impl FromRow for McpServer {
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        Ok(Self {
            id: row.get("id")?,
            url: row.get("url")?,
            name: row.get("name")?,
            description: row.get("description")?,
            icon_url: row.get("icon_url")?,
            categories: texts(&row.get::<String>("categories")?)?,
            authentication: row.get("authentication")?,
            requires_auth: row.get("requires_auth")?,
            enabled: row.get("is_enabled")?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

/// An MCP server of a customer.
pub(crate) async fn find_mcp_server(
    source: impl Source,
    customer: Id<Customer>,
    server: &str,
) -> Result<Option<McpServer>, StorageError> {
    const FIND: &str = concat!(
        "SELECT ",
        mcp_server_columns!(),
        " FROM mcp_catalog_servers WHERE customer_id = $1 AND id = $2"
    );
    query(FIND).bind(customer).bind(server).optional(source).await
}

/// Takes an MCP server out of service. False where it is out already, or does not exist.
pub(crate) async fn disable_mcp_server(
    tx: &mut Tx,
    customer: Id<Customer>,
    server: &str,
) -> Result<bool, StorageError> {
    const DISABLE: &str = "UPDATE mcp_catalog_servers SET is_enabled = FALSE, revision = revision + 1, updated_at = $3 \
         WHERE customer_id = $1 AND id = $2 AND is_enabled = TRUE";
    let now = tx.now().await?;
    Ok(query(DISABLE).bind(customer).bind(server).bind(now).execute(tx).await? > 0)
}

/// A list of texts as it is stored: a JSON array.
fn texts_to_json(texts: &[String]) -> String {
    serde_json::Value::from(texts).to_string()
}

fn texts(json: &str) -> Result<Vec<String>, StorageError> {
    serde_json::from_str(json).map_err(|error| StorageError::Corrupt(format!("a list of texts: {error}")))
}

fn small(value: i64) -> Result<i32, StorageError> {
    i32::try_from(value).map_err(|_| StorageError::Corrupt(format!("{value} is out of range")))
}
