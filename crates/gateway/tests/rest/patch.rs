//! Update masks and entity tags: checklist A5 and A11 #113.

use http::header::{self, HeaderValue};
use serde_json::{Value, json};

use super::{get, request, send, transcoder};

async fn patch(uri: &str, body: &str) -> Value {
    let answer = send(&transcoder(), request("PATCH", uri, body.to_owned())).await;
    assert_eq!(answer.status, 200, "{uri} {body}: {answer:?}");
    answer.json()
}

/// A5 #67, #68, #70: the mask is the body's members, nulls included, in proto
/// names, without what the path binds, the mask itself and the etag.
#[tokio::test]
async fn an_absent_mask_is_the_members_of_the_body() {
    for (uri, body, expected) in [
        ("/v1/books/1", r#"{"displayName":"x"}"#, json!("displayName")),
        ("/v1/books/1", r#"{"labels":{"a":"b"},"display_name":null}"#, json!("labels,displayName")),
        ("/v1/books/1", r#"{"id":"1","etag":"e","extra":{"deep":{"er":1}}}"#, json!("extra")),
        ("/v1/books/1", r#"{"book":{"displayName":"x"}}"#, json!("book")),
        ("/v1/books/1", r#"{"updateMask":null,"labels":{}}"#, json!("labels")),
        ("/v1/books/1", "{}", Value::Null),
        ("/v1/books/1", "", Value::Null),
        (
            "/v1/shelves/7",
            r#"{"id":"7","displayName":"x","authors":[],"etag":"e"}"#,
            json!("displayName,authors"),
        ),
    ] {
        assert_eq!(patch(uri, body).await["update_mask"], expected, "{uri} {body}");
    }
    assert_eq!(patch("/v1/shelves/7", r#"{"authors":[]}"#).await["book"]["id"], "7");
}

/// A5 #69: a mask the client sent stands.
#[tokio::test]
async fn a_mask_from_the_client_wins() {
    for (uri, body, expected) in [
        ("/v1/books/1", r#"{"labels":{},"updateMask":"displayName"}"#, "displayName"),
        ("/v1/books/1", r#"{"labels":{},"update_mask":"display_name"}"#, "displayName"),
        ("/v1/books/1", r#"{"labels":{},"update_mask":"*"}"#, "*"),
        ("/v1/books/1", r#"{"labels":{},"update_mask":""}"#, ""),
        ("/v1/shelves/7?update_mask=authors,displayName", r#"{"etag":"e"}"#, "authors,displayName"),
    ] {
        assert_eq!(patch(uri, body).await["update_mask"], expected, "{uri} {body}");
    }
}

/// A5 #69: a path that is no field of the body's message is named, wherever the mask came from.
#[tokio::test]
async fn an_unknown_path_of_a_mask_is_refused() {
    for (uri, refused) in [
        ("/v1/shelves/7?update_mask=nope", Some("`nope`")),
        ("/v1/shelves/7?updateMask=displayName,authorz", Some("`authorz`")),
        ("/v1/shelves/7?update_mask=id.x", Some("`id.x`")),
        ("/v1/shelves/7?update_mask=display_name,labels.env,extra.a.b,*", None),
    ] {
        let answer = send(&transcoder(), request("PATCH", uri, r#"{"authors":["a"]}"#)).await;
        let Some(path) = refused else {
            assert_eq!(answer.status, 200, "{uri}: {answer:?}");
            continue;
        };
        assert_eq!(answer.violations(), ["update_mask: UNKNOWN_FIELD"], "{uri}");
        assert!(answer.json()["message"].to_string().contains(path), "{uri}: {answer:?}");
    }
}

/// A5 #69, #70: PUT replaces all of it, unless the client says what.
#[tokio::test]
async fn a_put_has_a_full_mask() {
    for (body, expected) in [
        (r#"{"displayName":"x"}"#, "*"),
        ("", "*"),
        (r#"{"displayName":"x","update_mask":"labels"}"#, "labels"),
    ] {
        let put = send(&transcoder(), request("PUT", "/v1/books/1", body)).await;
        assert_eq!(put.json()["update_mask"], expected, "{body}");
    }
}

/// A11 #113: `etag` of the answer is its `ETag`.
#[tokio::test]
async fn an_etag_field_is_sent_as_etag() {
    assert_eq!(get("/v1/books/7").await.header("etag"), "\"v1-7\"");
    // What no entity tag can hold stays in the body only.
    let odd = get("/v1/books/%22%20").await;
    assert_eq!((odd.header("etag"), odd.json()["etag"].clone()), ("", json!("v1-\" ")));
    assert_eq!(get("/v1/query").await.header("etag"), "");
}

/// A11 #113: `If-Match` is the request's etag.
#[tokio::test]
async fn if_match_binds_the_etag() {
    for (value, body, expected) in [
        ("\"abc\"", "{}", "abc"),
        ("W/\"abc\"", "{}", "abc"),
        ("abc", "{}", "abc"),
        ("*", "{}", ""),
        ("\"abc\"", r#"{"etag":"mine"}"#, "mine"),
    ] {
        let mut request = request("PATCH", "/v1/books/1", body);
        request.headers_mut().insert(header::IF_MATCH, HeaderValue::from_static(value));
        let answer = send(&transcoder(), request).await;
        assert_eq!(answer.json()["etag"], expected, "{value} {body}");
    }
    for value in ["\"a\", \"b\"", "\"\"", ""] {
        let mut request = request("PATCH", "/v1/books/1", "{}");
        request.headers_mut().insert(header::IF_MATCH, HeaderValue::from_static(value));
        assert_eq!(send(&transcoder(), request).await.violations(), ["If-Match: INVALID_VALUE"], "{value}");
    }
}
