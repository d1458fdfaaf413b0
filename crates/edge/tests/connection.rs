//! The edge behind a listener, on one connection.

#![expect(clippy::expect_used, reason = "a helper that fails fails its test")]

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_edge::{BodyPace, Edge, EdgeLayer, HeadLimits, Methods, Timely};
use agentrouter_gateway::ErrorRenderer;
use agentrouter_listener::{Settings, serve};
use axum::body::Body;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tower::Layer as _;

/// Panics at `/panic`, and says elsewhere how much was sent.
async fn answer(request: Request<Body>) -> Result<Response<Body>, Infallible> {
    assert!(request.uri().path() != "/panic", "a handler broke");
    let body = request.into_body().collect().await.expect("a body");
    Ok(Response::new(Body::from(format!("{} bytes", body.to_bytes().len()))))
}

async fn start(serving: &mut JoinSet<()>, stop: CancellationToken) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let edge = EdgeLayer::new(Edge {
        head: HeadLimits::default(),
        cors: None,
        hsts_seconds: 0,
        methods: Methods::new(|_| Vec::new()),
        errors: ErrorRenderer::default(),
    });
    let service = axum::Router::new().fallback_service(edge.layer(tower::service_fn(answer)));
    let service = Timely::new(service, BodyPace::default(), Arc::new(HashSet::new()));
    serving.spawn(async move {
        serve(listener, Settings::default(), service, stop).await.expect("it serves");
    });
    TcpStream::connect(address).await.expect("it listens")
}

/// The next answer on a connection that is kept.
async fn say(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut text = String::new();
    let read = async {
        loop {
            text.push(char::from(stream.read_u8().await.expect("it is kept")));
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse().ok()) == Some(body.len()) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(20), read).await.expect("in time");
    text
}

// A6 #80: a panic costs its call, and not its connection.
#[tokio::test]
async fn connections_outlive_panics() {
    let (mut serving, stop) = (JoinSet::new(), CancellationToken::new());
    let mut stream = start(&mut serving, stop.clone()).await;
    let panicked = say(&mut stream, "GET /panic HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(panicked.starts_with("HTTP/1.1 500 ") && panicked.contains("PANIC"), "{panicked}");
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nfour";
    assert!(say(&mut stream, post).await.ends_with("4 bytes"), "the connection goes on");
    drop(stream);
    stop.cancel();
    timeout(Duration::from_secs(20), serving.join_next())
        .await
        .expect("in time")
        .expect("one")
        .expect("no panic");
}
