//! Services of editions, which buf compiles: in process, and in front of a server on another port, by a descriptor file
//! and by reflection. Tests cite the rows of the gateway checklist they decide ("A4 #66").

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../rest/backend.rs"]
mod backend;
mod reflection;
#[path = "../remote/upstream.rs"]
mod upstream;

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;

use agentrouter_gateway::remote::Remote;
use agentrouter_gateway::{
    Contract, HttpRules, Info, ProtoJson, ProtocolOptions, Protocols, ReadOptions, Transcoder, WriteOptions,
    descriptor_pool, openapi,
};
use backend::backend;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use prost_reflect::DescriptorPool;
use serde_json::{Value, json};
use tonic::body::Body;
use tower::ServiceExt as _;
use tower::util::BoxCloneSyncService;
use upstream::{Upstream, services};

const SHELF: &str = "gateway.editions.v1.Shelf";
const LAMP: &str = "gateway.editions.v2.Lamp";

/// What buf writes of the services of editions.
fn descriptors() -> &'static [u8] {
    static DESCRIPTORS: OnceLock<Vec<u8>> = OnceLock::new();
    DESCRIPTORS.get_or_init(|| {
        let buf = std::env::var_os("AGENTROUTER_TEST_BUF").expect("`cargo xtask test` sets buf");
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let protos = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(protos.path().join("google/api")).expect("a folder");
        for (from, name) in [
            ("tests/proto", "editions_test.proto"),
            ("tests/proto", "editions_2024_test.proto"),
            ("../../proto", "google/api/annotations.proto"),
            ("../../proto", "google/api/http.proto"),
        ] {
            std::fs::copy(root.join(from).join(name), protos.path().join(name)).expect("a proto");
        }
        let mut build = Command::new(buf);
        build.arg("build").arg(protos.path()).args([
            "--as-file-descriptor-set",
            "--output",
            "-#format=binpb",
        ]);
        let output = build.output().expect("buf runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    })
}

fn pool() -> DescriptorPool {
    descriptor_pool(descriptors()).expect("a pool")
}

/// A gateway, before whatever serves.
type Front = BoxCloneSyncService<Request<Full<Bytes>>, Response<Body>, Infallible>;

fn in_process() -> Front {
    let rest = Transcoder::new(&pool(), backend(pool())).expect("rules that can be served");
    BoxCloneSyncService::new(Protocols::new(&pool(), rest, ProtocolOptions::default()))
}

fn before(upstream: &Upstream, pool: &DescriptorPool) -> Front {
    let remote = Remote::connect(&upstream.uri()).expect("an address");
    let rest = Transcoder::new(pool, remote).expect("rules that can be served");
    BoxCloneSyncService::new(Protocols::new(pool, rest, ProtocolOptions::default()))
}

/// The status and the JSON of an answer.
async fn send(front: &Front, method: &str, uri: &str, body: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(uri).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from(body.to_owned()))).expect("a request");
    let (parts, body) = front.clone().oneshot(request).await.expect("infallible").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let json = serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{error}: {body:?}"));
    (parts.status.as_u16(), json)
}

/// Both editions over REST and over Connect.
async fn serves(front: &Front) {
    let text = r#"{"limit": 0, "place": {"row": 0}, "places": [{"note": "x"}], "kind": "KIND_WOOD",
        "color": 7, "packed": [0, 1], "needed": 0, "markText": "", "oldMark": "new", "old_mark": "old"}"#;
    let rest = send(front, "PUT", "/v1/shelves/a", text).await;
    // Without presence, members are always there; with it, only where they were given, be it the default.
    let expected = json!({
        "name": "a", "books": 0, "limit": 0, "place": {"row": 0, "note": ""}, "places": [{"note": "x"}],
        "known_places": {}, "kind": "KIND_WOOD", "kinds": [], "color": 7, "packed": [0, 1], "expanded": [],
        "needed": 0, "mark_text": "", "old_mark": "old", "oldMark": "new",
    });
    assert_eq!(rest, (200, expected));

    let rpc = "/gateway.editions.v1.Shelves/PutShelf";
    let text = r#"{"name": "", "books": 0, "limit": 0, "place": {"note": ""}, "color": 0, "markKind": "KIND_STEEL"}"#;
    let connect = send(front, "POST", rpc, text).await;
    assert_eq!(connect, (200, json!({"limit": 0, "place": {}, "markKind": "KIND_STEEL"})));

    let lamp = send(front, "GET", "/v2/lamps/a?watts=0&bulb.lumens=0&wall=false", "").await;
    let expected = json!({
        "name": "a", "watts": 0, "bulb": {"lumens": 0}, "spare_bulbs": {}, "wall": false, "more_bulbs": [],
    });
    assert_eq!(lamp, (200, expected));
}

/// A4 #66.
#[tokio::test]
async fn editions_are_served_in_process() {
    serves(&in_process()).await;
}

/// A4 #66.
#[tokio::test]
async fn editions_are_served_by_a_descriptor_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("shelves.binpb");
    std::fs::write(&file, descriptors()).expect("a file");
    let upstream = Upstream::start(services(pool()));
    let pool = descriptor_pool(&std::fs::read(&file).expect("a file")).expect("a pool");
    serves(&before(&upstream, &pool)).await;
}

