//! Client streams over REST: checklist A10 #107, and the streamed part of A3 #47.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use agentrouter_gateway::{Options, Transcoder};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::{Request, Response, Version, header};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::bodies::{CODINGS, with};
use super::{Answer, answer, post, request, send, transcoder, transcoder_with};

/// The texts of the items that the service got, each with its room.
fn texts(answer: &Answer) -> Vec<String> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let items = json["items"].as_array().expect("items").iter();
    items.map(|item| format!("{}: {}", item["room"], item["text"]).replace('"', "")).collect()
}

/// A10 #107: an array, lines, or values one after the other; what the path binds is in every message.
#[tokio::test]
async fn a_client_stream_is_an_array_or_lines() {
    for body in [
        r#"[{"text":"a"},{"text":"b"}]"#,
        "{\"text\":\"a\"}\n{\"text\":\"b\"}\n",
        "{\"text\":\"a\"}\r\n\r\n{\"text\":\"b\"}",
        "{\n\"text\":\"a\"\n}{\"text\":\"b\",\"room\":\"r\"}",
    ] {
        assert_eq!(texts(&post("/v1/collect/r", body).await), ["r: a", "r: b"], "{body}");
    }
    for body in ["", " \n", "[]"] {
        assert_eq!(texts(&post("/v1/collect/r", body).await), [""; 0], "{body:?}");
    }
    let lines = with(
        request("POST", "/v1/collect/r", "{\"text\":\"a\"}\nnull\n"),
        header::CONTENT_TYPE,
        "application/x-ndjson",
    );
    assert_eq!(send(&transcoder(), lines).await.violations(), ["[1]: INVALID_VALUE"]);
}

/// A10 #107, A3 #43: a field as the body, and a rule without any.
#[tokio::test]
async fn the_messages_of_a_client_stream_follow_the_rule() {
    let inner = post("/v1/collect/r/inner?text=q", "{\"text\":\"a\"}\n{}").await.json();
    assert_eq!(inner["items"][0]["inner"]["text"], "a");
    assert_eq!((&inner["items"][1]["text"], &inner["items"][1]["room"]), (&json!("q"), &json!("r")));

    let list = "[1]\n[2, 3]\n";
    let list =
        with(request("POST", "/v1/collect/r/list", list), header::CONTENT_TYPE, "application/x-ndjson");
    assert_eq!(send(&transcoder(), list).await.json()["items"][1]["list"], json!([2, 3]));
    let nested = post("/v1/collect/r/list", "[[1],[2,3]]").await;
    assert_eq!(nested.json()["items"][1]["list"], json!([2, 3]));

    let one = send(&transcoder(), request("GET", "/v1/collect/r?text=q", "")).await;
    assert_eq!(texts(&one), ["r: q"]);
}

/// A10 #107, A3 #50: a fault is told with the place of its message, whatever the service makes of it.
#[tokio::test]
async fn a_faulty_message_is_named() {
    for (body, expected) in [
        ("{\"zz\":1}", "[0].zz: UNKNOWN_FIELD"),
        // The service swallows this one and answers with success.
        ("{\"text\":\"a\"}\n{\"text\":1}", "[1].text: INVALID_VALUE"),
        ("[{},{},{\"text\":]", "[2]: MALFORMED_JSON"),
        ("[{},{},{}", "[2]: MALFORMED_JSON"),
        ("[{}] {}", "[1]: MALFORMED_JSON"),
        ("{}\n{\"text\"", "[1]: MALFORMED_JSON"),
        ("{\"room\":\"other\"}", "room: CONFLICTING_FIELD"),
    ] {
        assert_eq!(post("/v1/collect/r", body).await.violations(), [expected], "{body}");
    }
    assert_eq!(post("/v1/collect/r?zz=1", "{}").await.violations(), ["zz: UNKNOWN_FIELD"]);

    let wrong = with(request("POST", "/v1/collect/r", "x"), header::CONTENT_TYPE, "text/plain");
    let wrong = send(&transcoder(), wrong).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.header("accept-post")),
        (415, "application/json, application/x-ndjson")
    );
}

/// A10 #107, A9 #100: each message has the limit, the whole has none.
#[tokio::test]
async fn each_message_of_a_client_stream_is_limited() {
    let small = transcoder_with(Options { max_body_bytes: 20, ..Options::default() });
    let many = "{\"text\":\"abc\"}\n".repeat(1000);
    assert_eq!(texts(&send(&small, request("POST", "/v1/collect/r", many)).await).len(), 1000);

    let long = format!("{{}}\n{{}}\n{{\"text\":\"{}\"}}", "x".repeat(20));
    let refused = send(&small, request("POST", "/v1/collect/r", long)).await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (413, "REQUEST_BODY_TOO_LARGE"));
}

/// A8 #91, A10 #107: a compressed stream.
#[tokio::test]
async fn a_client_stream_can_be_compressed() {
    for (coding, pack) in CODINGS {
        let body = pack("{\"text\":\"a\"}\n".repeat(3).as_bytes());
        let request = with(request("POST", "/v1/collect/r", body), header::CONTENT_ENCODING, coding);
        assert_eq!(texts(&send(&transcoder(), request).await).len(), 3, "{coding}");
    }
}

