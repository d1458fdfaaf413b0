//! The accept loop, and its end.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use ::http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tower::Service;

use crate::connection::{self, Shared};
use crate::limits::Limits;
use crate::tls::Tls;

/// The pause after the system refused a connection for want of resources: asking again at once would only spin.
const EXHAUSTED: Duration = Duration::from_millis(500);

/// How a listener treats its connections.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What they may cost.
    pub limits: Limits,
    /// None for plain text.
    pub tls: Option<Tls>,
}

/// Serves a service on a listener until `stop`, and then until the calls under way have ended.
///
/// At the stop the listener closes before any connection is told to go: a client that connects anew when it is told
/// is refused, which every client takes as UNAVAILABLE, and does not end in a queue that is thrown away.
/// Connections that waited there are still served.
///
/// # Errors
/// Where the listener cannot be drained.
pub async fn serve<S, B>(
    listener: TcpListener,
    settings: Settings,
    service: S,
    stop: CancellationToken,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Settings { limits, tls } = settings;
    let most = limits.connections.max(1);
    let handshakes = Semaphore::new(limits.handshakes.clamp(1, Semaphore::MAX_PERMITS));
    let shared = Arc::new(Shared { limits, tls, handshakes, drain: CancellationToken::new() });
    let mut connections = JoinSet::new();
    let mut is_full = false;
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= most {
            if !is_full {
                tracing::warn!(connections = most, "no more connections are taken in until one ends");
                is_full = true;
            }
            tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
            }
        }
        // Not at every one that ends, or a server that stays full would say so without end.
        is_full &= connections.len() > most - most / 10;
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection::serve(stream, peer, service.clone(), Arc::clone(&shared)));
            }
            Err(error) if is_of_one_connection(&error) => tracing::debug!(%error, "accept"),
            Err(error) => {
                tracing::error!(%error, "accept");
                sleep(EXHAUSTED).await;
            }
        }
    }
    // The runtime may not know yet of what the system has queued, so the system is asked.
    let listener = listener.into_std()?;
    while let Ok((stream, peer)) = listener.accept() {
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream)?;
        connections.spawn(connection::serve(stream, peer, service.clone(), Arc::clone(&shared)));
    }
    drop(listener);
    shared.drain.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Whether an accept failed because of the one who connected.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
