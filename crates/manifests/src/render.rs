//! The resources of a snapshot.

use std::collections::BTreeMap;
use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, ResourceResult};

use crate::resource::{
    Kind, MANAGED_BY, MANAGED_BY_LABEL, Metadata, Object, PUBLIC_URL_ANNOTATION, Resource, SLOT_LABEL,
    Secret, SecretText,
};
use crate::snapshot::Snapshot;
use crate::spec::{
    ClientConnection, ClientTrafficPolicySpec, ENVOY_GROUP, EnvoyHost, EnvoyProvider, EnvoyProxySpec,
    GATEWAY_GROUP, GatewayClassSpec, GatewaySpec, Infrastructure, Listener, LogLevel, Logging,
    ParentReference, Reference, Shutdown,
};
use crate::{mcp, providers};

/// The longest reason that the management plane keeps, in bytes.
const REASON_MAX: usize = 1024;

/// What the resources are rendered for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where they live.
    pub namespace: String,
    /// The gateway that they belong to.
    pub gateway: GatewayOptions,
    /// The path of the endpoint in front of all MCP servers.
    pub mcp_path: String,
    /// How long a request may take, streams included.
    pub request_timeout: Duration,
    /// How models become routes.
    pub routes: Routes,
}

/// How models become routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Routes {
    /// One for all models that the same providers serve: where routes are changed one after the other, a changed
    /// weight or a new model then changes one, and takes none away.
    Steady,
    /// As few as there can be, for a program that reads all at once: its start takes longer with each.
    Few,
}

/// The gateway that routes belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GatewayOptions {
    /// One of its own, rendered with the rest.
    Own {
        /// Its name, and that of its class and its Envoy.
        name: String,
        /// Where it listens.
        port: u16,
        /// How long it lets open requests go on when it stops.
        drain: Duration,
        /// The version of Envoy that runs as a process of the same machine; none where a controller decides.
        host_envoy: Option<String>,
    },
    /// One that is there already.
    Existing {
        /// Its name.
        name: String,
        /// Its namespace, where it is another.
        namespace: Option<String>,
    },
}

impl Default for Options {
    /// A gateway of its own on port 1975.
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            gateway: GatewayOptions::Own {
                name: "agentrouter".to_owned(),
                port: 1975,
                drain: Duration::from_secs(10),
                host_envoy: None,
            },
            mcp_path: "/mcp".to_owned(),
            request_timeout: Duration::from_mins(10),
            routes: Routes::Steady,
        }
    }
}

/// What a snapshot is in resources.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rendered {
    /// The resources, those that others refer to first.
    pub resources: Vec<Resource>,
    /// What is not among them.
    pub rejected: Vec<Rejection>,
}

/// A part of a configuration that became no resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// What it is a part of.
    pub config_type: ConfigType,
    /// Its id, such as a `provider_id`.
    pub resource: String,
    /// Why, for people; it repeats no content.
    pub reason: String,
}

impl From<Rejection> for ResourceResult {
    fn from(rejection: Rejection) -> Self {
        let mut reason = rejection.reason;
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        Self { resource: rejection.resource, applied: false, reason }
    }
}

/// The slot that a resource comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Slot {
    /// None: it is there whatever the slots hold.
    Gateway,
    Providers,
    McpCatalog,
}

impl Slot {
    const fn label(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Providers => "providers",
            Self::McpCatalog => "mcp_catalog",
        }
    }
}

/// Renders a snapshot. What cannot be rendered is left out and told; an empty snapshot is a gateway without routes.
pub fn render(snapshot: &Snapshot, options: &Options) -> Rendered {
    let to = Renderer { options };
    let mut rendered = Rendered { resources: to.gateway(snapshot), rejected: Vec::new() };
    let parts = [
        snapshot.providers.as_ref().map(|payload| providers::render(payload, &to)),
        snapshot.mcp_catalog.as_ref().map(|payload| mcp::render(payload, &to)),
    ];
    for (resources, rejected) in parts.into_iter().flatten() {
        rendered.resources.extend(resources);
        rendered.rejected.extend(rejected);
    }
    rendered
}

