//! A listener with a service that tells what it knows of the connection.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use agentrouter_listener::{Connection, Settings, serve};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes.
const ENOUGH: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        let signal = stop.clone();
        serving.spawn(async move {
            serve(listener, settings, tower::service_fn(answer), signal).await.expect("it serves");
        });
        Self { address, stop, serving }
    }

    /// One that is told to stop before it begins.
    pub(crate) async fn stopped_with(listener: std::net::TcpListener) {
        listener.set_nonblocking(true).expect("a listener");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let stop = CancellationToken::new();
        stop.cancel();
        serve(listener, Settings::default(), tower::service_fn(answer), stop).await.expect("it drains");
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("it listens")
    }

    /// Connects, says this and reads everything until the server ends the connection.
    pub(crate) async fn say(&self, text: &[u8]) -> String {
        let mut stream = self.connect().await;
        stream.write_all(text).await.expect("it is sent");
        read_all(&mut stream).await
    }

    /// Stops, and waits until everything has ended.
    pub(crate) async fn stopped(mut self) {
        self.stop.cancel();
        timeout(ENOUGH, self.serving.join_next()).await.expect("in time").expect("one").expect("no panic");
    }
}

/// Everything that arrives until the end of the stream.
pub(crate) async fn read_all(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    timeout(ENOUGH, stream.read_to_end(&mut all)).await.expect("it ends in time").expect("it ends in order");
    String::from_utf8_lossy(&all).into_owned()
}

/// `/slow` takes 300 ms, `/never` for ever, `/large` answers with 32 MiB; all else tells what was sent and who sent it.
async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let connection = request.extensions().get::<Connection>().cloned().expect("every request has one");
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let text = match path.as_str() {
        "/slow" => {
            sleep(Duration::from_millis(300)).await;
            Bytes::from_static(b"slow")
        }
        "/never" => std::future::pending().await,
        "/large" => Bytes::from(vec![b'x'; 32 << 20]),
        _ => {
            let client = connection
                .certificate
                .map(|shown| format!("{} {:?} {:?}", shown.subject, shown.names, shown.digest));
            let body = body.unwrap_or_default();
            Bytes::from(format!(
                "{} tls={} client={} body={}",
                connection.peer.ip(),
                connection.is_tls,
                client.unwrap_or_default(),
                String::from_utf8_lossy(&body)
            ))
        }
    };
    Ok(Response::new(Full::new(text)))
}
