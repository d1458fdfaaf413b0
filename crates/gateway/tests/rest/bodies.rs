//! Bodies that are no JSON text, or come compressed: checklist A3 and A8.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderValue};
use http::{HeaderName, Request};
use http_body_util::Full;
use prost::Message as _;
use prost_reflect::{DynamicMessage, Value as Reflected};
use serde_json::{Value, json};

use super::{Answer, pool, request, send, transcoder, transcoder_with};

pub(super) fn with(
    mut request: Request<Full<Bytes>>,
    name: HeaderName,
    value: &'static str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, HeaderValue::from_static(value));
    request
}

async fn put(uri: &str, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    send(&transcoder(), with(request("PUT", uri, body), header::CONTENT_TYPE, content_type)).await
}

/// A3 #47: any bytes of any type, as the whole request or as a field of it.
#[tokio::test]
async fn a_body_of_any_type_is_an_http_body() {
    for content_type in ["image/png", "application/json", "text/plain; charset=latin1"] {
        let whole = put("/v1/blob", content_type, &b"\xff\0{"[..]).await;
        assert_eq!(whole.status, 200, "{whole:?}");
        let body = json!({"content_type": content_type, "data": "/wB7", "extensions": []});
        assert_eq!(whole.json()["content"], body);

        let field = put("/v1/blobs/cat?mode=7", content_type, &b"\xff\0{"[..]).await;
        assert_eq!(field.json(), json!({"name": "cat", "mode": 7, "content": body}));
    }
    let bare = send(&transcoder(), request("PUT", "/v1/blobs/cat", "x")).await.json();
    assert_eq!((&bare["content"]["content_type"], &bare["content"]["data"]), (&json!(""), &json!("eA==")));
    let empty = put("/v1/blobs/cat", "image/png", "").await.json();
    assert_eq!((&empty["name"], &empty["content"]["content_type"]), (&json!("cat"), &json!("image/png")));
}

/// A3 #47, A9 #100: such a body has the limit of every other, and one type.
#[tokio::test]
async fn an_http_body_is_limited_and_of_one_type() {
    let options = agentrouter_gateway::Options { max_body_bytes: 10, ..Default::default() };
    let answer = send(&transcoder_with(options), request("PUT", "/v1/blob", "12345678901")).await;
    assert_eq!(answer.status, 413);

    let mut two = with(request("PUT", "/v1/blob", "x"), header::CONTENT_TYPE, "text/plain");
    two.headers_mut().append(header::CONTENT_TYPE, HeaderValue::from_static("image/png"));
    assert_eq!(send(&transcoder(), two).await.status, 415);
    let mut odd = request("PUT", "/v1/blob", "x");
    let value = HeaderValue::from_bytes(b"text/\xff").expect("a header value");
    odd.headers_mut().insert(header::CONTENT_TYPE, value);
    assert_eq!(send(&transcoder(), odd).await.status, 415);
}

fn everything(fields: &[(&str, Reflected)]) -> Vec<u8> {
    let desc = pool().get_message_by_name("gateway.test.v1.Everything").expect("a message");
    let mut message = DynamicMessage::new(desc);
    for (name, value) in fields {
        message.set_field_by_name(name, value.clone());
    }
    message.encode_to_vec()
}

async fn protobuf(method: &str, uri: &str, body: impl Into<Bytes>) -> Answer {
    let request = request(method, uri, body);
    send(&transcoder(), with(request, header::CONTENT_TYPE, "application/x-protobuf")).await
}

/// A3 #53: the same rule with a binary body: the whole request, or a field that is a message.
#[tokio::test]
async fn a_body_can_be_protobuf() {
    let body = everything(&[
        ("i32", Reflected::I32(-5)),
        ("strings", Reflected::List(vec![Reflected::String("a".to_owned())])),
        ("numbers", Reflected::List(vec![Reflected::I32(1), Reflected::I32(300)])),
        (
            "labels",
            Reflected::Map(
                [(prost_reflect::MapKey::String("k".to_owned()), Reflected::String("v".to_owned()))].into(),
            ),
        ),
    ]);
    let answer = protobuf("POST", "/v1/create/x", body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["s"], &json["i32"]), (&json!("x"), &json!(-5)));
    assert_eq!((&json["strings"], &json["numbers"]), (&json!(["a"]), &json!([1, 300])));
    assert_eq!(json["labels"], json!({"k": "v"}));

    // Field 1 of `Nested` is its name.
    let field = protobuf("POST", "/v1/body/msg?s=y", &b"\x0a\x01n"[..]).await.json();
    assert_eq!((&field["s"], &field["msg"]["name"]), (&json!("y"), &json!("n")));
    let empty = protobuf("POST", "/v1/body/msg", "").await.json();
    assert_eq!(empty.get("msg"), None);

    let conflict =
        protobuf("POST", "/v1/create/x", everything(&[("s", Reflected::String("y".to_owned()))])).await;
    assert_eq!(conflict.violations(), ["s: CONFLICTING_FIELD"]);
}

