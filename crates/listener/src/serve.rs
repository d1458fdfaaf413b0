//! The accept loop, its end, and one connection.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::lingering::Lingering;

/// The pause after the system refused a connection for want of resources: asking again at once would only spin.
const EXHAUSTED: Duration = Duration::from_millis(500);
/// How long a connection may stay silent before its first request.
const SILENCE: Duration = Duration::from_secs(30);
/// The same, once the server stops: for those whose first bytes are on their way.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long to wait for the rest of a preface before looking again, at first and at most: who sends one byte and waits
/// shall not keep the server busy.
const PEEK: Duration = Duration::from_millis(1);
const PEEK_MAX: Duration = Duration::from_millis(100);
/// What an HTTP/2 client sends first (RFC 9113, 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What is known of the connection that a request came on, in its extensions.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The address on the other side.
    pub peer: SocketAddr,
}

/// Serves a service on a listener until `stop`, and then until the calls under way have ended.
///
/// At the stop the listener closes before any connection is told to go: a client that connects anew when it is told
/// is refused, which every client takes as UNAVAILABLE, and does not end in a queue that is thrown away.
/// Connections that waited there are still served.
///
/// # Errors
/// Where the listener cannot be drained.
pub async fn serve<S, B>(listener: TcpListener, service: S, stop: CancellationToken) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let drain = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                connections.spawn(connection(stream, peer, service.clone(), drain.clone()));
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
        connections.spawn(connection(TcpStream::from_std(stream)?, peer, service.clone(), drain.clone()));
    }
    drop(listener);
    drain.cancel();
    while connections.join_next().await.is_some() {}
    Ok(())
}

/// Serves one connection to its end.
async fn connection<S, B>(stream: TcpStream, peer: SocketAddr, service: S, drain: CancellationToken)
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
    if !speaks(&stream, &drain).await {
        // Nothing was asked, so nothing is owed but an orderly end.
        if let Err(error) = Lingering::new(stream).shutdown().await {
            tracing::debug!(%error, %peer, "connection");
        }
        return;
    }
    let of_request = Connection { peer };
    let service = tower::service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(of_request.clone());
        service.clone().oneshot(request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new());
    builder.http2().timer(TokioTimer::new()).enable_connect_protocol();
    let stream = TokioIo::new(Lingering::new(stream));
    let mut serving = pin!(builder.serve_connection_with_upgrades(stream, TowerToHyperService::new(service)));
    let served = tokio::select! {
        // First, since a connection that is told to go before it has read anything drops what was sent to it.
        biased;
        served = serving.as_mut() => served,
        () = drain.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, %peer, "connection");
    }
}

/// Waits for the beginning of a request, the whole preface where it is HTTP/2. Whether one came in time.
async fn speaks(stream: &TcpStream, drain: &CancellationToken) -> bool {
    let begins = async {
        let mut begun = [0; PREFACE.len()];
        let mut pause = PEEK;
        loop {
            match stream.peek(&mut begun).await {
                Ok(0) | Err(_) => return false,
                Ok(length) if length < PREFACE.len() && PREFACE.starts_with(&begun[..length]) => {
                    sleep(pause).await;
                    pause = (pause * 2).min(PEEK_MAX);
                }
                Ok(_) => return true,
            }
        }
    };
    let too_late = async {
        if timeout(SILENCE, drain.cancelled()).await.is_ok() {
            sleep(LAST_CALL).await;
        }
    };
    tokio::select! {
        began = begins => began,
        () = too_late => false,
    }
}

/// Whether an accept failed because of the one who connected.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use http_body_util::Full;

    use super::*;

    /// A server that has been told to stop already, and a client in its queue that sent these bytes.
    async fn at_the_stop(sent: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client =
            Client::connect(listener.local_addr().expect("an address")).expect("the queue is open");
        client.write_all(sent).expect("it is sent");
        let stop = CancellationToken::new();
        stop.cancel();
        let service = tower::service_fn(|_: Request<Incoming>| async {
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from_static(b"served"))))
        });
        let answer = tokio::task::spawn_blocking(move || {
            let mut answer = String::new();
            client.read_to_string(&mut answer).map(|_| answer)
        });
        serve(listener, service, stop).await.expect("it drains");
        answer.await.expect("it reads").expect("the connection ends in order")
    }

    // Behaviour 35: who was let in before the stop is served.
    #[tokio::test]
    async fn connections_that_wait_in_the_queue_are_served() {
        let answer = at_the_stop(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("served"), "{answer}");
    }

    #[tokio::test]
    async fn silent_connections_end_in_order() {
        assert_eq!(at_the_stop(b"").await, "");
    }
}
