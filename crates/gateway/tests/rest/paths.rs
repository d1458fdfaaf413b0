//! Paths and HTTP methods: checklist A1, and the path rows of B.7.

use http::header;
use proptest::prelude::*;
use serde_json::json;

use super::{answer, get, post, request, send, transcoder, transcoder_with};

/// A1 #2, #3, #4, #5, #6, #7, #8, #9, #11, #12, #15: which rpc a request reaches, and what it binds.
#[tokio::test]
async fn a_path_reaches_its_rpc_and_binds_decoded_once() {
    let transcoder = transcoder();
    let cases = [
        ("GET", "/v1/items/5", "GetItem", "5"),
        ("GET", "/v1/items/a%2Fb", "GetItem", "a/b"),
        ("GET", "/v1/items/%2525", "GetItem", "%25"),
        ("GET", "/v1/items/%25", "GetItem", "%"),
        ("GET", "/v1/items/a+b", "GetItem", "a+b"),
        ("GET", "/v1/items/caf%C3%A9", "GetItem", "café"),
        ("GET", "/v1/it%65ms/5", "GetItem", "5"),
        ("GET", "/v1/items/urn:a:b", "GetItem", "urn:a:b"),
        ("GET", "/v1/items/search", "GetItem", "search"),
        ("GET", "/v1/items/x:revoke", "GetItem", "x:revoke"),
        ("POST", "/v1/items/a:b:revoke", "RevokeItem", "a:b"),
        ("POST", "/v1/items/search", "SearchItems", ""),
        ("GET", "/v1/files", "GetFile", "files"),
        ("GET", "/v1/files/a/b", "GetFile", "files/a/b"),
        ("GET", "/v1/files/a%2Fb/c%20d", "GetFile", "files/a%2Fb/c d"),
        ("GET", "/v1/files/rev", "GetFileRevision", "files"),
        ("GET", "/v1/files/a/b/rev", "GetFileRevision", "files/a/b"),
        ("PURGE", "/v1/cache/k", "Purge", "k"),
        ("GET", "/v1/anything", "Anything", ""),
        ("TRACE", "/v1/anything", "Anything", ""),
    ];
    for (method, uri, rpc, bound) in cases {
        let answer = send(&transcoder, request(method, uri, "")).await;
        assert_eq!(answer.status, 200, "{method} {uri}: {answer:?}");
        assert_eq!(answer.header("x-rpc"), format!("gateway.test.v1.Echo.{rpc}"), "{method} {uri}");
        assert_eq!(answer.json()["s"], bound, "{method} {uri}");
    }
}

/// A1 #7: the option of the annotation's definition.
#[tokio::test]
async fn fully_decoded_reserved_expansion_is_an_option() {
    let options = agentrouter_gateway::Options {
        fully_decode_reserved_expansion: true,
        ..agentrouter_gateway::Options::default()
    };
    let answer = send(&transcoder_with(options), request("GET", "/v1/files/a%2Fb", "")).await;
    assert_eq!(answer.json()["s"], "files/a/b");
}

/// A1 #14, A2 #24: an additional binding with a dotted path creates the parent.
#[tokio::test]
async fn an_additional_binding_binds_a_nested_field() {
    let answer = get("/v1/alias/x/nested/y").await;
    assert_eq!(answer.header("x-rpc"), "gateway.test.v1.Echo.GetItem");
    let json = answer.json();
    assert_eq!(json["s"], "x");
    assert_eq!(json["msg"], json!({"name": "y", "page_size": 0, "tags": []}));
}

/// Path captures are typed as query parameters are.
#[tokio::test]
async fn captures_of_every_scalar_kind() {
    let json = get("/v1/kinds/-5/18446744073709551615/true/COLOUR_GREEN/-_8").await.json();
    assert_eq!(json["i32"], -5);
    assert_eq!(json["u64"], "18446744073709551615");
    assert_eq!(json["b"], true);
    assert_eq!(json["e"], "COLOUR_GREEN");
    assert_eq!(json["by"], "+/8=");

    let answer = get("/v1/kinds/1.5/-1/yes/BLUE/*").await;
    let expected = ["i32", "u64", "b", "e", "by"].map(|field| format!("{field}: INVALID_VALUE"));
    assert_eq!(answer.violations(), expected);
    let detail = answer.json()["details"][1]["field_violations"][3]["description"].to_string();
    assert!(detail.contains("COLOUR_RED") && detail.contains("`BLUE`"), "{detail}");
}

/// A1 #10: bad escapes in a capture.
#[tokio::test]
async fn malformed_escapes_are_violations() {
    for path in ["/v1/items/%zz", "/v1/items/%4", "/v1/items/%ff", "/v1/items/%", "/v1/items/%C3"] {
        assert_eq!(get(path).await.violations(), ["s: INVALID_VALUE"], "{path}");
    }
}

