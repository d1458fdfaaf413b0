//! What each type of configuration is made from.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_kernel::id::{ApiKey, Credential, Customer, Id};
use agentrouter_kernel::{Fault, FaultKind, Timestamp};
use agentrouter_storage::{Source, StorageError, Tx, query, row};

use crate::event::timestamp;
use crate::slot::Slot;

/// What a slot is made from.
pub(crate) enum Origin {
    /// The content that the store gives now.
    Content(Payload),
    /// Nothing any more, or nothing yet.
    Gone,
    /// The content is given, not generated: the newest version is all there is.
    Given,
}

/// The source of a slot as the store has it now.
pub(crate) async fn source(tx: &mut Tx, slot: &Slot) -> Result<Origin, Fault> {
    Ok(match slot.config_type {
        ConfigType::Providers => {
            let providers = enabled_providers(&mut *tx, slot.customer).await?;
            Origin::Content(Payload::Providers(pb::ProvidersPayload { providers }))
        }
        ConfigType::McpCatalog => Origin::Content(Payload::McpCatalog(mcp_catalog(tx, slot).await?)),
        ConfigType::RevokedTokens => Origin::Content(Payload::RevokedTokens(revoked_tokens(tx, slot).await?)),
        ConfigType::UserKeys => Origin::Content(Payload::UserKeys(user_keys(tx, slot).await?)),
        ConfigType::ProxyUrl => Origin::Content(Payload::ProxyUrl(proxy_url(tx, slot).await?)),
        ConfigType::McpProfile => match mcp_profile(tx, slot).await? {
            Some(profile) => Origin::Content(Payload::McpProfile(profile)),
            None => Origin::Gone,
        },
        ConfigType::Byok => Origin::Given,
        ConfigType::DataplaneUpgrade | ConfigType::Unspecified => {
            return Err(Fault::invalid_field("config_type", "has no content to generate"));
        }
    })
}

row! {
    struct ProviderRow {
        slug: String,
        schema_name: String,
        base_url: String,
        models: String,
        priority: i64,
        weight: i64,
        credential_id: Option<Id<Credential>>,
        credential_version: Option<i64>,
    }
}

/// The enabled providers of a customer, ordered by slug, without credential values.
pub async fn enabled_providers(
    source: impl Source,
    customer: Id<Customer>,
) -> Result<Vec<pb::ProviderConfig>, StorageError> {
    const ENABLED: &str = "SELECT p.slug, p.schema_name, p.base_url, p.models, p.priority, p.weight, \
         c.id AS credential_id, c.version AS credential_version \
         FROM providers p LEFT JOIN credentials c ON c.provider_id = p.id \
         WHERE p.customer_id = $1 AND p.enabled = TRUE ORDER BY p.slug";
    let rows: Vec<ProviderRow> = query(ENABLED).bind(customer).all(source).await?;
    rows.into_iter().map(provider).collect()
}

fn provider(row: ProviderRow) -> Result<pb::ProviderConfig, StorageError> {
    let credential = row.credential_id.zip(row.credential_version);
    Ok(pb::ProviderConfig {
        provider_id: row.slug,
        schema: row.schema_name,
        base_url: row.base_url,
        models: texts(&row.models)?,
        priority: small(row.priority),
        weight: small(row.weight),
        // The value is joined when it is asked for; the content knows only which one.
        credential: credential.map(|(id, version)| pb::Credential {
            id: id.to_string(),
            version,
            value: String::new(),
        }),
    })
}

row! {
    struct McpServerRow {
        id: String,
        name: String,
        url: String,
        authentication: String,
        requires_auth: bool,
    }
}

async fn mcp_catalog(tx: &mut Tx, slot: &Slot) -> Result<pb::McpCatalogPayload, StorageError> {
    const ENABLED: &str = "SELECT id, name, url, authentication, requires_auth FROM mcp_catalog_servers \
         WHERE customer_id = $1 AND is_enabled = TRUE ORDER BY id";
    let rows: Vec<McpServerRow> = query(ENABLED).bind(slot.customer).all(tx).await?;
    let servers = rows
        .into_iter()
        .map(|row| pb::McpServerConfig {
            id: row.id,
            name: row.name,
            url: row.url,
            authentication: row.authentication,
            requires_auth: row.requires_auth,
        })
        .collect();
    Ok(pb::McpCatalogPayload { servers })
}

row! {
    struct RevokedTokenRow {
        jti: String,
        expires_at: Timestamp,
    }
}