/// A3 #53, A5 #70: a mask is inferred from the fields that are there.
#[tokio::test]
async fn a_protobuf_body_infers_a_mask() {
    // display_name, labels of Book.
    let answer = protobuf("PATCH", "/v1/shelves/7", &b"\x12\x01d\x22\x06\x0a\x01k\x12\x01v"[..]).await;
    assert_eq!(answer.json()["update_mask"], json!("displayName,labels"), "{answer:?}");
}

/// A3 #50, #53, A9 #103: bytes that are no message are the client's fault.
#[tokio::test]
async fn malformed_protobuf_is_400() {
    let deep = (0..200).fold(Vec::new(), |inside: Vec<u8>, _| {
        // `child` of `Nested`, with its length.
        let mut out = vec![0x1a];
        prost::encoding::encode_varint(inside.len() as u64, &mut out);
        [out, inside].concat()
    });
    for (uri, body) in [
        ("/v1/create", &b"\x0a\x05ab"[..]),
        ("/v1/create", b"\x0a\x01\xff"),
        ("/v1/create", b"\x08\x01"),
        ("/v1/create", b"\x00"),
        ("/v1/create", b"\x9a\x01\x03\x0a\x01\xff"),
        ("/v1/create", b"\x82\x01\x01\x80"),
        ("/v1/create", b"{}"),
        ("/v1/body/msg", &deep),
    ] {
        assert_eq!(
            protobuf("POST", uri, body.to_vec()).await.violations(),
            [": MALFORMED_PROTOBUF"],
            "{body:?}"
        );
    }
    // What is no message has no binary form.
    let list = protobuf("POST", "/v1/body/strings", &b"\x0a\x01n"[..]).await;
    assert_eq!((list.status.as_u16(), list.header("accept")), (415, "application/json"));
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text).expect("memory");
    encoder.finish().expect("memory")
}

fn brotli(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    brotli::CompressorWriter::new(&mut out, 4096, 5, 20).write_all(text).expect("memory");
    out
}

fn zstd(text: &[u8]) -> Vec<u8> {
    zstd::encode_all(text, 3).expect("memory")
}

type Pack = fn(&[u8]) -> Vec<u8>;
pub(super) const CODINGS: [(&str, Pack); 3] = [("gzip", gzip), ("br", brotli), ("zstd", zstd)];

async fn coded(coding: &'static str, body: Vec<u8>) -> Answer {
    send(&transcoder(), with(request("POST", "/v1/create", body), header::CONTENT_ENCODING, coding)).await
}

/// A8 #91.
#[tokio::test]
async fn a_compressed_body_is_read() {
    let text = json!({"s": "words ".repeat(1000)}).to_string();
    for (coding, pack) in CODINGS {
        let answer = coded(coding, pack(text.as_bytes())).await;
        assert_eq!(answer.status, 200, "{coding}: {answer:?}");
        assert_eq!(answer.json()["s"].as_str().map(str::len), Some(6000), "{coding}");
        assert_eq!(coded(coding, Vec::new()).await.status, 200, "{coding}");

        let corrupt = coded(coding, text.clone().into()).await;
        assert_eq!((corrupt.status.as_u16(), corrupt.reason().as_str()), (400, "MALFORMED_CONTENT_CODING"));
        let blob = request("PUT", "/v1/blob", pack(b"x"));
        let blob = send(&transcoder(), with(blob, header::CONTENT_ENCODING, coding)).await;
        assert_eq!(blob.json()["content"]["data"], Value::from("eA=="), "{coding}");
    }
    assert_eq!(coded("identity", b"{}".to_vec()).await.status, 200);
    assert_eq!(coded("GZIP", gzip(b"{}")).await.status, 200);
}

/// A8 #91: an unknown coding, or several.
#[tokio::test]
async fn an_unknown_coding_is_415() {
    for coding in ["deflate", "gzip, br", "x"] {
        let answer = coded(coding, b"{}".to_vec()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.reason().as_str()),
            (415, "UNSUPPORTED_MEDIA_TYPE"),
            "{coding}"
        );
        assert_eq!(answer.header("accept-encoding"), "gzip, br, zstd");
    }
}

/// A8 #93: 64 MiB of blanks in a few bytes are refused at the limit.
#[tokio::test]
async fn a_bomb_is_413() {
    let bomb = vec![b' '; 64 << 20];
    for (coding, pack) in CODINGS {
        let packed = pack(&bomb);
        assert!(packed.len() < 100_000, "{coding}");
        let answer = coded(coding, packed).await;
        assert_eq!((answer.status.as_u16(), answer.reason().as_str()), (413, "REQUEST_BODY_TOO_LARGE"));
    }
}
