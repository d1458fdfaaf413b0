//! Which protocol a request is answered in.

use crate::{SERVICE, envelope, envelopes, post, protocols, request, send, wire};

/// A1 #17, A9 #94: REST lives beside the rpcs, and no protocol takes the other's requests.
#[tokio::test]
async fn one_service_speaks_every_protocol() {
    let rest = send(protocols(), request("GET", "/v1/books/7", &[], "")).await;
    assert_eq!((rest.json()["id"].as_str(), rest.header("etag")), (Some("7"), "\"v1-7\""));

    let connect = post("GetBook", &[("content-type", "application/json")], r#"{"id":"7"}"#).await;
    assert_eq!(connect.json(), serde_json::json!({"id": "7", "etag": "v1-7"}));
    assert_eq!(connect.header("content-type"), "application/json");

    let message = wire("GetBookRequest", r#"{"id":"7"}"#);
    let proto = post("GetBook", &[("content-type", "application/proto")], message.clone()).await;
    assert_eq!(&proto.body[..], wire("Book", r#"{"id":"7","etag":"v1-7"}"#));

    for content_type in ["application/grpc", "application/grpc+proto", "application/grpc-web+proto"] {
        let framed = post("GetBook", &[("content-type", content_type)], envelope(&message)).await;
        assert_eq!(framed.header("content-type"), content_type);
        assert_eq!(envelopes(&framed.body)[0], (0, proto.body.to_vec()), "{content_type}");
    }
    let json =
        post("GetBook", &[("content-type", "application/grpc+json")], envelope(br#"{"id":"7"}"#)).await;
    assert_eq!(envelopes(&json.body)[0].1, connect.body);
}

/// A1 #17: an rpc without a rule is called by its name, with JSON and no header but its type.
#[tokio::test]
async fn an_rpc_without_a_rule_is_a_post_to_its_name() {
    let headers = [("content-type", "application/json")];
    let path = format!("{SERVICE}/NoRest");
    let answer = send(protocols(), request("POST", &path, &headers, r#"{"s":"x"}"#)).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["s"]), (200, &"x".into()));
    let wrong = send(protocols(), request("POST", &path, &headers, r#"{"zz":"x"}"#)).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["code"]), (400, &"invalid_argument".into()));
}

/// A9 #96.
#[tokio::test]
async fn rpcs_are_called_by_post_and_some_by_get() {
    let path = format!("{SERVICE}/Create");
    for (method, content_type) in [("GET", ""), ("DELETE", "application/grpc"), ("PUT", "application/json")] {
        let answer = send(protocols(), request(method, &path, &[("content-type", content_type)], "")).await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "OPTIONS, POST"), "{method}");
    }
    let path = format!("{SERVICE}/GetBook");
    let refused = send(protocols(), request("DELETE", &path, &[], "")).await;
    assert_eq!((refused.status.as_u16(), refused.header("allow")), (405, "GET, HEAD, OPTIONS, POST"));
    assert_eq!(refused.json()["code"], "unknown");
    let options = send(protocols(), request("OPTIONS", &path, &[], "")).await;
    assert_eq!((options.status.as_u16(), options.header("allow")), (204, "GET, HEAD, OPTIONS, POST"));
}

/// A11 #109.
#[tokio::test]
async fn get_calls_what_has_no_side_effects() {
    let path = format!("{SERVICE}/GetBook?connect=v1&encoding=json&message=%7B%22id%22%3A%227%22%7D");
    let get = send(protocols(), request("GET", &path, &[], "")).await;
    assert_eq!((get.status.as_u16(), get.header("vary")), (200, "accept-encoding"));
    assert_eq!(get.json()["etag"], "v1-7");
    let head = send(protocols(), request("HEAD", &path, &[], "")).await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.header("content-length"), get.body.len().to_string());

    let path = format!("{SERVICE}/GetBook");
    for (query, status, code) in [
        ("", 400, "invalid_argument"),
        ("?encoding=json&message=%7B", 400, "invalid_argument"),
        ("?encoding=xml&message=", 415, "unknown"),
        ("?encoding=json&message={}&compression=foo", 501, "unimplemented"),
        ("?connect=v2&encoding=json&message={}", 400, "invalid_argument"),
    ] {
        let refused = send(protocols(), request("GET", &format!("{path}{query}"), &[], "")).await;
        assert_eq!(refused.status, status, "{query}");
        assert_eq!(refused.json()["code"], code, "{query}");
    }
}

/// A1 #18: what is refused has no body either, in the protocols as over REST.
#[tokio::test]
async fn head_is_never_answered_with_a_body() {
    for (rpc, headers, status) in [
        ("Create", &[][..], 405),
        ("Missing", &[], 404),
        ("Missing", &[("content-type", "application/json"), ("connect-protocol-version", "1")], 404),
        ("Missing", &[("content-type", "application/proto")], 404),
        ("GetBook", &[], 400),
    ] {
        let head = send(protocols(), request("HEAD", &format!("{SERVICE}/{rpc}"), headers, "")).await;
        assert_eq!((head.status.as_u16(), head.body.len()), (status, 0), "{rpc} {headers:?}");
    }
}

/// A10 #108: there is no bridge, and a browser is told so by an answer that is no switch of protocols.
#[tokio::test]
async fn no_connection_becomes_a_web_socket() {
    let handshake = [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (path, status) in [("/v1/books/7".to_owned(), 200), (format!("{SERVICE}/Count"), 405)] {
        let answer = send(protocols(), request("GET", &path, &handshake, "")).await;
        assert_eq!((answer.status.as_u16(), answer.header("sec-websocket-accept")), (status, ""), "{path}");
    }
}

/// A6 #79, A9 #95.
#[tokio::test]
async fn what_cannot_be_read_is_refused_in_the_callers_protocol() {
    for (method, content_type, answer_type) in [
        ("Create", "image/jpeg", "text/plain; charset=utf-8"),
        ("Create", "application/json; charset=latin1", "application/json"),
        ("Create", "application/connect+json", "application/json"),
        ("Create", "application/grpc+foo", "application/grpc+foo"),
        ("Count", "application/json", "application/json"),
    ] {
        let answer = post(method, &[("content-type", content_type)], "").await;
        assert_eq!(answer.status, 415, "{content_type}");
        assert_eq!(answer.header("content-type"), answer_type, "{content_type}");
        let accepted = answer.header("accept-post");
        assert!(accepted.contains("application/grpc+json"), "{accepted}");
        assert_eq!(accepted.contains("application/connect+json"), method == "Count", "{accepted}");
    }
    let version = [("content-type", "application/json"), ("connect-protocol-version", "2")];
    assert_eq!(post("Create", &version, "{}").await.status, 400);
}

/// A1 #20, A6 #79.
#[tokio::test]
async fn what_does_not_exist_is_not_there_in_the_callers_protocol() {
    let path = format!("{SERVICE}/Missing");
    let send = |headers: &'static [(&str, &str)]| send(protocols(), request("POST", &path, headers, "{}"));
    let grpc = send(&[("content-type", "application/grpc")]).await;
    assert_eq!((grpc.status.as_u16(), grpc.header("grpc-status")), (200, "12"));

    let web = send(&[("content-type", "application/grpc-web+proto")]).await;
    let (flags, trailers) = envelopes(&web.body).remove(0);
    assert_eq!((web.status.as_u16(), flags), (200, 0x80));
    assert!(trailers.starts_with(b"grpc-status: 12\r\n") || trailers.ends_with(b"grpc-status: 12\r\n"));

    for headers in [
        &[("content-type", "application/proto")][..],
        &[("content-type", "application/connect+json")],
        &[("content-type", "application/json"), ("connect-protocol-version", "1")],
    ] {
        let connect = send(headers).await;
        assert_eq!((connect.status.as_u16(), connect.json()["code"].as_str()), (404, Some("unimplemented")));
    }
    let rest = send(&[("content-type", "application/json")]).await;
    assert_eq!((rest.status.as_u16(), rest.json()["code"].as_i64()), (404, Some(5)));
}