/// A4 #66: what stands on the wire, byte by byte.
#[test]
fn features_decide_the_wire() {
    let codec = ProtoJson::new(&pool());
    let both = |message: &str, text: &Value, wire: &[u8]| {
        let written = codec.to_wire(message, text.to_string().as_bytes(), ReadOptions::default());
        assert_eq!(written.expect("a message"), wire, "{text}");
        let read = codec.to_json(message, wire, WriteOptions::default()).expect("a message");
        assert_eq!(serde_json::from_slice::<Value>(&read).expect("JSON"), *text);
    };
    // Presence: the default is a value, or nothing.
    both(SHELF, &json!({"limit": 0}), &[0x18, 0]);
    let nothing = codec.to_wire(SHELF, br#"{"name": "", "books": 0, "color": 0}"#, ReadOptions::default());
    assert!(nothing.expect("a message").is_empty());
    // Groups, but for the entries of maps.
    both(SHELF, &json!({"place": {"row": 1}}), &[0x23, 0x08, 1, 0x24]);
    both(SHELF, &json!({"places": [{"row": 2}, {}]}), &[0x2b, 0x08, 2, 0x2c, 0x2b, 0x2c]);
    both(SHELF, &json!({"knownPlaces": {"a": {"row": 3}}}), b"\x32\x07\x0a\x01a\x12\x02\x08\x03");
    both(LAMP, &json!({"bulb": {"lumens": 4}}), &[0x1b, 0x08, 4, 0x1c]);
    both(LAMP, &json!({"spareBulbs": {"a": {"lumens": 5}}}), b"\x22\x07\x0a\x01a\x12\x02\x08\x05");
    both(LAMP, &json!({"moreBulbs": [{"lumens": 6}]}), &[0x32, 2, 0x08, 6]);
    // Lists.
    both(SHELF, &json!({"kinds": ["KIND_STEEL", "KIND_WOOD"]}), &[0x42, 2, 2, 1]);
    both(SHELF, &json!({"packed": [1, 2]}), &[0x52, 2, 1, 2]);
    both(SHELF, &json!({"expanded": [1, 2]}), &[0x58, 1, 0x58, 2]);
    // Extensions have the features of where they stand.
    both(SHELF, &json!({"[gateway.editions.v1.sizes]": [5]}), &[0xa2, 0x06, 1, 5]);
    both(SHELF, &json!({"[gateway.editions.v1.stands]": {}}), &[0xab, 0x06, 0xac, 0x06]);
    // One JSON name for two fields: the one that is called so has it.
    both(SHELF, &json!({"old_mark": "a"}), b"\x7a\x01a");
    both(SHELF, &json!({"oldMark": "b"}), b"\x82\x01\x01b");
}

/// A4 #66: a number without a name is refused where an enum is closed, and kept where it is open.
#[tokio::test]
async fn closed_enums_take_no_other_numbers() {
    let front = in_process();
    let refused = |answer: &(u16, Value)| {
        assert_eq!(answer.0, 400, "{answer:?}");
        let details = answer.1["details"].as_array().expect("details");
        let violations = details.iter().find_map(|detail| detail["field_violations"].as_array());
        let told = |violation: &Value| {
            let text = |name: &str| violation[name].as_str().expect("text").to_owned();
            let (field, description) = (text("field"), text("description"));
            // Of a body, with its line and column.
            format!("{field} {}", description.split(" (").next().unwrap_or_default())
        };
        violations.expect("violations").iter().map(told).collect::<Vec<_>>()
    };
    let expected =
        |field: &str, given: &str| format!("{field} must be one of `KIND_WOOD`, `KIND_STEEL`, not `{given}`");
    let text = r#"{"kind": 0, "kinds": [1, 3, "KIND_GLASS"], "color": 3}"#;
    let body = send(&front, "PUT", "/v1/shelves/a", text).await;
    let all = [expected("kind", "0"), expected("kinds[1]", "3"), expected("kinds[2]", "KIND_GLASS")];
    assert_eq!(refused(&body), all);
    let query = send(&front, "GET", "/v1/shelves/a?mark_kind=3&color=3", "").await;
    assert_eq!(refused(&query), [expected("mark_kind", "3")]);
    let rpc = send(&front, "POST", "/gateway.editions.v1.Shelves/PutShelf", r#"{"kind": 3}"#).await;
    assert_eq!((rpc.0, &rpc.1["code"]), (400, &json!("invalid_argument")));
    let named = send(&front, "GET", "/v1/shelves/a?kind=2&kinds=1&color=3", "").await;
    assert_eq!((named.0, &named.1["kind"], &named.1["color"]), (200, &json!("KIND_STEEL"), &json!(3)));

    let codec = ProtoJson::new(&pool());
    let text = br#"{"kind": 3, "kinds": [3, 1]}"#;
    let passed_over = codec.to_wire(SHELF, text, ReadOptions { ignore_unknown: true });
    assert_eq!(passed_over.expect("a message"), [0x42, 1, 1]);
    // What a service sends is not lost.
    let kept = codec.to_json(SHELF, &[0x38, 3], WriteOptions::default());
    assert_eq!(kept.expect("a message"), br#"{"kind":3}"#);
}

/// A4 #66: the document promises the members that are always there.
#[test]
fn the_document_knows_presence() {
    struct Silent;
    impl Contract for Silent {}
    let [title, version, description, license, bearer] =
        ["Test", "1", "All of it.", "Apache-2.0", "A token."].map(str::to_owned);
    let info = Info { title, version, description, license, bearer };
    // Rules from outside make a pool of a pool, and nothing may be lost there.
    let rules = HttpRules::from_json(r#"{"http": {}}"#).expect("rules");
    let document = openapi(&rules.apply(&pool()).expect("a pool"), &info, &Silent).to_string();
    for required in [
        r#""required":["name","books","places","known_places","kinds","color","packed","expanded"]"#,
        r#""required":["name","spare_bulbs","more_bulbs"]"#,
    ] {
        assert!(document.contains(required), "{required}: {document}");
    }
}