/// A request whose body the test sends chunk by chunk.
fn open(uri: &str, version: Version) -> (mpsc::Sender<&'static str>, Request<Body>) {
    let (sender, receiver) = mpsc::channel(1);
    let chunks = ReceiverStream::new(receiver)
        .map(|chunk: &str| Ok::<_, Infallible>(Frame::data(Bytes::from_static(chunk.as_bytes()))));
    let body = Body::new(StreamBody::new(chunks));
    (sender, Request::post(uri).version(version).body(body).expect("a request"))
}

/// A3 #47: an upload in chunks, its type in each.
#[tokio::test]
async fn an_upload_arrives_in_chunks() {
    let (sender, mut request) = open("/v1/chunks/cat?mode=7", Version::HTTP_11);
    request.headers_mut().insert(header::CONTENT_TYPE, "image/png".parse().expect("a value"));
    let sent = async {
        for chunk in ["one", "", "two"] {
            sender.send(chunk).await.expect("a reader");
        }
        drop(sender);
    };
    let (response, ()) = tokio::join!(transcoder().oneshot(request), sent);
    let json = answer(response.expect("infallible")).await.json();
    let file = |data: &str| {
        let content = json!({"content_type": "image/png", "data": data, "extensions": []});
        json!({"name": "cat", "mode": 7, "content": content})
    };
    assert_eq!(json, json!({"files": [file("b25l"), file("dHdv")]}));

    // A chunk above the limit of a message becomes several; nothing is one.
    let small = transcoder_with(Options { max_body_bytes: 2, ..Options::default() });
    let cut = send(&small, request_of("abcde")).await.json();
    assert_eq!(cut["files"].as_array().map(Vec::len), Some(3));
    let empty = send(&transcoder(), request_of("")).await.json();
    assert_eq!(
        (&empty["files"][0]["name"], empty["files"].as_array().map(Vec::len)),
        (&json!("cat"), Some(1))
    );
}

fn request_of(body: &'static str) -> Request<http_body_util::Full<Bytes>> {
    request("POST", "/v1/chunks/cat", body)
}

async fn line(response: &mut Response<Body>) -> Value {
    let frame = tokio::time::timeout(Duration::from_secs(30), response.body_mut().frame()).await;
    let frame = frame.expect("an answer in time").expect("a frame").expect("no error");
    serde_json::from_slice(&frame.into_data().expect("data")).expect("a line of JSON")
}

/// A10 #107: over HTTP/2 each side speaks when it has something to say, and the errors of both end the answer.
#[tokio::test]
async fn both_ways_at_once_over_http2() {
    for (last, code) in [("{\"text\":\"fail\"}", 10), ("{\"zz\":1}\n", 3)] {
        let (sender, request) = open("/v1/chat/r", Version::HTTP_2);
        sender.send("{\"text\":\"a\"}\n").await.expect("a reader");
        let mut response = transcoder().oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()[header::CONTENT_TYPE], "application/x-ndjson");
        assert_eq!(line(&mut response).await["text"], "a");
        sender.send("{\"text\":\"b\"}\n").await.expect("a reader");
        assert_eq!(line(&mut response).await, json!({"room": "r", "text": "b"}));
        sender.send(last).await.expect("a reader");
        let end = line(&mut response).await;
        assert_eq!(end["error"]["code"], code, "{end}");
        assert!(response.body_mut().frame().await.is_none());
    }
}

/// A10 #107: over HTTP/1.1 the request comes first and then the answer.
#[tokio::test]
async fn one_way_after_the_other_over_http1() {
    let (sender, request) = open("/v1/chat/r", Version::HTTP_11);
    let mut answering = std::pin::pin!(transcoder().oneshot(request));
    for _ in 0..3 {
        tokio::select! {
            _ = &mut answering => panic!("answered before the request ended"),
            sent = sender.send("{\"text\":\"a\"}\n") => sent.expect("a reader"),
        }
    }
    drop(sender);
    let response = answering.await.expect("infallible");
    let lines = answer(response).await.body;
    assert_eq!(lines, "{\"room\":\"r\",\"text\":\"a\"}\n".repeat(3));
}

/// A10 #107: what the service does not ask for is not read from the client.
#[tokio::test]
async fn a_slow_service_slows_its_client() {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    let chunks = stream::iter(0..10_000).map(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{\"text\":\"a\"}\n")))
    });
    let backend = tower::service_fn(|request: Request<Body>| async move {
        let mut body = request.into_body();
        for _ in 0..3 {
            let frame = body.frame().await.expect("a frame").expect("no error");
            assert!(frame.into_data().expect("data").starts_with(&[0]));
        }
        Ok::<_, Infallible>(tonic::Status::aborted("enough").into_http::<Body>())
    });
    let transcoder = Transcoder::new(&super::pool(), backend).expect("rules that can be served");
    let request = Request::post("/v1/collect/r").body(StreamBody::new(chunks)).expect("a request");
    let response = transcoder.oneshot(request).await.expect("infallible");
    assert_eq!((response.status().as_u16(), read.load(Ordering::SeqCst)), (409, 3));
}