async fn revoked_tokens(tx: &mut Tx, slot: &Slot) -> Result<pb::RevokedTokensPayload, StorageError> {
    const LIVE: &str = "SELECT jti, expires_at FROM revoked_tokens WHERE customer_id = $1 AND expires_at > :now ORDER BY jti";
    let rows: Vec<RevokedTokenRow> = query(LIVE).bind(slot.customer).all(tx).await?;
    let tokens = rows
        .into_iter()
        .map(|row| pb::RevokedToken { jti: row.jti, expires_at: Some(timestamp(row.expires_at)) })
        .collect();
    Ok(pb::RevokedTokensPayload { tokens })
}

row! {
    struct UserKeyRow {
        id: Id<ApiKey>,
        key_hash: Vec<u8>,
        expires_at: Option<Timestamp>,
        secret_expires_at: Option<Timestamp>,
    }
}

async fn user_keys(tx: &mut Tx, slot: &Slot) -> Result<pb::UserKeysPayload, StorageError> {
    const ACTIVE: &str = "SELECT k.id, s.key_hash, k.expires_at, s.expires_at AS secret_expires_at \
         FROM api_keys k JOIN api_key_secrets s ON s.api_key_id = k.id \
         WHERE k.customer_id = $1 AND k.identity_id = $2 AND k.kind = 'gateway' AND k.revoked_at IS NULL \
         AND (k.expires_at IS NULL OR k.expires_at > :now) AND (s.expires_at IS NULL OR s.expires_at > :now) \
         ORDER BY k.id, s.key_hash";
    // A user of another kind has no keys with us.
    let Some(identity) = Id::<agentrouter_kernel::id::Identity>::parse(&slot.user_id) else {
        return Ok(pb::UserKeysPayload::default());
    };
    let rows: Vec<UserKeyRow> = query(ACTIVE).bind(slot.customer).bind(identity).all(tx).await?;
    let keys = rows
        .into_iter()
        .map(|row| pb::UserKey {
            id: row.id.to_string(),
            key_hash: hex(&row.key_hash),
            expires_at: [row.expires_at, row.secret_expires_at].into_iter().flatten().min().map(timestamp),
        })
        .collect();
    Ok(pb::UserKeysPayload { keys })
}

/// The allowed servers of a profile, as its row holds them and as the content does.
#[derive(serde::Serialize, serde::Deserialize)]
struct ProfileServer {
    server_id: String,
    tools: Vec<String>,
}

/// The servers of an MCP profile as they are stored: JSON, ordered by id.
pub fn profile_servers_to_text(servers: &[pb::McpProfileServer]) -> String {
    let mut servers: Vec<_> = servers
        .iter()
        .map(|server| ProfileServer { server_id: server.server_id.clone(), tools: server.tools.clone() })
        .collect();
    servers.sort_by(|one, other| one.server_id.cmp(&other.server_id));
    // Structs of texts always have a JSON form.
    serde_json::to_string(&servers).unwrap_or_default()
}

/// Reads the servers of an MCP profile back.
///
/// # Errors
/// `Corrupt` where the text is none of [`profile_servers_to_text`].
pub fn profile_servers_from_text(text: &str) -> Result<Vec<pb::McpProfileServer>, StorageError> {
    let servers: Vec<ProfileServer> = serde_json::from_str(text)
        .map_err(|error| StorageError::Corrupt(format!("servers of a profile: {error}")))?;
    Ok(servers
        .into_iter()
        .map(|server| pb::McpProfileServer { server_id: server.server_id, tools: server.tools })
        .collect())
}

async fn mcp_profile(tx: &mut Tx, slot: &Slot) -> Result<Option<pb::McpProfilePayload>, StorageError> {
    const SERVERS: &str =
        "SELECT servers AS value FROM mcp_profiles WHERE customer_id = $1 AND user_id = $2 AND key_id = $3";
    let servers = query(SERVERS).bind(slot.customer).bind(&slot.user_id).bind(&slot.key_id);
    let servers: Option<String> = servers.value(tx).await?;
    servers.map(|text| Ok(pb::McpProfilePayload { servers: profile_servers_from_text(&text)? })).transpose()
}

async fn proxy_url(tx: &mut Tx, slot: &Slot) -> Result<pb::ProxyUrlPayload, Fault> {
    const SETTING: &str = "SELECT value FROM system_settings WHERE customer_id = $1 AND workspace_id = $2 AND name = 'proxy_url'";
    let workspace = slot.only_workspace();
    let url = query(SETTING).bind(slot.customer).bind(workspace).value::<String>(tx).await?;
    let url = url.ok_or_else(|| {
        Fault::new(FaultKind::NotFound, "CONFIGURATION_NOT_FOUND", "no URL was set for this workspace")
    })?;
    Ok(pb::ProxyUrlPayload { url })
}

/// Reads a stored JSON array of texts.
fn texts(json: &str) -> Result<Vec<String>, StorageError> {
    serde_json::from_str(json).map_err(|error| StorageError::Corrupt(format!("a list of texts: {error}")))
}

fn small(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
