//! Streams, message by message.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;

use super::*;

const GOOD: &str = r#"{"sku":"a","count":1}"#;
const EXPECTED: [&str; 2] = [
    "[1].count: uint32.gt_lte: value must be greater than 0 and less than or equal to 100",
    "[1].sku: string.min_len: value length must be at least 1 characters",
];

fn frames(messages: &[&str]) -> Vec<u8> {
    messages.iter().flat_map(|json| envelope(&wire("Item", json))).collect()
}

/// A12 #118: a message that breaks a rule ends the call, whatever the service makes of it.
#[tokio::test]
async fn a_wrong_message_ends_the_call_in_every_protocol() {
    let gateway = Gateway::new();
    let messages = [GOOD, "{}", GOOD];
    for rpc in ["Talk", "Collect"] {
        let path = format!("/validated.v1.Shop/{rpc}");

        let grpc = gateway.post(&path, "application/grpc", frames(&messages)).await;
        let details = grpc.trailers.get("grpc-status-details-bin").expect("details");
        assert_eq!(of_status(told(details.to_str().expect("ASCII"))), EXPECTED, "{rpc}");
        assert_eq!(grpc.body, frames(&messages[..1]), "{rpc}");

        let web = gateway.post(&path, "application/grpc-web", frames(&messages)).await;
        let parts = envelopes(&web.body);
        let block = String::from_utf8(parts[1].1.clone()).expect("text");
        let details = block.lines().find_map(|line| line.strip_prefix("grpc-status-details-bin: "));
        assert_eq!(
            (parts.len(), of_status(told(details.expect("details"))).as_slice()),
            (2, &EXPECTED.map(str::to_owned)[..])
        );

        let connect = gateway.post(&path, "application/connect+proto", frames(&messages)).await;
        let parts = envelopes(&connect.body);
        let end: serde_json::Value = serde_json::from_slice(&parts[1].1).expect("JSON");
        assert_eq!((parts[1].0, &end["error"]["code"]), (2, &"invalid_argument".into()), "{end}");
        let details = end["error"]["details"].as_array().expect("details").iter();
        let bad = details.filter(|detail| detail["type"] == "google.rpc.BadRequest");
        let bad = bad
            .map(|detail| STANDARD_NO_PAD.decode(detail["value"].as_str().expect("text")).expect("base64"));
        assert_eq!(violations(bad), EXPECTED, "{rpc}");
    }

    let lines = messages.join("\n");
    let collect = gateway.post("/v1/items:collect", "application/x-ndjson", lines.clone()).await;
    assert_eq!(collect.status, 400);
    assert_eq!(rest_violations(&collect.json()), EXPECTED);
    let talk = gateway.post("/v1/items:talk", "application/x-ndjson", lines).await;
    let lines: Vec<serde_json::Value> =
        talk.body.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
    assert_eq!((lines.len(), &lines[0]["sku"]), (2, &"a".into()));
    assert_eq!(rest_violations(&lines[1]["error"]), EXPECTED);
}

fn rest_violations(error: &serde_json::Value) -> Vec<String> {
    let violations = error["details"][1]["field_violations"].as_array().expect("violations").iter();
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    violations
        .map(|v| format!("{}: {}: {}", text(&v["field"]), text(&v["reason"]), text(&v["description"])))
        .collect()
}

/// A12 #118: what keeps to the rules passes as it is, and what is cut off is the service's affair.
#[tokio::test]
async fn right_messages_pass_as_they_came() {
    let gateway = Gateway::new();
    let path = "/validated.v1.Shop/Talk";
    let whole = frames(&[GOOD, GOOD, GOOD]);
    let answer = gateway.post(path, "application/grpc", whole.clone()).await;
    assert_eq!(
        (answer.body.as_ref(), &answer.trailers["grpc-status"]),
        (&whole[..], &"0".parse().expect("a value"))
    );
    let none = gateway.post(path, "application/grpc", "").await;
    assert_eq!((none.body.len(), &none.trailers["grpc-status"]), (0, &"0".parse().expect("a value")));
}

/// Sends frames one after the other, straight to the layer.
fn open(backend: Backend, path: &str) -> (mpsc::Sender<Vec<u8>>, impl Future<Output = Response<Body>>) {
    let (sender, receiver) = mpsc::channel(64);
    let chunks =
        ReceiverStream::new(receiver).map(|chunk| Ok::<_, Infallible>(Frame::data(Bytes::from(chunk))));
    let request = Request::post(path).body(Body::new(StreamBody::new(chunks))).expect("a request");
    let validated = Validation::new(&pool()).expect("rules that work").layer(backend);
    (sender, async { validated.oneshot(request).await.expect("infallible") })
}

/// A12 #118, A10 #107: messages are checked and passed on as they come, however they are cut; the answer ends at once.
#[tokio::test]
async fn messages_are_checked_as_they_come() {
    let (sender, response) = open(echo(Arc::default()), "/validated.v1.Shop/Talk");
    let mut body = response.await.into_body();
    let good = envelope(&wire("Item", GOOD));
    for byte in &good {
        sender.send(vec![*byte]).await.expect("a reader");
    }
    let echoed = body.frame().await.expect("a frame").expect("no error").into_data().expect("data");
    assert_eq!(echoed, good);
    sender.send(envelope(b"")).await.expect("a reader");
    let last = body.frame().await.expect("a frame").expect("no error").into_trailers().expect("trailers");
    assert_eq!(last["grpc-status"], "3");
    assert!(body.frame().await.is_none());
    assert!(timeout(Duration::from_secs(5), sender.closed()).await.is_ok(), "the rest is still read");
}

/// A12 #118: a service that reads everything and never answers holds nobody up.
#[tokio::test]
async fn a_silent_service_does_not_hide_a_fault() {
    let silent = BoxCloneSyncService::new(service_fn(|request: Request<Body>| async {
        let _ = request.into_body().collect().await;
        std::future::pending::<Result<Response<Body>, Infallible>>().await
    }));
    let (sender, response) = open(silent, "/validated.v1.Shop/Collect");
    sender.send(envelope(b"")).await.expect("a reader");
    let response = timeout(Duration::from_secs(5), response).await.expect("an answer");
    assert_eq!(response.headers()["grpc-status"], "3");
}

/// A12 #118: what cannot be looked into does not pass.
#[tokio::test]
async fn compressed_messages_are_refused() {
    for path in ["/validated.v1.Shop/Order", "/validated.v1.Shop/Talk"] {
        let (sender, response) = open(echo(Arc::default()), path);
        sender.send(vec![1, 0, 0, 0, 0]).await.expect("a reader");
        drop(sender);
        let response = response.await;
        let status = response.headers().get("grpc-status").cloned();
        let trailers = response.into_body().collect().await.expect("a body").trailers().cloned();
        let status = status.or_else(|| trailers.and_then(|trailers| trailers.get("grpc-status").cloned()));
        assert_eq!(status.expect("a status"), "12", "{path}");
    }
}
