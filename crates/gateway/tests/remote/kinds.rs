//! Every kind of call in every protocol.

use std::net::SocketAddr;
use std::time::Duration;

use agentrouter_gateway::remote::Remote;
use agentrouter_gateway::{ProtocolOptions, Protocols, Transcoder};
use bytes::Bytes;
use futures::channel::mpsc;
use http::Request;
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tower::ServiceExt as _;

use crate::upstream::{PATIENCE, Upstream, services};
use crate::{
    PROTOCOLS, SERVICE, call, called, descriptors, envelope, front, get, pool, request, send, unwired, wire,
};

const EVERYTHING: &str = "gateway.test.v1.Everything";

fn everything(text: &str) -> Vec<u8> {
    wire(EVERYTHING, &json!({"s": text}))
}

/// A descriptor file is all that is known of the upstream; every kind of call passes in every protocol.
#[tokio::test]
async fn all_kinds_of_calls_by_a_descriptor_file() {
    let upstream = Upstream::start(services(pool()));
    let described = prost_reflect::DescriptorPool::decode(descriptors()).expect("a descriptor file");
    let front = front(&upstream.uri(), &described);
    for protocol in PROTOCOLS {
        if protocol != "application/connect+proto" {
            let unary = call(&front, protocol, "GetItem", &[], &[everything("a")]).await;
            assert_eq!((unary.messages, unary.code), (vec![everything("a")], 0), "{protocol}");
        }

        let request = wire("gateway.test.v1.CountRequest", &json!({"to": 3, "fail": 9}));
        let counted = call(&front, protocol, "Count", &[], &[request]).await;
        let numbers: Vec<Value> = counted
            .messages
            .iter()
            .map(|message| unwired("gateway.test.v1.CountResponse", message)["number"].clone())
            .collect();
        assert_eq!((numbers, counted.code), (vec![json!(1), json!(2), json!(3)], 9), "{protocol}");

        let sent = [everything("a"), everything("b"), everything("c")];
        let collected = call(&front, protocol, "Collect", &[], &sent).await;
        assert_eq!(collected.code, 0, "{protocol}");
        let message = unwired(EVERYTHING, &collected.messages[0]);
        assert_eq!(message, json!({"s": "c", "strings": ["a", "b", "c"]}), "{protocol}");

        let chat = call(&front, protocol, "Chat", &[], &sent).await;
        assert_eq!((&chat.messages[..], chat.code), (&sent[..], 0), "{protocol}");
    }
}

/// Connect's unary calls and REST, with JSON at the front and protobuf behind it.
#[tokio::test]
async fn json_in_front_of_a_remote_upstream() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let body = json!({"s": "a", "u64": "18446744073709551615"});
    let unary = [("content-type", "application/json")];
    for (path, body) in [
        (format!("{SERVICE}/Create"), body.clone()),
        ("/v2/create".to_owned(), body.clone()),
        ("/v2/create/a".to_owned(), json!({"u64": "18446744073709551615"})),
    ] {
        let answer = send(&front, request("POST", &path, &unary, body.to_string())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let json = answer.json();
        let name = if path.starts_with(SERVICE) { "unary" } else { "rest" };
        assert_eq!((&json["s"], &json["u64"]), (&json!("a"), &json!("18446744073709551615")), "{name}");
    }

    let lines = get(&front, "/v2/count/2?fail=9").await;
    let lines: Vec<Value> = String::from_utf8_lossy(&lines.body)
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(lines[..2], [json!({"number": 1, "square": "1"}), json!({"number": 2, "square": "4"})]);
    assert_eq!(lines[2]["error"]["code"], 9);
}

/// A7 #82, #83: metadata passes both ways, but what belongs to one of the connections.
#[tokio::test]
async fn metadata_passes_both_ways() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let headers = [
        ("x-mine", "1"),
        ("x-mine", "2"),
        ("x-blob-bin", "AAE"),
        ("authorization", "Bearer x"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
        ("host", "gateway.example"),
    ];
    let framed = [&headers[..], &[("content-type", "application/grpc"), ("te", "trailers")]].concat();
    let message = envelope(&everything("a"));
    for (name, request) in [
        ("REST", request("GET", "/v2/items/a", &headers, "")),
        ("gRPC", request("POST", &format!("{SERVICE}/GetItem"), &framed, message)),
    ] {
        let answer = send(&front, request).await;
        let seen: Vec<_> = answer.headers.get_all("x-seen-x-mine").iter().collect();
        assert_eq!(seen, ["1", "2"], "{name}");
        assert_eq!(answer.header("x-seen-authorization"), "Bearer x");
        assert_eq!(answer.header("x-seen-x-blob-bin").trim_end_matches('='), "AAE");
        for hop in ["x-seen-x-hop", "x-seen-connection", "x-seen-host"] {
            assert!(!answer.headers.contains_key(hop), "{name}: {hop}");
        }
        let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
        assert_eq!(cookies, ["a=1", "b=2"], "{name}");
    }
}

