//! Configurations for the tests.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    ConfigType, Configuration, Credential, McpCatalogPayload, McpServerConfig, ProviderConfig,
    ProvidersPayload, UserKeysPayload,
};

fn configuration(kind: ConfigType, user: &str, version: i64, payload: Option<Payload>) -> Configuration {
    Configuration {
        id: format!("cfg_{}", kind.as_str_name().to_lowercase()),
        customer_id: "acme".to_owned(),
        user_id: user.to_owned(),
        config_type: kind.into(),
        version,
        checksum: format!("sum-{version}"),
        deleted: payload.is_none(),
        payload,
        ..Configuration::default()
    }
}

/// Providers by id and host, each with a model and a key of its own.
pub(crate) fn providers(version: i64, providers: &[(&str, &str)]) -> Configuration {
    let providers = providers.iter().map(|(id, host)| ProviderConfig {
        provider_id: (*id).to_owned(),
        schema: "openai".to_owned(),
        base_url: format!("https://{host}/v1"),
        models: vec![format!("{id}-model")],
        weight: 1,
        credential: Some(Credential {
            id: format!("cred_{id}"),
            version,
            value: format!("secret-of-{id}-{version}"),
        }),
        ..ProviderConfig::default()
    });
    let payload = Payload::Providers(ProvidersPayload { providers: providers.collect() });
    configuration(ConfigType::Providers, "system", version, Some(payload))
}

/// No providers any more.
pub(crate) fn no_providers(version: i64) -> Configuration {
    configuration(ConfigType::Providers, "system", version, None)
}

/// MCP servers by id.
pub(crate) fn servers(version: i64, ids: &[&str]) -> Configuration {
    let servers = ids.iter().map(|id| McpServerConfig {
        id: (*id).to_owned(),
        name: (*id).to_owned(),
        url: format!("https://{id}.example/mcp"),
        authentication: "none".to_owned(),
        requires_auth: false,
    });
    let payload = Payload::McpCatalog(McpCatalogPayload { servers: servers.collect() });
    configuration(ConfigType::McpCatalog, "system", version, Some(payload))
}

/// A slot that becomes no object.
pub(crate) fn user_keys(version: i64, user: &str) -> Configuration {
    let payload = Payload::UserKeys(UserKeysPayload::default());
    configuration(ConfigType::UserKeys, user, version, Some(payload))
}
