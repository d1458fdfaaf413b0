//! Clients that send their bodies slowly, or too much of what is not a body.

use std::time::Duration;

use agentrouter_api::identity::{WhoAmIRequest, WhoAmIResponse};
use agentrouter_api::workspaces::WatchWorkspaceStatusRequest;
use axum::http::uri::PathAndQuery;
use prost::Message as _;
use reqwest::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Request};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;

use crate::common::{OPERATOR_KEY, TestServer};

const IDLE: Duration = Duration::from_millis(500);

async fn start() -> TestServer {
    let db = agentrouter_testkit::sqlite().await;
    TestServer::start_with(db, |config| config.edge.bodies.idle = IDLE).await
}

/// What is answered to a POST that announces more than it sends.
async fn half(server: &TestServer, path: &str, sent: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.running.address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {OPERATOR_KEY}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(sent).await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

// A9 #101: a body that does not move on is refused in the caller's protocol.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_bodies_are_refused() {
    let server = start().await;
    let rest = half(&server, "/v1/customers", b"{\"customer_id\"").await;
    assert!(rest.starts_with("HTTP/1.1 408 Request Timeout"), "{rest}");
    assert!(rest.contains("REQUEST_BODY_TOO_SLOW") && rest.contains("\"code\":4"), "{rest}");

    // Of a unary call, too, where the client has said that it will send a message, and does not.
    let mut grpc = tonic::client::Grpc::new(server.api(OPERATOR_KEY).await);
    grpc.ready().await.unwrap();
    let path = PathAndQuery::from_static("/agentrouter.identity.v1.SessionsService/WhoAmI");
    let codec = tonic_prost::ProstCodec::<WhoAmIRequest, WhoAmIResponse>::default();
    let never = Request::new(tokio_stream::pending());
    let status = grpc.client_streaming(never, path, codec).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    server.stop().await;
}

// A9 #101: a client that streams its messages is as slow as it likes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_clients_are_not_cut_off() {
    let server = start().await;
    let mut reflection = ServerReflectionClient::new(server.channel().await);
    let ask = || ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    sender.send(ask()).await.unwrap();
    let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = reflection.server_reflection_info(stream).await.unwrap().into_inner();
    assert!(answers.message().await.unwrap().is_some());
    sleep(IDLE * 3).await;
    sender.send(ask()).await.unwrap();
    assert!(answers.message().await.unwrap().is_some(), "it went on after a pause");
    drop((sender, answers));
    server.stop().await;
}

// A9 #102: a path that is too long is refused, in the words of REST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_paths_are_refused() {
    let server = start().await;
    let url = format!("{}/v1/customers/{}", server.base_url, "a".repeat(9000));
    let response = server.http.get(url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::URI_TOO_LONG);
    assert!(response.headers().contains_key("x-request-id"));
    assert!(response.text().await.unwrap().contains("URI_TOO_LONG"));
    server.stop().await;
}

// A7 #87, #88: a caller's patience ends its call, while it waits and while it streams.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_end_with_the_patience_of_their_callers() {
    let server = start().await;
    let started = Instant::now();
    let poll = server.http.get(format!("{}/configurator/v1/pending-events?wait=20s", server.base_url));
    let response = poll.bearer_auth(OPERATOR_KEY).header("x-server-timeout", "0.3").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert!(response.text().await.unwrap().contains("\"code\":4"));
    assert!((Duration::from_millis(300)..Duration::from_secs(10)).contains(&started.elapsed()));

    // A stream that has begun, which only its own end can tell.
    let call = |timeout: &'static str| {
        let method = "agentrouter.workspaces.v1.WorkspacesService/WatchWorkspaceStatus";
        let request = server.http.post(format!("{}/{method}", server.base_url));
        let request = request.header("content-type", "application/grpc-web+proto");
        request.header("grpc-timeout", timeout).bearer_auth(OPERATOR_KEY)
    };
    let watch =
        WatchWorkspaceStatusRequest { customer_id: "default".to_owned(), workspace_id: "default".to_owned() };
    let message = watch.encode_to_vec();
    let mut frame = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
    frame.extend(message);
    let response = call("3S").body(frame.clone()).send().await.unwrap();
    assert!(!response.headers().contains_key("grpc-status"), "it began");
    let answer = response.bytes().await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("grpc-status: 4") && answer.contains("deadline"), "{answer}");

    let response = call("soon").body(frame).send().await.unwrap();
    let answer = response.bytes().await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("grpc-status: 3"), "INVALID_ARGUMENT: {answer}");
    server.stop().await;
}