/// A1 #2, #20, #22.
#[tokio::test]
async fn an_unknown_path_is_404_with_a_json_error() {
    for path in
        ["/v1/items/", "/v1//items/x", "/v1/items/x/", "/v2/items/x", "/", "/V1/items/x", "/v1/files/"]
    {
        let answer = get(path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(
            answer.json(),
            json!({
                "code": 5,
                "message": "no route has this path",
                "details": [{
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "ROUTE_NOT_FOUND",
                    "domain": "agentrouter",
                    "metadata": {},
                }],
            })
        );
    }
}

/// A1 #12, #21: the union over all templates, sorted.
#[tokio::test]
async fn a_wrong_method_is_405_with_the_complete_allow() {
    for (method, uri, allow) in [
        ("PUT", "/v1/items/search", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("PUT", "/v1/items/5", "DELETE, GET, HEAD, OPTIONS"),
        ("PUT", "/v1/items/5:revoke", "DELETE, GET, HEAD, OPTIONS, POST"),
        ("GET", "/v1/create", "OPTIONS, POST"),
        ("GET", "/v1/cache/k", "OPTIONS, PURGE"),
    ] {
        let answer = send(&transcoder(), request(method, uri, "")).await;
        assert_eq!(answer.status, 405, "{method} {uri}");
        assert_eq!(answer.header("allow"), allow, "{method} {uri}");
        assert_eq!(answer.json()["code"], 12);
        assert_eq!(answer.reason(), "METHOD_NOT_ALLOWED");
    }
}

/// A1 #18.
#[tokio::test]
async fn head_is_a_get_without_the_body() {
    let get = get("/v1/books/7").await;
    let head = send(&transcoder(), request("HEAD", "/v1/books/7", "")).await;
    assert_eq!(head.status, 200);
    assert_eq!(head.body.len(), 0);
    assert_eq!(head.header("content-length"), get.body.len().to_string());
    for name in ["content-type", "etag", "x-rpc"] {
        assert_eq!(head.header(name), get.header(name), "{name}");
    }

    let missing = send(&transcoder(), request("HEAD", "/v1/nothing", "")).await;
    assert_eq!((missing.status.as_u16(), missing.body.len()), (404, 0));
    assert_ne!(missing.header("content-length"), "0");
}

/// A1 #19.
#[tokio::test]
async fn options_lists_what_a_path_has() {
    let answer = send(&transcoder(), request("OPTIONS", "/v1/items/5", "")).await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (204, 0));
    assert_eq!(answer.header("allow"), "DELETE, GET, HEAD, OPTIONS");

    assert_eq!(send(&transcoder(), request("OPTIONS", "/v1/nothing", "")).await.status, 404);

    let all = send(&transcoder(), request("OPTIONS", "*", "")).await;
    assert_eq!(all.status, 204);
    assert_eq!(all.header("allow"), "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PURGE, PUT");
}

/// Unannotated methods have no route.
#[tokio::test]
async fn only_annotated_methods_are_exposed() {
    assert_eq!(post("/gateway.test.v1.Echo/NoRest", "{}").await.status, 404);
    let routes: Vec<_> = transcoder().routes().cloned().collect();
    assert!(routes.iter().all(|route| !route.rpc.ends_with("NoRest")));
    let first = &routes[0];
    assert_eq!(
        (first.method.as_str(), first.template.as_str(), first.rpc.as_str()),
        ("GET", "/v1/items/{s}", "gateway.test.v1.Echo.GetItem")
    );
    assert!(routes.iter().any(|route| route.method == "*" && route.template == "/v1/anything"));
}

/// A6 #79: a gRPC call that reached no service is answered in gRPC.
#[tokio::test]
async fn an_unknown_grpc_method_is_answered_in_grpc() {
    let mut request = request("POST", "/no.Such/Method", "");
    request.headers_mut().insert(header::CONTENT_TYPE, "application/grpc+proto".parse().expect("a value"));
    let answer = send(&transcoder(), request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), "12");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A9 #103: whatever the path and query, an answer below 500.
    #[test]
    fn no_uri_is_a_server_error(uri in "/v1/(items|files|kinds|query|count)[/a-z0-9%:=&?.+_-]{0,48}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let status = runtime.block_on(async {
            let Ok(uri) = uri.parse::<http::Uri>() else { return 400 };
            let mut request = request("GET", "/", "");
            *request.uri_mut() = uri;
            let response = tower::ServiceExt::oneshot(transcoder(), request).await.expect("infallible");
            // A stream may be endless, and its status is all that counts here.
            if response.headers()[header::CONTENT_TYPE] == "application/x-ndjson" {
                return response.status().as_u16();
            }
            answer(response).await.status.as_u16()
        });
        prop_assert!(status < 500, "{status} for {uri}");
    }
}
