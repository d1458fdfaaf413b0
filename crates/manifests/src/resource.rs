//! A resource: what all have in common, and which there are.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use crate::spec::{
    AIGatewayRouteSpec, AIServiceBackendSpec, BackendSecurityPolicySpec, BackendSpec, BackendTLSPolicySpec,
    BackendTrafficPolicySpec, ClientTrafficPolicySpec, EnvoyProxySpec, GatewayClassSpec, GatewaySpec,
    MCPRouteSpec,
};

/// The label that says whose a resource is.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Its value on everything rendered here: what carries it and is not rendered any more may be removed.
pub const MANAGED_BY: &str = "agentrouter";
/// The label that names the slot a resource came from, such as `providers`.
pub const SLOT_LABEL: &str = "agentrouter/slot";
/// The annotation of the gateway that holds the data plane's public URL.
pub const PUBLIC_URL_ANNOTATION: &str = "agentrouter/public-url";

/// What every resource says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Metadata {
    /// Its name, a DNS label.
    pub name: String,
    /// Its namespace; none for resources of the whole cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A resource with a specification.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object<S> {
    /// Group and version.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name and labels.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: S,
}

/// A secret of the data plane.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// Group and version.
    pub api_version: &'static str,
    /// Kind.
    pub kind: &'static str,
    /// Name and labels.
    pub metadata: Metadata,
    /// Always `Opaque`.
    pub r#type: &'static str,
    /// The values.
    pub string_data: BTreeMap<String, SecretText>,
}

/// A text that is written out and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Keeps a text from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

/// Names the kinds once: what each is called, where it lives, and what it holds.
macro_rules! kinds {
    ($($kind:ident($spec:ty) = $api_version:literal, $plural:literal, $namespaced:literal;)*) => {
        /// A resource that Agent Router reads.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        #[expect(missing_docs, reason = "each is the kind it is called")]
        pub enum Resource {
            $($kind(Object<$spec>),)*
            Secret(Secret),
        }

        impl Resource {
            /// Group and version.
            pub fn api_version(&self) -> &'static str {
                match self {
                    $(Self::$kind(object) => object.api_version,)*
                    Self::Secret(secret) => secret.api_version,
                }
            }

            /// Kind.
            pub fn kind(&self) -> &'static str {
                match self {
                    $(Self::$kind(object) => object.kind,)*
                    Self::Secret(secret) => secret.kind,
                }
            }

            /// The kind's name in paths of the Kubernetes API.
            pub fn plural(&self) -> &'static str {
                match self {
                    $(Self::$kind(_) => $plural,)*
                    Self::Secret(_) => "secrets",
                }
            }

            /// Name and labels.
            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$kind(object) => &object.metadata,)*
                    Self::Secret(secret) => &secret.metadata,
                }
            }

            /// Name and labels, to change them.
            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $(Self::$kind(object) => &mut object.metadata,)*
                    Self::Secret(secret) => &mut secret.metadata,
                }
            }

            /// Every kind that may be rendered: apiVersion, kind, plural and whether it lives in a namespace. What
            /// prunes looks through these.
            pub const KINDS: &'static [(&'static str, &'static str, &'static str, bool)] = &[
                $(($api_version, stringify!($kind), $plural, $namespaced),)*
                ("v1", "Secret", "secrets", true),
            ];
        }

        $(impl Kind for $spec {
            const API_VERSION: &'static str = $api_version;
            const KIND: &'static str = stringify!($kind);
            const NAMESPACED: bool = $namespaced;

            fn resource(object: Object<Self>) -> Resource {
                Resource::$kind(object)
            }
        })*
    };
}

/// What a specification belongs to.
pub(crate) trait Kind: Sized {
    const API_VERSION: &'static str;
    const KIND: &'static str;
    const NAMESPACED: bool;

    fn resource(object: Object<Self>) -> Resource;
}

kinds! {
    GatewayClass(GatewayClassSpec) = "gateway.networking.k8s.io/v1", "gatewayclasses", false;
    EnvoyProxy(EnvoyProxySpec) = "gateway.envoyproxy.io/v1alpha1", "envoyproxies", true;
    Gateway(GatewaySpec) = "gateway.networking.k8s.io/v1", "gateways", true;
    ClientTrafficPolicy(ClientTrafficPolicySpec) = "gateway.envoyproxy.io/v1alpha1", "clienttrafficpolicies", true;
    BackendTrafficPolicy(BackendTrafficPolicySpec) = "gateway.envoyproxy.io/v1alpha1", "backendtrafficpolicies", true;
    Backend(BackendSpec) = "gateway.envoyproxy.io/v1alpha1", "backends", true;
    BackendTLSPolicy(BackendTLSPolicySpec) = "gateway.networking.k8s.io/v1", "backendtlspolicies", true;
    AIServiceBackend(AIServiceBackendSpec) = "aigateway.envoyproxy.io/v1beta1", "aiservicebackends", true;
    BackendSecurityPolicy(BackendSecurityPolicySpec) = "aigateway.envoyproxy.io/v1beta1", "backendsecuritypolicies", true;
    AIGatewayRoute(AIGatewayRouteSpec) = "aigateway.envoyproxy.io/v1beta1", "aigatewayroutes", true;
    MCPRoute(MCPRouteSpec) = "aigateway.envoyproxy.io/v1beta1", "mcproutes", true;
}
