//! Envoy's transcoder on a free port.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::front::{self, Answer};
use crate::upstream::PATIENCE;

/// The program; `cargo xtask test` sets it.
const ENVOY: &str = "AGENTROUTER_TEST_ENVOY";

/// A running Envoy; killed when dropped.
pub(crate) struct Envoy {
    /// Held for its end.
    _child: Child,
    _folder: tempfile::TempDir,
    pub(crate) port: u16,
}

fn program() -> PathBuf {
    std::env::var_os(ENVOY).unwrap_or_else(|| panic!("{ENVOY} is not set; `cargo xtask test` sets it")).into()
}

fn command(config: &Path) -> Command {
    let mut command = Command::new(program());
    command.arg("--config-path").arg(config).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "error"]).kill_on_drop(true).stdin(Stdio::null());
    command
}

/// Envoy's options, each as right as it can be set: what is wrong then is Envoy's and no choice of ours.
fn transcoder(descriptors: &Path, services: &[&str]) -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.grpc_json_transcoder.v3.GrpcJsonTranscoder",
        "proto_descriptor": descriptors,
        "services": services,
        "convert_grpc_status": true,
        "query_param_unescape_plus": true,
        "print_options": {
            "preserve_proto_field_names": true,
            "always_print_primitive_fields": true,
            "stream_newline_delimited": true,
        },
        "request_validation_options": {
            "reject_unknown_method": true,
            "reject_unknown_query_parameters": true,
            "reject_binding_body_field_collisions": true,
        },
    })
}

fn config(upstream: u16, transcoder: &Value) -> Value {
    let at = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    let typed = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let options = typed("upstreams.http.v3.HttpProtocolOptions");
    let manager = json!({
        "@type": typed("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "test",
        "route_config": {"virtual_hosts": [{
            "name": "all",
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}],
        }]},
        "http_filters": [
            {"name": "transcoder", "typed_config": transcoder},
            {"name": "router", "typed_config": {"@type": typed("filters.http.router.v3.Router")}},
        ],
    });
    json!({
        "admin": {"address": at(0)},
        "static_resources": {
            "listeners": [{
                "name": "front",
                "address": at(0),
                "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
            }],
            "clusters": [{
                "name": "upstream",
                "type": "STATIC",
                "load_assignment": {
                    "cluster_name": "upstream",
                    "endpoints": [{"lb_endpoints": [{"endpoint": {"address": at(upstream)}}]}],
                },
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions":
                        {"@type": options, "explicit_http_config": {"http2_protocol_options": {}}},
                },
            }],
        },
    })
}

/// A folder with the configuration in `envoy.json`.
fn folder(upstream: u16, descriptors: &[u8], services: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("descriptors.binpb");
    std::fs::write(&file, descriptors).expect("a file");
    let config = config(upstream, &transcoder(&file, services));
    std::fs::write(folder.path().join("envoy.json"), config.to_string()).expect("a file");
    folder
}

impl Envoy {
    /// Starts it before the upstream, and waits until it listens.
    pub(crate) async fn start(upstream: u16, descriptors: &[u8], services: &[&str]) -> Self {
        let folder = folder(upstream, descriptors, services);
        let admin = folder.path().join("admin");
        let log = folder.path().join("log");
        let mut child = command(&folder.path().join("envoy.json"))
            .arg("--admin-address-path")
            .arg(&admin)
            .stderr(std::fs::File::create(&log).expect("a file"))
            .spawn()
            .expect("Envoy starts");
        let ready = async {
            loop {
                if let Some(status) = child.try_wait().expect("a process") {
                    panic!("Envoy ended: {status}: {}", std::fs::read_to_string(&log).unwrap_or_default());
                }
                if let Some(port) = listening(&admin).await {
                    return port;
                }
                sleep(Duration::from_millis(50)).await;
            }
        };
        let port = timeout(PATIENCE, ready).await.expect("Envoy listens");
        Self { _child: child, _folder: folder, port }
    }
}

/// The listener's port, once Envoy has told where its administration is.
async fn listening(admin: &Path) -> Option<u16> {
    let address = std::fs::read_to_string(admin).ok()?;
    let port = address.trim().rsplit_once(':')?.1.parse().ok()?;
    let request = Request::get("/listeners?format=json").body(Full::default()).expect("a request");
    let answer: Answer = front::try_send(port, request).await?;
    let port =
        answer.value()["listener_statuses"][0]["local_address"]["socket_address"]["port_value"].as_u64()?;
    u16::try_from(port).ok()
}

/// Why Envoy refuses these services; empty where it takes them.
pub(crate) async fn refusal(descriptors: &[u8], services: &[&str]) -> String {
    let folder = folder(1, descriptors, services);
    let output = command(&folder.path().join("envoy.json")).args(["--mode", "validate"]).output();
    let output = timeout(PATIENCE, output).await.expect("an end").expect("Envoy starts");
    if output.status.success() {
        return String::new();
    }
    [output.stdout, output.stderr].concat().into_iter().map(char::from).collect()
}
