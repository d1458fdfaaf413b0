//! An API server of its own for the tests: a real one, without kubelets and controllers.

use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use agentrouter_target_kubernetes::{Access, KubernetesOptions, KubernetesTarget};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use tokio::sync::OnceCell;

/// The kinds of the gateway, as its own definitions name them.
const GATEWAY_KINDS: [(&str, &str, &str, &str); 10] = [
    ("gateway.networking.k8s.io", "v1", "Gateway", "gateways"),
    ("gateway.networking.k8s.io", "v1", "BackendTLSPolicy", "backendtlspolicies"),
    ("gateway.envoyproxy.io", "v1alpha1", "EnvoyProxy", "envoyproxies"),
    ("gateway.envoyproxy.io", "v1alpha1", "ClientTrafficPolicy", "clienttrafficpolicies"),
    ("gateway.envoyproxy.io", "v1alpha1", "BackendTrafficPolicy", "backendtrafficpolicies"),
    ("gateway.envoyproxy.io", "v1alpha1", "Backend", "backends"),
    ("aigateway.envoyproxy.io", "v1beta1", "AIServiceBackend", "aiservicebackends"),
    ("aigateway.envoyproxy.io", "v1beta1", "BackendSecurityPolicy", "backendsecuritypolicies"),
    ("aigateway.envoyproxy.io", "v1beta1", "AIGatewayRoute", "aigatewayroutes"),
    ("aigateway.envoyproxy.io", "v1beta1", "MCPRoute", "mcproutes"),
];

/// A server; its folder goes when the test program ends.
struct Server {
    folder: PathBuf,
    /// The server ends when its standard input does.
    _process: Child,
}

/// Who calls.
pub(crate) const ADMIN: &str = "admin";

static SERVER: OnceLock<Server> = OnceLock::new();
static READY: OnceCell<()> = OnceCell::const_new();

fn program() -> PathBuf {
    std::env::var_os("AGENTROUTER_TEST_KUBE_APISERVER")
        .expect("AGENTROUTER_TEST_KUBE_APISERVER names the API server: run `cargo xtask test`")
        .into()
}

fn start() -> Server {
    let folder = tempfile::Builder::new().prefix("kube-").tempdir().expect("a folder").keep();
    let port = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        path
    };
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = CertificateParams::new(["127.0.0.1".to_owned()]).expect("names").self_signed(&key);
    let certificate = write("server.crt", &certificate.expect("a certificate").pem());
    let accounts = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let private = write("accounts.key", &accounts.serialize_pem());
    let public = write("accounts.pub", &accounts.public_key_pem());
    let tokens =
        write("tokens.csv", "admin-token,admin,admin,\"system:masters\"\nworker-token,worker,worker,\n");
    for user in [ADMIN, "worker"] {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": format!("https://127.0.0.1:{port}"), "certificate-authority": certificate,
            }}],
            "users": [{"name": user, "user": {"token": format!("{user}-token")}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        write(&format!("{user}.kubeconfig"), &kubeconfig.to_string());
    }
    let log = std::fs::File::create(folder.join("log")).expect("a log");
    let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
    let process = Command::new(program())
        .arg(&folder)
        .args([
            "--bind-address=127.0.0.1",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
        ])
        .args([
            "--service-account-issuer=https://issuer.example",
            "--disable-admission-plugins=ServiceAccount",
        ])
        .arg(format!("--secure-port={port}"))
        .arg(flag("tls-cert-file", &certificate))
        .arg(flag("tls-private-key-file", &write("server.key", &key.serialize_pem())))
        .arg(flag("service-account-signing-key-file", &private))
        .arg(flag("service-account-key-file", &public))
        .arg(flag("token-auth-file", &tokens))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("the API server starts");
    Server { folder, _process: process }
}

/// How the tests call as somebody.
pub(crate) fn access(user: &str) -> Access {
    let folder = &SERVER.get_or_init(start).folder;
    Access::Kubeconfig { path: folder.join(format!("{user}.kubeconfig")), context: None }
}

