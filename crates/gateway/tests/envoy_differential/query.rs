//! What a query binds.

use serde_json::{Value, json};

use crate::row::{Row, get, post};

/// A GET of the route that binds nothing but its query.
fn query(text: &str) -> Row {
    get(format!("/v2/query?{text}"))
}

pub(crate) fn rows() -> Vec<Row> {
    let anything = || Value::Null;
    let refused = || json!({"code": 3});
    vec![
        get("/v2/query").same(200, json!({"s": "", "strings": [], "u64": "0"})),
        query("s=a&i32=-1&b=true").same(200, json!({"s": "a", "i32": -1, "b": true})),
        query("s=a%26b%3Dc").same(200, json!({"s": "a&b=c"})),
        query("s=a+b%2Bc").same(200, json!({"s": "a b+c"})),
        query("s=%E2%98%83").same(200, json!({"s": "☃"})),
        query("s=").same(200, json!({"s": ""})),
        query("long_field_name=a").same(200, json!({"long_field_name": "a"})),
        query("longFieldName=a").same(200, json!({"long_field_name": "a"})),
        query("otherName=a").same(200, json!({"renamed": "a"})),
        query("opt=a").same(200, json!({"opt": "a"})),
        query("msg.name=a&msg.page_size=3").same(200, json!({"msg": {"name": "a", "page_size": 3}})),
        query("msg.pageSize=3").same(200, json!({"msg": {"page_size": 3}})),
        query("msg.child.child.name=a").same(200, json!({"msg": {"child": {"child": {"name": "a"}}}})),
        // Lists.
        query("strings=a&strings=b&strings=a").same(200, json!({"strings": ["a", "b", "a"]})),
        query("numbers=1&s=x&numbers=2").same(200, json!({"s": "x", "numbers": [1, 2]})),
        query("colours=COLOUR_RED&colours=2").same(200, json!({"colours": ["COLOUR_RED", "COLOUR_GREEN"]})),
        query("msg.tags=a&msg.tags=b").same(200, json!({"msg": {"tags": ["a", "b"]}})),
        query("msgs.name=a").differ(
            "Envoy appends a message",
            (200, json!({"msgs": [{"name": "a"}]})),
            (400, refused()),
        ),
        query("msgs=a").refused(400, "msgs"),
        query("msg=a").refused(400, "msg"),
        query("labels=a").refused(400, "labels"),
        // Numbers.
        query("u64=18446744073709551615&i64=-9223372036854775808")
            .same(200, json!({"u64": "18446744073709551615", "i64": "-9223372036854775808"})),
        query("u32=4294967295&si32=-5&f64=7")
            .same(200, json!({"u32": 4_294_967_295_u32, "si32": -5, "f64": "7"})),
        query("u64=18446744073709551616").refused(400, "u64"),
        query("i32=1.5").refused(400, "i32"),
        query("i32=").refused(400, "i32"),
        query("i32=x").refused(400, "i32"),
        query("u32=-1").refused(400, "u32"),
        query("db=1.5&fl=-0.25").same(200, json!({"db": 1.5, "fl": -0.25})),
        query("db=NaN").same(200, json!({"db": "NaN"})),
        query("db=Infinity&fl=-Infinity").same(200, json!({"db": "Infinity", "fl": "-Infinity"})),
        query("db=1e400").refused(400, "db"),
        // Booleans, enums and bytes.
        query("b=false").same(200, json!({"b": false})),
        query("b=1").differ("Envoy is lenient", (200, json!({"b": true})), (400, refused())),
        query("b=TRUE").differ("Envoy is lenient", (200, json!({"b": true})), (400, refused())),
        query("b=yes").differ("Envoy is lenient", (200, json!({"b": true})), (400, refused())),
        query("b=maybe").refused(400, "b"),
        query("b").differ("Envoy drops what has no value", (200, json!({"b": false})), (400, refused())),
        query("e=COLOUR_GREEN").same(200, json!({"e": "COLOUR_GREEN"})),
        query("e=2").same(200, json!({"e": "COLOUR_GREEN"})),
        query("e=colour_green").refused(400, "e"),
        query("by=%2B%2F8%3D").same(200, json!({"by": "+/8="})),
        query("by=aGk").same(200, json!({"by": "aGk="})),
        query("by=!").refused(400, "by"),
        // Well-known types.
        query("ts=2026-01-02T03:04:05.678Z").same(200, json!({"ts": "2026-01-02T03:04:05.678Z"})),
        query("ts=2026-01-02T03:04:05%2B01:00").same(200, json!({"ts": "2026-01-02T02:04:05Z"})),
        query("ts=tomorrow").refused(400, "ts"),
        query("dur=1.5s").same(200, json!({"dur": "1.500s"})),
        query("dur=-3s").same(200, json!({"dur": "-3s"})),
        query("dur=1h").refused(400, "dur"),
        query("mask=a,longName.b").same(200, json!({"mask": "a,longName.b"})),
        query("times=2026-01-02T03:04:05Z&times=2027-01-02T03:04:05Z")
            .same(200, json!({"times": ["2026-01-02T03:04:05Z", "2027-01-02T03:04:05Z"]})),
        query("wrapped_string=a&wrapped_int=5&wrapped_bool=true")
            .same(200, json!({"wrapped_string": "a", "wrapped_int": "5", "wrapped_bool": true})),
        query("wrapped_bytes=aGk").same(200, json!({"wrapped_bytes": "aGk="})),
        query("value=5").differ(
            "Envoy takes it for text",
            (200, json!({"value": "5"})),
            (200, json!({"value": 5})),
        ),
        query("structure=%7B%22a%22%3A1%7D").differ(
            "Envoy takes no JSON text",
            (400, anything()),
            (200, json!({"structure": {"a": 1}})),
        ),
        // What is refused.
        query("zz=1").refused(400, "zz"),
        query("msg.zz=1").refused(400, "msg.zz"),
        query("s.zz=1").refused(400, "s.zz"),
        query("s=%ff").differ(
            "Envoy leaves it to the upstream",
            (500, json!({"code": 13})),
            (400, refused()),
        ),
        query("s=%zz").differ("Envoy keeps a broken escape", (200, json!({"s": "%zz"})), (400, refused())),
        query("opt=a&opt=b").refused(400, "opt"),
        query("choice_a=a&choiceB=2").refused(400, "choiceB"),
        get("/v2/users/ann/items/7?msg.name=bob").differ(
            "Envoy sends both, and the query overrides the path",
            (200, json!({"s": "7", "msg": {"name": "bob"}})),
            (400, refused()),
        ),
        get("/v2/users/ann/items/7?msg.page_size=2")
            .same(200, json!({"s": "7", "msg": {"name": "ann", "page_size": 2}})),
        post("/v2/create?i32=1", r#"{"s": "a"}"#).differ(
            "Envoy binds it though the body has every field",
            (200, json!({"s": "a", "i32": 1})),
            (400, refused()),
        ),
        post("/v2/message/a?i32=1", r#"{"name": "n"}"#)
            .same(200, json!({"s": "a", "i32": 1, "msg": {"name": "n"}})),
        post("/v2/message/a?msg.page_size=1", r#"{"name": "n"}"#).differ(
            "Envoy binds it beside the body",
            (200, anything()),
            (400, refused()),
        ),
    ]
}
