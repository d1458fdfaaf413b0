//! Headers, metadata, extensions and deadlines: checklist A7; and the whole
//! thing behind axum and a socket.

use std::sync::Arc;

use agentrouter_gateway::{RouteInfo, Transcoder};
use http::header::HeaderValue;
use http::{HeaderName, Request};
use http_body_util::{BodyExt as _, Full};
use tonic::body::Body;
use tonic::service::Routes;
use tower::ServiceExt as _;

use super::backend::{Principal, backend};
use super::{Answer, pool, request, send, transcoder};

async fn get_with(headers: &[(&'static str, &'static str)]) -> Answer {
    let mut request = request("GET", "/v1/query", "");
    for (name, value) in headers {
        request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    send(&transcoder(), request).await
}

/// A7 #82, #84.
#[tokio::test]
async fn headers_become_metadata() {
    let answer = get_with(&[
        ("authorization", "Bearer ak-1"),
        ("idempotency-key", "k"),
        ("x-request-id", "r"),
        ("x-agentrouter-customer", "acme"),
        ("traceparent", "00-1"),
        ("x-list", "a"),
        ("x-list", "b"),
        ("x-blob-bin", "AQI"),
        ("if-match", "\"e\""),
        ("content-language", "en"),
        ("connect-protocol-version", "1"),
        ("grpc-status", "13"),
        ("grpc-encoding", "gzip"),
        ("connection", "close, x-hop"),
        ("x-hop", "1"),
        ("keep-alive", "5"),
        ("accept-encoding", "gzip"),
    ])
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut seen: Vec<(&str, &str)> = answer
        .headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().strip_prefix("x-seen-")?, value.to_str().ok()?)))
        .collect();
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            ("authorization", "Bearer ak-1"),
            ("content-type", "application/grpc"),
            ("idempotency-key", "k"),
            ("if-match", "\"e\""),
            ("te", "trailers"),
            ("traceparent", "00-1"),
            ("x-agentrouter-customer", "acme"),
            ("x-blob-bin", "AQI"),
            ("x-list", "a"),
            ("x-list", "b"),
            ("x-request-id", "r"),
        ]
    );
}

/// A7 #83, #84.
#[tokio::test]
async fn metadata_becomes_headers() {
    let answer = get_with(&[]).await;
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("grpc-")), "{answer:?}");
}

/// A7 #86, #87.
#[tokio::test]
async fn deadlines_are_passed_on() {
    for (name, value, expected) in [
        ("x-server-timeout", "1.5", "1500000u"),
        ("grpc-timeout", "20S", "20000000u"),
        ("grpc-timeout", "99999999H", "99999999H"),
    ] {
        assert_eq!(get_with(&[(name, value)]).await.header("x-seen-grpc-timeout"), expected, "{value}");
    }
    for (name, value) in [("x-server-timeout", "soon"), ("grpc-timeout", "5"), ("grpc-timeout", "123456789S")]
    {
        let answer = get_with(&[(name, value)]).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (400, "INVALID_TIMEOUT"), "{value}");
    }
}

/// A12 #119: what layers put into the request reaches the rpc, and the route
/// reaches the layers.
#[tokio::test]
async fn extensions_travel_both_ways() {
    let mut request = request("GET", "/v1/items/5", "");
    request.extensions_mut().insert(Principal("alice"));
    let response = transcoder().oneshot(request).await.expect("infallible");
    assert_eq!(response.headers()["x-principal"], "alice");
    let route = response.extensions().get::<Arc<RouteInfo>>().expect("a route");
    assert_eq!((route.method.as_str(), route.template.as_str()), ("GET", "/v1/items/{s}"));
}

/// The transcoder over tonic's routes, as the fallback of an axum router and
/// over HTTP/1.1.
#[tokio::test]
async fn served_by_axum_over_a_socket() {
    let backend = backend(pool()).map_request(|request: Request<axum::body::Body>| request.map(Body::new));
    let routes = Routes::from(axum::Router::new().fallback_service(backend));
    let transcoder = Transcoder::new(&pool(), routes).expect("rules that can be served");
    let app = axum::Router::new()
        .route("/healthz", axum::routing::get(|| async { "ok" }))
        .fallback_service(transcoder);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, app).await.expect("a server") });

    let stream = tokio::net::TcpStream::connect(address).await.expect("a connection");
    let (mut client, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.expect("HTTP");
    tasks.spawn(async move { connection.await.expect("a connection") });

    for (method, uri, body, status, length) in [
        ("GET", "/healthz", "", 200, 2),
        ("GET", "/v1/books/7", "", 200, 67),
        ("HEAD", "/v1/books/7", "", 200, 0),
        ("POST", "/v1/part/strings", r#"{"strings":["a"]}"#, 200, 5),
        ("OPTIONS", "/v1/items/5", "", 204, 0),
        ("GET", "/v1/count/2", "", 200, 52),
    ] {
        let request: Request<Full<bytes::Bytes>> = request(method, uri, body);
        client.ready().await.expect("an open connection");
        let response = client.send_request(request).await.expect("an answer");
        assert_eq!(response.status(), status, "{method} {uri}");
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        assert_eq!(body.len(), length, "{method} {uri}: {body:?}");
    }
    tasks.shutdown().await;
}
