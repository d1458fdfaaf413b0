//! Forms as bodies: checklist A3 #51 and #52.

use agentrouter_gateway::{Options, RequestOptions, Transcoder, UnknownParameters};
use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::Full;
use serde_json::{Value, json};

use super::backend::Backend;
use super::{Answer, get, post, request, send, transcoder, transcoder_with};

const FORM: &str = "application/x-www-form-urlencoded";

fn reading(requests: RequestOptions) -> Transcoder<Backend> {
    transcoder_with(Options { requests, ..Options::default() })
}

fn forms() -> RequestOptions {
    RequestOptions { forms: true, ..RequestOptions::default() }
}

fn typed(method: &str, uri: &str, content_type: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let mut request = request(method, uri, body);
    let content_type = HeaderValue::try_from(content_type).expect("a header value");
    request.headers_mut().insert("content-type", content_type);
    request
}

async fn form(uri: &str, body: &str) -> Answer {
    send(&reading(forms()), typed("POST", uri, FORM, body.to_owned())).await
}

/// A3 #51: a form is a query in the body: the same text gives the same message, and the same errors.
#[tokio::test]
async fn a_form_binds_as_a_query_does() {
    for text in [
        "s=a+b%2B&i32=-7&u64=18446744073709551615&fl=Infinity&db=1.5e3&by=-_8&b=true&e=COLOUR_RED&e=1",
        "s=a+b%2B&i32=-7&u64=18446744073709551615&fl=Infinity&db=1.5e3&by=-_8&b=true&e=COLOUR_RED",
        "msg.name=n&msg.pageSize=2&msg.child.child.tags=x&msg.child.child.tags=y&long_field_name=l&otherName=o",
        "strings=b&strings=a&numbers=2&numbers=1&colours=2&&ts=2026-01-31T12:00:00Z&dur=1.5s&mask=a,b.c",
        "structure=%7B%22a%22%3A1%7D&value=null&list=[1]&wrapped_string=&times=2026-01-31T12:00:00Z&choice_b=0",
        "zz=1&msg=1&msgs=1&i32=x&s=%zz&%zz=1&s=a&choice_a=1&choice_b=2&labels=1&labels[a]=b&fl=1e999&b",
        "%F0%9F%92%A9=1&s=%F0%9F%92%A9&opt=%ff",
        "",
    ] {
        let (form, query) = (form("/v1/create", text).await, get(&format!("/v1/query?{text}")).await);
        assert_eq!(form.status, query.status, "{text} {form:?} {query:?}");
        if query.status == 200 {
            assert_eq!(form.json(), query.json(), "{text}");
        } else {
            assert_eq!(form.violations(), query.violations(), "{text}");
        }
    }
    let utf8 = typed("POST", "/v1/create", "Application/X-WWW-Form-URLencoded; charset=utf-8", "s=%C3%A4");
    assert_eq!(send(&reading(forms()), utf8).await.json()["s"], "ä");
}

/// A3 #51, #43: below a field where that is the body, and the others stay with the query.
#[tokio::test]
async fn a_form_can_be_a_field() {
    let answer = form("/v1/body/msg?s=q", "name=n&child.page_size=3&tags=a&tags=b").await.json();
    let expected = json!({"name": "n", "page_size": 0, "tags": ["a", "b"], "child": {
        "name": "", "page_size": 3, "tags": []}});
    assert_eq!((&answer["s"], &answer["msg"]), (&json!("q"), &expected));
    assert_eq!(form("/v1/body/msg", "").await.json().get("msg"), None);
    let wrong =
        form("/v1/body/msg?i32=x&msg.name=y", "s=x&name=a&name=b&msg.name=c&page_size=x&child=1").await;
    let expected = [
        "msg.s: UNKNOWN_FIELD",
        "msg.name: DUPLICATE_FIELD",
        "msg.msg.name: UNKNOWN_FIELD",
        "msg.page_size: INVALID_VALUE",
        "msg.child: NOT_BINDABLE",
        "i32: INVALID_VALUE",
        "msg.name: NOT_BINDABLE",
    ];
    assert_eq!(wrong.violations(), expected);
}

/// A3 #51, A2 #34, #37: the path is not overridden, and a oneof has one member in all parts.
#[tokio::test]
async fn a_form_cannot_override_the_path() {
    assert_eq!(form("/v1/create/5", "i32=1").await.json()["s"], "5");
    for body in ["s=5", "s=6"] {
        assert_eq!(form("/v1/create/5", body).await.violations(), ["s: CONFLICTING_FIELD"], "{body}");
    }
    assert_eq!(form("/v1/body/msg/5", "name=6").await.violations(), ["msg.name: CONFLICTING_FIELD"]);
    assert_eq!(form("/v1/create?i32=1", "s=x").await.violations(), ["i32: NOT_BINDABLE"]);
    assert_eq!(form("/v1/picks/x", "b=y").await.violations(), ["a: CONFLICTING_FIELD"]);
    assert_eq!(form("/v1/pick?a=x", "text=y").await.violations(), ["a: CONFLICTING_FIELD"]);
    // Its names are fields: what a query may say of the answer is none of them.
    let system = RequestOptions { system_parameters: vec!["access_token".to_owned()], ..forms() };
    let body = "$prettyPrint=true&$fields=s&access_token=x";
    let answer = send(&reading(system), typed("POST", "/v1/create?access_token=y", FORM, body)).await;
    let expected = ["$prettyPrint: UNKNOWN_FIELD", "$fields: UNKNOWN_FIELD", "access_token: UNKNOWN_FIELD"];
    assert_eq!(answer.violations(), expected);
}

