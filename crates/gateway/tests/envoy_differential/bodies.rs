//! What a body binds, and how messages are written.

use serde_json::{Value, json};

use crate::row::{Row, get, post, request};

/// A POST of a whole message.
fn create(body: &'static str) -> Row {
    post("/v2/create", body)
}

pub(crate) fn rows() -> Vec<Row> {
    let anything = || Value::Null;
    let refused = || json!({"code": 3});
    vec![
        create("{}").same(200, json!({"s": "", "b": false, "labels": {}, "msgs": []})),
        create("").same(200, json!({"s": ""})),
        create(r#"{"s": "a", "longFieldName": "b", "otherName": "c"}"#)
            .same(200, json!({"s": "a", "long_field_name": "b", "renamed": "c"})),
        create(r#"{"long_field_name": "b"}"#).same(200, json!({"long_field_name": "b"})),
        create(r#"{"s": "\u2603 \ud83d\ude00 \n\"\\/"}"#).same(200, json!({"s": "☃ 😀 \n\"\\/"})),
        create(r#"{"i64": "9223372036854775807", "u64": 5, "f64": "6"}"#)
            .same(200, json!({"i64": "9223372036854775807", "u64": "5", "f64": "6"})),
        create(r#"{"i32": 1e3, "i64": 5.0}"#).same(200, json!({"i32": 1000, "i64": "5"})),
        create(r#"{"i32": "7", "db": "1.5"}"#).same(200, json!({"i32": 7, "db": 1.5})),
        create(r#"{"i32": "1e2"}"#).differ(
            "Envoy takes no exponent in quotes",
            (400, anything()),
            (200, json!({"i32": 100})),
        ),
        create(r#"{"i32": 2147483648}"#).refused(400, "i32"),
        create(r#"{"i32": 1.5}"#).refused(400, "i32"),
        create(r#"{"b": "true"}"#).differ("Envoy is lenient", (200, json!({"b": true})), (400, refused())),
        create(r#"{"db": "NaN", "fl": "-Infinity"}"#).same(200, json!({"db": "NaN", "fl": "-Infinity"})),
        create(r#"{"db": 5e-324, "fl": 0.1}"#).same(200, json!({"db": 5e-324, "fl": 0.1})),
        create(r#"{"fl": 1e39}"#).refused(400, "fl"),
        create(r#"{"by": "-_8"}"#).same(200, json!({"by": "+/8="})),
        create(r#"{"by": "+/8="}"#).same(200, json!({"by": "+/8="})),
        create(r#"{"e": "COLOUR_RED", "colours": ["COLOUR_GREEN", 1]}"#)
            .same(200, json!({"e": "COLOUR_RED", "colours": ["COLOUR_GREEN", "COLOUR_RED"]})),
        create(r#"{"e": 7}"#).same(200, json!({"e": 7})),
        create(r#"{"e": "PURPLE"}"#).refused(400, "e"),
        create(r#"{"msg": {"name": "a", "child": {"tags": ["x", "y"]}}}"#)
            .same(200, json!({"msg": {"name": "a", "child": {"tags": ["x", "y"], "page_size": 0}}})),
        create(r#"{"msgs": [{"name": "a"}, {}]}"#).same(200, json!({"msgs": [{"name": "a"}, {"name": ""}]})),
        create(r#"{"labels": {"a": "b", "c": "d"}}"#).same(200, json!({"labels": {"a": "b", "c": "d"}})),
        create(r#"{"by_number": {"-1": {"name": "a"}}}"#)
            .same(200, json!({"by_number": {"-1": {"name": "a"}}})),
        create(r#"{"choice_a": "x"}"#).same(200, json!({"choice_a": "x"})),
        create(r#"{"choice_b": 0}"#).same(200, json!({"choice_b": 0})),
        create(r#"{"opt": ""}"#).same(200, json!({"opt": ""})),
        create(r#"{"s": null, "msg": null, "strings": null}"#).same(200, json!({"s": "", "strings": []})),
        create(r#"{"strings": "a"}"#).differ(
            "Envoy is lenient",
            (200, json!({"strings": ["a"]})),
            (400, refused()),
        ),
        create(r#"{"strings": [1]}"#).refused(400, "strings[0]"),
        create(r#"{"msg": "a"}"#).refused(400, "msg"),
        // Well-known types.
        create(r#"{"ts": "2026-01-02T03:04:05.5Z", "dur": "3.000000001s"}"#)
            .same(200, json!({"ts": "2026-01-02T03:04:05.500Z", "dur": "3.000000001s"})),
        create(r#"{"ts": "2026-13-02T03:04:05Z"}"#).refused(400, "ts"),
        create(r#"{"dur": "1h"}"#).refused(400, "dur"),
        create(r#"{"mask": "longName,a.b"}"#).same(200, json!({"mask": "longName,a.b"})),
        create(r#"{"wrapped_string": "", "wrapped_int": "5", "wrapped_bool": null}"#)
            .same(200, json!({"wrapped_string": "", "wrapped_int": "5"})),
        create(r#"{"structure": {"a": [1, "x", null, true, {"b": {}}]}}"#)
            .same(200, json!({"structure": {"a": [1, "x", null, true, {"b": {}}]}})),
        create(r#"{"value": "x", "list": [1, []]}"#).same(200, json!({"value": "x", "list": [1, []]})),
        create(r#"{"value": null}"#).same(200, json!({"value": null})),
        create(r#"{"empty": {}}"#).same(200, json!({"empty": {}})),
        create(r#"{"any": {"@type": "type.googleapis.com/gateway.test.v1.Nested", "name": "a"}}"#)
            .same(200, json!({"any": {"@type": "type.googleapis.com/gateway.test.v1.Nested", "name": "a"}})),
        create(r#"{"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}"#).same(
            200,
            json!({"any": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "1s"}}),
        ),
        create(r#"{"any": {"@type": "type.googleapis.com/nobody.Knows"}}"#).refused(400, "any.@type"),
        // The path and the body.
        post("/v2/create/a", r#"{"i32": 1}"#).same(200, json!({"s": "a", "i32": 1})),
        post("/v2/create/a", r#"{"s": "a"}"#).same(200, json!({"s": "a"})),
        post("/v2/create/a", r#"{"s": "b"}"#).refused(400, "s"),
        post("/v2/message/a", r#"{"name": "n", "tags": ["t"]}"#)
            .same(200, json!({"s": "a", "msg": {"name": "n", "tags": ["t"]}})),
        post("/v2/message/a", "").differ(
            "Envoy makes a message of no body",
            (200, json!({"s": "a", "msg": {"name": ""}})),
            (200, json!({"s": "a"})),
        ),
        request("PATCH", "/v2/books/7?update_mask=displayName")
            .header("content-type", "application/json")
            .body(r#"{"display_name": "x"}"#)
            .same(200, json!({"book": {"id": "7", "display_name": "x"}, "update_mask": "displayName"})),
        // What is no body, or not in order.
        create(" \n").differ("Envoy wants a value", (400, anything()), (200, json!({"s": ""}))),
        create("[]").refused(400, ""),
        create("null").refused(400, ""),
        create("{s: 1}").refused(400, ""),
        create(r#"{s: "a"}"#).differ("Envoy is lenient", (200, json!({"s": "a"})), (400, refused())),
        create(r#"{"s": "a"} {}"#).refused(400, ""),
        create("").body(&b"{\"s\": \"\xff\"}"[..]).refused(400, ""),
        create("").body(&b"\xef\xbb\xbf{}"[..]).refused(400, ""),
        get("/v2/items/a").header("content-type", "application/json").body(r#"{"i32": 1}"#).differ(
            "Envoy binds a body that the rule does not have",
            (200, json!({"s": "a", "i32": 1})),
            (400, refused()),
        ),
        create(r#"{"s": "a"}"#)
            .header("content-type", "application/json; charset=utf-8")
            .same(200, json!({"s": "a"})),
    ]
}
