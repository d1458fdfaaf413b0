//! The service of `answers_test.proto`.

use std::convert::Infallible;
use std::time::Duration;

use agentrouter_gateway::Trailers;
use futures::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderName, HeaderValue};
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use tokio::sync::mpsc::Sender;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::backend::{Backend, DynamicCodec, Numbers, method, number, text};

/// What a test puts into a request to see when its stream is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Held(Sender<()>);

impl Held {
    pub(crate) fn new(sender: Sender<()>) -> Self {
        Self(sender)
    }
}

/// The service over tonic's own server.
pub(super) fn backend(pool: DescriptorPool) -> Backend {
    BoxCloneSyncService::new(service_fn(move |request: http::Request<Body>| {
        let method = method(&pool, request.uri().path()).expect("a method");
        async move {
            let mut grpc = tonic::server::Grpc::new(DynamicCodec(method.input()));
            let is_streaming = method.is_server_streaming();
            Ok::<_, Infallible>(if is_streaming {
                let service = service_fn(move |request: Request<DynamicMessage>| {
                    let answer = stream(&method, request);
                    async move { Ok(answer) }
                });
                grpc.server_streaming(service, request).await
            } else {
                let service = service_fn(move |request: Request<DynamicMessage>| {
                    let answer = answer(&method, request.into_inner());
                    async move { Ok(answer) }
                });
                grpc.unary(service, request).await
            })
        }
    }))
}

fn answer(method: &MethodDescriptor, thing: DynamicMessage) -> Response<DynamicMessage> {
    let (headers, trailers) = (metadata(&thing, "headers"), metadata(&thing, "trailers"));
    let message = match method.name() {
        "Download" => file(method, &thing),
        "DeleteThing" => DynamicMessage::new(method.output()),
        _ => thing,
    };
    let mut response = Response::new(message);
    *response.metadata_mut() = MetadataMap::from_headers(headers);
    response.extensions_mut().insert(Trailers(MetadataMap::from_headers(trailers)));
    response
}

/// The answer to a call of a stream.
fn stream(method: &MethodDescriptor, request: Request<DynamicMessage>) -> Response<Numbers> {
    let last = request.metadata().get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let held = request.extensions().get::<Held>().cloned();
    let thing = request.into_inner();
    let (to, fail, wait) = (number(&thing, "to"), number(&thing, "fail"), number(&thing, "wait"));
    let wait = Duration::from_secs(u64::try_from(wait).unwrap_or_default());
    let method = method.clone();
    let trailers = metadata(&thing, "trailers");
    let items = stream::iter(last.unwrap_or(0) + 1..=to).then(move |at| {
        let message = if method.name() == "Watch" { event(&method, at) } else { file(&method, &thing) };
        let held = held.clone();
        async move {
            tokio::time::sleep(wait).await;
            assert!(held.is_none_or(|held| !held.0.is_closed()), "somebody waits for the end");
            Ok(message)
        }
    });
    let end = stream::iter((fail != 0).then(|| Err(Status::new(Code::from(fail), "enough"))));
    let mut response: Response<Numbers> = Response::new(Box::pin(items.chain(end)));
    response.extensions_mut().insert(Trailers(MetadataMap::from_headers(trailers)));
    response
}

fn event(method: &MethodDescriptor, at: i32) -> DynamicMessage {
    let mut event = DynamicMessage::new(method.output());
    event.set_field_by_name("id", Value::U64(u64::try_from(at).expect("a positive number")));
    if at == 1 {
        event.set_field_by_name("retry_ms", Value::I32(2500));
    }
    event.set_field_by_name("text", Value::String(format!("number {at}")));
    event
}

fn file(method: &MethodDescriptor, thing: &DynamicMessage) -> DynamicMessage {
    let mut file = DynamicMessage::new(method.output());
    file.set_field_by_name("content_type", Value::String(text(thing, "id").replace('-', "/")));
    file.set_field_by_name("data", Value::Bytes(text(thing, "text").into_bytes().into()));
    file
}

fn metadata(thing: &DynamicMessage, field: &str) -> HeaderMap {
    let list = thing.get_field_by_name(field).expect("a field");
    let pairs = list.as_list().expect("a list").iter().filter_map(Value::as_str);
    let pairs = pairs.filter_map(|pair| pair.split_once(':'));
    let header = |(name, value): (&str, &str)| {
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?))
    };
    pairs.filter_map(header).collect()
}
