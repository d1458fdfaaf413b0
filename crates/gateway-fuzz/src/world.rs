//! The gateway under test, and one request to it.

use std::cell::RefCell;
use std::convert::Infallible;
use std::sync::LazyLock;

use agentrouter_gateway::{Options, ProtocolOptions, Protocols, RequestOptions, Transcoder};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use prost_reflect::DescriptorPool;
use tokio::runtime::{Builder, Runtime};
use tonic::body::Body;
use tower::{Service, ServiceExt as _};

use crate::backend::{Backend, backend};

/// The largest body and message, in bytes: small, so that inputs reach it.
pub(crate) const LIMIT: usize = 1 << 14;

/// The service of the gateway's own tests.
pub(crate) static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let bytes = &include_bytes!(concat!(env!("OUT_DIR"), "/service.bin"))[..];
    DescriptorPool::decode(bytes).expect("a descriptor set")
});

/// Everything on one listener.
pub(crate) static GATEWAY: LazyLock<Protocols<Backend>> = LazyLock::new(|| {
    let requests = RequestOptions { forms: true, multipart: true, ..RequestOptions::default() };
    let options =
        Options { max_body_bytes: LIMIT, max_query_parameters: 100, requests, ..Options::default() };
    let rest = Transcoder::with_options(&POOL, backend(&POOL), options).expect("rules that can be served");
    let options = ProtocolOptions { max_message_bytes: LIMIT, compress_from: 64 };
    Protocols::new(&POOL, rest, options)
});

/// An answer, read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) trailers: HeaderMap,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request whose body arrives in these chunks.
pub(crate) fn send<S>(service: S, request: Request<()>, chunks: impl IntoIterator<Item = Bytes>) -> Answer
where
    S: Service<Request<Body>, Response = http::Response<Body>, Error = Infallible>,
{
    thread_local! {
        static RUNTIME: RefCell<Runtime> =
            RefCell::new(Builder::new_current_thread().enable_time().build().expect("a runtime"));
    }
    let chunks: Vec<_> = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(chunk))).collect();
    let request = request.map(|()| Body::new(StreamBody::new(futures::stream::iter(chunks))));
    RUNTIME.with_borrow_mut(|runtime| {
        runtime.block_on(async {
            let (parts, body) = service.oneshot(request).await.expect("infallible").into_parts();
            let body = body.collect().await.expect("a body that ends in its protocol's way");
            let trailers = body.trailers().cloned().unwrap_or_default();
            Answer { status: parts.status, headers: parts.headers, body: body.to_bytes(), trailers }
        })
    })
}
