//! UpsertMCPCatalogServer.

use std::collections::HashSet;

use agentrouter_api::configurator::{
    ConfigType, EventType, UpsertMcpCatalogServerRequest, UpsertMcpCatalogServerResponse,
};
use agentrouter_delivery::{Slot, regenerate};
use agentrouter_kernel::check::{DESCRIPTION_MAX, DISPLAY_NAME_MAX};
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Fault, Violations};
use agentrouter_rpc::{Call, Deps, Write};
use agentrouter_storage::{StorageError, Tx, query};

use crate::events::{named_workspace, reach};

const ID_MAX: usize = 255;
const CATEGORIES_MAX: usize = 64;
const CATEGORY_MAX: usize = 63;
const AUTHENTICATION_MAX: usize = 63;

/// Enables an MCP server in the catalog, and delivers the catalog.
pub(crate) async fn upsert(
    deps: &Deps,
    call: &Call,
    request: UpsertMcpCatalogServerRequest,
) -> Result<UpsertMcpCatalogServerResponse, Fault> {
    check(&request)?;
    let reach = reach(deps, call).await?;
    // Nothing belongs to the workspace here. It is named so that a token cannot speak for another one.
    named_workspace(deps, call.principal()?, &reach, &request.workspace_id).await?;
    let mut write = Write::begin(deps, call, &request).await?;
    if let Some(answer) = write.replay()? {
        return Ok(answer);
    }
    let created = store(write.tx(), reach.customer, &request).await?;
    let event_type = if created { EventType::Created } else { EventType::Updated };
    regenerate(write.tx(), &Slot::global(reach.customer, ConfigType::McpCatalog), event_type).await?;
    write.commit(reach.customer, &request.id, UpsertMcpCatalogServerResponse { created }).await
}

fn check(request: &UpsertMcpCatalogServerRequest) -> Result<(), Fault> {
    let mut violations = Violations::new();
    violations.require(!request.id.is_empty(), "id", "is required");
    violations.text("id", &request.id, ID_MAX);
    violations.http_url("url", &request.url);
    violations.text("name", &request.name, DISPLAY_NAME_MAX);
    violations.text("description", &request.description, DESCRIPTION_MAX);
    if !request.icon_url.is_empty() {
        violations.http_url("icon_url", &request.icon_url);
    }
    violations.require(
        request.categories.len() <= CATEGORIES_MAX,
        "categories",
        "must have at most 64 entries",
    );
    let mut seen = HashSet::new();
    for (index, category) in request.categories.iter().take(CATEGORIES_MAX).enumerate() {
        let field = format!("categories[{index}]");
        violations.require(!category.is_empty(), &field, "must not be empty");
        violations.require(seen.insert(category), &field, "is listed twice");
        violations.text(&field, category, CATEGORY_MAX);
    }
    violations.text("authentication", &request.authentication, AUTHENTICATION_MAX);
    violations.finish()
}

/// Writes the row. What people edited in an existing one stays, unless the request overwrites it. Returns whether the
/// row is new.
async fn store(
    tx: &mut Tx,
    customer: Id<Customer>,
    request: &UpsertMcpCatalogServerRequest,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO mcp_catalog_servers (customer_id, id, url, name, description, icon_url, categories, \
             authentication, requires_auth, is_enabled, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, TRUE, 1, $10, $10) ON CONFLICT (customer_id, id) DO NOTHING";
    // Neither writes where nothing changes, so that the etag stays as it is.
    const SPARSE: &str = "UPDATE mcp_catalog_servers SET url = $3, is_enabled = TRUE, revision = revision + 1, updated_at = $4 \
         WHERE customer_id = $1 AND id = $2 AND (url <> $3 OR is_enabled = FALSE)";
    const OVERWRITE: &str = "UPDATE mcp_catalog_servers SET url = $3, name = $4, description = $5, icon_url = $6, \
             categories = $7, authentication = $8, requires_auth = $9, is_enabled = TRUE, revision = revision + 1, \
             updated_at = $10 \
         WHERE customer_id = $1 AND id = $2 AND (url <> $3 OR name <> $4 OR description <> $5 OR icon_url <> $6 \
             OR categories <> $7 OR authentication <> $8 OR requires_auth <> $9 OR is_enabled = FALSE)";
    let now = tx.now().await?;
    let every_field = |sql: &'static str| {
        query(sql)
            .bind(customer)
            .bind(&request.id)
            .bind(&request.url)
            .bind(&request.name)
            .bind(&request.description)
            .bind(&request.icon_url)
            .bind(serde_json::Value::from(request.categories.as_slice()).to_string())
            .bind(&request.authentication)
            .bind(request.requires_auth)
            .bind(now)
    };
    if every_field(INSERT).execute(&mut *tx).await? > 0 {
        return Ok(true);
    }
    if request.force_overwrite {
        every_field(OVERWRITE).execute(tx).await?;
    } else {
        let sparse = query(SPARSE).bind(customer).bind(&request.id).bind(&request.url).bind(now);
        sparse.execute(tx).await?;
    }
    Ok(false)
}
