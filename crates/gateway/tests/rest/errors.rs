//! Errors of the backend as REST answers: checklist A6.

use std::convert::Infallible;

use agentrouter_gateway::{Options, Transcoder, http_status};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http_body_util::Full;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{ServiceExt as _, service_fn};

use super::{Answer, answer, get, pool, post, request, send, transcoder, transcoder_with};

async fn fail(code: i32, details: Value) -> Answer {
    post("/v1/fail", json!({"code": code, "message": "it failed: é", "details": details}).to_string()).await
}

fn detail(name: &str, fields: &Value) -> Value {
    let mut detail = json!({"@type": format!("type.googleapis.com/google.rpc.{name}")});
    detail.as_object_mut().expect("an object").extend(fields.as_object().expect("an object").clone());
    detail
}

/// A6 #73: the table, for every code.
#[tokio::test]
async fn every_code_has_its_http_status() {
    let table = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ];
    for (code, status) in table {
        let answer = fail(code, json!([])).await;
        assert_eq!(answer.status, status, "{code}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json(), json!({"code": code, "message": "it failed: é", "details": []}));
        assert_eq!(answer.header("x-error-metadata"), "kept");
        assert_eq!(answer.header("www-authenticate"), if code == 16 { "Bearer" } else { "" });
    }
    assert_eq!(http_status(Code::Ok), 200);
}

/// A6 #72: typed details, in the REST form.
#[tokio::test]
async fn details_are_typed() {
    let details = json!([
        detail("ErrorInfo", &json!({"reason": "X", "domain": "d", "metadata": {"b": "2", "a": "1"}})),
        detail("BadRequest", &json!({"field_violations": [
            {"field": "f", "description": "wrong", "reason": "R"},
        ]})),
        detail("ResourceInfo", &json!({
            "resource_type": "t", "resource_name": "n", "owner": "", "description": "",
        })),
        {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "2s"},
    ]);
    assert_eq!(fail(9, details.clone()).await.json()["details"], details);
}

/// A6 #72: an unknown detail keeps its bytes; google.rpc's are known to any pool.
#[tokio::test]
async fn details_outside_the_pool() {
    let transcoder = canned(|| {
        let status = tonic_types::pb::Status {
            code: 5,
            message: "m".to_owned(),
            details: vec![
                prost_types::Any { type_url: "example.com/acme.Secret".to_owned(), value: vec![1, 2, 255] },
                prost_types::Any { type_url: String::new(), value: vec![1] },
            ],
        };
        Status::with_details(Code::NotFound, "m", status.encode_to_vec().into()).into_http()
    });
    let answer = call(&transcoder).await;
    assert_eq!(answer.status, 404);
    assert_eq!(
        answer.json()["details"],
        json!([{"@type": "example.com/acme.Secret", "value": "AQL/"}, {"@type": "", "value": "AQ=="}])
    );
}

/// A6 #75.
#[tokio::test]
async fn retry_info_is_retry_after() {
    for (delay, seconds) in [("2s", "2"), ("1.000000001s", "2"), ("0s", "0")] {
        let answer = fail(14, json!([detail("RetryInfo", &json!({"retry_delay": delay}))])).await;
        assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, seconds), "{delay}");
    }
    assert_eq!(fail(14, json!([])).await.header("retry-after"), "");
}

/// A6 #73, A11 #113: a failed condition is 412, only where there was one.
#[tokio::test]
async fn a_failed_if_match_is_412() {
    for (reason, conditional, code, status) in [
        ("ETAG_MISMATCH", true, 10, 412),
        ("ETAG_MISMATCH", false, 10, 409),
        ("OTHER", true, 10, 409),
        ("ETAG_MISMATCH", true, 9, 400),
    ] {
        let info = detail("ErrorInfo", &json!({"reason": reason}));
        let body = json!({"code": code, "details": [info]}).to_string();
        let mut request = request("POST", "/v1/fail", body);
        if conditional {
            request.headers_mut().insert(header::IF_MATCH, HeaderValue::from_static("\"a\""));
        }
        assert_eq!(send(&transcoder(), request).await.status, status, "{reason} {conditional} {code}");
    }
}

