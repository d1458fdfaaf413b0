//! The JSON of answers: checklist A4 as far as this codec goes, and A3 #46.

use serde_json::{Value, json};

use super::{get, post};

/// Fields without presence, lists and maps are always there; unset messages,
/// `optional` fields and oneof members are not.
#[tokio::test]
async fn defaults_are_written_and_absent_fields_are_not() {
    let answer = get("/v1/query").await;
    assert_eq!(answer.header("content-type"), "application/json");
    let expected = json!({
        "s": "", "b": false, "i32": 0, "i64": "0", "u32": 0, "u64": "0", "si32": 0, "f64": "0",
        "fl": 0, "db": 0, "by": "", "e": "COLOUR_UNSPECIFIED",
        "strings": [], "numbers": [], "colours": [], "msgs": [], "labels": {}, "by_number": {}, "times": [],
        "nothing": null, "long_field_name": "", "renamed": "",
    });
    assert_eq!(answer.json(), expected);

    let json = post("/v1/create", r#"{"opt":"","msg":{},"choice_b":0,"empty":{}}"#).await.json();
    assert_eq!(json["opt"], "");
    assert_eq!(json["msg"], json!({"name": "", "page_size": 0, "tags": []}));
    assert_eq!(json["choice_b"], 0);
    assert_eq!(json["empty"], json!({}));
}

/// A4 #57, #58, #59, #60, #62, #63, #64: what goes in comes out in canonical form.
#[tokio::test]
async fn values_round_trip_in_canonical_form() {
    let cases: &[(&str, &str, Value)] = &[
        (r#"{"i64":9007199254740993}"#, "/i64", json!("9007199254740993")),
        (r#"{"i64":"9007199254740993"}"#, "/i64", json!("9007199254740993")),
        (r#"{"i64":"1e5"}"#, "/i64", json!("100000")),
        (r#"{"i32":1e2}"#, "/i32", json!(100)),
        (r#"{"i32":"1.0"}"#, "/i32", json!(1)),
        (r#"{"u64":18446744073709551615}"#, "/u64", json!("18446744073709551615")),
        (r#"{"f64":"5"}"#, "/f64", json!("5")),
        (r#"{"fl":"NaN"}"#, "/fl", json!("NaN")),
        (r#"{"db":"Infinity"}"#, "/db", json!("Infinity")),
        (r#"{"db":0.1}"#, "/db", json!(0.1)),
        (r#"{"db":5e-324}"#, "/db", json!(5e-324)),
        (r#"{"db":"1.5"}"#, "/db", json!(1.5)),
        (r#"{"by":"-_8"}"#, "/by", json!("+/8=")),
        (r#"{"e":2}"#, "/e", json!("COLOUR_GREEN")),
        (r#"{"e":99}"#, "/e", json!(99)),
        (r#"{"otherName":"x"}"#, "/renamed", json!("x")),
        (r#"{"labels":{"b":"2","a":"1"}}"#, "/labels", json!({"a": "1", "b": "2"})),
        (r#"{"byNumber":{"-1":{"pageSize":3}}}"#, "/by_number/-1/page_size", json!(3)),
        (r#"{"ts":"2026-01-31T12:00:00.123456Z"}"#, "/ts", json!("2026-01-31T12:00:00.123456Z")),
        (r#"{"ts":"0001-01-01T00:00:00Z"}"#, "/ts", json!("0001-01-01T00:00:00Z")),
        (r#"{"ts":"9999-12-31T23:59:59.999999999Z"}"#, "/ts", json!("9999-12-31T23:59:59.999999999Z")),
        (r#"{"dur":"3.000001s"}"#, "/dur", json!("3.000001s")),
        (r#"{"dur":"-0.5s"}"#, "/dur", json!("-0.500s")),
        (r#"{"mask":"displayName,a.b_c"}"#, "/mask", json!("displayName,a.bC")),
        (r#"{"wrappedString":""}"#, "/wrapped_string", json!("")),
        (r#"{"wrappedInt":"7"}"#, "/wrapped_int", json!("7")),
        (r#"{"wrappedBytes":"AA=="}"#, "/wrapped_bytes", json!("AA==")),
        (r#"{"structure":{"n":null,"l":[1,"a",{"x":true}]}}"#, "/structure", {
            json!({"n": null, "l": [1, "a", {"x": true}]})
        }),
        (r#"{"value":null}"#, "/value", json!(null)),
        (r#"{"value":{"a":[]}}"#, "/value", json!({"a": []})),
        (r#"{"list":[null,1.5]}"#, "/list", json!([null, 1.5])),
        (r#"{"nothing":null}"#, "/nothing", json!(null)),
        (r#"{"any":{}}"#, "/any", json!({})),
        (
            r#"{"any":{"name":"x","@type":"a.b/gateway.test.v1.Nested"}}"#,
            "/any",
            json!({"@type": "a.b/gateway.test.v1.Nested", "name": "x", "page_size": 0, "tags": []}),
        ),
        (
            r#"{"any":{"@type":"t/google.protobuf.Duration","value":"1.5s"}}"#,
            "/any",
            json!({"@type": "t/google.protobuf.Duration", "value": "1.500s"}),
        ),
        (
            r#"{"any":{"@type":"t/google.protobuf.Empty","value":{}}}"#,
            "/any",
            json!({"@type": "t/google.protobuf.Empty", "value": {}}),
        ),
    ];
    for (body, pointer, expected) in cases {
        let answer = post("/v1/create", *body).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(answer.json().pointer(pointer), Some(expected), "{body}");
    }
}

/// A4 #55, #56, #57, #58, #60, #62, #63, #64: what is not JSON for the field.
#[tokio::test]
async fn values_of_the_wrong_kind_are_refused() {
    for (body, expected) in [
        ("[]", ": INVALID_VALUE"),
        ("null", ": INVALID_VALUE"),
        ("\"x\"", ": INVALID_VALUE"),
        (r#"{"i32":1.5}"#, "i32: INVALID_VALUE"),
        (r#"{"i32":2147483648}"#, "i32: INVALID_VALUE"),
        (r#"{"i32":" 1"}"#, "i32: INVALID_VALUE"),
        (r#"{"u32":-1}"#, "u32: INVALID_VALUE"),
        (r#"{"fl":1e39}"#, "fl: INVALID_VALUE"),
        (r#"{"db":"inf"}"#, "db: INVALID_VALUE"),
        (r#"{"b":1}"#, "b: INVALID_VALUE"),
        (r#"{"s":true}"#, "s: INVALID_VALUE"),
        (r#"{"e":"BLUE"}"#, "e: INVALID_VALUE"),
        (r#"{"e":1.5}"#, "e: INVALID_VALUE"),
        (r#"{"strings":"x"}"#, "strings: INVALID_VALUE"),
        (r#"{"strings":[null]}"#, "strings[0]: INVALID_VALUE"),
        (r#"{"labels":[]}"#, "labels: INVALID_VALUE"),
        (r#"{"labels":{"a":null}}"#, "labels[a]: INVALID_VALUE"),
        (r#"{"labels":{"a":"1","a":"2"}}"#, "labels[a]: DUPLICATE_FIELD"),
        (r#"{"structure":{"a":1,"a":2}}"#, "structure[a]: DUPLICATE_FIELD"),
        (r#"{"structure":[]}"#, "structure: INVALID_VALUE"),
        (r#"{"list":{}}"#, "list: INVALID_VALUE"),
        (r#"{"ts":"2026-01-31t12:00:00z"}"#, "ts: INVALID_VALUE"),
        (r#"{"ts":5}"#, "ts: INVALID_VALUE"),
        (r#"{"dur":"315576000001s"}"#, "dur: INVALID_VALUE"),
        (r#"{"wrappedInt":"x"}"#, "wrapped_int: INVALID_VALUE"),
        (r#"{"any":{"x":1}}"#, "any.@type: INVALID_VALUE"),
        (r#"{"any":{"@type":"t/no.Such"}}"#, "any.@type: INVALID_VALUE"),
        (r#"{"any":{"@type":"t/gateway.test.v1.Nested","zz":1}}"#, "any.zz: UNKNOWN_FIELD"),
        (r#"{"any":{"@type":"t/google.protobuf.Duration"}}"#, "any.value: INVALID_VALUE"),
        (r#"{"empty":{"x":1}}"#, "empty.x: UNKNOWN_FIELD"),
    ] {
        assert_eq!(post("/v1/create", body).await.violations(), [expected], "{body}");
    }
}

/// A4 #65: the text itself, in field-number order with sorted maps.
#[tokio::test]
async fn the_text_is_stable() {
    let body = r#"{"msg":{"tags":["é","\"\n"],"name":"n","pageSize":-1}}"#;
    let answer = post("/v1/part/msg", body).await;
    assert_eq!(answer.body, "{\"name\":\"n\",\"page_size\":-1,\"tags\":[\"é\",\"\\\"\\n\"]}");
}

/// A3 #46.
#[tokio::test]
async fn a_response_body_can_be_one_field() {
    for (uri, body, expected) in [
        ("/v1/part/msg", "{}", json!(null)),
        ("/v1/part/strings", r#"{"strings":["a"]}"#, json!(["a"])),
        ("/v1/part/strings", "{}", json!([])),
        ("/v1/part/s", r#"{"s":"x"}"#, json!("x")),
        ("/v1/part/s", "{}", json!("")),
        ("/v1/part/opt", "{}", json!(null)),
    ] {
        assert_eq!(post(uri, body).await.json(), expected, "{uri} {body}");
    }
}
