//! Our gateway on a port, and requests to either side.

use std::net::SocketAddr;

use agentrouter_gateway::remote::Remote;
use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use prost_reflect::DescriptorPool;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::upstream::PATIENCE;

/// Our gateway; ended when dropped.
pub(crate) struct Ours {
    _tasks: JoinSet<()>,
    pub(crate) port: u16,
}

impl Ours {
    /// Starts it before the upstream.
    pub(crate) async fn start(upstream: &str, pool: &DescriptorPool) -> Self {
        let remote = Remote::connect(upstream).expect("an address");
        let rest = Transcoder::new(pool, remote).expect("rules that can be served");
        let gateway = Protocols::new(pool, rest, ProtocolOptions::default());
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = TcpListener::bind(address).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                let service = TowerToHyperService::new(gateway.clone());
                connections.spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { _tasks: tasks, port }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// The JSON, or the JSON of each line, or the text.
    pub(crate) fn value(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        if text.is_empty() {
            return Value::String(String::new());
        }
        let lines = || text.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>();
        serde_json::from_str(&text)
            .or_else(|_| lines().map(Value::Array))
            .unwrap_or_else(|_| Value::String(text.to_string()))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("ASCII"))
    }
}

/// Sends over a connection of its own; `None` where there is nobody, or no whole answer.
pub(crate) async fn try_send(port: u16, mut request: Request<Full<Bytes>>) -> Option<Answer> {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.ok()?;
    let (mut client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    request.headers_mut().insert("host", "gateway.example".parse().expect("a host"));
    let exchange = async {
        let (parts, body) = client.send_request(request).await.ok()?.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Answer { status: parts.status, headers: parts.headers, body })
    };
    timeout(PATIENCE, exchange).await.expect("an answer in time")
}
