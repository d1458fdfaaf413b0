//! Forms in parts, with files: checklist A3 #52.

use agentrouter_gateway::{Options, RequestOptions, Transcoder, UnknownParameters};
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use proptest::prelude::{any, prop};
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::backend::Backend;
use super::{Answer, request, send, transcoder, transcoder_with};

const TYPE: &str = "multipart/form-data; boundary=\"-x-\"";

fn multipart() -> RequestOptions {
    RequestOptions { multipart: true, ..RequestOptions::default() }
}

fn with(requests: RequestOptions) -> Transcoder<Backend> {
    transcoder_with(Options { requests, ..Options::default() })
}

fn typed(
    method: &str,
    uri: &str,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = request(method, uri, body);
    request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
    request
}

/// A body of parts: what stands behind `form-data;` with further headers, and the data.
fn parts(parts: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (head, data) in parts {
        let head = format!("---x-\r\nContent-Disposition: form-data; {head}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(data);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"---x---\r\n");
    body
}

async fn submit(body: &[(&str, &[u8])]) -> Answer {
    send(&with(multipart()), typed("POST", "/v1/forms", TYPE, parts(body))).await
}

/// A3 #52: text becomes what it is in a query, and files become bytes.
#[tokio::test]
async fn parts_are_fields() {
    let answer = submit(&[
        ("name=\"title\"", "ä + b".as_bytes()),
        ("name=count\r\nContent-Type: text/plain; charset=UTF-8", b"-7"),
        ("name=\"inner.inner.title\"", b""),
        ("name=\"inner.inner.count\"", b"3"),
        ("name=\"data\"; filename=\"a.png\"\r\nContent-Type: image/png", b"\xff\0\r\n---x\r\n"),
        ("name=\"pages\"", b"AQI"),
        ("name=\"pages\"; filename=\"\"", b"AQI"),
        ("name=\"pages\"\r\nContent-Type: image/png\r\nContent-Transfer-Encoding: BINARY", b"AQI"),
        ("name=\"file\"; filename=\"b.txt\"; x=y\r\nContent-Type: text/plain; charset=latin1", b"\xe4"),
        ("name=\"files\"", b"bare"),
        ("name=\"files\"; filename=\"c\"", b""),
        // So browsers send a file that nobody chose.
        ("name=\"files\"; filename=\"\"\r\nContent-Type: application/octet-stream", b""),
        ("name=\"extra\"\r\nContent-Type: application/json", b"{\"a\": [1]}"),
    ])
    .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    assert_eq!((&json["title"], &json["count"]), (&json!("ä + b"), &json!(-7)));
    assert_eq!((&json["inner"]["inner"]["count"], &json["extra"]), (&json!(3), &json!({"a": [1]})));
    assert_eq!(
        (&json["data"], &json["pages"]),
        (&json!("/wANCi0tLXgNCg=="), &json!(["AQI=", "QVFJ", "QVFJ"]))
    );
    let file = |content_type: &str, data: &str| json!({"content_type": content_type, "data": data, "extensions": []});
    assert_eq!(json["file"], file("text/plain; charset=latin1", "5A=="));
    assert_eq!(json["files"], json!([file("", "YmFyZQ=="), file("", "")]));
}

/// A3 #52, #43: below a field where that is the body, with a mask of what came.
#[tokio::test]
async fn parts_can_be_of_a_field() {
    let body = parts(&[
        ("name=\"count\"", b"1"),
        ("name=\"file\"; filename=a", b"x"),
        ("name=\"inner.count\"", b"2"),
    ]);
    let answer = send(&with(multipart()), typed("PATCH", "/v1/forms/t?count=5", TYPE, body)).await.json();
    assert_eq!((&answer["count"], &answer["inner"]["count"]), (&json!(5), &json!(1)));
    assert_eq!(
        (&answer["inner"]["title"], &answer["update_mask"]),
        (&json!("t"), &json!("count,file,inner"))
    );

    let body = parts(&[("name=\"title\"", b"u"), ("name=\"inner.zz\"", b""), ("name=\"files\"", b"")]);
    let wrong = send(&with(multipart()), typed("PATCH", "/v1/forms/t?count=x", TYPE, body)).await;
    let expected =
        ["inner.title: CONFLICTING_FIELD", "inner.inner.zz: UNKNOWN_FIELD", "count: INVALID_VALUE"];
    assert_eq!(wrong.violations(), expected);
}

/// A3 #52, A2 #40: every part that is wrong is named at once.
#[tokio::test]
async fn faulty_parts_are_named() {
    let wrong = submit(&[
        ("name=\"zz\"", b"1"),
        ("name=\"count\"", b"x"),
        ("name=\"title\"; filename=\"a\"", b"x"),
        ("name=\"inner\"", b"x"),
        ("name=\"inner.files.data\"", b"x"),
        ("name=\"inner.title\"", b"\xff"),
        ("name=\"inner.count\"\r\nContent-Type: text/plain; charset=latin1", b"1"),
        ("name=\"data\"\r\nContent-Transfer-Encoding: base64", b"AQI="),
        ("name=\"inner.data\"", b"!"),
        ("name=\"file\"\r\nContent-Type: a/ä", b""),
        ("name=\"inner.file\"", b""),
        ("name=\"inner.file\"", b""),
        ("name=\"inner.file.content_type\"", b"text/html"),
        ("name=\"named\"; filename=\"a\"", b""),
        ("name=\"extra\"", b"{"),
        ("name=\"\"", b""),
    ])
    .await;
    let expected = [
        "zz: UNKNOWN_FIELD",
        "count: INVALID_VALUE",
        "title: NOT_BINDABLE",
        "inner: NOT_BINDABLE",
        "inner.files.data: UNKNOWN_FIELD",
        "inner.title: INVALID_VALUE",
        "inner.count: INVALID_VALUE",
        "data: INVALID_VALUE",
        "inner.data: INVALID_VALUE",
        "file: INVALID_VALUE",
        "inner.file: DUPLICATE_FIELD",
        "inner.file.content_type: DUPLICATE_FIELD",
        "named: NOT_BINDABLE",
        "extra: INVALID_VALUE",
        ": UNKNOWN_FIELD",
    ];
    assert_eq!(wrong.violations(), expected);
}

/// A3 #52, A2 #28, #36: the options of queries are those of parts.
#[tokio::test]
async fn unknown_parts_can_be_ignored() {
    let loose = RequestOptions {
        unknown_parameters: UnknownParameters::Ignored,
        map_parameters: true,
        ..multipart()
    };
    let body = parts(&[
        ("name=\"zz\"; filename=\"z\"", b"\xff"),
        ("name=\"named[a]\"; filename=\"b\"\r\nContent-Type: c/d", b"e"),
        ("name=\"title\"", b"t"),
    ]);
    let json = send(&with(loose), typed("POST", "/v1/forms", TYPE, body)).await.json();
    let named = json!({"a": {"content_type": "c/d", "data": "ZQ==", "extensions": []}});
    assert_eq!((&json["named"], &json["title"]), (&named, &json!("t")));
}

/// A3 #52, A9 #98, #103: what is no such body is told in our own words.
#[tokio::test]
async fn malformed_parts_are_refused() {
    let whole = parts(&[("name=\"title\"", b"x"), ("name=\"count\"", b"1")]);
    let cut = |end: usize| whole[..whole.len() - end].to_vec();
    let headless = b"---x-\r\nContent-Disposition form-data\r\n\r\nx\r\n---x---".to_vec();
    for (content_type, body) in [
        (TYPE, cut(5)),
        (TYPE, cut(20)),
        (TYPE, cut(60)),
        (TYPE, b"x".to_vec()),
        (TYPE, headless),
        (TYPE, parts(&[("filename=\"a\"", b"x")])),
        (TYPE, parts(&[("name=\"a", b"x")])),
        ("multipart/form-data", whole.clone()),
        ("multipart/form-data; boundary=", whole.clone()),
        ("multipart/form-data; boundary=y", whole.clone()),
        ("Multipart/Form-Data; boundary=\"-x-", whole.clone()),
    ] {
        let answer =
            send(&with(multipart()), typed("POST", "/v1/forms?zz=1", content_type, body.clone())).await;
        let text = format!("{content_type} {:?}", String::from_utf8_lossy(&body));
        assert_eq!(answer.violations(), [": MALFORMED_FORM", "zz: UNKNOWN_FIELD"], "{text}");
    }
    for body in [b"".to_vec(), b"---x---".to_vec(), b"preamble\r\n---x---\r\nepilogue".to_vec()] {
        let answer = send(&with(multipart()), typed("POST", "/v1/forms", TYPE, body)).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["title"]), (200, &json!("")));
    }
}

