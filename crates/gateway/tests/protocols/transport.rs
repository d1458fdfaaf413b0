//! What only a connection shows.

use std::convert::Infallible;
use std::time::Duration;

use agentrouter_gateway::ProtocolOptions;
use bytes::Bytes;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::{Dropped, SERVICE, envelope, protocols_with, wire};

/// A connection to a server of its own, and what tells that its handler was dropped.
async fn connect(tasks: &mut JoinSet<()>) -> (TcpStream, Dropped) {
    let dropped = Dropped::default();
    let options = ProtocolOptions { max_message_bytes: 100_000, ..ProtocolOptions::default() };
    let service = TowerToHyperService::new(protocols_with(options, dropped.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tasks.spawn(async move {
        let (stream, _) = listener.accept().await.expect("a connection");
        // How it ends is the test's business.
        drop(Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await);
    });
    (TcpStream::connect(address).await.expect("a listener"), dropped)
}

async fn soon(dropped: &Dropped) -> bool {
    for _ in 0..500 {
        if dropped.is() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    false
}

/// A7 #89.
#[tokio::test]
async fn closing_an_http1_connection_cancels_the_handler() {
    let mut tasks = JoinSet::new();
    let (mut stream, dropped) = connect(&mut tasks).await;
    let head = format!(
        "POST {SERVICE}/Create HTTP/1.1\r\nhost: test\r\nx-test: hang\r\n\
         content-type: application/json\r\ncontent-length: 2\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await.expect("a connection");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!dropped.is());
    drop(stream);
    assert!(soon(&dropped).await);
}

/// A7 #89.
#[tokio::test]
async fn resetting_an_http2_stream_cancels_the_handler() {
    let mut tasks = JoinSet::new();
    let (stream, dropped) = connect(&mut tasks).await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tasks.spawn(async move { connection.await.expect("an orderly end") });
    let call = |test: &str, message: Vec<u8>| {
        Request::post(format!("http://test{SERVICE}/Count"))
            .header("content-type", "application/grpc")
            .header("x-test", test)
            .body(Full::new(Bytes::from(message)))
            .expect("a request")
    };
    let message = envelope(&wire("CountRequest", r#"{"to":1}"#));
    let hanging = client.send_request(call("hang", message.clone()));
    tokio::time::timeout(Duration::from_millis(500), hanging).await.expect_err("it hangs");
    assert!(soon(&dropped).await);

    // The connection serves the next call.
    let response = client.send_request(call("", message)).await.expect("an answer");
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers().expect("trailers")["grpc-status"], "0");
}

/// A9 #98: over HTTP/1.1 a client that is still writing gets the answer, and not a broken connection.
#[tokio::test]
async fn a_refused_request_is_read_before_its_connection_closes() {
    let too_long = [vec![0, 0, 3, 0, 0], vec![0; 0x3_0000]].concat();
    for (method, content_type, body, expected) in [
        ("Create", "application/grpc-web", too_long.clone(), "grpc-status: 8"),
        ("Upload", "application/grpc-web", too_long.clone(), "grpc-status: 8"),
        ("Create", "application/json", too_long.clone(), "resource_exhausted"),
        ("Create", "image/jpeg", too_long.clone(), "415"),
        ("Missing", "application/proto", too_long, "404"),
    ] {
        let mut tasks = JoinSet::new();
        let (mut stream, _) = connect(&mut tasks).await;
        let length = body.len();
        let head = format!(
            "POST {SERVICE}/{method} HTTP/1.1\r\nhost: test\r\n\
             content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.expect("a connection");
        for chunk in body.chunks(16 << 10) {
            stream.write_all(chunk).await.expect("a server that reads");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stream.shutdown().await.expect("a connection");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("an orderly end");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.contains(expected), "{method} {content_type}: {answer}");
    }
}

/// A9 #100: a client that asks first is not asked to go on.
#[tokio::test]
async fn a_body_that_is_refused_is_not_asked_for() {
    let mut tasks = JoinSet::new();
    let (mut stream, _) = connect(&mut tasks).await;
    let head = format!(
        "POST {SERVICE}/Create HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\n\
         content-type: application/json\r\ncontent-length: 200000\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a connection");
    let mut begun = [0; 12];
    stream.read_exact(&mut begun).await.expect("an answer");
    assert_eq!(&begun, b"HTTP/1.1 429");
}

/// A10 #107: a REST call both ways over one HTTP/2 stream, each message answered before the next is sent.
#[tokio::test]
async fn rest_streams_both_ways_over_http2() {
    let mut tasks = JoinSet::new();
    let (stream, _) = connect(&mut tasks).await;
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tasks.spawn(async move { drop(connection.await) });
    let (chunks, receiver) = tokio::sync::mpsc::channel::<Result<Frame<Bytes>, Infallible>>(1);
    let body = StreamBody::new(ReceiverStream::new(receiver));
    let send = |text: &'static str| chunks.send(Ok(Frame::data(Bytes::from_static(text.as_bytes()))));
    let request = Request::post("http://test/v1/chat/r").header("content-type", "application/x-ndjson");
    let call = async {
        send("{\"text\":\"a\"}\n").await.expect("a reader");
        let response = client.send_request(request.body(body).expect("a request")).await;
        let mut answer = response.expect("an answer").into_body();
        for (echoed, next) in
            [("a", "{\"text\":\"b\"}\n"), ("b", "{\"text\":\"c\"}\n"), ("c", "{\"text\":[]}\n")]
        {
            let frame = answer.frame().await.expect("a frame").expect("no error");
            let expected = format!("{{\"room\":\"r\",\"text\":\"{echoed}\"}}\n");
            assert_eq!(frame.into_data().expect("data"), expected);
            send(next).await.expect("a reader");
        }
        let end = answer.collect().await.expect("an end").to_bytes();
        assert!(end.starts_with(b"{\"error\":{\"code\":3,"), "{end:?}");
    };
    tokio::time::timeout(Duration::from_secs(30), call).await.expect("an end in time");
}

/// A9 #103: whatever a client sends, nothing panics and no JSON is the server's fault.
#[test]
fn no_bytes_break_the_server() {
    use proptest::prelude::*;

    let types = proptest::sample::select(vec![
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web+proto",
        "application/grpc-web-text",
        "application/proto",
        "application/json",
        "application/connect+proto",
        "application/connect+json",
    ]);
    let encodings = proptest::sample::select(vec!["identity", "gzip", "br", "zstd", "foo"]);
    let methods = proptest::sample::select(vec!["Create", "Count", "Upload", "GetBook", "NoRest"]);
    // Prefixes that are nearly right, among bytes that are not.
    let piece = prop_oneof![
        Just(vec![0, 0, 0, 0, 0]),
        Just(vec![0, 0, 0, 0, 2, 8, 1]),
        Just(vec![1, 0, 0, 0, 1, 0]),
        Just(b"{\"i32\":1}".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let chunks = proptest::collection::vec(piece, 0..5);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    proptest!(|(content_type in types, encoding in encodings, method in methods, chunks in chunks)| {
        let frames = chunks.into_iter().map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
        let request = Request::post(format!("{SERVICE}/{method}"))
            .header("content-type", content_type)
            .header("content-encoding", encoding)
            .header("grpc-encoding", encoding)
            .header("connect-content-encoding", encoding)
            .version(http::Version::HTTP_2)
            .body(StreamBody::new(futures::stream::iter(frames)))
            .expect("a request");
        let (status, grpc) = runtime.block_on(async {
            use tower::ServiceExt as _;
            let protocols = protocols_with(ProtocolOptions::default(), Dropped::default());
            let response = protocols.oneshot(request).await.expect("infallible");
            let grpc = response.headers().get("grpc-status").cloned();
            let status = response.status();
            response.into_body().collect().await.expect("a body");
            (status.as_u16(), grpc)
        });
        // Bad flags are INTERNAL, because gRPC wants it so, and bad protobuf is, because tonic's decoder has it so.
        let is_internal = status == 500 || grpc.as_ref().is_some_and(|grpc| grpc == "13");
        prop_assert!(status <= 501 && grpc.is_none_or(|grpc| grpc != "2" && grpc != "14"));
        prop_assert!(!is_internal || !content_type.ends_with("json") || content_type.contains("grpc"));
    });
}
