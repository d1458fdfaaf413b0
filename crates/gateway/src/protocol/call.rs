//! The call into the backend: one gRPC request in process, uncompressed, in protobuf.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method as HttpMethod, Request, Response, Uri, Version};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use super::classify::Wire;
use crate::grpc::{CONTENT_TYPE, TRAILERS};
use crate::headers::{GRPC_TIMEOUT, HeaderPolicy};

/// What a client speaks; among the extensions of every request to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// gRPC.
    Grpc,
    /// gRPC-Web, binary or text.
    GrpcWeb,
    /// Connect.
    Connect,
    /// HTTP with JSON, by the `google.api.http` annotations.
    Rest,
}

/// The query of a Connect call by GET, as it came; among the extensions of its request to the backend.
#[derive(Debug, Clone)]
pub struct GetQuery(pub Arc<str>);

impl From<Wire> for Protocol {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Grpc => Self::Grpc,
            Wire::GrpcWeb | Wire::GrpcWebText => Self::GrpcWeb,
            Wire::ConnectUnary | Wire::ConnectStream => Self::Connect,
        }
    }
}

/// Turns request headers into metadata in place. Deadlines are gRPC's by now.
fn to_metadata(headers: &mut HeaderMap, wire: Wire, policy: &HeaderPolicy) {
    const GRPC_ONLY: [HeaderName; 3] = [
        HeaderName::from_static("grpc-encoding"),
        HeaderName::from_static("grpc-accept-encoding"),
        header::CONTENT_LENGTH,
    ];
    if wire == Wire::Grpc {
        for name in GRPC_ONLY {
            headers.remove(name);
        }
    } else {
        let timeout = headers.remove(GRPC_TIMEOUT);
        policy.to_metadata(headers);
        if let Some(timeout) = timeout {
            headers.insert(GRPC_TIMEOUT, timeout);
        }
    }
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert(header::TE, TRAILERS);
}

/// Calls the rpc of this path.
pub(super) async fn call<B>(
    backend: B,
    path: PathAndQuery,
    wire: Wire,
    policy: &HeaderPolicy,
    mut parts: Parts,
    body: Body,
) -> Response<Body>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    to_metadata(&mut parts.headers, wire, policy);
    parts.method = HttpMethod::POST;
    parts.uri = Uri::from(path);
    parts.version = Version::HTTP_2;
    parts.extensions.insert(Protocol::from(wire));
    match backend.oneshot(Request::from_parts(parts, body)).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

/// A prefix and the message after it, neither of them copied.
pub(super) struct Prefixed(pub(super) [Bytes; 2]);

impl http_body::Body for Prefixed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Infallible>>> {
        let next = self.0.iter_mut().find(|chunk| !chunk.is_empty()).map(std::mem::take);
        std::task::Poll::Ready(next.map(|chunk| Ok(http_body::Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.iter().all(Bytes::is_empty)
    }
}
