//! HTTP on an opened connection, to its end.

use std::convert::Infallible;
use std::error::Error;
use std::future::pending;
use std::pin::pin;

use ::http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::util::Oneshot;
use tower::{Service, ServiceExt as _};

use crate::connection::Connection;
use crate::limits::Limits;
use crate::opening::{Opened, Version};

/// Serves requests until the peer, its age or `drain` ends the connection.
pub(crate) async fn serve<IO, S, B>(
    version: Version,
    io: Opened<IO>,
    served: Served<S>,
    limits: &Limits,
    drain: &CancellationToken,
) -> Result<(), hyper::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let io = TokioIo::new(io);
    match version {
        Version::Http1 => {
            let mut builder = http1::Builder::new();
            builder
                .timer(TokioTimer::new())
                .header_read_timeout(limits.head)
                .max_header_size(usize::try_from(limits.head_bytes).unwrap_or(usize::MAX));
            // Asked for, even the default would cost an allocation a request.
            if limits.head_fields != Limits::default().head_fields {
                builder.max_headers(limits.head_fields);
            }
            to_the_end(builder.serve_connection(io, served), limits, drain).await
        }
        Version::Http2 => {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder
                .timer(TokioTimer::new())
                .max_header_list_size(limits.head_bytes)
                .max_concurrent_streams(limits.streams)
                .max_pending_accept_reset_streams(limits.pending_resets)
                .max_local_error_reset_streams(limits.error_resets)
                .initial_stream_window_size(limits.stream_window)
                .initial_connection_window_size(limits.connection_window)
                .keep_alive_interval(limits.ping_interval)
                .keep_alive_timeout(limits.ping_timeout);
            to_the_end(builder.serve_connection(io, served), limits, drain).await
        }
    }
}

/// Lets a connection go in order when it is told to, and cuts off what is left of one that was too old.
async fn to_the_end<C>(connection: C, limits: &Limits, drain: &CancellationToken) -> Result<(), C::Error>
where
    C: GracefulConnection,
{
    let too_old = async {
        match limits.age {
            Some(age) => {
                sleep(age.spread(fastrand::f64())).await;
                age.grace
            }
            None => pending().await,
        }
    };
    let mut serving = pin!(connection);
    let grace = tokio::select! {
        // First, since a connection that is told to go before it has read anything drops what was sent to it.
        biased;
        served = serving.as_mut() => return served,
        () = drain.cancelled() => None,
        grace = too_old => Some(grace),
    };
    serving.as_mut().graceful_shutdown();
    let Some(grace) = grace else { return serving.await };
    tokio::select! {
        biased;
        served = serving.as_mut() => served,
        () = sleep(grace) => {
            tracing::debug!("a connection that was told to go for its age is cut off");
            Ok(())
        }
    }
}

/// The service as one connection sees it: its requests carry what is known of the connection.
#[derive(Debug)]
pub(crate) struct Served<S> {
    pub(crate) service: S,
    pub(crate) connection: Connection,
}

impl<S, B> hyper::service::Service<Request<Incoming>> for Served<S>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone,
{
    type Response = Response<B>;
    type Error = Infallible;
    type Future = Oneshot<S, Request<Incoming>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.connection.clone());
        self.service.clone().oneshot(request)
    }
}
