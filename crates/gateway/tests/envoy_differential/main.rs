//! Envoy's `grpc_json_transcoder` and this gateway before the very same upstream, by the same descriptors: what one
//! answers the other has to answer, too, with the same status and the same JSON. Where Envoy is wrong, or where its
//! rules are others, the row says why and holds both answers, so that a change of either is seen.
//!
//! Rows cite what they decide of the gateway checklist by the tables that they are in.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../rest/backend.rs"]
mod backend;
mod bodies;
mod envoy;
mod errors;
mod front;
mod paths;
mod probes;
mod query;
mod row;
#[path = "../remote/upstream.rs"]
mod upstream;

use std::path::Path;

use bytes::Bytes;
use envoy::Envoy;
use front::Ours;
use http::Request;
use http_body_util::Full;
use prost_reflect::DescriptorPool;
use upstream::Upstream;

const SERVICE: &str = "gateway.probe.v1.Probe";

fn pool() -> DescriptorPool {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let includes = [root.join("tests/proto"), root.join("../../proto")];
    let mut compiler = protox::Compiler::new(includes).expect("the include folders");
    compiler
        .include_imports(true)
        .open_files(["probe.proto", "google/rpc/error_details.proto"])
        .expect("protos that compile");
    compiler.descriptor_pool()
}

/// The upstream, and both gateways before it.
struct Both {
    /// Held for its end.
    _upstream: Upstream,
    envoy: Envoy,
    ours: Ours,
}

impl Both {
    async fn start() -> Self {
        let pool = pool();
        let upstream = Upstream::start(upstream::services(pool.clone()));
        let envoy = Envoy::start(upstream.address.port(), &pool.encode_to_vec(), &[SERVICE]).await;
        let ours = Ours::start(&upstream.uri(), &pool).await;
        Self { _upstream: upstream, envoy, ours }
    }

    async fn check(&self, rows: Vec<row::Row>) {
        row::check(rows, self.envoy.port, self.ours.port).await;
    }
}

/// A1 #2, #3, #4, #5, #6, #7, #8, #9, #10, #11, #12, #15, #18, #19, #20, #21.
#[tokio::test]
async fn paths_as_envoy_has_them() {
    Both::start().await.check(paths::rows()).await;
}

/// A2 #24, #25, #26, #27, #29, #31, #32, #33, #34, #35, #36, #37, #38, #39.
#[tokio::test]
async fn queries_as_envoy_has_them() {
    Both::start().await.check(query::rows()).await;
}

/// A3 #42, #43, #44, #45, #48, #49, #50, A4 #55, #56, #57, #58, #59, #60, #62, #63, #64, A5 #67.
#[tokio::test]
async fn bodies_as_envoy_has_them() {
    Both::start().await.check(bodies::rows()).await;
}

/// A6 #72, #73, A10 #104, #105.
#[tokio::test]
async fn errors_and_streams_as_envoy_has_them() {
    Both::start().await.check(errors::rows()).await;
}

/// A map entry whose value is the default one, which some languages leave out on the wire, the upstream's among
/// them. Envoy's process dies of such an answer.
#[tokio::test]
async fn a_map_entry_without_its_value() {
    let both = Both::start().await;
    let request = || {
        let body = Full::new(Bytes::from_static(br#"{"labels": {"a": ""}}"#));
        Request::post("/v2/create").body(body).expect("a request")
    };
    assert!(front::try_send(both.envoy.port, request()).await.is_none(), "Envoy survives by now");
    let ours = front::try_send(both.ours.port, request()).await.expect("an answer");
    assert_eq!(ours.value()["labels"], serde_json::json!({"a": ""}));
}

/// All rows of the live probe: A1 #2, #3, #4, #5, #6, #8, #10, #12, #18, #19, #21, A2 #24, #29, #32, #33, #34, #35, #36,
/// #37, A3 #45, #46, #48, #49, #50, A4 #55, #56, A5 #67, #68, A9 #94.
#[tokio::test]
async fn the_live_probe() {
    Both::start().await.check(probes::rows()).await;
    let refusal = envoy::refusal(&pool().encode_to_vec(), &["gateway.probe.v1.Parts"]).await;
    assert!(refusal.contains("response_body"), "Envoy takes `response_body` by now: {refusal}");
}
