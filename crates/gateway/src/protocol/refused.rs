//! Answers to requests that are no call of any rpc, in the protocol of the caller.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use super::call::call;
use super::classify::{Codec, ContentType, Wire};
use super::drain::drain;
use super::methods::Method;
use super::{Shared, connect, framed, trailers};
use crate::options::ACCEPT_POST;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const UNARY_TYPES: HeaderValue = HeaderValue::from_static(
    "application/proto, application/json, application/grpc, application/grpc+proto, application/grpc+json, \
     application/grpc-web, application/grpc-web+proto, application/grpc-web+json, application/grpc-web-text, \
     application/grpc-web-text+proto, application/grpc-web-text+json",
);
const STREAM_TYPES: HeaderValue = HeaderValue::from_static(
    "application/connect+proto, application/connect+json, application/grpc, application/grpc+proto, \
     application/grpc+json, application/grpc-web, application/grpc-web+proto, application/grpc-web+json, \
     application/grpc-web-text, application/grpc-web-text+proto, application/grpc-web-text+json",
);

/// There is no such rpc. The backend says so itself, for its layers to see the call.
pub(super) async fn unknown_method<B>(
    shared: &Shared,
    backend: B,
    wire: Wire,
    parts: Parts,
    body: Body,
) -> Response<Body>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    drain(&parts, body).await;
    let answer_type = wire.answer_type(Codec::Proto, &parts.headers);
    let path: PathAndQuery = parts.uri.path().parse().unwrap_or(PathAndQuery::from_static("/"));
    let response = call(backend, path, wire, &shared.headers, parts, Body::empty()).await;
    let mut headers = response.into_parts().0.headers;
    headers.remove(header::CONTENT_TYPE);
    let status = match trailers::told(headers) {
        Some(Err(status)) => status,
        // Whatever the backend serves there, nobody has described it.
        None | Some(Ok(_)) => Status::unimplemented("there is no such method"),
    };
    if !wire.is_connect() {
        return framed::refusal(shared, wire, answer_type, &status);
    }
    let mut response = connect::response(&shared.codec, &status);
    if status.code() == Code::Unimplemented {
        *response.status_mut() = StatusCode::NOT_FOUND;
    }
    response
}

/// The rpc cannot be called by this HTTP method.
pub(super) fn wrong_verb(shared: &Shared, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let status = Status::unimplemented("this rpc cannot be called by this HTTP method");
    let mut response = by_http(shared, StatusCode::METHOD_NOT_ALLOWED, headers, &status);
    response.headers_mut().insert(header::ALLOW, allow(method));
    response
}

/// The answer to OPTIONS.
pub(super) fn options(method: &Method) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::ALLOW, allow(method));
    response
}

/// Messages of this type cannot be read, or not by this rpc.
pub(super) fn wrong_type(shared: &Shared, method: &Method, headers: &HeaderMap) -> Response<Body> {
    let status = Status::unimplemented("this rpc does not read this content type");
    let mut response = by_http(shared, StatusCode::UNSUPPORTED_MEDIA_TYPE, headers, &status);
    let types = if method.is_unary() { UNARY_TYPES } else { STREAM_TYPES };
    response.headers_mut().insert(ACCEPT_POST, types);
    response
}

/// The `encoding` of a GET is none.
pub(super) fn unknown_query_codec(shared: &Shared) -> Response<Body> {
    let status = Status::unknown("the query parameter `encoding` must be `proto` or `json`");
    let mut response = connect::response(&shared.codec, &status);
    *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    response
}

fn allow(method: &Method) -> HeaderValue {
    HeaderValue::from_static(if method.is_gettable { "GET, HEAD, OPTIONS, POST" } else { "OPTIONS, POST" })
}

/// An error that has an HTTP status of its own.
fn by_http(shared: &Shared, http: StatusCode, headers: &HeaderMap, status: &Status) -> Response<Body> {
    let mut response = match ContentType::of(headers).wire {
        Some(wire) if !wire.is_connect() => {
            framed::refusal(shared, wire, wire.answer_type(Codec::Proto, headers), status)
        }
        // Nothing that calls rpcs.
        None if http == StatusCode::UNSUPPORTED_MEDIA_TYPE && !connect::is_named(headers) => {
            let text = Full::new(Bytes::copy_from_slice(status.message().as_bytes()));
            let mut response = Response::new(Body::new(text));
            response.headers_mut().insert(header::CONTENT_TYPE, TEXT);
            response
        }
        // What a Connect client makes of such an HTTP status by itself.
        _ => connect::response(&shared.codec, &Status::unknown(status.message())),
    };
    *response.status_mut() = http;
    response
}