/// A6 #72: the details of an error cross the network as they are.
#[tokio::test]
async fn errors_keep_their_details() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "FULL"});
    let fail = json!({"code": 8, "message": "no room ☃", "details": [info]});
    let answer = send(&front, request("POST", "/v2/fail", &[], fail.to_string())).await;
    assert_eq!((answer.status.as_u16(), answer.header("x-error-metadata")), (429, "kept"));
    assert_eq!(answer.json()["message"], "no room ☃");
    assert_eq!(answer.json()["details"][0]["reason"], "FULL");

    // Longer than the block of headers that HTTP/2 clients read by default.
    let info = json!({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "x".repeat(60_000)});
    let fail = json!({"code": 8, "message": "no room", "details": [info]});
    let answer = send(&front, request("POST", "/v2/fail", &[], fail.to_string())).await;
    assert_eq!(answer.json()["details"][0]["reason"].as_str().map(str::len), Some(60_000));
}

/// A9 #98, #100: what is wrong with a client's stream is told to the client, and not what the upstream makes of it.
#[tokio::test]
async fn a_fault_of_the_client_is_its_own() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    for protocol in ["application/grpc", "application/grpc-web", "application/connect+proto"] {
        for method in ["Collect", "Chat"] {
            let too_long = [envelope(&everything("a")), vec![0, 0x7f, 0, 0, 0]].concat();
            let path = format!("{SERVICE}/{method}");
            let answer = send(&front, request("POST", &path, &[("content-type", protocol)], too_long));
            let answer = timeout(PATIENCE, answer).await.expect("an end");
            assert_eq!(called(protocol, &answer).code, 8, "{method} {protocol}: {answer:?}");
        }
    }
}

/// Over TLS, with an authority of one's own.
#[tokio::test]
async fn an_upstream_over_tls() {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let identity = Identity::from_pem(own.cert.pem(), own.signing_key.serialize_pem());
    let upstream = Upstream::serve(SocketAddr::from(([127, 0, 0, 1], 0)), |listener| {
        let tls = ServerTlsConfig::new().identity(identity);
        let mut server = Server::builder().tls_config(tls).expect("an identity");
        let serving = server.add_routes(services(pool())).serve_with_incoming(TcpIncoming::from(listener));
        async { drop(serving.await) }
    });
    let tls =
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(own.cert.pem())).domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://{}", upstream.address)).expect("an address");
    let remote = Remote::new(&endpoint.tls_config(tls).expect("an authority"));
    let rest = Transcoder::new(&pool(), remote).expect("rules that can be served");
    let front = Protocols::new(&pool(), rest, ProtocolOptions::default());
    assert_eq!(get(&front, "/v2/items/a").await.json()["s"], "a");
}

/// A7 #88: a deadline is passed on, and kept where the upstream does not.
#[tokio::test]
async fn deadlines_are_passed_on_and_kept() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let answer = send(&front, request("GET", "/v2/items/a", &[("x-server-timeout", "25")], "")).await;
    assert_eq!(answer.header("x-seen-grpc-timeout"), "25000000u");

    let slow = wire("gateway.test.v1.CountRequest", &json!({"to": 1, "delay": "600s"}));
    for protocol in PROTOCOLS {
        let name = if protocol.contains("connect") { "connect-timeout-ms" } else { "grpc-timeout" };
        let value = if protocol.contains("connect") { "300" } else { "300m" };
        let (headers, messages) = ([(name, value)], [slow.clone()]);
        let late = call(&front, protocol, "Count", &headers, &messages);
        let late = timeout(PATIENCE, late).await.expect("an end");
        assert_eq!((late.messages.len(), late.code), (0, 4), "{protocol}");
    }
    let late = send(&front, request("GET", "/v2/count/1?delay=600s", &[("grpc-timeout", "300m")], ""));
    let late = timeout(PATIENCE, late).await.expect("an end");
    let error = if late.status == 200 { late.json()["error"].clone() } else { late.json() };
    assert_eq!(error["code"], 4, "{late:?}");
}

/// Both sides of a conversation hear each other at once.
#[tokio::test]
async fn a_conversation_is_not_held_back() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let (say, said) = mpsc::unbounded::<Result<Frame<Bytes>, std::convert::Infallible>>();
    let frame = |text: &str| Ok(Frame::data(Bytes::from(envelope(&everything(text)))));
    say.unbounded_send(frame("one")).expect("a listener");
    let call = Request::post(format!("{SERVICE}/Chat"))
        .header("content-type", "application/grpc")
        .body(StreamBody::new(said))
        .expect("a request");
    let talk = async {
        let mut body = front.oneshot(call).await.expect("infallible").into_body();
        for text in ["one", "two", "three"] {
            if text != "one" {
                say.unbounded_send(frame(text)).expect("a listener");
            }
            let mut heard = Vec::new();
            while heard.len() < envelope(&everything(text)).len() {
                let frame = body.frame().await.expect("a frame").expect("no error");
                heard.extend_from_slice(&frame.into_data().expect("a message"));
            }
            assert_eq!(heard, envelope(&everything(text)));
        }
        say.close_channel();
        let end = body.frame().await.expect("an end").expect("no error");
        assert_eq!(end.into_trailers().expect("trailers")["grpc-status"], "0");
    };
    timeout(PATIENCE, talk).await.expect("a conversation");
}

/// Health is the upstream's own, by every protocol.
#[tokio::test]
async fn health_is_the_upstreams() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    let check = |service: &str| {
        let body = json!({"service": service}).to_string();
        request("POST", "/grpc.health.v1.Health/Check", &[("content-type", "application/json")], body)
    };
    let answer = send(&front, check("")).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, json!({"status": "SERVING"})));
    assert_eq!(send(&front, check("nobody")).await.status, 404);

    drop(upstream);
    let gone = async {
        while send(&front, check("")).await.status != 503 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, gone).await.expect("no health without a server");
}
