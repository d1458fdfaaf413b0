//! gRPC, gRPC-Web and Connect in front of a gRPC backend in process.
//!
//! [`Protocols`] takes every request of a listener. What calls an rpc becomes one
//! gRPC request to the backend, uncompressed and in protobuf, whatever the client
//! speaks: so one stack of layers there serves all protocols alike. Everything
//! else goes to the REST [`Transcoder`].
//!
//! | stage | module | in, out |
//! |---|---|---|
//! | tell protocols apart | `classify`, `methods` | request, protocol and rpc |
//! | refuse what is no call | `refused`, `drain` | request, error in its protocol |
//! | read | `inbound`, `envelope`, `text`, `compression`, `codec` | body, gRPC frames |
//! | call | `call`, `deadline`, `timed` | frames and metadata, gRPC answer |
//! | answer | `answer`, `trailers`, `connect::error` | gRPC answer, body and ending |
//!
//! Calls in envelopes pass through `framed`, Connect's unary ones through
//! `connect::unary`. What is protobuf and not compressed is passed on as it came:
//! the envelopes of all protocols are the same.

mod answer;
mod call;
mod classify;
mod codec;
mod compression;
mod connect;
mod deadline;
mod drain;
mod envelope;
mod framed;
mod inbound;
mod methods;
mod refused;
mod text;
mod timed;
mod trailers;

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method as HttpMethod, Request, Response};
use prost_reflect::DescriptorPool;
use tonic::body::Body;
use tower::Service;

use crate::headers::HeaderPolicy;
use crate::json::Tables;
use crate::transcoder::{Transcoder, without_body};
use classify::{ContentType, Wire};
use codec::JsonCodec;
use connect::Unary;
use framed::Framed;
use methods::{Method, Methods};

pub use call::{GetQuery, Protocol};
pub(crate) use compression::{Compressor, Encoding, SPOKEN};
pub use timed::{DeadlineLayer, Timed};
pub use trailers::Trailers;
pub(crate) use trailers::take as take_trailers;

/// Settings of [`Protocols`].
#[derive(Debug, Clone)]
pub struct ProtocolOptions {
    /// The largest message that a client may send, in bytes, compressed or not.
    /// A larger one is refused with RESOURCE_EXHAUSTED.
    pub max_message_bytes: usize,
    /// The shortest message that is compressed for a client that asks for it.
    pub compress_from: usize,
}

impl Default for ProtocolOptions {
    /// 4 MiB, and compression from 1 KiB.
    fn default() -> Self {
        Self { max_message_bytes: 4 << 20, compress_from: 1 << 10 }
    }
}

/// All protocols on one listener; see the [crate documentation](crate).
///
/// The backend is that of the [`Transcoder`], which serves what is no rpc.
/// Deadlines cover a call from its first byte to its last message, and what is
/// late is dropped. Messages are compressed with gzip, brotli or zstd, both ways.
#[derive(Clone)]
pub struct Protocols<B> {
    shared: Arc<Shared>,
    rest: Transcoder<B>,
}

#[derive(Debug)]
struct Shared {
    methods: Methods,
    codec: JsonCodec,
    headers: HeaderPolicy,
    options: ProtocolOptions,
}

impl<B> fmt::Debug for Protocols<B> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Protocols").field("rest", &self.rest).finish_non_exhaustive()
    }
}

impl<B> Protocols<B> {
    /// Serves every rpc of the pool, and the routes of the transcoder.
    pub fn new(pool: &DescriptorPool, rest: Transcoder<B>, options: ProtocolOptions) -> Self {
        let tables = Tables::new(pool);
        let shared = Shared {
            methods: Methods::new(pool, &tables),
            codec: JsonCodec { tables: Arc::new(tables), errors: rest.errors().clone() },
            headers: rest.options().headers.clone(),
            options,
        };
        Self { shared: Arc::new(shared), rest }
    }
}

impl<B, ReqBody> Service<Request<ReqBody>> for Protocols<B>
where
    B: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    B::Future: Send,
    ReqBody: http_body::Body<Data = Bytes> + Send + 'static,
    ReqBody::Error: Into<Box<dyn Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The clone that serves a call waits for its own readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let is_head = request.method() == HttpMethod::HEAD;
        let finish = move |answer| Ok(if is_head { without_body(answer) } else { answer });
        if let Some(method) = self.shared.methods.get(request.uri().path()) {
            let (shared, method) = (Arc::clone(&self.shared), Arc::clone(method));
            let backend = self.rest.backend().clone();
            return Box::pin(async move {
                finish(shared.respond(backend, &method, request.map(Body::new)).await)
            });
        }
        match ContentType::of(request.headers()).wire {
            // A body of JSON is Connect's only where the client says so.
            Some(wire)
                if wire != Wire::ConnectUnary
                    || connect::is_named(request.headers())
                    || classify::is_proto(request.headers()) =>
            {
                let (shared, backend) = (Arc::clone(&self.shared), self.rest.backend().clone());
                Box::pin(async move {
                    let (parts, body) = request.map(Body::new).into_parts();
                    finish(refused::unknown_method(&shared, backend, wire, parts, body).await)
                })
            }
            _ => {
                request.extensions_mut().insert(Protocol::Rest);
                self.rest.call(request)
            }
        }
    }
}

impl Shared {
    async fn respond<B>(&self, backend: B, method: &Method, request: Request<Body>) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        match *request.method() {
            HttpMethod::POST => self.post(backend, method, request).await,
            HttpMethod::GET | HttpMethod::HEAD if method.is_gettable => {
                Unary { shared: self, method }.get(backend, request).await
            }
            HttpMethod::OPTIONS => refused::options(method),
            _ => {
                let (parts, body) = request.into_parts();
                drain::drain(&parts, body).await;
                refused::wrong_verb(self, method, &parts.headers)
            }
        }
    }

    async fn post<B>(&self, backend: B, method: &Method, request: Request<Body>) -> Response<Body>
    where
        B: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    {
        let content_type = ContentType::of(request.headers());
        match (content_type.wire, content_type.codec) {
            (Some(Wire::ConnectUnary), Some(codec)) if method.is_unary() => {
                Unary { shared: self, method }.post(backend, codec, request).await
            }
            (Some(wire), Some(codec))
                if !wire.is_connect() || (wire == Wire::ConnectStream && !method.is_unary()) =>
            {
                Framed { shared: self, method, wire, codec }.serve(backend, request).await
            }
            _ => {
                let (parts, body) = request.into_parts();
                drain::drain(&parts, body).await;
                refused::wrong_type(self, method, &parts.headers)
            }
        }
    }
}
