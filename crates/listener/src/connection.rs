//! One connection, from its first byte to its last.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::http::{self, Served};
use crate::limits::Limits;
use crate::opening::{self, Opened};
use crate::socket::Socket;
use crate::tls::{PeerCertificate, Tls};

/// What is known of the connection that a request came on, in its extensions.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The address on the other side.
    pub peer: SocketAddr,
    /// Whether it is encrypted.
    pub is_tls: bool,
    /// The certificate that the client has shown and that was verified.
    pub certificate: Option<Arc<PeerCertificate>>,
}

/// What all connections of a listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) tls: Option<Tls>,
    pub(crate) handshakes: Semaphore,
    pub(crate) drain: CancellationToken,
}

/// Serves one connection to its end.
pub(crate) async fn serve<S, B>(stream: TcpStream, peer: SocketAddr, service: S, shared: Arc<Shared>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY");
    }
    let socket = Socket::new(stream, shared.limits.stalled_write);
    let mut connection = Connection { peer, is_tls: false, certificate: None };
    let Some(tls) = &shared.tls else { return speak(socket, service, connection, &shared).await };
    let handshake = async {
        // Never closed, so never refused.
        let _turn = shared.handshakes.acquire().await;
        tls.accept(socket).await
    };
    match opening::in_time(shared.limits.handshake, &shared.drain, handshake).await {
        Some(Ok((stream, certificate))) => {
            connection.is_tls = true;
            connection.certificate = certificate.map(Arc::new);
            speak(stream, service, connection, &shared).await;
        }
        Some(Err((error, socket))) => {
            tracing::debug!(%error, %peer, "TLS handshake");
            // The alert that says why has still to arrive.
            end(socket, peer).await;
        }
        None => tracing::debug!(%peer, "a TLS handshake took too long"),
    }
}

async fn speak<IO, S, B>(mut io: IO, service: S, connection: Connection, shared: &Shared)
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Shared { limits, drain, .. } = shared;
    let peer = connection.peer;
    let opened = opening::in_time(limits.head, drain, opening::read(&mut io)).await.flatten();
    let Some((version, begun)) = opened else {
        // Nothing was asked, so nothing is owed but an orderly end.
        return end(io, peer).await;
    };
    let served = Served { service, connection };
    if let Err(error) = http::serve(version, Opened::new(begun, io), served, limits, drain).await {
        tracing::debug!(%error, %peer, "connection");
    }
}

async fn end<IO: AsyncWrite + Unpin>(mut io: IO, peer: SocketAddr) {
    if let Err(error) = io.shutdown().await {
        tracing::debug!(%error, %peer, "connection");
    }
}