/// A3 #52, A9 #100: the whole body has the limit of every other, and there are only so many parts.
#[tokio::test]
async fn parts_are_bounded() {
    let options =
        Options { max_body_bytes: 400, max_query_parameters: 3, requests: multipart(), ..Options::default() };
    let small = transcoder_with(options);
    let ask = async |body: Vec<u8>| send(&small, typed("POST", "/v1/forms", TYPE, body)).await;
    let page: (&str, &[u8]) = ("name=pages", b"AQI");
    assert_eq!(ask(parts(&[page; 3])).await.status, 200);
    assert_eq!(ask(parts(&[page; 4])).await.violations(), [": TOO_MANY_PARAMETERS"]);
    assert_eq!(ask(parts(&[("name=data; filename=a", &[0; 400])])).await.status, 413);
    let heads = "\r\nx: y".repeat(40);
    let many = parts(&[(&format!("name=title{heads}"), b"x")]);
    assert_eq!(ask(many).await.violations(), [": MALFORMED_FORM"]);
}

/// A3 #52, #48: only where an operator wants that, and only where the body has fields to name.
#[tokio::test]
async fn parts_are_an_option() {
    let body = || parts(&[("name=\"s\"", b"x")]);
    for (uri, options) in [
        ("/v1/create", RequestOptions::default()),
        ("/v1/create", RequestOptions { forms: true, ..RequestOptions::default() }),
        ("/v1/body/s", multipart()),
        ("/v1/body/ts", multipart()),
        ("/v1/upload", multipart()),
    ] {
        let answer = send(&with(options), typed("POST", uri, TYPE, body())).await;
        assert_eq!(answer.status, 415, "{uri} {answer:?}");
        assert!(!answer.header("accept-post").contains("multipart"), "{uri} {answer:?}");
    }
    let both = RequestOptions { forms: true, ..multipart() };
    let answer = send(&with(both), typed("POST", "/v1/create", "text/plain", body())).await;
    let accepted =
        "application/json, application/x-protobuf, application/x-www-form-urlencoded, multipart/form-data";
    assert_eq!((answer.status.as_u16(), answer.header("accept-post")), (415, accepted));
    assert_eq!(send(&with(multipart()), typed("POST", "/v1/create", TYPE, body())).await.json()["s"], "x");
    // Bytes of any type stay bytes.
    let blob = send(&transcoder(), typed("PUT", "/v1/blob", TYPE, "x")).await.json();
    assert_eq!((&blob["content"]["content_type"], &blob["content"]["data"]), (&json!(TYPE), &json!("eA==")));
}