/// Makes resources that belong together.
#[derive(Debug)]
pub(crate) struct Renderer<'a> {
    pub(crate) options: &'a Options,
}

impl Renderer<'_> {
    pub(crate) fn resource<S: Kind>(&self, slot: Slot, name: &str, spec: S) -> Resource {
        let metadata = self.metadata(slot, name, S::NAMESPACED);
        S::resource(Object { api_version: S::API_VERSION, kind: S::KIND, metadata, spec })
    }

    pub(crate) fn secret(&self, slot: Slot, name: &str, key: &str, value: SecretText) -> Resource {
        Resource::Secret(Secret {
            api_version: "v1",
            kind: "Secret",
            metadata: self.metadata(slot, name, true),
            r#type: "Opaque",
            string_data: BTreeMap::from([(key.to_owned(), value)]),
        })
    }

    /// The gateway, as routes name it.
    pub(crate) fn parent(&self) -> ParentReference {
        let (name, namespace) = match &self.options.gateway {
            GatewayOptions::Own { name, .. } => (name, None),
            GatewayOptions::Existing { name, namespace } => (name, namespace.clone()),
        };
        ParentReference { group: GATEWAY_GROUP, kind: "Gateway", name: name.clone(), namespace }
    }

    fn metadata(&self, slot: Slot, name: &str, namespaced: bool) -> Metadata {
        let labels = [(MANAGED_BY_LABEL, MANAGED_BY), (SLOT_LABEL, slot.label())];
        Metadata {
            name: name.to_owned(),
            namespace: namespaced.then(|| self.options.namespace.clone()),
            labels: labels.into_iter().map(|(label, value)| (label.to_owned(), value.to_owned())).collect(),
            annotations: BTreeMap::new(),
        }
    }

    fn gateway(&self, snapshot: &Snapshot) -> Vec<Resource> {
        let GatewayOptions::Own { name, port, drain, host_envoy } = &self.options.gateway else {
            return Vec::new();
        };
        let class = GatewayClassSpec { controller_name: "gateway.envoyproxy.io/gatewayclass-controller" };
        let envoy = EnvoyProxySpec {
            provider: host_envoy
                .clone()
                .map(|envoy_version| EnvoyProvider { r#type: "Host", host: EnvoyHost { envoy_version } }),
            logging: Logging { level: LogLevel { default: "error" } },
            bootstrap: None,
            shutdown: Some(Shutdown { drain_timeout: format!("{}s", drain.as_secs()) }),
        };
        let parameters_ref = Reference { group: ENVOY_GROUP, kind: "EnvoyProxy", name: name.clone() };
        let spec = GatewaySpec {
            gateway_class_name: name.clone(),
            listeners: vec![Listener { name: "http", protocol: "HTTP", port: *port }],
            infrastructure: Infrastructure { parameters_ref },
        };
        let mut gateway = self.resource(Slot::Gateway, name, spec);
        if let Some(public) = &snapshot.proxy_url {
            // Told, not enforced: a gateway that answers under one name only would refuse everything while names
            // are being changed.
            let annotations = &mut gateway.metadata_mut().annotations;
            annotations.insert(PUBLIC_URL_ANNOTATION.to_owned(), public.url.clone());
        }
        // Envoy Gateway holds 32 KiB of a body by itself; prompts with pictures are larger.
        let target = Reference { group: GATEWAY_GROUP, kind: "Gateway", name: name.clone() };
        let clients = ClientTrafficPolicySpec {
            target_refs: vec![target],
            connection: ClientConnection { buffer_limit: "50Mi" },
        };
        vec![
            self.resource(Slot::Gateway, name, class),
            self.resource(Slot::Gateway, name, envoy),
            gateway,
            self.resource(Slot::Gateway, name, clients),
        ]
    }
}
