//! Unary rpcs called without framing: from the bytes of one message to the method, and back.
//!
//! The calls of this crate are gRPC requests, so that the layers around a backend serve every protocol alike. What
//! comes through them to a [`Direct`] with its only message in hand skips the reading and writing of a stream.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::{Extensions, Request, Response};
use prost::Message;
use rustc_hash::FxHashMap;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tower::Service;

use crate::grpc::STATUS;

/// The only message of a request or of an answer, among its extensions.
#[derive(Debug, Clone)]
pub(crate) struct Whole(pub(crate) Bytes);

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
type Handler = dyn Fn(HeaderMap, Extensions, Bytes) -> Answering + Send + Sync;

/// The unary rpcs that can be called directly.
#[derive(Default)]
pub struct DirectRpcs(FxHashMap<&'static str, Box<Handler>>);

impl DirectRpcs {
    /// Adds the rpc of this path, `/package.Service/Method`.
    pub fn add<Q, A, F, R>(&mut self, path: &'static str, call: F)
    where
        Q: Message + Default + 'static,
        A: Message + 'static,
        F: Fn(tonic::Request<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<tonic::Response<A>, Status>> + Send + 'static,
    {
        let handler = move |headers: HeaderMap, extensions, message: Bytes| {
            // The future of the call is made at once: nothing of the handler is borrowed while it runs.
            let called = Q::decode(message).map(|message| {
                let metadata = MetadataMap::from_headers(headers);
                call(tonic::Request::from_parts(metadata, extensions, message))
            });
            let answering: Answering = Box::pin(async move {
                Ok(match called {
                    Ok(answer) => answered(answer.await),
                    Err(error) => Status::new(Code::InvalidArgument, error.to_string()).into_http(),
                })
            });
            answering
        };
        self.0.insert(path, Box::new(handler));
    }

    /// Whether an rpc of this path was added.
    pub fn has(&self, path: &str) -> bool {
        self.0.contains_key(path)
    }
}

impl fmt::Debug for DirectRpcs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("DirectRpcs").field(&self.0.len()).finish()
    }
}

/// A backend that calls some rpcs directly where it can, and hands everything else on.
#[derive(Debug, Clone)]
pub struct Direct<S> {
    rpcs: Arc<DirectRpcs>,
    inner: S,
}

impl<S> Direct<S> {
    /// In front of a service that serves the same rpcs over gRPC.
    pub fn new(rpcs: DirectRpcs, inner: S) -> Self {
        Self { rpcs: Arc::new(rpcs), inner }
    }
}

impl<S> Service<Request<Body>> for Direct<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let handler = self.rpcs.0.get(request.uri().path());
        if let (Some(handler), Some(Whole(message))) = (handler, request.extensions().get()) {
            let message = message.clone();
            let (parts, _) = request.into_parts();
            let mut extensions = parts.extensions;
            extensions.remove::<Whole>();
            return handler(parts.headers, extensions, message);
        }
        Box::pin(self.inner.call(request))
    }
}

fn answered<A: Message>(answer: Result<tonic::Response<A>, Status>) -> Response<Body> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(status) => return status.into_http(),
    };
    let (metadata, message, extensions) = answer.into_parts();
    let mut response = Response::new(Body::empty());
    *response.headers_mut() = metadata.into_headers();
    response.headers_mut().insert(STATUS, HeaderValue::from_static("0"));
    *response.extensions_mut() = extensions;
    response.extensions_mut().insert(Whole(message.encode_to_vec().into()));
    response
}
