//! Query parameters and bodies: checklist A2 and A3.

use http::header::{self, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{Answer, get, post, request, send, transcoder, transcoder_with};

async fn query(query: &str) -> Answer {
    get(&format!("/v1/query?{query}")).await
}

/// A2 #24, #25, #26, #29, #31, #32, #33, #39: what a parameter may look like.
#[tokio::test]
async fn query_parameters_bind_every_text_leaf() {
    let cases: &[(&str, &str, Value)] = &[
        ("s=a+b%2Bc", "/s", json!("a b+c")),
        ("s=", "/s", json!("")),
        ("opt=", "/opt", json!("")),
        ("msg.page_size=2", "/msg/page_size", json!(2)),
        ("msg.pageSize=2", "/msg/page_size", json!(2)),
        ("msg.child.child.name=x", "/msg/child/child/name", json!("x")),
        ("long_field_name=x", "/long_field_name", json!("x")),
        ("longFieldName=x", "/long_field_name", json!("x")),
        ("otherName=x", "/renamed", json!("x")),
        ("renamed=x", "/renamed", json!("x")),
        ("strings=b&strings=a&strings=", "/strings", json!(["b", "a", ""])),
        ("numbers=1&numbers=-2", "/numbers", json!([1, -2])),
        ("colours=COLOUR_RED&colours=2&colours=9", "/colours", json!(["COLOUR_RED", "COLOUR_GREEN", 9])),
        ("msg.tags=a&s=x&msg.tags=b", "/msg/tags", json!(["a", "b"])),
        ("e=COLOUR_GREEN", "/e", json!("COLOUR_GREEN")),
        ("e=7", "/e", json!(7)),
        ("b=true", "/b", json!(true)),
        ("i32=-2147483648", "/i32", json!(i32::MIN)),
        ("i64=-9223372036854775808", "/i64", json!("-9223372036854775808")),
        ("u64=18446744073709551615", "/u64", json!("18446744073709551615")),
        ("fl=NaN", "/fl", json!("NaN")),
        ("db=-Infinity", "/db", json!("-Infinity")),
        ("db=1.5e3", "/db", json!(1500)),
        ("by=-_8", "/by", json!("+/8=")),
        ("by=%2B/8=", "/by", json!("+/8=")),
        ("ts=2026-01-31T12:00:00.5%2B01:00", "/ts", json!("2026-01-31T11:00:00.500Z")),
        ("dur=-1.5s", "/dur", json!("-1.500s")),
        ("mask=a,snakeName.bC,old_style", "/mask", json!("a,snakeName.bC,oldStyle")),
        ("wrapped_string=x", "/wrapped_string", json!("x")),
        ("wrappedInt=0", "/wrapped_int", json!("0")),
        ("wrapped_bool=false", "/wrapped_bool", json!(false)),
        ("structure=%7B%22a%22:[1,null]%7D", "/structure", json!({"a": [1, null]})),
        ("value=%22x%22", "/value", json!("x")),
        ("list=[true]", "/list", json!([true])),
        ("times=2026-01-31T12:00:00Z&times=1970-01-01T00:00:00Z", "/times/1", json!("1970-01-01T00:00:00Z")),
        ("choice_b=0", "/choice_b", json!(0)),
        ("&&s=x&", "/s", json!("x")),
    ];
    for (parameters, pointer, expected) in cases {
        let answer = query(parameters).await;
        assert_eq!(answer.status, 200, "{parameters}: {answer:?}");
        assert_eq!(answer.json().pointer(pointer), Some(expected), "{parameters}");
    }
}

/// A2 #24, #27, #29, #31, #32, #33, #34, #35, #36, #40: what is refused, and how.
#[tokio::test]
async fn faulty_query_parameters_are_named() {
    let deep = format!("{}name=x: UNKNOWN_FIELD", "msg.".repeat(3000));
    let cases = [
        ("zz=1", "zz: UNKNOWN_FIELD"),
        ("=1", ": UNKNOWN_FIELD"),
        ("msg.zz=1", "msg.zz: UNKNOWN_FIELD"),
        ("s.x=1", "s.x: UNKNOWN_FIELD"),
        ("msg.=1", "msg.: UNKNOWN_FIELD"),
        ("ts.seconds=1", "ts.seconds: UNKNOWN_FIELD"),
        ("msgs.name=x", "msgs.name: UNKNOWN_FIELD"),
        ("msg=x", "msg: NOT_BINDABLE"),
        ("msgs=x", "msgs: NOT_BINDABLE"),
        ("labels=x", "labels: NOT_BINDABLE"),
        ("any=x", "any: NOT_BINDABLE"),
        ("empty=", "empty: NOT_BINDABLE"),
        ("s=a&s=b", "s: DUPLICATE_FIELD"),
        ("msg.page_size=1&msg.pageSize=1", "msg.pageSize: DUPLICATE_FIELD"),
        ("choice_a=x&choice_b=1", "choice_b: CONFLICTING_FIELD"),
        ("e=BLUE", "e: INVALID_VALUE"),
        ("e=", "e: INVALID_VALUE"),
        ("b", "b: INVALID_VALUE"),
        ("b=", "b: INVALID_VALUE"),
        ("b=1", "b: INVALID_VALUE"),
        ("b=TRUE", "b: INVALID_VALUE"),
        ("i32=", "i32: INVALID_VALUE"),
        ("i32=1.5", "i32: INVALID_VALUE"),
        ("i32=1e2", "i32: INVALID_VALUE"),
        ("i32=%2B5", "i32: INVALID_VALUE"),
        ("i32=2147483648", "i32: INVALID_VALUE"),
        ("u32=-1", "u32: INVALID_VALUE"),
        ("u64=18446744073709551616", "u64: INVALID_VALUE"),
        ("fl=1e39", "fl: INVALID_VALUE"),
        ("db=inf", "db: INVALID_VALUE"),
        ("by=*", "by: INVALID_VALUE"),
        ("ts=yesterday", "ts: INVALID_VALUE"),
        ("ts=2026-02-30T00:00:00Z", "ts: INVALID_VALUE"),
        ("ts=2026-00-00T00:00:00Z", "ts: INVALID_VALUE"),
        ("ts=2026-13-01T00:00:00Z", "ts: INVALID_VALUE"),
        ("ts=2026-01-01T24:00:00Z", "ts: INVALID_VALUE"),
        ("ts=2026-01-01T00:00:00%2B99:99", "ts: INVALID_VALUE"),
        ("ts=0000-12-31T00:00:00Z", "ts: INVALID_VALUE"),
        ("dur=1h", "dur: INVALID_VALUE"),
        ("dur=1", "dur: INVALID_VALUE"),
        ("mask=a%20b", "mask: INVALID_VALUE"),
        ("structure=[]", "structure: INVALID_VALUE"),
        ("value=x", "value: INVALID_VALUE"),
        ("s=%zz", "s: INVALID_VALUE"),
        ("s=%ff", "s: INVALID_VALUE"),
        ("%zz=x", "%zz: INVALID_VALUE"),
    ];
    for (parameters, expected) in cases {
        assert_eq!(query(parameters).await.violations(), [expected], "{parameters}");
    }
    let answer = query(&format!("{}name=x", "msg.".repeat(3000))).await;
    let violation = answer.violations().remove(0);
    assert!(violation.ends_with("…: UNKNOWN_FIELD") && violation.len() < deep.len(), "{violation}");
}

/// A2 #36, #40: all violations at once, without a parser's words.
#[tokio::test]
async fn every_faulty_parameter_is_reported() {
    let answer = query("zz=1&i32=x&s=a&s=b&b=maybe").await;
    assert_eq!(
        answer.violations(),
        ["zz: UNKNOWN_FIELD", "i32: INVALID_VALUE", "s: DUPLICATE_FIELD", "b: INVALID_VALUE"]
    );
    let json = answer.json();
    assert_eq!(json["message"], "`zz` is not a parameter of this method; and 3 more violations");
    assert_eq!(json["details"][0]["reason"], "INVALID_FIELDS");
    assert_eq!(json["details"][1]["field_violations"][1]["description"], "must be a 32-bit integer");
}

/// A2 #37: the path is what the caller was authorised for.
#[tokio::test]
async fn a_query_parameter_never_overrides_the_path() {
    for (uri, expected) in [
        ("/v1/items/5?s=6", "s: CONFLICTING_FIELD"),
        ("/v1/items/5?s=5", "s: CONFLICTING_FIELD"),
        ("/v1/alias/x/nested/y?msg.name=z", "msg.name: CONFLICTING_FIELD"),
    ] {
        assert_eq!(get(uri).await.violations(), [expected], "{uri}");
    }
    let sibling = get("/v1/alias/x/nested/y?msg.page_size=3").await;
    assert_eq!(sibling.json()["msg"]["page_size"], 3);
}

/// A2 #38, A3 #43: what the body carries, the query cannot.
#[tokio::test]
async fn a_query_parameter_never_reaches_into_the_body() {
    assert_eq!(post("/v1/create?i32=1", "{}").await.violations(), ["i32: NOT_BINDABLE"]);
    assert_eq!(post("/v1/body/msg?msg.name=x", "{}").await.violations(), ["msg.name: NOT_BINDABLE"]);
    let rest = post("/v1/body/msg?s=x", r#"{"name":"n"}"#).await.json();
    assert_eq!((rest["s"].clone(), rest["msg"]["name"].clone()), (json!("x"), json!("n")));
}

/// A2 #34: two members of a oneof, one in each of two parts of the request.
#[tokio::test]
async fn a_oneof_has_one_member_in_all_parts() {
    let text = r#"{"text":"t"}"#;
    for (method, uri, body, expected) in [
        ("GET", "/v1/picked/x?b=y", "", "b: CONFLICTING_FIELD"),
        ("GET", "/v1/picked/x?c.text=y", "", "c.text: CONFLICTING_FIELD"),
        ("POST", "/v1/pick?b=y", text, "b: CONFLICTING_FIELD"),
        ("POST", "/v1/pick/x", text, "a: CONFLICTING_FIELD"),
        ("POST", "/v1/picks/x", r#"{"b":"y"}"#, "a: CONFLICTING_FIELD"),
        ("POST", "/v1/picks/x", r#"{"c":{}}"#, "a: CONFLICTING_FIELD"),
    ] {
        let answer = send(&transcoder(), request(method, uri, body)).await;
        assert_eq!(answer.violations(), [expected], "{method} {uri} {body}");
    }
    for (method, uri, body, pointer, bound) in [
        ("GET", "/v1/picked/x?other=y", "", "/a", "x"),
        ("POST", "/v1/pick?other=y", text, "/c/text", "t"),
        ("POST", "/v1/pick?b=y", "", "/b", "y"),
        ("POST", "/v1/picks/x", r#"{"a":"x","c":null}"#, "/a", "x"),
    ] {
        let answer = send(&transcoder(), request(method, uri, body)).await;
        assert_eq!(answer.json().pointer(pointer), Some(&json!(bound)), "{method} {uri} {body}");
    }
}

/// A2 #41.
#[tokio::test]
async fn the_number_of_parameters_is_limited() {
    let parameters = vec!["strings=x"; 1001].join("&");
    assert_eq!(query(&parameters).await.violations(), [": TOO_MANY_PARAMETERS"]);
    assert_eq!(query(&parameters[10..]).await.json()["strings"].as_array().map(Vec::len), Some(1000));
}

/// A3 #42: the path wins over an absent or equal body field; another value is refused.
#[tokio::test]
async fn path_and_body_must_agree() {
    for body in ["{}", r#"{"s":"x"}"#, r#"{"s":""}"#, r#"{"s":null}"#, ""] {
        assert_eq!(post("/v1/create/x", body).await.json()["s"], "x", "{body}");
    }
    assert_eq!(post("/v1/create/x", r#"{"s":"y"}"#).await.violations(), ["s: CONFLICTING_FIELD"]);
    let nested = post("/v1/body/msg/x", r#"{"name":"y"}"#).await;
    assert_eq!(nested.violations(), ["msg.name: CONFLICTING_FIELD"]);
    assert_eq!(post("/v1/body/msg/x", r#"{"page_size":1}"#).await.json()["msg"]["name"], "x");
}

/// A3 #43: a body of any kind of field.
#[tokio::test]
async fn the_body_can_be_any_field() {
    for (uri, body, pointer, expected) in [
        ("/v1/body/s", r#""text""#, "/s", json!("text")),
        ("/v1/body/e", r#""COLOUR_RED""#, "/e", json!("COLOUR_RED")),
        ("/v1/body/by", r#""-_8""#, "/by", json!("+/8=")),
        ("/v1/body/strings", r#"["b","a"]"#, "/strings", json!(["b", "a"])),
        ("/v1/body/msgs", r#"[{"name":"x"}]"#, "/msgs/0/name", json!("x")),
        ("/v1/body/labels", r#"{"env":"prod"}"#, "/labels", json!({"env": "prod"})),
        ("/v1/body/structure", r#"{"a":{"b":[]}}"#, "/structure", json!({"a": {"b": []}})),
        ("/v1/body/value", "null", "/value", json!(null)),
        ("/v1/body/ts", r#""2026-01-31T12:00:00Z""#, "/ts", json!("2026-01-31T12:00:00Z")),
        ("/v1/body/s", "null", "/s", json!("")),
    ] {
        let answer = post(uri, body).await;
        assert_eq!(answer.status, 200, "{uri} {body}: {answer:?}");
        assert_eq!(answer.json().pointer(pointer), Some(&expected), "{uri} {body}");
    }
    for (uri, body, expected) in [
        ("/v1/body/s", "5", "s: INVALID_VALUE"),
        ("/v1/body/msgs", "{}", "msgs: INVALID_VALUE"),
        ("/v1/body/msgs", r#"[{"zz":1}]"#, "msgs[0].zz: UNKNOWN_FIELD"),
        ("/v1/body/msg", r#"{"zz":1}"#, "msg.zz: UNKNOWN_FIELD"),
        ("/v1/body/strings", "[1]", "strings[0]: INVALID_VALUE"),
        ("/v1/body/labels", "[", "labels: MALFORMED_JSON"),
    ] {
        assert_eq!(post(uri, body).await.violations(), [expected], "{uri} {body}");
    }
}

/// A3 #44, #45.
#[tokio::test]
async fn bodies_that_are_empty_or_not_wanted() {
    for body in ["", "  \r\n\t "] {
        assert_eq!(post("/v1/create", body).await.status, 200, "{body:?}");
        assert_eq!(post("/v1/body/msg", body).await.json().get("msg"), None, "{body:?}");
        assert_eq!(send(&transcoder(), request("GET", "/v1/query", body)).await.status, 200, "{body:?}");
    }
    let mut zero = request("DELETE", "/v1/items/5", "");
    zero.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    assert_eq!(send(&transcoder(), zero).await.json(), json!({}));

    let answer = send(&transcoder(), request("GET", "/v1/query?zz=1", "{}")).await;
    assert_eq!(answer.violations(), [": UNEXPECTED_BODY", "zz: UNKNOWN_FIELD"]);
}

/// A3 #48.
#[tokio::test]
async fn other_media_types_are_415() {
    for (name, value) in [
        ("content-type", "text/plain"),
        ("content-type", "application/json; charset=latin1"),
        ("content-type", "application/x-www-form-urlencoded"),
        ("content-type", "application/x-ndjson"),
    ] {
        let mut request = request("POST", "/v1/create", "{}");
        request.headers_mut().insert(name, HeaderValue::from_static(value));
        let answer = send(&transcoder(), request).await;
        assert_eq!(answer.status, 415, "{value}");
        assert_eq!(answer.reason(), "UNSUPPORTED_MEDIA_TYPE");
        assert_eq!(answer.header("accept"), "application/json, application/x-protobuf");
        assert_eq!(answer.header("accept-post"), answer.header("accept"));
    }
    let mut good = request("POST", "/v1/create", r#"{"s":"é"}"#);
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    good.headers_mut().insert(header::CONTENT_TYPE, json);
    assert_eq!(send(&transcoder(), good).await.json()["s"], "é");

    let mut empty = request("POST", "/v1/create", "");
    empty.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    assert_eq!(send(&transcoder(), empty).await.status, 200);
}

/// A3 #48: what `curl -d` sends unless told otherwise, where the operator lets it in.
#[tokio::test]
async fn json_under_the_form_type_is_an_option() {
    let options = agentrouter_gateway::Options { form_type_is_json: true, ..Default::default() };
    let transcoder = transcoder_with(options);
    for (body, status) in [(r#"{"s":"é"}"#, 200), ("s=x", 400)] {
        let mut request = request("POST", "/v1/create", body);
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form);
        assert_eq!(send(&transcoder, request).await.status, status, "{body}");
    }
}

/// A9 #100.
#[tokio::test]
async fn a_body_over_the_limit_is_413() {
    let options = agentrouter_gateway::Options { max_body_bytes: 10, ..Default::default() };
    let transcoder = transcoder_with(options);
    assert_eq!(send(&transcoder, request("POST", "/v1/create", r#"{"b":true}"#)).await.status, 200);
    let answer = send(&transcoder, request("POST", "/v1/create", r#"{"b": true}"#)).await;
    assert_eq!(answer.status, 413);
    assert_eq!(answer.json()["code"], 8);
    assert_eq!(answer.reason(), "REQUEST_BODY_TOO_LARGE");

    // Without a length the limit holds while reading, over any number of chunks.
    let chunks = ["{\"b\"", ":tr", "ue", "   "].map(|chunk| {
        Ok::<_, std::convert::Infallible>(http_body::Frame::data(bytes::Bytes::from_static(chunk.as_bytes())))
    });
    let body = http_body_util::StreamBody::new(futures::stream::iter(chunks));
    let request = http::Request::post("/v1/create").body(body).expect("a request");
    let response = tower::ServiceExt::oneshot(transcoder, request).await.expect("infallible");
    assert_eq!(response.status(), 413);
}

/// A3 #49, #50: strict JSON, and where it broke.
#[tokio::test]
async fn malformed_json_is_400_with_its_place() {
    for (body, place) in [
        ("{'s':1}", "line 1 column 2"),
        ("{s:1}", "line 1 column 2"),
        ("{\"s\":\"a\",\n}", "line 2 column 1"),
        ("{\"s\":\"a\"} x", "line 1 column 11"),
        ("{\"s\":\"a\"}{}", "line 1 column 10"),
        ("{\"s\":\"a\"", "line 1 column 9"),
        ("\u{feff}{}", "line 1 column 1"),
        ("{\"s\":\"\t\"}", "line 1 column 7"),
        ("{\"i32\":01}", "line 1 column 9"),
        ("{\"s\":\"\\ud800\"}", "line 1 column"),
        ("// x\n{}", "line 1 column 1"),
    ] {
        let answer = post("/v1/create", body).await;
        assert_eq!(answer.violations(), [": MALFORMED_JSON"], "{body}");
        let message = answer.json()["message"].to_string();
        assert!(message.contains("malformed JSON") && message.contains(place), "{body}: {message}");
    }
    let invalid = post("/v1/create", &b"{\n \"s\":\"\xff\"}"[..]).await;
    assert_eq!(invalid.violations(), [": MALFORMED_JSON"]);
    assert!(invalid.json()["message"].to_string().contains("line 2 column 7"));
}

/// A3 #50, A4 #55, #56: every wrong field of a body, each with its path and place.
#[tokio::test]
async fn every_wrong_field_of_a_body_is_reported() {
    let body = r#"{
  "zz": {"deep": [1]},
  "i32": "x",
  "msg": {"name": 5, "nope": null, "child": {"tags": ["a", 7]}},
  "msgs": [{}, {"page_size": 1.5}],
  "s": "a", "s": "b",
  "labels": {"k": 1, "k2": "v"},
  "by_number": {"x": {}},
  "choice_a": "a", "choice_b": 1,
  "longFieldName": "a", "long_field_name": "b",
  "b": "true"
}"#;
    let answer = post("/v1/create", body).await;
    assert_eq!(
        answer.violations(),
        [
            "zz: UNKNOWN_FIELD",
            "i32: INVALID_VALUE",
            "msg.name: INVALID_VALUE",
            "msg.nope: UNKNOWN_FIELD",
            "msg.child.tags[1]: INVALID_VALUE",
            "msgs[1].page_size: INVALID_VALUE",
            "s: DUPLICATE_FIELD",
            "labels[k]: INVALID_VALUE",
            "by_number[x]: INVALID_VALUE",
            "choice_b: CONFLICTING_FIELD",
            "long_field_name: DUPLICATE_FIELD",
            "b: INVALID_VALUE",
        ]
    );
    let violations = answer.json()["details"][1]["field_violations"].clone();
    assert_eq!(violations[1]["description"], "must be a 32-bit integer (line 3, column 10)");
    assert_eq!(violations[4]["description"], "must be a string (line 4, column 60)");
}

/// A4 #63, A9 #103: deep nesting is the client's error, never the server's.
#[tokio::test]
async fn deep_nesting_is_refused() {
    let nested = |levels: usize| format!("{}{{}}{}", "{\"child\":".repeat(levels), "}".repeat(levels));
    assert_eq!(post("/v1/body/msg", nested(90)).await.status, 200);
    assert_eq!(post("/v1/body/msg", nested(101)).await.status, 400);
    assert_eq!(post("/v1/body/msg", nested(100_000)).await.status, 400);

    // A JSON object in a Struct is three messages deep.
    let objects = |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
    assert_eq!(post("/v1/body/structure", objects(30)).await.status, 200);
    assert_eq!(post("/v1/body/structure", objects(40)).await.status, 400);
    let arrays = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(post("/v1/body/value", arrays(40)).await.status, 200);
    assert_eq!(post("/v1/body/value", arrays(60)).await.status, 400);
}

/// A9 #103: what is wrong beyond the limit costs next to nothing. Looking for the place of each would take hours here.
#[tokio::test]
async fn a_body_with_many_faults_is_refused_at_once() {
    let body = format!(r#"{{"numbers":[{}0]}}"#, "\"x\",".repeat(900_000));
    let answer = post("/v1/create", body).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.violations().len(), 100);
    assert_eq!(answer.violations()[99], "numbers[99]: INVALID_VALUE");
}

/// An error never echoes a large request.
#[tokio::test]
async fn errors_are_bounded() {
    let long = "z".repeat(100_000);
    let answer = post("/v1/create", format!("{{\"{long}\":1,\"e\":\"{long}\"}}")).await;
    assert_eq!(answer.status, 400);
    assert!(answer.body.len() < 2_000, "{} bytes", answer.body.len());

    let many: Vec<String> = (0..5_000).map(|number| format!("\"f{number}\":1")).collect();
    let answer = post("/v1/create", format!("{{{}}}", many.join(","))).await;
    assert_eq!(answer.violations().len(), 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A9 #103: any query string and any body give an answer below 500.
    #[test]
    fn no_query_or_body_is_a_server_error(
        parameters in "((s|i32|msg\\.name|structure|ts|zz|e|numbers)=?[a-z0-9%+:.{}\"-]{0,8}&?){0,4}",
        body in "[{}\\[\\]\":,a-z0-9 .e-]{0,32}",
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let query = parameters.replace(['{', '}', '"'], "");
        let statuses = runtime.block_on(async {
            let query = get(&format!("/v1/query?{query}")).await.status.as_u16();
            let whole = post("/v1/create", body.clone()).await.status.as_u16();
            let value = post("/v1/body/value", body.clone()).await.status.as_u16();
            [query, whole, value]
        });
        prop_assert!(statuses.iter().all(|status| *status < 500), "{statuses:?}: {query} {body}");
    }

    /// Whatever a string field holds, path, query and body bind the same.
    #[test]
    fn a_string_survives_every_way_in(text in "\\PC{1,12}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let escaped = text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat();
        let bound = runtime.block_on(async {
            let path = get(&format!("/v1/items/{escaped}")).await.json()["s"].clone();
            let query = get(&format!("/v1/query?s={escaped}")).await.json()["s"].clone();
            let body = post("/v1/create", json!({"s": text}).to_string()).await.json()["s"].clone();
            [path, query, body]
        });
        prop_assert!(bound.iter().all(|value| *value == json!(text)), "{bound:?}");
    }
}
