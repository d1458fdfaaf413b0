//! Errors of the upstream, and its streams.

use serde_json::{Value, json};

use crate::row::{Row, get, post};

const DETAILED: &str = r#"{"code": 9, "message": "not now ☃", "details": [
    {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "BUSY", "domain": "x", "metadata": {"a": "b"}},
    {"@type": "type.googleapis.com/google.rpc.BadRequest",
     "field_violations": [{"field": "a.b", "description": "no"}]}]}"#;

pub(crate) fn rows() -> Vec<Row> {
    let codes = [
        (1, 499),
        (2, 500),
        (3, 400),
        (4, 504),
        (5, 404),
        (6, 409),
        (7, 403),
        (8, 429),
        (9, 400),
        (10, 409),
        (11, 400),
        (12, 501),
        (13, 500),
        (14, 503),
        (15, 500),
        (16, 401),
    ];
    let failing = |(code, status): (i32, u16)| {
        let body = json!({"code": code, "message": "as asked"}).to_string();
        post("/v2/fail", "").body(body).same(status, json!({"code": code, "message": "as asked"}))
    };
    let mut rows: Vec<Row> = codes.into_iter().map(failing).collect();
    rows.extend([
        post("/v2/fail", DETAILED).same(400, json!({"code": 9, "message": "not now ☃"})),
        get("/v2/not-there").same(501, json!({"code": 12, "message": "no such method"})),
        // Streams: a value per line.
        get("/v2/count/3").same(
            200,
            json!([
                {"number": 1, "square": "1"},
                {"number": 2, "square": "4"},
                {"number": 3, "square": "9"},
            ]),
        ),
        get("/v2/count/1").same(200, json!({"number": 1, "square": "1"})),
        get("/v2/count/0").same(200, Value::Null),
        get("/v2/count/-1").same(400, json!({"code": 11})),
        get("/v2/count/x").refused(400, "to"),
        get("/v2/count/0?fail=5").differ(
            "Envoy sends 200 as soon as the stream begins; we wait for what comes first",
            (200, json!({"code": 5})),
            (404, json!({"code": 5})),
        ),
        get("/v2/count/2?fail=9").differ(
            "Envoy has no way to tell an error behind messages",
            (200, json!([{"number": 1}, {"number": 2}])),
            (200, json!([{"number": 1}, {"number": 2}, {"error": {"code": 9, "message": "counted enough"}}])),
        ),
    ]);
    rows
}
