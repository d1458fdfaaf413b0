//! A gRPC service that never fails by itself, so that every failure is the gateway's.

use std::convert::Infallible;

use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::pb;
use tower::service_fn;
use tower::util::BoxCloneSyncService;

use crate::world::LIMIT;

pub(crate) type Backend = BoxCloneSyncService<Request<Body>, Response<Body>, Infallible>;

/// Answers with what was asked where the types allow it. Bytes that are no such message are INVALID_ARGUMENT, `Fail`
/// fails in the words of its request, and `Count` counts to five at most.
pub(crate) fn backend(pool: &DescriptorPool) -> Backend {
    let pool = pool.clone();
    BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let pool = pool.clone();
        async move {
            let answer = serve(&pool, request).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        }
    }))
}

async fn serve(pool: &DescriptorPool, request: Request<Body>) -> Result<Response<Body>, Status> {
    let (parts, body) = request.into_parts();
    assert_eq!(parts.method, http::Method::POST);
    assert_eq!(parts.headers["content-type"], "application/grpc");
    // Services may be behind the gateway that its pool does not have, so they are who says what there is.
    let method = method(pool, parts.uri.path()).filter(|method| method.name() != "NotThere");
    let method = method.ok_or_else(|| Status::unimplemented("no such method"))?;
    let asked = messages(&method, body.collect().await?.to_bytes())?;
    if !method.is_client_streaming() {
        assert_eq!(asked.len(), 1, "one message belongs here");
    }
    let answers = answers(&method, &asked)?;
    let mut echoed: HeaderMap = parts.headers.into_iter().filter_map(echo).collect();
    let mut response = Response::new(Body::empty());
    response.headers_mut().extend(echoed.clone());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    echoed.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = answers.into_iter().map(Frame::data).chain([Frame::trailers(echoed)]);
    Ok(response.map(|_| Body::new(StreamBody::new(futures::stream::iter(frames.map(Ok::<_, Status>))))))
}

/// A header of a request that is sent back.
fn echo((name, value): (Option<HeaderName>, HeaderValue)) -> Option<(HeaderName, HeaderValue)> {
    name.filter(|name| name.as_str().starts_with("x-")).map(|name| (name, value))
}

fn method(pool: &DescriptorPool, path: &str) -> Option<MethodDescriptor> {
    let (service, name) = path.strip_prefix('/')?.split_once('/')?;
    // Not by `get_service_by_name`, to which `.name` is the same.
    pool.services().find(|known| known.full_name() == service)?.methods().find(|method| method.name() == name)
}

/// The messages of a request, which the gateway has put into good frames.
fn messages(method: &MethodDescriptor, mut body: Bytes) -> Result<Vec<DynamicMessage>, Status> {
    let mut messages = Vec::new();
    while !body.is_empty() {
        assert!(body.len() >= 5, "half a frame");
        assert_eq!(body.get_u8(), 0, "no frame is compressed here");
        let length = usize::try_from(body.get_u32()).expect("a length");
        assert!(length <= body.len(), "a frame without its end");
        // Names and masks are longer on the wire than in the text that they come from, but not by much.
        assert!(length <= 4 * LIMIT, "{length} bytes");
        let message = DynamicMessage::decode(method.input(), body.split_to(length));
        messages.push(message.map_err(|error| Status::invalid_argument(error.to_string()))?);
    }
    Ok(messages)
}

/// The frames of the answer.
fn answers(method: &MethodDescriptor, asked: &[DynamicMessage]) -> Result<Vec<Bytes>, Status> {
    let number = |name: &str| {
        let value = asked.first().and_then(|message| message.get_field_by_name(name)?.as_i32());
        value.unwrap_or_default()
    };
    let empty = || DynamicMessage::new(method.output());
    let messages = match method.name() {
        "Fail" => return Err(failure(asked)),
        "Count" => {
            let counted = (1..=number("to").min(5)).map(|number| {
                let mut message = empty();
                message.set_field_by_name("number", Value::I32(number));
                message
            });
            counted.collect()
        }
        _ if method.output() == method.input() => vec![asked.last().cloned().unwrap_or_else(empty)],
        _ => vec![empty()],
    };
    Ok(messages.iter().map(frame).collect())
}

/// What a request to fail says, as a failure that is nobody's fault. The request has the fields of `google.rpc.Status`.
fn failure(asked: &[DynamicMessage]) -> Status {
    let asked = asked.first().map(DynamicMessage::encode_to_vec).unwrap_or_default();
    let mut status = pb::Status::decode(&asked[..]).unwrap_or_default();
    status.code = Code::Aborted.into();
    Status::with_details(Code::Aborted, status.message.clone(), status.encode_to_vec().into())
}

fn frame(message: &DynamicMessage) -> Bytes {
    let message = message.encode_to_vec();
    let length = u32::try_from(message.len()).expect("a short message").to_be_bytes();
    [&[0], &length[..], &message].concat().into()
}
