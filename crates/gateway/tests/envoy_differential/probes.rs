//! The live probe of four gateways, row by row, with the names that the checklist gives them: what Envoy answers, and
//! what we must.

use serde_json::{Value, json};

use crate::row::{Row, get, post, request};

const OTHER: &str = "another rule";

/// `{"s": "x"}` after gzip.
const GZIPPED: &[u8] = &[
    0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 3, 0xab, 0x56, 0x2a, 0x56, 0xb2, 0x52, 0x50, 0xaa, 0x50, 0xaa, 5, 0,
    0xc9, 0x1c, 0x26, 0x86, 0xa, 0, 0, 0,
];

pub(crate) fn rows() -> Vec<Row> {
    let deep = format!("/v2/query?msg{}.name=x", ".child".repeat(3000));
    let ours_refuses = |field: &str| {
        let violation = json!({"field": field});
        (400, json!({"code": 3, "details": [{}, {"field_violations": [violation]}]}))
    };
    let any = Value::Null;
    vec![
        get("/v2/items/").named("an empty segment").refused(404, ""),
        get("/v2/items/a%2Fb").named("an encoded slash").same(200, json!({"s": "a/b"})),
        get("/v2/items/%2525").named("no double decoding").same(200, json!({"s": "%25"})),
        get("/v2/items/%25").named("a percent sign alone").same(200, json!({"s": "%"})),
        get("/v2/items/%ff").named("a path that is no UTF-8").differ(
            "Envoy leaves it to the upstream",
            (500, json!({"code": 13})),
            ours_refuses("s"),
        ),
        get("/v2/items/urn:a:b").named("an id with colons").same(200, json!({"s": "urn:a:b"})),
        post("/v2/items/a:b:revoke", "")
            .named("a verb behind an id with colons")
            .same(200, json!({"s": "a:b"})),
        get("/v2/items/search").named("another method's literal").same(200, json!({"s": "search"})),
        get("/v2/mid/a/b/rev").named("`**` before the end").same(200, json!({"s": "mid/a/b"})),
        get("/v2/files").named("`**` of no segment").same(200, json!({"s": "files"})),
        request("DELETE", "/v2/items/a").named("DELETE on a GET route").differ(
            OTHER,
            (404, any.clone()),
            (405, json!({"code": 12})),
        ),
        request("HEAD", "/v2/items/a").named("HEAD on a GET route").differ(
            OTHER,
            (404, any.clone()),
            (200, json!("")),
        ),
        request("OPTIONS", "/v2/items/a").named("OPTIONS on a GET route").differ(
            OTHER,
            (404, any.clone()),
            (204, json!("")),
        ),
        get("/v2/query?zz=1").named("an unknown parameter").refused(400, "zz"),
        get("/v2/items/5?s=6").named("a parameter over the path").differ(
            "Envoy sends both, and the query overrides the path",
            (200, json!({"s": "6"})),
            ours_refuses("s"),
        ),
        get("/v2/query?i32=1&i32=2").named("a singular field twice").differ(
            "Envoy sends both, and the last one wins",
            (200, json!({"i32": 2})),
            ours_refuses("i32"),
        ),
        get("/v2/query?choice_a=a&choice_b=2").named("two members of a oneof").refused(400, "choice_b"),
        get("/v2/query?mask=longName,a")
            .named("a mask in camel case")
            .same(200, json!({"mask": "longName,a"})),
        get("/v2/query?by=-_8").named("url-safe base64").same(200, json!({"by": "+/8="})),
        get("/v2/query?e=7").named("an unknown number of an enum").differ(
            "Envoy takes the enum for a closed one",
            (400, any.clone()),
            (200, json!({"e": 7})),
        ),
        get(deep).named("a path of 3,000 fields").differ(
            "Envoy has no bound but that of the headers",
            (431, any.clone()),
            (400, json!({"code": 3})),
        ),
        post("/v2/create", r#"{"s": "#).named("malformed JSON").refused(400, ""),
        post("/v2/create", r#"{"i32": "x"}"#).named("a wrong type").refused(400, "i32"),
        post("/v2/create", r#"{"s": "a", "s": "b"}"#).named("a duplicate key").differ(
            "Envoy sends both, and the last one wins",
            (200, json!({"s": "b"})),
            ours_refuses("s"),
        ),
        post("/v2/create", r#"{"s": "a"} x"#).named("trailing bytes").refused(400, ""),
        post("/v2/create", "").named("an empty body").same(200, json!({"s": ""})),
        post("/v2/create", r#"{"zz": 1}"#).named("an unknown JSON field").differ(
            "Envoy drops it",
            (200, json!({"s": ""})),
            ours_refuses("zz"),
        ),
        post("/v2/create", r#"{"s": "a"}"#)
            .header("content-type", "text/plain")
            .named("JSON as text/plain")
            .differ("Envoy takes any type for JSON", (200, json!({"s": "a"})), (415, json!({"code": 3}))),
        post("/v2/create", "{'s': 'a'}").named("single quotes").differ(
            "Envoy is lenient",
            (200, json!({"s": "a"})),
            (400, json!({"code": 3})),
        ),
        post("/v2/create", r#"{"s": "a",}"#).named("a trailing comma").differ(
            "Envoy is lenient",
            (200, json!({"s": "a"})),
            (400, json!({"code": 3})),
        ),
        request("PATCH", "/v2/books/7")
            .body(r#"{"display_name": "x", "labels": null}"#)
            .header("content-type", "application/json")
            .named("PATCH without a mask")
            .differ(
                "Envoy makes none",
                (200, json!({"book": {"id": "7", "display_name": "x"}})),
                (200, json!({"book": {"id": "7", "display_name": "x"}, "update_mask": "displayName,labels"})),
            ),
        post("/v2/create", "").body(GZIPPED).header("content-encoding", "gzip").named("a gzip body").differ(
            "Envoy leaves it to another filter",
            (400, any.clone()),
            (200, json!({"s": "x"})),
        ),
        post("/gateway.probe.v1.Probe/GetItem", r#"{"s": "a"}"#)
            .named("Connect JSON without its version")
            .differ("Envoy speaks no Connect", (404, any.clone()), (200, json!({"s": "a"}))),
        post("/v2/part", r#"{"msg": {"name": "a"}}"#).named("`response_body`").differ(
            "Envoy is not configured with it, since it refuses it",
            (404, any),
            (200, json!({"name": "a", "page_size": 0})),
        ),
    ]
}
