//! gRPC, gRPC-Web, Connect and REST on one service, one request at a time. Test names and comments cite the rows of
//! the gateway checklist they decide ("A9 #96"). What the Connect project's conformance suite asks is not repeated.

#![expect(clippy::expect_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../rest/backend.rs"]
mod backend;

mod calls;
mod classify;
mod deadlines;
mod transport;

use std::convert::Infallible;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use agentrouter_gateway::{ProtocolOptions, Protocols, Trailers, Transcoder};
use backend::{Backend, backend};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::Value;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tower::ServiceExt as _;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

const SERVICE: &str = "/gateway.test.v1.Echo";

fn pool() -> DescriptorPool {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    POOL.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let includes = [root.join("tests/proto"), root.join("../../proto")];
        let mut compiler = protox::Compiler::new(includes).expect("the include folders");
        compiler.include_imports(true);
        compiler
            .open_files(["gateway_test.proto", "requests_test.proto", "google/rpc/error_details.proto"])
            .expect("protos that compile");
        compiler.descriptor_pool()
    })
    .clone()
}

/// Tells when what holds it is dropped.
#[derive(Debug, Clone, Default)]
struct Dropped(Arc<AtomicBool>);

struct Guard(Dropped);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::SeqCst);
    }
}

impl Dropped {
    fn guard(&self) -> Guard {
        Guard(self.clone())
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// The backend of the REST tests, which does what the header `x-test` says beside that.
fn testing(dropped: Dropped) -> Backend {
    let backend = backend(pool());
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let (backend, guard) = (backend.clone(), dropped.guard());
        async move {
            let test = request.headers().get("x-test").cloned();
            let test = test.as_ref().map_or("", |test| test.to_str().expect("ASCII"));
            if test == "hang" {
                std::future::pending::<()>().await;
            }
            let mut response = backend.oneshot(request).await?;
            if test == "trailers" {
                let mut trailers = HeaderMap::new();
                trailers.append("x-late", "1".parse().expect("a value"));
                trailers.append("x-late", "2".parse().expect("a value"));
                trailers.append("grpc-status", "13".parse().expect("a value"));
                response.extensions_mut().insert(Trailers(MetadataMap::from_headers(trailers)));
            }
            if test == "stall" {
                response = response.map(|body| Body::new(Stalled { body, _guard: guard }));
            }
            Ok::<_, Infallible>(response)
        }
    }))
}

/// A body whose trailers never come.
struct Stalled {
    body: Body,
    _guard: Guard,
}

impl http_body::Body for Stalled {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) if frame.is_data() => Poll::Ready(Some(Ok(frame))),
            _ => Poll::Pending,
        }
    }
}

fn protocols() -> Protocols<Backend> {
    protocols_with(ProtocolOptions::default(), Dropped::default())
}

fn protocols_with(options: ProtocolOptions, dropped: Dropped) -> Protocols<Backend> {
    let rest = Transcoder::new(&pool(), testing(dropped)).expect("rules that can be served");
    Protocols::new(&pool(), rest, options)
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
    let method: Method = method.parse().expect("a method");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body.into())).expect("a request")
}

async fn send(protocols: Protocols<Backend>, request: Request<Full<Bytes>>) -> Answer {
    answer(protocols.oneshot(request).await.expect("infallible")).await
}

async fn answer(response: Response<Body>) -> Answer {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body");
    let trailers = body.trailers().cloned().unwrap_or_default();
    Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
}

/// Posts to a method of the service.
async fn post(method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    send(protocols(), request("POST", &format!("{SERVICE}/{method}"), headers, body)).await
}

/// A message by its JSON, on the wire.
fn wire(message: &str, json: &str) -> Vec<u8> {
    let message = pool().get_message_by_name(&format!("gateway.test.v1.{message}")).expect("a message");
    let mut json = serde_json::Deserializer::from_str(json);
    DynamicMessage::deserialize(message, &mut json).expect("good JSON").encode_to_vec()
}

/// An uncompressed envelope.
fn envelope(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], message].concat()
}

/// The envelopes of an answer: their flags and messages.
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
