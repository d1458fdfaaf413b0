//! The specifications of the resources, as far as they are used here.

use serde::Serialize;

pub(crate) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";
pub(crate) const ENVOY_GROUP: &str = "gateway.envoyproxy.io";
pub(crate) const AI_GROUP: &str = "aigateway.envoyproxy.io";

/// A resource named by another, in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// Its group.
    pub group: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// A gateway that routes belong to, which may be in another namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParentReference {
    /// Its group.
    pub group: &'static str,
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Its namespace, where it is another than the route's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// Who builds gateways of a class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayClassSpec {
    /// The controller.
    pub controller_name: &'static str,
}

/// How Envoy runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoyProxySpec {
    /// What runs it; none leaves it to the controller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<EnvoyProvider>,
    /// What it logs.
    pub logging: Logging,
    /// What it starts with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bootstrap: Option<Bootstrap>,
    /// How it stops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shutdown: Option<Shutdown>,
}

/// What runs Envoy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnvoyProvider {
    /// `Host`: a process beside the controller.
    pub r#type: &'static str,
    /// What that process is.
    pub host: EnvoyHost,
}

/// Envoy as a process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvoyHost {
    /// The version to start.
    pub envoy_version: String,
}

/// What Envoy logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logging {
    /// By component.
    pub level: LogLevel,
}

/// The level of all components.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogLevel {
    /// Such as `error`.
    pub default: &'static str,
}

/// What Envoy starts with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bootstrap {
    /// How it comes to what the controller wrote.
    pub r#type: &'static str,
    /// A part of Envoy's own configuration, as JSON.
    pub value: String,
}

/// How Envoy stops.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// How long open requests may take, such as `30s`.
    pub drain_timeout: String,
}

/// Where a gateway listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewaySpec {
    /// Its class.
    pub gateway_class_name: String,
    /// Where it listens.
    pub listeners: Vec<Listener>,
    /// What it runs as.
    pub infrastructure: Infrastructure,
}

/// A port of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listener {
    /// Its name.
    pub name: &'static str,
    /// Its protocol.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
}

/// What a gateway runs as.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Infrastructure {
    /// The Envoy that it is.
    pub parameters_ref: Reference,
}

/// How clients may use a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientTrafficPolicySpec {
    /// Which.
    pub target_refs: Vec<Reference>,
    /// Limits of a connection.
    pub connection: ClientConnection,
}

/// Limits of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientConnection {
    /// What is held of a body, such as `50Mi`.
    pub buffer_limit: &'static str,
}

/// How a gateway uses its backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTrafficPolicySpec {
    /// Which.
    pub target_refs: Vec<Reference>,
    /// When it tries again.
    pub retry: Retry,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How often at all.
    pub num_retries: u32,
    /// How often among backends of one priority before the next one's turn.
    pub num_attempts_per_priority: u32,
    /// After what.
    pub retry_on: RetryOn,
    /// After how long.
    pub per_retry: PerRetry,
}

/// What a request is tried again after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryOn {
    /// These statuses.
    pub http_status_codes: Vec<u16>,
    /// These events.
    pub triggers: Vec<&'static str>,
}

/// The pause before a retry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PerRetry {
    /// How it grows.
    pub back_off: BackOff,
}

/// How a pause grows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackOff {
    /// The first.
    pub base_interval: &'static str,
    /// The longest.
    pub max_interval: &'static str,
}

/// Where something is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BackendSpec {
    /// One address.
    pub endpoints: Vec<BackendEndpoint>,
}

/// An address with a name or a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendEndpoint {
    /// A host name.
    Fqdn {
        /// The name.
        hostname: String,
        /// The port.
        port: u16,
    },
    /// An IP address.
    Ip {
        /// The address.
        address: String,
        /// The port.
        port: u16,
    },
}

/// How a backend proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendTLSPolicySpec {
    /// Which.
    pub target_refs: Vec<Reference>,
    /// What is checked.
    pub validation: TlsValidation,
}

/// What is checked of a certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TlsValidation {
    /// Who may have signed it.
    #[serde(rename = "wellKnownCACertificates")]
    pub well_known_ca_certificates: &'static str,
    /// Whose it is.
    pub hostname: String,
}

/// A backend that speaks an API of AI providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AIServiceBackendSpec {
    /// Which API.
    pub schema: Schema,
    /// Where.
    pub backend_ref: Reference,
    /// What becomes of the client's headers.
    pub header_mutation: HeaderMutation,
}

/// Headers of the client that a backend does not get.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderMutation {
    /// Their names.
    pub remove: Vec<&'static str>,
}

/// An API of AI providers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Schema {
    /// Such as `OpenAI`.
    pub name: &'static str,
    /// Its version, where the API has such a thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The path before those of the API; none for the one that is usual.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// How a gateway authenticates to backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSecurityPolicySpec {
    /// Which.
    pub target_refs: Vec<Reference>,
    /// By what.
    #[serde(flatten)]
    pub key: BackendKey,
}

/// The header that a key goes into.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type")]
pub enum BackendKey {
    /// `Authorization: Bearer`.
    APIKey {
        /// The key.
        #[serde(rename = "apiKey")]
        api_key: KeyRef,
    },
    /// `x-api-key`.
    AnthropicAPIKey {
        /// The key.
        #[serde(rename = "anthropicAPIKey")]
        anthropic_api_key: KeyRef,
    },
    /// `api-key`.
    AzureAPIKey {
        /// The key.
        #[serde(rename = "azureAPIKey")]
        azure_api_key: KeyRef,
    },
}

/// A key in a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyRef {
    /// The secret.
    pub secret_ref: SecretRef,
}

/// A secret in the same namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SecretRef {
    /// Its name.
    pub name: String,
}

/// Which models are served by which backends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AIGatewayRouteSpec {
    /// The gateway.
    pub parent_refs: Vec<ParentReference>,
    /// A rule for each model.
    pub rules: Vec<RouteRule>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRule {
    /// Which requests.
    pub matches: Vec<RouteMatch>,
    /// Where they go.
    pub backend_refs: Vec<RouteBackend>,
    /// How long they may take.
    pub timeouts: Timeouts,
}

/// How long a request may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Timeouts {
    /// All of it, such as `600s`.
    pub request: String,
}

/// A request with these headers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteMatch {
    /// All of them.
    pub headers: Vec<HeaderMatch>,
}

/// A header with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HeaderMatch {
    /// How it is compared.
    pub r#type: &'static str,
    /// The header.
    pub name: &'static str,
    /// The value.
    pub value: String,
}

/// A backend with its share.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteBackend {
    /// The backend.
    pub name: String,
    /// Lower ones are tried first; without gaps from 0.
    pub priority: u32,
    /// The share among those of the same priority.
    pub weight: i32,
}

/// MCP servers behind one endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MCPRouteSpec {
    /// The gateway.
    pub parent_refs: Vec<ParentReference>,
    /// The endpoint's path.
    pub path: String,
    /// The servers.
    pub backend_refs: Vec<McpBackend>,
}

/// An MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct McpBackend {
    /// Where it is reached.
    #[serde(flatten)]
    pub backend: Reference,
    /// Its path there.
    pub path: String,
    /// Headers of the client that it gets.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub forward_headers: Vec<ForwardHeader>,
}

/// A header of the client that a server gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForwardHeader {
    /// As the client sends it.
    pub name: String,
    /// As the server gets it.
    pub backend_header: &'static str,
}
