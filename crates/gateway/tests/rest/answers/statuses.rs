//! Statuses of success and trailing metadata: checklist A6 and A7.

use agentrouter_gateway::AnswerOptions;
use http::HeaderName;
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

use super::{asking, get, send, with};
use crate::request;

/// A6 #78: by the method's option, with the place of the thing.
#[tokio::test]
async fn a_method_has_a_status_of_its_own() {
    let transcoder = with(AnswerOptions::default());
    let body = r#"{"id":"a/b ü","part":{"number":"-7"}}"#;
    let created = send(&transcoder, request("POST", "/v1/things", body)).await;
    assert_eq!((created.status.as_u16(), created.header("location")), (201, "/v1/things/a%2Fb%20%C3%BC/-7"));
    assert_eq!(created.json()["id"], "a/b ü");
    // A place that is not known is not told.
    let placeless = send(&transcoder, request("POST", "/v1/things", "{}")).await;
    assert_eq!((placeless.status.as_u16(), placeless.header("location")), (201, ""));
    assert_eq!(send(&transcoder, request("POST", "/v1/things:accept", "{}")).await.status, 202);
    let moved = send(&transcoder, request("GET", "/v1/moved/a", "")).await;
    assert_eq!((moved.status.as_u16(), moved.header("location")), (303, "/v1/things/a"));
}

/// A6 #78: by what the rpc says, and 204 for nothing to say; where an operator lets them.
#[tokio::test]
async fn an_rpc_chooses_its_status() {
    let name = HeaderName::from_static("x-http-status");
    let chosen = AnswerOptions { status_metadata: Some(name), ..AnswerOptions::default() };
    for (status, expected) in
        [("202", 202), ("307", 307), ("204", 204), ("404", 200), ("304", 200), ("x", 200)]
    {
        let uri = format!("/v1/things/a?headers=x-http-status:{status}&headers=location:/there");
        let answer = get(chosen.clone(), &uri, &[]).await;
        assert_eq!((answer.status.as_u16(), answer.header("location")), (expected, "/there"), "{status}");
        assert_eq!(answer.header("x-http-status"), "", "{status}");
        assert_eq!(answer.body.is_empty(), expected == 204, "{status}");
        let ignored = get(AnswerOptions::default(), &uri, &[]).await;
        assert_eq!((ignored.status.as_u16(), ignored.header("x-http-status")), (200, status));
    }
    let empty = AnswerOptions { empty_is_no_content: true, ..AnswerOptions::default() };
    let gone = send(&with(empty), request("DELETE", "/v1/things/a", "")).await;
    assert_eq!((gone.status.as_u16(), gone.body.len(), gone.header("content-type")), (204, 0, ""));
    let gone = send(&with(AnswerOptions::default()), request("DELETE", "/v1/things/a", "")).await;
    assert_eq!((gone.status.as_u16(), &*gone.body), (200, &b"{}"[..]));
}

/// A7 #83: trailing metadata is among the headers, or behind the body for clients that take trailers.
#[tokio::test]
async fn trailers_come_last_where_they_are_taken() {
    for (uri, is_announced) in
        [("/v1/things/a?trailers=x-cost:7", true), ("/v1/events?to=1&trailers=x-cost:7", false)]
    {
        for encoding in ["identity", "gzip"] {
            let request = asking(uri, &[("te", "trailers"), ("accept-encoding", encoding)]);
            let response = with(AnswerOptions { compress_from: Some(1), ..AnswerOptions::default() });
            let response = response.oneshot(request).await.expect("infallible");
            assert!(!response.headers().contains_key("x-cost"), "{uri}");
            assert_eq!(
                response.headers().get("trailer").is_some_and(|names| names == "x-cost"),
                is_announced
            );
            let collected = response.into_body().collect().await.expect("a body");
            let trailers = collected.trailers().expect("trailers").clone();
            assert_eq!(trailers["x-cost"], "7", "{uri}");
            assert_eq!(trailers.len(), 1, "{trailers:?}");
            assert!(!collected.to_bytes().is_empty(), "{uri}");
        }
    }
    let without = get(AnswerOptions::default(), "/v1/things/a?trailers=x-cost:7", &[]).await;
    assert_eq!(without.header("x-cost"), "7");
}