/// A3 #52, A9 #103: no body is the server's fault, and every file arrives as it was.
#[test]
fn no_body_of_parts_is_a_server_error() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let transcoder = with(multipart());
    let ask = |body: Vec<u8>| {
        runtime.block_on(async { send(&transcoder, typed("POST", "/v1/forms", TYPE, body)).await })
    };
    let piece = prop::sample::select(vec![
        "---x-",
        "--",
        "\r\n",
        "\r\n\r\n",
        "Content-Disposition: form-data",
        "; name=",
        "\"title\"",
        "\"",
        "\\",
        "files",
        "; filename=a",
        "Content-Type: ",
        "a/b",
        ";",
        "x",
        "ä",
        " ",
        "\0",
        ": ",
        "=",
    ]);
    let pieces = prop::collection::vec(piece, 0..40);
    let mut runner = TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&(pieces, prop::collection::vec(any::<u8>(), 0..50)), |(pieces, data)| {
        let body = pieces.concat().into_bytes();
        for body in [[b"---x-\r\n", &body[..]].concat(), body] {
            let answer = ask(body);
            assert!(matches!(answer.status.as_u16(), 200 | 400), "{answer:?}");
        }
        let file = ask(parts(&[("name=data; filename=a", &data)]));
        let text: Value = file.json()["data"].clone();
        let again = ask(parts(&[("name=data", text.as_str().expect("text").as_bytes())]));
        assert_eq!(again.json(), file.json());
        Ok(())
    });
    assert_eq!(outcome, Ok(()));
}
