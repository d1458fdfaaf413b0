//! Entity tags: checklist A11.

use agentrouter_gateway::AnswerOptions;

use super::{asking, get, send, with};
use crate::request;

const THING: &str = "/v1/things/a?etag=v1";

/// A11 #113: by the field `etag`, with lists, `*` and weak tags, for HEAD as for GET.
#[tokio::test]
async fn what_the_client_has_is_not_sent_again() {
    let fresh = get(AnswerOptions::default(), THING, &[]).await;
    assert_eq!((fresh.status.as_u16(), fresh.header("etag")), (200, "\"v1\""));
    for known in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "*"] {
        let answer = get(AnswerOptions::default(), THING, &[("if-none-match", known)]).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (304, 0), "{known}");
        assert_eq!((answer.header("etag"), answer.header("content-type")), ("\"v1\"", ""), "{known}");
    }
    let other = get(AnswerOptions::default(), THING, &[("if-none-match", "\"v0\"")]).await;
    assert_eq!((other.status.as_u16(), other.body), (200, fresh.body));
    let mut head = asking(THING, &[("if-none-match", "\"v1\"")]);
    *head.method_mut() = http::Method::HEAD;
    assert_eq!(send(&with(AnswerOptions::default()), head).await.status, 304);
    // It is a condition of reading: nothing that was done is denied.
    let mut post = request("POST", "/v1/things:accept", "{\"etag\":\"v1\"}");
    post.headers_mut().insert("if-none-match", http::HeaderValue::from_static("\"v1\""));
    assert_eq!(send(&with(AnswerOptions::default()), post).await.status, 202);
}

/// A11 #113: by the body, where an operator wants that, and weak once it is compressed.
#[tokio::test]
async fn bodies_have_tags() {
    let answers = AnswerOptions { etag_of_body: true, compress_from: Some(1), ..AnswerOptions::default() };
    let plain = get(answers.clone(), "/v1/things/a", &[]).await;
    let etag = plain.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.len() > 20, "{etag}");
    assert_ne!(get(answers.clone(), "/v1/things/b", &[]).await.header("etag"), etag);
    assert_eq!(get(AnswerOptions::default(), "/v1/things/a", &[]).await.header("etag"), "");

    let packed = get(answers.clone(), "/v1/things/a", &[("accept-encoding", "gzip")]).await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert_eq!(packed.header("etag"), format!("W/{etag}"));
    for tag in [etag.clone(), format!("W/{etag}")] {
        let mut request = asking("/v1/things/a", &[("accept-encoding", "gzip")]);
        request.headers_mut().insert("if-none-match", tag.parse().expect("a header value"));
        let answer = send(&with(answers.clone()), request).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-encoding")), (304, ""), "{tag}");
    }
}