async fn client() -> Client {
    let Access::Kubeconfig { path, .. } = access(ADMIN) else {
        panic!("a kubeconfig");
    };
    let file = Kubeconfig::read_from(path).expect("a kubeconfig");
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("a config");
    Client::try_from(config).expect("a client")
}

/// A namespace for one test, as its administrator sees it.
#[derive(Clone)]
pub(crate) struct Space {
    pub(crate) client: Client,
    pub(crate) name: String,
}

impl Space {
    /// Waits for the server and makes a namespace.
    pub(crate) async fn new(name: &str) -> Self {
        let client = client().await;
        READY.get_or_init(|| prepare(&client)).await;
        let space = Self { client, name: name.to_owned() };
        let namespace: Namespace =
            serde_json::from_value(json!({"metadata": {"name": name}})).expect("a namespace");
        space.all::<Namespace>().create(&PostParams::default(), &namespace).await.expect("a new namespace");
        space
    }

    pub(crate) fn all<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = ()>,
    {
        Api::all(self.client.clone())
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Objects of a kind of the gateway.
    pub(crate) fn gateway(&self, kind: &str) -> Api<DynamicObject> {
        let (group, version, kind, plural) =
            GATEWAY_KINDS.iter().find(|(_, _, known, _)| *known == kind).expect("a known kind");
        let resource = ApiResource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            api_version: format!("{group}/{version}"),
            kind: (*kind).to_owned(),
            plural: (*plural).to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &self.name, &resource)
    }

    /// The names of the objects of a kind.
    pub(crate) async fn names(&self, kind: &str) -> Vec<String> {
        let list = self.gateway(kind).list(&ListParams::default()).await.expect("a list");
        list.items.into_iter().filter_map(|object| object.metadata.name).collect()
    }

    pub(crate) fn options(&self) -> KubernetesOptions {
        Self::options_of(&self.name)
    }

    pub(crate) fn options_of(namespace: &str) -> KubernetesOptions {
        let render = agentrouter_manifests::Options::default();
        let mut options = KubernetesOptions::new(namespace, render);
        options.quiet = Duration::from_millis(20);
        options
    }

    pub(crate) async fn target(&self) -> KubernetesTarget {
        KubernetesTarget::connect(&access(ADMIN), self.options()).await.expect("a target")
    }

    /// Creates or replaces what a text of JSON says.
    pub(crate) async fn create<K>(&self, api: &Api<K>, object: serde_json::Value)
    where
        K: Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let object: K = serde_json::from_value(object).expect("an object");
        api.create(&PostParams::default(), &object).await.expect("a new object");
    }
}

async fn prepare(client: &Client) {
    let mut waited = 0;
    let ready = || http::Request::get("/readyz").body(Vec::new()).expect("a request");
    while client.request_text(ready()).await.is_err() {
        waited += 1;
        if waited == 600 {
            let log =
                std::fs::read_to_string(SERVER.get_or_init(start).folder.join("log")).unwrap_or_default();
            let _ = std::io::stderr().write_all(log.as_bytes());
            panic!("the API server does not get ready");
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (group, version, kind, plural) in GATEWAY_KINDS {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let definition = json!({
            // Groups of Kubernetes' own are protected; this says that somebody has agreed.
            "metadata": {"name": format!("{plural}.{group}"), "annotations": {
                "api-approved.kubernetes.io": "https://github.com/kubernetes-sigs/gateway-api",
            }},
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                "versions": [{
                    "name": version, "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
                }],
            },
        });
        let definition = serde_json::from_value(definition).expect("a definition");
        definitions.create(&PostParams::default(), &definition).await.expect("a new definition");
    }
    for (group, version, _, plural) in GATEWAY_KINDS {
        let list = || http::Request::get(format!("/apis/{group}/{version}/{plural}")).body(Vec::new());
        while client.request_text(list().expect("a request")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
