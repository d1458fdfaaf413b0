//! A gRPC server in another process as the backend: any language, known by its descriptors alone.
//!
//! The messages go over HTTP/2 as they are, in gRPC's frames; no message is decoded on the way. What the server says is
//! not trusted to be gRPC: it may be a proxy's page of HTML, or end in the middle of a message.

mod answer;
mod reflection;

use std::convert::Infallible;
use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use http::{Request, Response};
use tonic::body::Body;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, TimeoutExpired};
use tower::{Layer as _, Service, ServiceExt as _};

use crate::headers;
use crate::protocol::{DeadlineLayer, Timed};

pub use reflection::{ReflectError, reflect};

type Answering = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// How long a connection may take to be made, before its calls are UNAVAILABLE.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection is silent before it is asked whether it is still there. TCP asks: many servers end connections
/// that ask by HTTP/2 more often than every five minutes.
const KEEP_ALIVE: Duration = Duration::from_mins(1);
/// The longest block of headers or trailers that is read, in bytes: the details of an error are among them.
const HEADERS_MAX: u32 = 256 << 10;

/// A gRPC server in another process, as the backend of a [`Transcoder`](crate::Transcoder) or of
/// [`Protocols`](crate::Protocols).
///
/// One connection carries all calls. It is made with the first call and made anew when it is lost. While the server is
/// away, calls are UNAVAILABLE.
///
/// Metadata passes both ways, but what belongs to a connection. Deadlines are passed on and kept: a call that is late
/// is ended here, whatever the server does. A client that goes away ends its call at the server.
///
/// An answer that is no gRPC gets its code from its HTTP status, as
/// [gRPC clients](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md) have it.
#[derive(Debug, Clone)]
pub struct Remote(Timed<Upstream>);

impl Remote {
    /// The server at an address such as `http://localhost:50051`, `https://library.example` or `unix:/run/library`.
    /// `https` trusts the certificate authorities of the system.
    ///
    /// Nothing is connected yet. Must be called within a Tokio runtime.
    ///
    /// The error says what is wrong with the address.
    pub fn connect(address: &str) -> Result<Self, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(address.to_owned())?;
        let endpoint = Endpoint::new(endpoint)?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Some(KEEP_ALIVE))
            .http2_max_header_list_size(HEADERS_MAX);
        Ok(Self::new(&endpoint))
    }

    /// The server at an endpoint with settings of one's own: TLS, keep-alive, windows, limits.
    ///
    /// Nothing is connected yet. Must be called within a Tokio runtime.
    pub fn new(endpoint: &Endpoint) -> Self {
        endpoint.connect_lazy().into()
    }
}

impl From<Channel> for Remote {
    /// A channel that somebody else made, such as one that balances between servers.
    fn from(channel: Channel) -> Self {
        Self(DeadlineLayer.layer(Upstream(channel)))
    }
}

impl Service<Request<Body>> for Remote {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<Answering, Answering>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        self.0.call(request)
    }
}

/// The channel, with every way that it fails told as gRPC.
#[derive(Debug, Clone)]
struct Upstream(Channel);

impl Service<Request<Body>> for Upstream {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // The clone that makes a call waits for its own readiness.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        headers::drop_connection(request.headers_mut());
        // What a client calls this server need not be the name of the one behind it.
        request.headers_mut().remove(http::header::HOST);
        let channel = self.0.clone();
        Box::pin(async move {
            Ok(match channel.oneshot(request).await {
                Ok(response) => answer::checked(response),
                Err(error) => failed(&error).into_http(),
            })
        })
    }
}

/// What a call is told that got no answer. Addresses and causes are for the log.
fn failed(error: &tonic::transport::Error) -> Status {
    let mut sources = std::iter::successors(error.source(), |&error| error.source());
    if sources.any(<dyn Error>::is::<TimeoutExpired>) {
        return Status::deadline_exceeded("the deadline of the call has passed");
    }
    tracing::warn!(error = error as &dyn Error, "the upstream cannot be called");
    Status::unavailable("the service cannot be reached")
}