#[tokio::test]
async fn an_unimplemented_rpc_is_501() {
    let answer = get("/v1/not-there").await;
    assert_eq!((answer.status.as_u16(), answer.json()["code"].clone()), (501, json!(12)));
}

/// The operator's own domain and challenge.
#[tokio::test]
async fn domain_and_challenge_are_options() {
    let options = Options {
        error_domain: "example.com".to_owned(),
        www_authenticate: Some(HeaderValue::from_static("Bearer realm=\"x\"")),
        ..Options::default()
    };
    let transcoder = transcoder_with(options);
    let missing = send(&transcoder, request("GET", "/nothing", "")).await;
    assert_eq!(missing.json()["details"][0]["domain"], "example.com");
    let refused = send(&transcoder, request("POST", "/v1/fail", r#"{"code":16}"#)).await;
    assert_eq!(refused.header("www-authenticate"), "Bearer realm=\"x\"");
}

/// Layers around the gateway refuse in the same form.
#[tokio::test]
async fn the_renderer_serves_layers_too() {
    let mut status = Status::permission_denied("not yours");
    status.metadata_mut().insert("x-kept", "1".parse().expect("a metadata value"));
    let answer = answer(transcoder().errors().response(&status)).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-kept")), (403, "1"));
    assert_eq!(answer.json(), json!({"code": 7, "message": "not yours", "details": []}));
}

/// A6 #81: answers that are not gRPC, or broken, are errors with a code and
/// tell the client nothing of the inside.
#[tokio::test]
async fn broken_backends_are_errors_not_panics() {
    type Case = (fn() -> http::Response<Body>, u16, i32);
    let cases: Vec<Case> = vec![
        (|| raw(502, "text/html", &[], "<html>"), 503, 14),
        (|| raw(403, "text/plain", &[], "no"), 403, 7),
        (|| raw(404, "text/plain", &[], "no"), 501, 12),
        (|| raw(200, "text/html", &[], "<html>"), 500, 13),
        (|| raw(200, "application/grpc", &[], ""), 500, 13),
        (|| raw(200, "application/grpc", &[("grpc-status", "0")], ""), 500, 13),
        (|| raw(200, "application/grpc", &[("grpc-status", "x")], ""), 500, 13),
        (|| raw(200, "application/grpc", &[("grpc-status", "77")], ""), 500, 2),
        (
            || raw(200, "application/grpc", &[("grpc-status", "5"), ("grpc-status-details-bin", "*")], ""),
            404,
            5,
        ),
        (|| raw(200, "application/grpc", &[], "\0\0\0\0\x09x"), 500, 13),
        (|| raw(200, "application/grpc", &[], "\x01\0\0\0\0"), 500, 13),
        (|| raw(200, "application/grpc", &[], "\0\0\0\0\x02\x08"), 500, 13),
    ];
    for (index, (response, status, code)) in cases.into_iter().enumerate() {
        let answer = call(&canned(response)).await;
        assert_eq!(
            (answer.status.as_u16(), answer.json()["code"].clone()),
            (status, json!(code)),
            "case {index}"
        );
        assert!(!answer.json()["message"].to_string().contains("html"), "case {index}");
    }
}

fn raw(
    status: u16,
    content_type: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> http::Response<Body> {
    let response = http::Response::builder().status(status).header("content-type", content_type);
    let response = headers.iter().fold(response, |response, (name, value)| response.header(*name, *value));
    response.body(Body::new(Full::new(Bytes::from_static(body.as_bytes())))).expect("a response")
}

type Canned = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// A transcoder over a backend with one answer.
fn canned(response: fn() -> http::Response<Body>) -> Transcoder<Canned> {
    let backend = Canned::new(service_fn(move |_| async move { Ok(response()) }));
    Transcoder::new(&pool(), backend).expect("rules that can be served")
}

async fn call(transcoder: &Transcoder<Canned>) -> Answer {
    answer(transcoder.clone().oneshot(request("GET", "/v1/query", "")).await.expect("infallible")).await
}
