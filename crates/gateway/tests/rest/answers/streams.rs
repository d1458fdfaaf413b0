//! Server streams: checklist A10.

use std::time::Duration;

use agentrouter_gateway::{AnswerOptions, StreamFormat};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::service::Held;
use super::{asking, get, with};

/// A10 #104: each form, each message as soon as it is there, and the form of clients that do not say.
#[tokio::test(start_paused = true)]
async fn each_message_is_sent_at_once() {
    let one = r#"{"id":"2","retry_ms":0,"text":"number 2"}"#;
    for (accept, content_type, second) in [
        ("*/*", "application/x-ndjson", format!("{one}\n")),
        ("application/x-ndjson", "application/x-ndjson", format!("{one}\n")),
        ("text/event-stream", "text/event-stream", format!("id: 2\ndata: {one}\n\n")),
        ("application/json", "application/json", format!(",\n{one}")),
    ] {
        let begin = tokio::time::Instant::now();
        let request = asking("/v1/events?to=2&wait=10", &[("accept", accept)]);
        let response = with(AnswerOptions::default()).oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()["content-type"], content_type, "{accept}");
        let mut body = response.into_body();
        let mut last = None;
        for seconds in [10, 20] {
            last = body.frame().await.expect("a frame").expect("no error").into_data().ok();
            assert_eq!(begin.elapsed().as_secs(), seconds, "{accept}");
        }
        assert_eq!(last.expect("data"), second, "{accept}");
        let rest = body.collect().await.expect("the end").to_bytes();
        assert_eq!(rest, if accept == "application/json" { "]" } else { "" }, "{accept}");
    }
    let array = AnswerOptions { stream_format: StreamFormat::Array, ..AnswerOptions::default() };
    let all = get(array.clone(), "/v1/events?to=2", &[]).await;
    assert_eq!((all.header("content-type"), all.json()[1]["id"].as_str()), ("application/json", Some("2")));
    assert_eq!(get(array, "/v1/events?to=0", &[]).await.body, "[]");
}

/// A10 #105: an array that breaks has no end, and its transfer breaks with it.
#[tokio::test]
async fn a_late_error_breaks_an_array_off() {
    for encoding in ["identity", "gzip"] {
        let headers = [("accept", "application/json"), ("accept-encoding", encoding)];
        let request = asking("/v1/events?to=1&fail=8", &headers);
        let response = with(AnswerOptions::default()).oneshot(request).await.expect("infallible");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let first = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert!(encoding == "gzip" || (first.starts_with(b"[{") && first.ends_with(b"}")), "{first:?}");
        assert!(body.frame().await.expect("an end").is_err(), "{encoding}");
    }
    // Before the first message it is an error like any other.
    let early =
        get(AnswerOptions::default(), "/v1/events?to=0&fail=8", &[("accept", "application/json")]).await;
    assert_eq!((early.status.as_u16(), early.json()["code"].as_i64()), (429, Some(8)));
}

/// A10 #106: ids and pauses from the fields that are marked so, and on from the last id.
#[tokio::test]
async fn events_have_ids() {
    let events = [("accept", "text/event-stream")];
    let all = get(AnswerOptions::default(), "/v1/events?to=2", &events).await;
    let text = String::from_utf8(all.body.to_vec()).expect("text");
    assert!(text.starts_with("id: 1\nretry: 2500\ndata: {"), "{text}");
    assert!(text.contains("\n\nid: 2\ndata: {"), "{text}");
    let resumed = [events[0], ("last-event-id", "1")];
    let rest = get(AnswerOptions::default(), "/v1/events?to=2", &resumed).await;
    assert!(
        text.ends_with(std::str::from_utf8(&rest.body).expect("text")) && rest.body.starts_with(b"id: 2\n")
    );
}

/// A10 #106: a silent stream says that it lives, and one whose client has gone is dropped.
#[tokio::test(start_paused = true)]
async fn silent_events_live_until_the_client_goes() {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let mut request = asking("/v1/events?to=1&wait=40", &[("accept", "text/event-stream")]);
    request.extensions_mut().insert(Held::new(sender));
    let response = with(AnswerOptions::default()).oneshot(request).await.expect("infallible");
    let mut body = response.into_body();
    for _ in 0..2 {
        let comment = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
        assert_eq!(comment, ":\n\n");
    }
    assert!(receiver.try_recv() == Err(tokio::sync::mpsc::error::TryRecvError::Empty), "it lives");
    drop(body);
    let gone = tokio::time::timeout(Duration::from_secs(1), receiver.recv()).await;
    assert_eq!(gone.expect("dropped at once"), None);
}