/// A3 #51, A5 #67: the mask of a PATCH is what the form names.
#[tokio::test]
async fn a_form_makes_the_mask_of_a_patch() {
    let patch = async |uri: &str, body: &'static str| {
        let answer = send(&reading(forms()), typed("PATCH", uri, FORM, body)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["update_mask"].clone()
    };
    assert_eq!(patch("/v1/books/1", "displayName=x&etag=e&book.id=1&book.etag=f").await, "displayName,book");
    assert_eq!(patch("/v1/shelves/1", "authors=x&display_name=&authors=y").await, "authors,displayName");
    assert_eq!(patch("/v1/shelves/1?update_mask=labels", "authors=x").await, "labels");
    assert_eq!(patch("/v1/shelves/1", "").await, Value::Null);
}

/// A3 #51, #48: only where an operator wants that, and only where the body has fields to name.
#[tokio::test]
async fn forms_are_an_option() {
    for (uri, options) in [
        ("/v1/create", RequestOptions::default()),
        ("/v1/body/s", forms()),
        ("/v1/body/strings", forms()),
        ("/v1/body/msgs", forms()),
        ("/v1/body/labels", forms()),
        ("/v1/body/structure", forms()),
        ("/v1/body/ts", forms()),
        ("/v1/upload", forms()),
        ("/v1/collect/a", forms()),
    ] {
        let answer = send(&reading(options), typed("POST", uri, FORM, "s=x")).await;
        assert_eq!(answer.status, 415, "{uri} {answer:?}");
        assert!(!answer.header("accept-post").contains("form"), "{uri} {answer:?}");
    }
    for content_type in
        ["application/x-www-form-urlencoded; charset=latin1", "text/plain", "multipart/form-data"]
    {
        let answer = send(&reading(forms()), typed("POST", "/v1/create", content_type, "s=x")).await;
        let expected = "application/json, application/x-protobuf, application/x-www-form-urlencoded";
        assert_eq!((answer.status.as_u16(), answer.header("accept-post")), (415, expected), "{content_type}");
        let message = answer.json()["message"].to_string();
        assert!(
            message.contains("`application/json` in UTF-8, or `application/x-protobuf`, or"),
            "{message}"
        );
    }
    // For one rpc, and before what a form is taken for elsewhere.
    let options = Options {
        form_type_is_json: true,
        requests_of: vec![("gateway.test.v1.Echo.Create".to_owned(), forms())],
        ..Options::default()
    };
    let some = transcoder_with(options);
    let ask = async |uri: &str, body: &'static str| send(&some, typed("POST", uri, FORM, body)).await;
    assert_eq!(ask("/v1/create", "s=x").await.json()["s"], "x");
    assert_eq!(ask("/v1/create", r#"{"s":"x"}"#).await.violations(), ["{\"s\":\"x\"}: UNKNOWN_FIELD"]);
    assert_eq!(ask("/v1/items/search", r#"{"s":"x"}"#).await.json()["s"], "x");
    // Where there is no body there is no form either, and bytes of any type stay bytes.
    let none = send(&reading(forms()), typed("DELETE", "/v1/items/5", FORM, "i32=1")).await;
    assert_eq!(none.violations(), [": UNEXPECTED_BODY"]);
    let blob = send(&reading(forms()), typed("PUT", "/v1/blob", FORM, "a=b")).await.json();
    assert_eq!((&blob["content"]["content_type"], &blob["content"]["data"]), (&json!(FORM), &json!("YT1i")));
}

/// A3 #51, A2 #28, #31, #36: what loosens queries loosens forms.
#[tokio::test]
async fn options_of_queries_are_options_of_forms() {
    let loose = RequestOptions {
        unknown_parameters: UnknownParameters::Allowed(vec!["utf8".to_owned()]),
        map_parameters: true,
        lenient_booleans: true,
        ignore_enum_case: true,
        ..forms()
    };
    let body = "utf8=%E2%9C%93&labels[env]=prod&b&e=colour_red";
    let answer = send(&reading(loose.clone()), typed("POST", "/v1/create", FORM, body)).await.json();
    assert_eq!(
        (&answer["labels"], &answer["b"], &answer["e"]),
        (&json!({"env": "prod"}), &json!(true), &json!("COLOUR_RED"))
    );
    let wrong = typed("POST", "/v1/body/msg", FORM, "utf8=1&utf9=1");
    assert_eq!(send(&reading(loose), wrong).await.violations(), ["msg.utf9: UNKNOWN_FIELD"]);
}

/// A3 #51, A9 #100, #103: a form is bounded as other bodies and queries are.
#[tokio::test]
async fn a_form_is_bounded() {
    let options =
        Options { max_body_bytes: 20, max_query_parameters: 3, requests: forms(), ..Options::default() };
    let small = transcoder_with(options);
    let ask = async |body: &str| send(&small, typed("POST", "/v1/create", FORM, body.to_owned())).await;
    assert_eq!(ask(&format!("s={}", "x".repeat(19))).await.status, 413);
    assert_eq!(ask("strings=1&strings=2").await.status, 200);
    assert_eq!(ask("s&opt&i32&zz").await.violations(), ["i32: INVALID_VALUE", ": TOO_MANY_PARAMETERS"]);
    let bytes = typed("POST", "/v1/create", FORM, &b"s=\xff"[..]);
    assert_eq!(send(&small, bytes).await.violations(), [": MALFORMED_FORM"]);
    let deep = format!("msg{}.name=x", ".child".repeat(40));
    let field = form("/v1/create", &deep).await.violations();
    assert!(field.len() == 1 && field[0].ends_with(": UNKNOWN_FIELD"), "{field:?}");
    // Other bodies are read as ever.
    assert_eq!(post("/v1/create", r#"{"s":"x"}"#).await.json()["s"], "x");
    assert_eq!(send(&transcoder(), typed("POST", "/v1/create", FORM, "")).await.status, 200);
}
