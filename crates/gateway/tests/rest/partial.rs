//! Parts of answers, by `$fields` and `X-Goog-FieldMask`: checklist A5 #71.

use agentrouter_gateway::{AnswerOptions, Defaults, JsonOutput, Names, Options, RequestOptions, Transcoder};
use http::{HeaderValue, Request};
use http_body_util::Full;
use prost_reflect::DynamicMessage;
use serde_json::{Value, json};

use super::backend::Backend;
use super::{Answer, answers, get, pool, post, request, send, transcoder, transcoder_with};

const BODY: &str = r#"{
    "s": "x", "i32": 7, "opt": "", "long_field_name": "l", "otherName": "o",
    "msg": {"name": "n", "page_size": 2, "child": {"name": "c", "tags": ["t"]}},
    "msgs": [{"name": "a", "tags": ["b"]}, {}],
    "labels": {"env": "prod"},
    "by_number": {"2": {"name": "two", "page_size": 2}, "1": {}},
    "strings": ["a"], "ts": "2026-01-31T12:00:00Z", "structure": {"a": {"b": 1}},
    "choice_b": 3
}"#;

async fn select(fields: &str) -> Value {
    let answer = post(&format!("/v1/create?$fields={fields}"), BODY).await;
    assert_eq!(answer.status, 200, "{fields} {answer:?}");
    answer.json()
}

