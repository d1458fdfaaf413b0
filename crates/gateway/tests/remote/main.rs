//! The gateway in front of a gRPC server on another port. Test names and comments cite the rows of the gateway
//! checklist they decide ("A6 #81").

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../rest/backend.rs"]
mod backend;

mod away;
mod broken;
mod kinds;
mod reflection;
mod upstream;

use std::path::Path;
use std::sync::OnceLock;

use agentrouter_gateway::remote::Remote;
use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::body::Body;
use tower::ServiceExt as _;

const SERVICE: &str = "/gateway.probe.v1.Probe";
const PROTOCOLS: [&str; 4] =
    ["application/grpc", "application/grpc-web", "application/grpc-web-text", "application/connect+proto"];

/// What a descriptor file of the upstream holds: its services, and health.
fn descriptors() -> &'static [u8] {
    static DESCRIPTORS: OnceLock<Vec<u8>> = OnceLock::new();
    DESCRIPTORS.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let includes = [root.join("tests/proto"), root.join("../../proto")];
        let mut compiler = protox::Compiler::new(includes).expect("the include folders");
        compiler
            .include_imports(true)
            .open_files(["probe.proto", "google/rpc/error_details.proto"])
            .expect("protos that compile");
        let mut pool = compiler.descriptor_pool();
        pool.decode_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET).expect("descriptors");
        pool.encode_to_vec()
    })
}

fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(descriptors()).expect("descriptors")).clone()
}

/// The gateway in front of a server.
fn front(uri: &str, pool: &DescriptorPool) -> Protocols<Remote> {
    let remote = Remote::connect(uri).expect("an address");
    let rest = Transcoder::new(pool, remote).expect("rules that can be served");
    Protocols::new(pool, rest, ProtocolOptions::default())
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    trailers: HeaderMap,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn header(&self, name: &str) -> &str {
        text(&self.headers, name)
    }

    fn trailer(&self, name: &str) -> &str {
        text(&self.trailers, name)
    }
}

fn text<'m>(map: &'m HeaderMap, name: &str) -> &'m str {
    map.get(name).map_or("", |value| value.to_str().expect("ASCII"))
}

fn request(
    method: &str,
    uri: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

async fn send(front: &Protocols<Remote>, request: Request<Full<Bytes>>) -> Answer {
    answer(front.clone().oneshot(request).await.expect("infallible")).await
}

async fn get(front: &Protocols<Remote>, uri: &str) -> Answer {
    send(front, request("GET", uri, &[], "")).await
}

/// What a body broke off with is left out: what had come until then is looked at.
async fn answer(response: Response<Body>) -> Answer {
    let (parts, mut body) = response.into_parts();
    let mut read = Answer {
        status: parts.status,
        headers: parts.headers,
        body: Bytes::new(),
        trailers: HeaderMap::new(),
    };
    let mut data = Vec::new();
    while let Some(Ok(frame)) = body.frame().await {
        match frame.into_data() {
            Ok(chunk) => data.extend_from_slice(&chunk),
            Err(frame) => read.trailers = frame.into_trailers().unwrap_or_default(),
        }
    }
    read.body = data.into();
    read
}

/// A message by its JSON, on the wire.
fn wire(message: &str, json: &Value) -> Vec<u8> {
    let message = pool().get_message_by_name(message).expect("a message");
    DynamicMessage::deserialize(message, json).expect("good JSON").encode_to_vec()
}

/// The JSON of a message without what is not set.
fn unwired(message: &str, wire: &[u8]) -> Value {
    let message = pool().get_message_by_name(message).expect("a message");
    serde_json::to_value(DynamicMessage::decode(message, wire).expect("a message")).expect("JSON")
}

/// An uncompressed envelope.
fn envelope(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

fn envelopes(mut body: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut all = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = body {
        let length = usize::try_from(u32::from_be_bytes([*a, *b, *c, *d])).expect("a length");
        let (message, rest) = rest.split_at(length.min(rest.len()));
        all.push((*flags, message.to_vec()));
        body = rest;
    }
    all
}

/// How a call in envelopes ended: its messages, and its code as a number.
#[derive(Debug, PartialEq)]
struct Called {
    messages: Vec<Vec<u8>>,
    code: i32,
}

/// Calls an rpc by one of [`PROTOCOLS`].
async fn call(
    front: &Protocols<Remote>,
    protocol: &str,
    method: &str,
    headers: &[(&str, &str)],
    messages: &[Vec<u8>],
) -> Called {
    let body = messages.iter().flat_map(|message| envelope(message)).collect::<Vec<u8>>();
    let is_text = protocol.ends_with("-text");
    let body = if is_text { STANDARD.encode(body).into_bytes() } else { body };
    let headers = [&[("content-type", protocol), ("te", "trailers")], headers].concat();
    called(protocol, &send(front, request("POST", &format!("{SERVICE}/{method}"), &headers, body)).await)
}

/// Reads the answer of [`call`].
fn called(protocol: &str, answer: &Answer) -> Called {
    assert_eq!(answer.status, 200, "{protocol}: {answer:?}");
    let body = if protocol.ends_with("-text") {
        // Each chunk is encoded for itself.
        let text = String::from_utf8(answer.body.to_vec()).expect("text");
        text.split_inclusive('=').flat_map(unpadded).collect()
    } else {
        answer.body.to_vec()
    };
    let (ends, messages): (Vec<_>, Vec<_>) =
        envelopes(&body).into_iter().partition(|(flags, _)| flags & 0x82 != 0);
    let messages = messages.into_iter().map(|(_, message)| message).collect();
    let end = ends.first().map(|(_, end)| String::from_utf8_lossy(end).into_owned());
    let code = match end {
        _ if protocol == "application/grpc" => {
            let status = [answer.trailer("grpc-status"), answer.header("grpc-status")].concat();
            status.parse().unwrap_or_else(|error| panic!("{error}: {answer:?}"))
        }
        Some(lines) if protocol != "application/connect+proto" => {
            let status = lines.lines().find_map(|line| line.strip_prefix("grpc-status: "));
            status.and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{lines}"))
        }
        Some(json) => connect_code(&serde_json::from_str(&json).expect("JSON")),
        None => panic!("{protocol}: no end of {answer:?}"),
    };
    Called { messages, code }
}

fn unpadded(part: &str) -> Vec<u8> {
    let text = part.trim_end_matches('=');
    if text.is_empty() {
        return Vec::new();
    }
    base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).expect("base64")
}

/// The number of the code in a Connect error, as far as the tests need them.
fn connect_code(end: &Value) -> i32 {
    match end["error"]["code"].as_str() {
        None => 0,
        Some("deadline_exceeded") => 4,
        Some("resource_exhausted") => 8,
        Some("failed_precondition") => 9,
        Some("unimplemented") => 12,
        Some("internal") => 13,
        Some("unavailable") => 14,
        Some(other) => panic!("an unexpected code: {other}"),
    }
}
