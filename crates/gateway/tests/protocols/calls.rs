//! What a call brings with it, and what its answer does.

use agentrouter_gateway::ProtocolOptions;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, StreamBody};
use prost::Message as _;
use serde_json::{Value, json};
use tonic_types::pb::BadRequest;
use tower::ServiceExt as _;

use crate::{
    Dropped, SERVICE, answer, envelope, envelopes, post, protocols, protocols_with, request, send, wire,
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A7 #83: metadata behind the only message arrives in every protocol.
#[tokio::test]
async fn trailers_of_a_unary_call_are_delivered() {
    let test = ("x-test", "trailers");
    let message = envelope(&wire("GetBookRequest", r#"{"id":"7"}"#));

    let grpc = post("GetBook", &[("content-type", "application/grpc"), test], message.clone()).await;
    let late: Vec<_> = grpc.trailers.get_all("x-late").iter().collect();
    assert_eq!(late, ["1", "2"]);
    assert_eq!(grpc.trailer("grpc-status"), "0");

    let web = post("GetBook", &[("content-type", "application/grpc-web"), test], message).await;
    let (flags, lines) = envelopes(&web.body).pop().expect("trailers");
    let lines = String::from_utf8(lines).expect("text");
    assert_eq!((flags, web.trailers.len()), (0x80, 0));
    assert!(lines.contains("x-late: 1\r\nx-late: 2\r\n") && lines.contains("grpc-status: 0\r\n"), "{lines}");

    let connect = post("GetBook", &[JSON, test], r#"{"id":"7"}"#).await;
    let late: Vec<_> = connect.headers.get_all("trailer-x-late").iter().collect();
    assert_eq!(late, ["1", "2"]);
    assert!(!connect.headers.contains_key("trailer-grpc-status"));

    let rest = send(protocols(), request("GET", "/v1/books/7", &[test], "")).await;
    assert_eq!(rest.headers.get_all("x-late").iter().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(rest.status, 200);
}

/// A7 #82, #84.
#[tokio::test]
async fn headers_become_metadata_and_cannot_be_forged() {
    let headers = [
        JSON,
        ("x-mine", "1"),
        ("x-mine", "2"),
        ("x-blob-bin", "AAE"),
        ("grpc-status", "3"),
        ("connect-protocol-version", "1"),
        ("connect-timeout-ms", "1500"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let answer = post("Create", &headers, "{}").await;
    let seen: Vec<_> = answer.headers.get_all("x-seen-x-mine").iter().collect();
    assert_eq!(seen, ["1", "2"]);
    assert_eq!(answer.header("x-seen-x-blob-bin"), "AAE");
    assert_eq!(answer.header("x-seen-grpc-timeout"), "1500000u");
    for name in ["grpc-status", "connect-protocol-version", "connect-timeout-ms", "x-hop"] {
        assert!(!answer.headers.contains_key(format!("x-seen-{name}")), "{name}");
    }
    assert_eq!(answer.headers.get_all("set-cookie").iter().count(), 2);
}

/// A6 #76: an error keeps its details, and tells them in JSON where their type is known.
#[tokio::test]
async fn errors_of_the_backend_are_told_in_connect() {
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "FULL"});
    let fail = json!({"code": 8, "message": "no room\n", "details": [info]});
    let answer = post("Fail", &[JSON], fail.to_string()).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-error-metadata")), (429, "kept"));
    let error = answer.json();
    let names: Vec<_> = error.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["code", "details", "message"]);
    assert_eq!(
        (error["code"].as_str(), error["message"].as_str()),
        (Some("resource_exhausted"), Some("no room\n"))
    );
    let detail = &error["details"][0];
    assert_eq!(
        (&detail["type"], &detail["debug"]),
        (&json!("google.rpc.ErrorInfo"), &json!({"reason": "FULL"}))
    );
    let value = detail["value"].as_str().expect("base64");
    assert_eq!(STANDARD_NO_PAD.decode(value).expect("no padding"), b"\x0a\x04FULL");

    let stream =
        post("Count", &[("content-type", "application/connect+json")], envelope(br#"{"to":2,"fail":9}"#))
            .await;
    let parts = envelopes(&stream.body);
    let parsed: Vec<Value> =
        parts.iter().map(|(_, text)| serde_json::from_slice(text).expect("JSON")).collect();
    assert_eq!(parts.iter().map(|(flags, _)| *flags).collect::<Vec<_>>(), [0, 0, 2]);
    assert_eq!(parsed[..2], [json!({"number": 1, "square": "1"}), json!({"number": 2, "square": "4"})]);
    assert_eq!(parsed[2]["error"], json!({"code": "failed_precondition", "message": "counted enough"}));
}

/// A4 #56, A6 #76: a wrong field is named in every protocol that reads JSON.
#[tokio::test]
async fn wrong_json_is_the_clients_fault() {
    let answer = post("Create", &[JSON], r#"{"nope":1}"#).await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].as_str()), (400, Some("invalid_argument")));
    let details = answer.json()["details"].as_array().expect("details").clone();
    let bad = details.iter().find(|detail| detail["type"] == "google.rpc.BadRequest").expect("a BadRequest");
    let bad = STANDARD_NO_PAD.decode(bad["value"].as_str().expect("base64")).expect("no padding");
    let bad = BadRequest::decode(&*bad).expect("a BadRequest");
    assert_eq!(bad.field_violations[0].field, "nope");

    let grpc = post("Create", &[("content-type", "application/grpc+json")], envelope(b"{")).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, "3"));
    assert_eq!(post("Create", &[JSON], &b"\"\xff\""[..]).await.status, 400);
}

/// A6 #77: a client whose header block ends at 8 KiB still reads the status.
#[tokio::test]
async fn long_details_never_break_a_grpc_client() {
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "x".repeat(9000)});
    let fail = json!({"code": 8, "message": "no room", "details": [info]}).to_string();
    let grpc =
        post("Fail", &[("content-type", "application/grpc")], envelope(&wire("FailRequest", &fail))).await;
    assert_eq!((grpc.header("grpc-status"), grpc.header("grpc-message")), ("8", "no%20room"));
    assert!(!grpc.headers.contains_key("grpc-status-details-bin"));
    let connect = post("Fail", &[JSON], fail).await;
    assert_eq!(connect.json()["details"][0]["debug"]["reason"].as_str().map(str::len), Some(9000));
}

/// A8 #92: what is short is not worth it.
#[tokio::test]
async fn long_messages_are_compressed() {
    for (length, expected) in [(10, ""), (5000, "gzip")] {
        let body = json!({"s": "x".repeat(length)}).to_string();
        let answer = post("Create", &[JSON, ("accept-encoding", "gzip")], body).await;
        assert_eq!(answer.header("content-encoding"), expected, "{length}");
        assert!(answer.body.len() < 100);

        let message = wire("Everything", &json!({"s": "x".repeat(length)}).to_string());
        let headers = [("content-type", "application/grpc"), ("grpc-accept-encoding", "identity,gzip")];
        let answer = post("Create", &headers, envelope(&message)).await;
        assert_eq!(answer.header("grpc-encoding"), "gzip");
        assert_eq!(envelopes(&answer.body)[0].0, u8::from(length == 5000));
    }
}

/// A9 #100.
#[tokio::test]
async fn large_messages_are_refused() {
    let options = ProtocolOptions { max_message_bytes: 100, ..ProtocolOptions::default() };
    let body = json!({"s": "x".repeat(200)}).to_string();
    let message = envelope(&wire("Everything", &body));
    let path = format!("{SERVICE}/Create");
    let send = |content_type, body: Bytes| {
        let protocols = protocols_with(options.clone(), Dropped::default());
        send(protocols, request("POST", &path, &[("content-type", content_type)], body))
    };
    let connect = send("application/json", body.into()).await;
    assert_eq!((connect.status.as_u16(), connect.json()["code"].as_str()), (429, Some("resource_exhausted")));
    assert_eq!(send("application/grpc", message.into()).await.header("grpc-status"), "8");
}

/// A11 #111: the text form, in chunks that end anywhere, each of them padded.
#[tokio::test]
async fn grpc_web_text_survives_any_chunking() {
    let message = envelope(&wire("GetBookRequest", r#"{"id":"7"}"#));
    let text: String = message.chunks(2).map(|piece| STANDARD.encode(piece)).collect();
    for size in 1..7 {
        let chunks: Vec<_> = text.as_bytes().chunks(size).map(Bytes::copy_from_slice).collect();
        let chunks = chunks.into_iter().map(|chunk| Ok::<_, std::io::Error>(http_body::Frame::data(chunk)));
        let (parts, _) = request(
            "POST",
            &format!("{SERVICE}/GetBook"),
            &[("content-type", "application/grpc-web-text+proto")],
            "",
        )
        .into_parts();
        let body = StreamBody::new(futures::stream::iter(chunks));
        let response = protocols().oneshot(http::Request::from_parts(parts, body)).await.expect("infallible");
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            // Each chunk is padded by itself.
            let data = frame.expect("a frame").into_data().expect("no HTTP trailers");
            bytes.extend(STANDARD.decode(data).expect("base64"));
        }
        let found = envelopes(&bytes);
        assert_eq!(found[0].1, wire("Book", r#"{"id":"7","etag":"v1-7"}"#), "in chunks of {size}");
        assert_eq!(found[1].0, 0x80);
    }
}

/// A9 #97, #98: what is no single message is told apart, and is never the server's fault.
#[tokio::test]
async fn malformed_streams_are_refused() {
    let one = envelope(&[]);
    for (body, code) in [
        (vec![], "12"),
        ([one.clone(), one.clone()].concat(), "12"),
        (vec![0, 0], "3"),
        (vec![0, 0, 0, 0, 9, 1], "3"),
        (vec![2, 0, 0, 0, 0], "13"),
        (vec![0, 0xff, 0xff, 0xff, 0xff], "8"),
    ] {
        let answer = post("Create", &[("content-type", "application/grpc")], body.clone()).await;
        assert_eq!(answer.header("grpc-status"), code, "{body:?}");
    }
}

/// A7 #88: an answer that was read to its end says so once.
#[tokio::test]
async fn streams_end_with_their_status() {
    let message = envelope(&wire("CountRequest", r#"{"to":3}"#));
    let path = format!("{SERVICE}/Count");
    let grpc = request("POST", &path, &[("content-type", "application/grpc")], message);
    let grpc = answer(protocols().oneshot(grpc).await.expect("infallible")).await;
    assert_eq!((envelopes(&grpc.body).len(), grpc.trailer("grpc-status")), (3, "0"));
}
