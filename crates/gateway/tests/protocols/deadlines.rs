//! Time that runs out, and clients that go away.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_gateway::{DeadlineLayer, ProtocolOptions, Protocols, Transcoder};
use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Layer as _, Service, ServiceExt as _, service_fn};

use crate::backend::Backend;
use crate::{
    Answer, Dropped, SERVICE, answer, envelope, envelopes, pool, protocols_with, request, testing, wire,
};

/// Calls with a deadline of a tenth of a second, and sees that it was kept and the handler dropped.
async fn late(method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    let dropped = Dropped::default();
    let protocols = protocols_with(ProtocolOptions::default(), dropped.clone());
    let started = tokio::time::Instant::now();
    let response = protocols.oneshot(request("POST", &format!("{SERVICE}/{method}"), headers, body));
    let answer = answer(response.await.expect("infallible")).await;
    assert_eq!(started.elapsed().as_millis() / 10, 10, "{method}");
    assert!(dropped.is());
    answer
}

/// A7 #88.
#[tokio::test(start_paused = true)]
async fn a_handler_that_is_late_is_dropped() {
    let hang = ("x-test", "hang");
    let connect = [("content-type", "application/json"), ("connect-timeout-ms", "100"), hang];
    let connect = late("Create", &connect, "{}").await;
    assert_eq!((connect.status.as_u16(), connect.json()["code"].as_str()), (504, Some("deadline_exceeded")));

    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "100m"), hang];
    let grpc = late("Create", &grpc, envelope(&[])).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, "4"));

    let web = [("content-type", "application/grpc-web"), ("grpc-timeout", "100m"), hang];
    let web = late("Create", &web, envelope(&[])).await;
    let trailers = String::from_utf8(envelopes(&web.body).remove(0).1).expect("text");
    assert!(trailers.contains("grpc-status: 4\r\n"), "{trailers}");
}

/// A7 #88: also behind messages that came in time.
#[tokio::test(start_paused = true)]
async fn a_stream_that_is_late_is_ended() {
    let stall = ("x-test", "stall");
    let message = envelope(&wire("CountRequest", r#"{"to":2}"#));
    let grpc = [("content-type", "application/grpc"), ("grpc-timeout", "100m"), stall];
    let grpc = late("Count", &grpc, message.clone()).await;
    assert_eq!((envelopes(&grpc.body).len(), grpc.trailer("grpc-status")), (2, "4"));

    let connect = [("content-type", "application/connect+proto"), ("connect-timeout-ms", "100"), stall];
    let connect = late("Count", &connect, message).await;
    let (flags, end) = envelopes(&connect.body).pop().expect("an end");
    assert_eq!(flags, 2);
    assert!(end.starts_with(br#"{"error":{"code":"deadline_exceeded""#));
}

/// A7 #88: a layer outside of the deadline sees how the call ended, and REST has it from there.
#[tokio::test(start_paused = true)]
async fn the_backend_ends_late_calls_itself() {
    for (test, method, uri, headers) in [
        ("hang", "GET", "/v1/books/7", &[("grpc-timeout", "100m")][..]),
        ("stall", "GET", "/v1/count/2", &[("x-server-timeout", "0.1")]),
        ("hang", "POST", "/gateway.test.v1.Echo/Create", &CONNECT),
        ("stall", "POST", "/gateway.test.v1.Echo/Create", &CONNECT),
    ] {
        let (dropped, seen) = (Dropped::default(), Arc::new(Mutex::new(Vec::new())));
        let backend = seeing(DeadlineLayer.layer(testing(dropped.clone())), Arc::clone(&seen));
        let rest = Transcoder::new(&pool(), backend).expect("rules that can be served");
        let protocols = Protocols::new(&pool(), rest, ProtocolOptions::default());
        let headers: Vec<_> = headers.iter().copied().chain([("x-test", test)]).collect();
        let started = tokio::time::Instant::now();
        let body = if method == "GET" { "" } else { "{}" };
        let response = protocols.oneshot(request(method, uri, &headers, body));
        let answer = answer(response.await.expect("infallible")).await;
        assert_eq!(started.elapsed().as_millis() / 10, 10, "{test} {uri}");
        assert!(dropped.is());
        assert_eq!(*seen.lock().expect("no panic"), ["4"], "{test} {uri}");
        let in_band = String::from_utf8_lossy(&answer.body).contains(r#"{"error":{"code":4"#);
        assert!(answer.status == 504 || in_band, "{answer:?}");
    }
}

const CONNECT: [(&str, &str); 2] = [("content-type", "application/json"), ("connect-timeout-ms", "100")];

/// Notes the status that every call ends with.
fn seeing(
    inner: impl Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + Clone
    + Send
    + Sync
    + 'static,
    seen: Arc<Mutex<Vec<HeaderValue>>>,
) -> Backend {
    BoxCloneSyncService::new(service_fn(move |request| {
        let (call, seen) = (inner.clone().oneshot(request), Arc::clone(&seen));
        async move {
            let response = call.await?;
            seen.lock().expect("no panic").extend(response.headers().get("grpc-status").cloned());
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| {
                    let status = frame.trailers_ref().and_then(|trailers| trailers.get("grpc-status"));
                    seen.lock().expect("no panic").extend(status.cloned());
                    frame
                }))
            }))
        }
    }))
}