fn masked(uri: &str, masks: &[&'static str]) -> Request<Full<bytes::Bytes>> {
    let mut request = request("GET", uri, "");
    for mask in masks {
        request.headers_mut().append("x-goog-fieldmask", HeaderValue::from_static(mask));
    }
    request
}

/// A5 #71: what is not selected is not there, not even as a default. A path goes on into each value of a list or map.
#[tokio::test]
async fn an_answer_has_the_fields_that_are_asked_for() {
    for (fields, expected) in [
        ("s", json!({"s": "x"})),
        ("s,i32", json!({"s": "x", "i32": 7})),
        ("b,numbers", json!({"b": false, "numbers": []})),
        ("opt,choice_a,wrapped_int", json!({"opt": ""})),
        ("choiceB,choice_a", json!({"choice_b": 3})),
        ("long_field_name,renamed", json!({"long_field_name": "l", "renamed": "o"})),
        ("longFieldName,otherName", json!({"long_field_name": "l", "renamed": "o"})),
        ("msg.name", json!({"msg": {"name": "n"}})),
        ("msg.pageSize,msg.child.tags", json!({"msg": {"page_size": 2, "child": {"tags": ["t"]}}})),
        (
            "msg.child.name,msg",
            json!({"msg": {"name": "n", "page_size": 2, "tags": [],
            "child": {"name": "c", "page_size": 0, "tags": ["t"]}}}),
        ),
        (
            "msg.*,msg.name",
            json!({"msg": {"name": "n", "page_size": 2, "tags": [],
            "child": {"name": "c", "page_size": 0, "tags": ["t"]}}}),
        ),
        ("msg.child.child.name", json!({"msg": {"child": {}}})),
        ("msgs.name", json!({"msgs": [{"name": "a"}, {"name": ""}]})),
        ("msgs.*.tags", json!({"msgs": [{"tags": ["b"]}, {"tags": []}]})),
        ("by_number.name", json!({"by_number": {"1": {"name": ""}, "2": {"name": "two"}}})),
        ("labels.*,strings.*", json!({"labels": {"env": "prod"}, "strings": ["a"]})),
        ("ts,structure.*", json!({"ts": "2026-01-31T12:00:00Z", "structure": {"a": {"b": 1}}})),
        ("%20s%20,,i32,", json!({"s": "x", "i32": 7})),
    ] {
        assert_eq!(select(fields).await, expected, "{fields}");
    }
    let whole = post("/v1/create", BODY).await.json();
    for fields in ["*", "s,*", "", ","] {
        assert_eq!(select(fields).await, whole, "{fields}");
    }
    let encoded = post("/v1/create?%24fields=s%2Ci32", BODY).await.json();
    assert_eq!(encoded, json!({"s": "x", "i32": 7}));
}

/// A5 #71: every path that is wrong is told at once, with what else is wrong with the request.
#[tokio::test]
async fn unknown_paths_are_refused() {
    for fields in [
        "zz",
        "other_name",
        "msg.zz",
        "s.zz",
        "s.*",
        "ts.seconds",
        "structure.a",
        "wrapped_int.value",
        "any.value",
        "*.s",
        "msg.*.name",
        "labels.env",
        "msgs.0",
        "strings.x",
        ".",
        "msg.",
        "..s",
        "msgs(name)",
        "$fields",
        "%C3%A4",
    ] {
        let answer = post(&format!("/v1/create?$fields={fields}"), BODY).await;
        assert_eq!(answer.violations(), ["$fields: UNKNOWN_FIELD"], "{fields}");
    }
    let deep = ["msg"].into_iter().chain(vec!["child"; 40]).collect::<Vec<_>>().join(".");
    assert_eq!(get(&format!("/v1/query?$fields={deep}")).await.violations(), ["$fields: UNKNOWN_FIELD"]);

    let all = post("/v1/create?zz=1&$fields=a,s,b.c&$fields=s", r#"{"i32":"x"}"#).await;
    let expected = [
        "i32: INVALID_VALUE",
        "zz: UNKNOWN_FIELD",
        "$fields: UNKNOWN_FIELD",
        "$fields: UNKNOWN_FIELD",
        "$fields: DUPLICATE_FIELD",
    ];
    assert_eq!(all.violations(), expected);
    let text = all.json()["details"].to_string();
    assert!(text.contains("names `b.c`, which is no field of the answer"), "{text}");
    assert_eq!(get("/v1/query?$fields=%zz").await.violations(), ["$fields: INVALID_VALUE"]);
    // No error costs more than others, and the mask has nothing to say of errors.
    let many = vec!["zz"; 5000].join(",");
    assert_eq!(get(&format!("/v1/query?$fields={many}")).await.violations().len(), 100);
    assert_eq!(post("/v1/fail?$fields=*", r#"{"code":5,"message":"no"}"#).await.json()["message"], "no");
}

/// A5 #71: the header says the same, in one line or several; the parameter counts before it.
#[tokio::test]
async fn the_header_is_a_mask_too() {
    let ask = async |uri: &str, masks: &[&'static str]| send(&transcoder(), masked(uri, masks)).await;
    let uri = "/v1/query?s=x&i32=7";
    assert_eq!(ask(uri, &["s, b"]).await.json(), json!({"s": "x", "b": false}));
    assert_eq!(ask(uri, &["s", "i32"]).await.json(), json!({"s": "x", "i32": 7}));
    assert_eq!(ask(uri, &["*"]).await.json(), get(uri).await.json());
    assert_eq!(ask(&format!("{uri}&$fields=s"), &["zz"]).await.json(), json!({"s": "x"}));
    let wrong = ask(uri, &["zz,s", "msg.zz"]).await.violations();
    assert_eq!(wrong, ["X-Goog-FieldMask: UNKNOWN_FIELD", "X-Goog-FieldMask: UNKNOWN_FIELD"]);
    // The rpc may save work by it.
    assert_eq!(ask(uri, &["s"]).await.header("x-seen-x-goog-fieldmask"), "s");
}

/// A5 #71: the mask is about what the client gets to see, whatever of the response that is.
#[tokio::test]
async fn the_mask_is_about_the_body() {
    for (uri, fields, expected) in [
        ("/v1/part/msg", "name", json!({"name": "n"})),
        ("/v1/part/strings", "*", json!(["a"])),
        ("/v1/part/s", "*", json!("x")),
    ] {
        let answer = post(&format!("{uri}?$fields={fields}"), BODY).await;
        assert_eq!(answer.json(), expected, "{uri}");
    }
    for (uri, fields) in [("/v1/part/msg", "msg.name"), ("/v1/part/s", "s"), ("/v1/part/strings", "a")] {
        let answer = post(&format!("{uri}?$fields={fields}"), BODY).await;
        assert_eq!(answer.violations(), ["$fields: UNKNOWN_FIELD"], "{uri}");
    }
}

/// A5 #71, A4 #61: however answers are written.
#[tokio::test]
async fn the_form_of_answers_stays() {
    let json = JsonOutput { defaults: Defaults::Always, names: Names::Json, ..JsonOutput::REST };
    let transcoder = transcoder_with(Options {
        answers: AnswerOptions { json, ..AnswerOptions::default() },
        ..Options::default()
    });
    let uri = "/v1/query?$fields=long_field_name,ts,msg.page_size,msg.child&msg.name=n";
    let answer = send(&transcoder, request("GET", uri, "")).await;
    let expected = json!({"longFieldName": "", "ts": null, "msg": {"pageSize": 0, "child": null}});
    assert_eq!(answer.json(), expected);
    let pretty = get("/v1/query?$fields=s&$prettyPrint=true&s=x").await;
    assert_eq!(pretty.body, "{\n  \"s\": \"x\"\n}\n");
}

/// A5 #71, A3 #53: answers in protobuf have the same fields, and no other bytes.
#[tokio::test]
async fn protobuf_has_the_same_part() {
    for fields in ["s,i32", "msg.name,msgs.tags,by_number.page_size", "msg.child.tags,labels,ts,numbers", "*"]
    {
        let mut request = request("POST", &format!("/v1/create?$fields={fields}"), BODY);
        request.headers_mut().insert("accept", HeaderValue::from_static("application/x-protobuf"));
        let answer = send(&transcoder(), request).await;
        assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-protobuf"));
        let desc = pool().get_message_by_name("gateway.test.v1.Everything").expect("a message");
        let message = DynamicMessage::decode(desc, answer.body).expect("a message");
        let shown = select(fields).await;
        let again = post("/v1/create", shown.to_string()).await.json();
        let text = serde_json::to_string(&message).expect("JSON");
        assert_eq!(post("/v1/create", text).await.json(), again, "{fields}");
        assert_eq!(message.unknown_fields().count(), 0, "{fields}");
        assert_eq!(message.has_field_by_name("choice_b"), fields == "*");
    }
}

/// A5 #71, A10 #104: each message of a stream, in every form; and nothing of raw bytes.
#[tokio::test]
async fn each_message_of_a_stream_is_cut() {
    for (accept, expected) in [
        ("application/x-ndjson", "{\"square\":\"1\"}\n{\"square\":\"4\"}\n"),
        ("application/json", "[{\"square\":\"1\"},\n{\"square\":\"4\"}]"),
        ("text/event-stream", "data: {\"square\":\"1\"}\n\ndata: {\"square\":\"4\"}\n\n"),
    ] {
        let mut request = request("GET", "/v1/count/2?$fields=square", "");
        request.headers_mut().insert("accept", HeaderValue::from_static(accept));
        assert_eq!(send(&transcoder(), request).await.body, expected, "{accept}");
    }
    assert_eq!(get("/v1/count/2?$fields=zz").await.violations(), ["$fields: UNKNOWN_FIELD"]);
    // A faulty mask keeps a client's stream from beginning, too.
    let upload = post("/v1/upload?$fields=zz", "[{}]").await;
    assert_eq!(upload.violations(), ["$fields: UNKNOWN_FIELD"]);

    // The id of an event is no part of its data.
    let mut events = answers::asking("/v1/events?to=1&$fields=text", &[("accept", "text/event-stream")]);
    events.headers_mut().insert("x-goog-fieldmask", HeaderValue::from_static("zz"));
    let events = send(&answers::with(AnswerOptions::default()), events).await;
    assert_eq!(events.body, "id: 1\nretry: 2500\ndata: {\"text\":\"number 1\"}\n\n");
}

/// A5 #71, A3 #47: bytes have no fields.
#[tokio::test]
async fn bytes_are_sent_whole() {
    for uri in
        ["/v1/files/text-plain?text=abc&$fields=zz", "/v1/files/text-plain/parts?text=abc&to=1&$fields=zz"]
    {
        let answer = answers::get(AnswerOptions::default(), uri, &[("x-goog-fieldmask", "zz")]).await;
        assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &b"abc"[..]), "{uri}");
    }
}

/// A5 #71, A11 #113: a part has a tag of its own, so that no client is told that it has what it never saw.
#[tokio::test]
async fn a_part_has_a_tag_of_its_own() {
    let ask = async |uri: &str, headers: &[(&'static str, &'static str)], known: &str| -> Answer {
        let mut request = answers::asking(uri, headers);
        if !known.is_empty() {
            request.headers_mut().insert("if-none-match", known.parse().expect("a header value"));
        }
        send(&answers::with(AnswerOptions::default()), request).await
    };
    let uri = "/v1/things/a?text=t&etag=v1";
    let vary = "accept, x-goog-fieldmask, accept-encoding";
    let whole = ask(uri, &[], "").await;
    assert_eq!((whole.header("etag"), whole.header("vary")), ("\"v1\"", vary));
    let id = ask(uri, &[("x-goog-fieldmask", "id")], "").await;
    assert_eq!((id.json(), id.header("vary")), (json!({"id": "a"}), vary));
    let tag = id.header("etag").to_owned();
    assert!(tag.starts_with('"') && tag != "\"v1\"", "{tag}");
    let text = ask(&format!("{uri}&$fields=text"), &[], "").await;
    assert_ne!(text.header("etag"), tag);

    // Who has the whole, or another part, does not have this one.
    for (mask, known, status) in [
        ("id", tag.as_str(), 304),
        ("id", "\"v1\"", 200),
        ("text", tag.as_str(), 200),
        ("*", tag.as_str(), 200),
        ("*", "\"v1\"", 304),
    ] {
        let answer = ask(&format!("{uri}&$fields={mask}"), &[], known).await;
        assert_eq!(answer.status, status, "{mask} {known}");
    }
    // What has no version has no tag, and one that the rpc sends is that of the whole.
    let untagged = ask("/v1/things/a?$fields=id", &[], "").await;
    assert_eq!(untagged.header("etag"), "");
    let sent = ask("/v1/things/a?headers=etag:%22w%22&$fields=id", &[], "").await;
    assert_eq!(sent.header("etag"), tag);
    // The answer to a change says what is there now.
    let mut change = request("POST", "/v1/things:accept?$fields=id", r#"{"id":"a","etag":"v2"}"#);
    change.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
    let change = send(&answers::with(AnswerOptions::default()), change).await;
    assert_eq!((change.json(), change.header("etag")), (json!({"id": "a"}), "\"v2\""));
}

fn without(requests: RequestOptions, field_masks: bool) -> Transcoder<Backend> {
    let answers = AnswerOptions { field_masks, ..AnswerOptions::default() };
    transcoder_with(Options { requests, answers, ..Options::default() })
}

/// A5 #71, A2 #36: an operator may do without it, or leave the parameter to the rpc.
#[tokio::test]
async fn masks_are_an_option() {
    let off = without(RequestOptions::default(), false);
    let answer = send(&off, request("GET", "/v1/query?$fields=s", "")).await;
    assert_eq!(answer.violations(), ["$fields: UNKNOWN_FIELD"]);
    let whole = send(&off, masked("/v1/query?s=x", &["zz"])).await;
    assert_eq!(whole.json(), get("/v1/query?s=x").await.json());
    assert_eq!(whole.header("vary"), "accept, accept-encoding");

    let reserved =
        RequestOptions { system_parameters: vec!["$fields".to_owned()], ..RequestOptions::default() };
    let reserved = without(reserved, true);
    let answer = send(&reserved, request("GET", "/v1/query?s=x&$fields=zz", "")).await;
    assert_eq!(answer.json(), whole.json());
    assert_eq!(send(&reserved, masked("/v1/query?s=x", &["s"])).await.json(), json!({"s": "x"}));
}
