//! Server streams over REST: checklist A10.

use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{Answer, get, request, send, transcoder};

async fn events(uri: &str) -> Answer {
    let mut request = request("GET", uri, "");
    request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
    send(&transcoder(), request).await
}

/// A10 #104.
#[tokio::test]
async fn a_stream_is_lines_or_events() {
    let lines = get("/v1/count/2").await;
    assert_eq!((lines.status.as_u16(), lines.header("content-type")), (200, "application/x-ndjson"));
    assert_eq!(lines.body, "{\"number\":1,\"square\":\"1\"}\n{\"number\":2,\"square\":\"4\"}\n");

    let events = events("/v1/count/2").await;
    assert_eq!((events.status.as_u16(), events.header("content-type")), (200, "text/event-stream"));
    assert_eq!(
        events.body,
        "data: {\"number\":1,\"square\":\"1\"}\n\ndata: {\"number\":2,\"square\":\"4\"}\n\n"
    );
    assert_eq!(events.header("cache-control"), "no-store");

    assert_eq!(get("/v1/count/2/number").await.body, "1\n2\n");
    let empty = get("/v1/count/0").await;
    assert_eq!((empty.status.as_u16(), empty.body.len()), (200, 0));
}

/// A10 #105: before the first message a real status, with either kind of failure.
#[tokio::test]
async fn an_early_error_is_an_http_status() {
    for (uri, status) in [("/v1/count/-1", 400), ("/v1/count/0?fail=14", 503)] {
        for answer in [get(uri).await, events(uri).await] {
            assert_eq!(answer.status, status, "{uri}");
            assert_eq!(answer.header("content-type"), "application/json");
        }
    }
    assert_eq!(get("/v1/count/x").await.violations(), ["to: INVALID_VALUE"]);
}

/// A10 #105: after it, in band.
#[tokio::test]
async fn a_late_error_is_in_band() {
    let status = "{\"code\":8,\"message\":\"counted enough\",\"details\":[]}";
    let lines = get("/v1/count/1?fail=8").await;
    assert_eq!(lines.status, 200);
    assert_eq!(lines.body, format!("{{\"number\":1,\"square\":\"1\"}}\n{{\"error\":{status}}}\n"));

    let events = events("/v1/count/1?fail=8").await;
    assert_eq!(
        events.body,
        format!("data: {{\"number\":1,\"square\":\"1\"}}\n\nevent: error\ndata: {status}\n\n")
    );
}

/// A slow stream answers its headers without waiting for the first message.
#[tokio::test(start_paused = true)]
async fn headers_do_not_wait_for_a_slow_first_message() {
    let begin = tokio::time::Instant::now();
    let request = request("GET", "/v1/count/1?fail=8&delay=60s", "");
    let response = transcoder().oneshot(request).await.expect("infallible");
    assert_eq!(response.status(), 200);
    assert_eq!(begin.elapsed(), Duration::from_millis(250));

    let mut body = response.into_body();
    let first = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
    assert_eq!(first, Bytes::from_static(b"{\"number\":1,\"square\":\"1\"}\n"));
    assert_eq!(begin.elapsed().as_secs(), 60);
    let rest = body.collect().await.expect("a body").to_bytes();
    assert!(rest.starts_with(b"{\"error\":{\"code\":8,"), "{rest:?}");
}

/// HEAD of a stream answers and lets go of it.
#[tokio::test]
async fn head_of_a_stream_has_no_body() {
    let head = send(&transcoder(), request("HEAD", "/v1/count/2", "")).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-type"), "application/x-ndjson");
}