/// A7 #88: the request is part of the call.
#[tokio::test(start_paused = true)]
async fn a_request_that_is_late_is_refused() {
    for (content_type, timeout, status) in [
        ("application/grpc", ("grpc-timeout", "100m"), 200),
        ("application/json", ("connect-timeout-ms", "100"), 504),
    ] {
        let protocols = protocols_with(ProtocolOptions::default(), Dropped::default());
        let headers = [("content-type", content_type), timeout];
        let (parts, _) = request("POST", &format!("{SERVICE}/Create"), &headers, "").into_parts();
        let body = http_body_util::StreamBody::new(futures::stream::pending::<
            Result<http_body::Frame<Bytes>, std::io::Error>,
        >());
        let mut request = Request::from_parts(parts, Body::new(body));
        *request.version_mut() = http::Version::HTTP_2;
        let answer = answer(protocols.oneshot(request).await.expect("infallible")).await;
        assert_eq!(answer.status, status);
        assert!(answer.header("grpc-status") == "4" || answer.json()["code"] == "deadline_exceeded");
    }
}

/// A7 #89: whoever waits for the answer goes, and the handler with them.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_away_cancels_the_handler() {
    let dropped = Dropped::default();
    let protocols = protocols_with(ProtocolOptions::default(), dropped.clone());
    let headers = [("content-type", "application/grpc"), ("x-test", "hang")];
    let call = protocols.oneshot(request("POST", &format!("{SERVICE}/Create"), &headers, envelope(&[])));
    tokio::time::timeout(Duration::from_secs(1), call).await.expect_err("it hangs");
    assert!(dropped.is());

    let dropped = Dropped::default();
    let protocols = protocols_with(ProtocolOptions::default(), dropped.clone());
    let headers = [("content-type", "application/connect+json"), ("x-test", "stall")];
    let call = request("POST", &format!("{SERVICE}/Count"), &headers, envelope(br#"{"to":1}"#));
    let mut body = protocols.oneshot(call).await.expect("infallible").into_body();
    body.frame().await.expect("a frame").expect("a message");
    assert!(!dropped.is());
    drop(body);
    assert!(dropped.is());
}

/// A7 #88: a message is sent when it is made, not when the stream ends.
#[tokio::test(start_paused = true)]
async fn messages_are_sent_one_by_one() {
    let protocols = protocols_with(ProtocolOptions::default(), Dropped::default());
    let headers = [("content-type", "application/grpc-web+json"), ("x-test", "stall")];
    let call = request("POST", &format!("{SERVICE}/Count"), &headers, envelope(br#"{"to":1}"#));
    let mut body = protocols.oneshot(call).await.expect("infallible").into_body();
    let data = body.frame().await.expect("a frame").expect("a message").into_data().expect("data");
    assert_eq!(envelopes(&data), [(0, br#"{"number":1,"square":"1"}"#.to_vec())]);
}
