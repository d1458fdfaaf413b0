//! What a data plane holds, as far as it becomes resources.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{
    ConfigType, Configuration, McpCatalogPayload, ProvidersPayload, ProxyUrlPayload,
};

/// The newest content of the slots that become resources.
#[derive(Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The enabled providers; none where the slot is empty or was deleted.
    pub providers: Option<ProvidersPayload>,
    /// The enabled MCP servers.
    pub mcp_catalog: Option<McpCatalogPayload>,
    /// The public URL of this data plane.
    pub proxy_url: Option<ProxyUrlPayload>,
}

impl Snapshot {
    /// Takes over a configuration: its content, or for a tombstone that there is none. What becomes no resource is
    /// passed over.
    pub fn put(&mut self, configuration: &Configuration) {
        let payload = configuration.payload.as_ref().filter(|_| !configuration.deleted);
        match configuration.config_type() {
            ConfigType::Providers => {
                self.providers = match payload {
                    Some(Payload::Providers(providers)) => Some(providers.clone()),
                    _ => None,
                };
            }
            ConfigType::McpCatalog => {
                self.mcp_catalog = match payload {
                    Some(Payload::McpCatalog(catalog)) => Some(catalog.clone()),
                    _ => None,
                };
            }
            ConfigType::ProxyUrl => {
                self.proxy_url = match payload {
                    Some(Payload::ProxyUrl(url)) => Some(url.clone()),
                    _ => None,
                };
            }
            _ => {}
        }
    }

    /// Whether configurations of a type can change a resource.
    pub fn concerns(config_type: ConfigType) -> bool {
        matches!(config_type, ConfigType::Providers | ConfigType::McpCatalog | ConfigType::ProxyUrl)
    }
}

impl<'a> FromIterator<&'a Configuration> for Snapshot {
    fn from_iter<I: IntoIterator<Item = &'a Configuration>>(configurations: I) -> Self {
        let mut snapshot = Self::default();
        for configuration in configurations {
            snapshot.put(configuration);
        }
        snapshot
    }
}

impl std::fmt::Debug for Snapshot {
    /// Without the content, which has secrets in it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("providers", &self.providers.as_ref().map(|payload| payload.providers.len()))
            .field("mcp_servers", &self.mcp_catalog.as_ref().map(|payload| payload.servers.len()))
            .field("proxy_url", &self.proxy_url.as_ref().map(|payload| &payload.url))
            .finish()
    }
}
