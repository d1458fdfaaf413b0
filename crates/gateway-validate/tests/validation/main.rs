//! The rules of protovalidate before one service, in every protocol. Test names and comments cite the rows of the
//! gateway checklist they decide ("A12 #118").

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

mod openapi;
mod protocols;
mod rules;
mod streams;

use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use agentrouter_gateway_validate::Validation;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, BodyStream, Full, StreamBody};
use prost::Message as _;
use prost_protovalidate::types::DESCRIPTOR_POOL;
use prost_reflect::{DescriptorPool, DynamicMessage};
use protox::file::{
    ChainFileResolver, DescriptorSetFileResolver, FileResolver, GoogleFileResolver, IncludeFileResolver,
};
use tonic::body::Body;
use tonic_types::pb;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, ServiceExt as _, service_fn};

type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Finds the file of the rules in the crate that evaluates them.
fn published() -> ChainFileResolver {
    let mut resolver = ChainFileResolver::new();
    let rules = DescriptorSetFileResolver::decode(&*DESCRIPTOR_POOL.encode_to_vec());
    resolver.add(rules.expect("the rules of the evaluator"));
    resolver.add(GoogleFileResolver::new());
    resolver
}

fn compile(resolver: ChainFileResolver, files: &[&str]) -> DescriptorPool {
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(files).expect("protos that compile");
    compiler.descriptor_pool()
}

fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut resolver = published();
        for folder in ["tests/proto", "../../proto"] {
            resolver.add(IncludeFileResolver::new(root.join(folder)));
        }
        compile(resolver, &["validated.proto"])
    })
    .clone()
}

/// A file that stands nowhere.
struct Source(&'static str, String);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        if name == self.0 {
            protox::file::File::from_source(name, &self.1)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// Sends back the frames that come, and counts the calls. It thinks nothing of errors in what comes.
fn echo(calls: Arc<AtomicUsize>) -> Backend {
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        calls.fetch_add(1, Ordering::SeqCst);
        async {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("0"));
            let frames = BodyStream::new(request.into_body()).filter_map(|frame| async { frame.ok() });
            let frames = frames.chain(stream::iter([Frame::trailers(trailers)]));
            let body = StreamBody::new(frames.map(Ok::<_, Infallible>));
            let mut response = Response::new(Body::new(body));
            response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
            Ok(response)
        }
    }))
}

/// A gateway before the echo, and the number of calls that came through.
struct Gateway {
    protocols: Protocols<Backend>,
    calls: Arc<AtomicUsize>,
}

impl Gateway {
    fn new() -> Self {
        let calls = Arc::new(AtomicUsize::new(0));
        let backend = echo(Arc::clone(&calls));
        Self { protocols: before(backend), calls }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let response = self.protocols.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body");
        let trailers = body.trailers().cloned().unwrap_or_default();
        Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
    }

    async fn post(&self, path: &str, content_type: &str, body: impl Into<Bytes>) -> Answer {
        self.send(post(path, content_type, body)).await
    }
}

fn before(backend: Backend) -> Protocols<Backend> {
    let validated = Validation::new(&pool()).expect("rules that work").layer(backend);
    let rest = Transcoder::new(&pool(), BoxCloneSyncService::new(validated)).expect("routes");
    Protocols::new(&pool(), rest, ProtocolOptions::default())
}

fn post(path: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("content-type", content_type);
    request.body(Full::new(body.into())).expect("a request")
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
    fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A message by its JSON, on the wire.
fn wire(message: &str, json: &str) -> Vec<u8> {
    let message = pool().get_message_by_name(&format!("validated.v1.{message}")).expect("a message");
    let mut json = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(message, &mut json).expect("good JSON").encode_to_vec()
}

fn envelope(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The flags and contents of envelopes.
fn envelopes(mut bytes: &[u8]) -> Vec<(u8, Vec<u8>)> {
    let mut found = Vec::new();
    while let Some((&[flags, a, b, c, d], rest)) = bytes.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).expect("a length");
        let (message, rest) = rest.split_at(length);
        found.push((flags, message.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    found
}

/// The status of gRPC, from base64 as its header has it.
fn told(details: &str) -> pb::Status {
    let details = STANDARD_NO_PAD.decode(details.trim_end_matches('=')).expect("base64");
    pb::Status::decode(&*details).expect("a status")
}

/// `field: reason: description` of every violation.
fn violations(details: impl Iterator<Item = Vec<u8>>) -> Vec<String> {
    let mut found = Vec::new();
    for detail in details {
        let detail = pb::BadRequest::decode(&*detail).expect("a BadRequest");
        let shown =
            |v: pb::bad_request::FieldViolation| format!("{}: {}: {}", v.field, v.reason, v.description);
        found.extend(detail.field_violations.into_iter().map(shown));
    }
    found
}

/// Those of a status.
fn of_status(status: pb::Status) -> Vec<String> {
    let is_bad = |detail: &prost_types::Any| detail.type_url.ends_with("google.rpc.BadRequest");
    violations(status.details.into_iter().filter(is_bad).map(|detail| detail.value))
}
