//! An upstream that speaks no gRPC, or breaks off in the middle of it.

use std::net::SocketAddr;

use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tower::service_fn;

use crate::upstream::Upstream;
use crate::{PROTOCOLS, call, connect_code, envelope, front, get, pool, request, send, wire};

type Chunk = Result<Frame<Bytes>, std::io::Error>;

/// What a server sends after its headers.
fn body(break_: &str) -> Vec<Chunk> {
    let data = |bytes: &[u8]| Ok(Frame::data(Bytes::copy_from_slice(bytes)));
    let status = || {
        Ok(Frame::trailers(HeaderMap::from_iter([(
            "grpc-status".parse().expect("a name"),
            HeaderValue::from_static("0"),
        )])))
    };
    let message = envelope(&wire("gateway.test.v1.Everything", &json!({"s": "a"})));
    match break_ {
        "truncated" => vec![data(&message[..6]), status()],
        "truncated in the prefix" => vec![data(&message[..3]), status()],
        "cut off" => vec![data(&message[..6])],
        "no trailers" => vec![data(&message)],
        "reset" => vec![data(&message), Err(std::io::Error::other("gone"))],
        "compressed" => vec![data(&[&[1], &message[1..]].concat()), status()],
        "other status" => vec![data(&message), Ok(Frame::trailers(HeaderMap::new()))],
        _ => vec![data(b"<html>Bad Gateway</html>")],
    }
}

/// A server that breaks as the header `x-break` says.
fn breaking() -> Upstream {
    Upstream::serve(SocketAddr::from(([127, 0, 0, 1], 0)), |listener| async move {
        let mut tasks = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            let service = service_fn(|request: Request<hyper::body::Incoming>| async move {
                let break_ =
                    request.headers().get("x-break").expect("a header").to_str().expect("ASCII").to_owned();
                drop(request.into_body().collect().await);
                let mut response = Response::builder();
                if let Ok(status) = break_.parse::<u16>() {
                    response = response
                        .status(status)
                        .header("content-length", "24")
                        .header("x-of-the-proxy", "1")
                        .header("retry-after", "7");
                }
                let is_html = break_.contains("html") || break_.parse::<u16>().is_ok();
                let content_type = if is_html { "text/html" } else { "application/grpc" };
                let chunks = StreamBody::new(stream::iter(body(&break_)));
                Ok::<_, std::convert::Infallible>(
                    response.header("content-type", content_type).body(chunks).expect("a response"),
                )
            });
            tasks.spawn(async move {
                let service = TowerToHyperService::new(service);
                drop(
                    Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await,
                );
            });
        }
    })
}

/// A6 #81: an answer that is no gRPC has the code of its HTTP status, and one that breaks off is never a success.
#[tokio::test]
async fn every_way_to_break_has_its_code() {
    let upstream = breaking();
    let front = front(&upstream.uri(), &pool());
    let unary = ("content-type", "application/json");
    for (break_, code, rest_status) in [
        ("400", 13, 500),
        ("401", 16, 401),
        ("403", 7, 403),
        ("404", 12, 501),
        ("429", 14, 503),
        ("500", 2, 500),
        ("502", 14, 503),
        ("503", 14, 503),
        ("504", 14, 503),
        ("html", 13, 500),
        ("garbage", 13, 500),
        ("truncated", 13, 500),
        ("truncated in the prefix", 13, 500),
        ("cut off", 13, 500),
        ("no trailers", 13, 500),
        ("other status", 13, 500),
        ("compressed", 13, 500),
    ] {
        let header = ("x-break", break_);
        let rest = send(&front, request("GET", "/v2/items/a", &[header], "")).await;
        assert_eq!(
            (rest.status.as_u16(), &rest.json()["code"]),
            (rest_status, &json!(code)),
            "{break_}: {rest:?}"
        );
        assert_eq!(rest.header("content-type"), "application/json", "{break_}");
        assert_eq!(rest.header("content-length"), "", "{break_}: not that of another body");
        if rest_status == 503 {
            assert_eq!(rest.header("retry-after"), "7", "{break_}");
        }

        let path = format!("{}/GetItem", crate::SERVICE);
        let connect = send(&front, request("POST", &path, &[header, unary], "{}")).await;
        assert_ne!(connect.status, 200, "{break_}");
        if [12, 13, 14].contains(&code) {
            assert_eq!(connect_code(&json!({"error": connect.json()})), code, "{break_}");
        }

        let grpc = [("content-type", "application/grpc"), ("te", "trailers"), header];
        let grpc = send(&front, request("POST", &path, &grpc, envelope(b""))).await;
        let told = [grpc.header("grpc-status"), grpc.trailer("grpc-status")].concat();
        assert_eq!((grpc.status.as_u16(), told), (200, code.to_string()), "{break_}: {grpc:?}");
        assert_eq!(grpc.header("content-type"), "application/grpc", "{break_}");
        assert_eq!(grpc.header("content-length"), "", "{break_}");
        assert!(!String::from_utf8_lossy(&grpc.body).contains("html"), "{break_}");

        if [12, 13, 14].contains(&code) {
            for protocol in PROTOCOLS {
                if !break_.contains("truncated") && break_ != "cut off" {
                    assert_eq!(
                        call(&front, protocol, "Chat", &[header], &[]).await.code,
                        code,
                        "{break_} {protocol}"
                    );
                }
            }
        }
    }
}

/// A6 #81: a stream that is reset is no success. The reset may overtake the headers, and then nothing was answered.
#[tokio::test]
async fn a_reset_stream_is_told() {
    let upstream = breaking();
    let front = front(&upstream.uri(), &pool());
    for protocol in PROTOCOLS {
        let reset = call(&front, protocol, "Chat", &[("x-break", "reset")], &[]).await;
        assert!([13, 14].contains(&reset.code), "{protocol}: {reset:?}");
    }
    let rest = send(&front, request("GET", "/v2/items/a", &[("x-break", "reset")], "")).await;
    assert!([500, 503].contains(&rest.status.as_u16()), "{rest:?}");
}

/// A6 #81: a server of HTTP/1.1 where one of gRPC should be.
#[tokio::test]
async fn an_upstream_without_http2_is_unavailable() {
    let upstream =
        Upstream::serve(SocketAddr::from(([127, 0, 0, 1], 0)), |listener: TcpListener| async move {
            let mut tasks = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                tasks.spawn(async move {
                    let answer =
                        b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                    drop(stream.write_all(answer).await);
                    drop(stream.read_to_end(&mut Vec::new()).await);
                });
            }
        });
    let front = front(&upstream.uri(), &pool());
    let answer = get(&front, "/v2/items/a").await;
    assert_eq!((answer.status.as_u16(), &answer.json()["code"]), (503, &json!(14)), "{answer:?}");
}
