//! One request in every protocol.

use agentrouter_gateway::{Direct, DirectRpcs};
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use http::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

use super::*;

const PATH: &str = "/validated.v1.Shop/Order";

fn right() -> Value {
    json!({
        "name": "abc", "buyer": {"email": "a@example.org", "age": "18"}, "items": [{"sku": "a", "count": 1}],
        "tags": ["a", "b"], "labels": {"a": "b"}, "first_day": 1, "last_day": 2, "cash": true, "wait": "60s",
    })
}

/// Something wrong in everything that can be.
fn wrong() -> Value {
    json!({
        "name": "A",
        "buyer": {"email": "nobody", "friend": {"email": "", "age": "17"}},
        "items": [{"sku": "a", "count": 1}, {"count": 101}],
        "tags": ["", "a", "a"],
        "labels": {"A": "long text"},
        "first_day": 7,
        "last_day": 3,
        "size": 2,
        "note": "too long",
        "wait": "61s",
    })
}

/// What is told of that, by field.
const EXPECTED: [&str; 17] = [
    ": order.dates: first day must not be after the last",
    "buyer.email: string.email: must be a valid email address",
    "buyer.friend.age: int64.gte_lt: value must be greater than or equal to 18 and less than 200",
    "buyer.friend.email: string.email_empty: value is empty, which is not a valid email address",
    "items[1].count: uint32.gt_lte: value must be greater than 0 and less than or equal to 100",
    "items[1].sku: string.min_len: value length must be at least 1 characters",
    "labels[\"A\"]: string.pattern: key does not match regex pattern `^[a-z]+$`",
    "labels[\"A\"]: string.max_len: value length must be at most 3 characters",
    "last_day: order.even: must be even",
    "name: string.min_len: value length must be at least 2 characters",
    "name: string.pattern: does not match regex pattern `^[a-z]*$`",
    "note: string.max_len: value length must be at most 5 characters",
    "payment: required: needs one of its fields",
    "size: enum.not_in: must not be in list [2]",
    "tags: repeated.unique: items must be unique",
    "tags[0]: string.min_len: value length must be at least 1 characters",
    "wait: duration.lte: value must be less than or equal to 60s",
];

/// How a request is sent, and what is read of its answer.
type Form = (&'static str, Request<Full<Bytes>>, fn(&Answer) -> pb::Status);

fn forms(json: &Value) -> Vec<Form> {
    let json = json.to_string();
    let wire = wire("OrderRequest", &json);
    let get =
        |query: String| Request::get(format!("{PATH}?{query}")).body(Full::default()).expect("a request");
    let proto = URL_SAFE_NO_PAD.encode(&wire);
    let text = URL_SAFE_NO_PAD.encode(&json);
    vec![
        ("gRPC", post(PATH, "application/grpc", envelope(&wire)), grpc),
        ("gRPC with JSON", post(PATH, "application/grpc+json", envelope(json.as_bytes())), grpc),
        ("gRPC-Web", post(PATH, "application/grpc-web", envelope(&wire)), web),
        ("gRPC-Web with JSON", post(PATH, "application/grpc-web+json", envelope(json.as_bytes())), web),
        (
            "gRPC-Web as text",
            post(PATH, "application/grpc-web-text", STANDARD.encode(envelope(&wire))),
            |answer| {
                let body = STANDARD.decode(&answer.body).expect("base64").into();
                web(&Answer {
                    body,
                    headers: HeaderMap::new(),
                    trailers: HeaderMap::new(),
                    status: answer.status,
                })
            },
        ),
        ("Connect", post(PATH, "application/proto", wire.clone()), connect),
        ("Connect with JSON", post(PATH, "application/json", json.clone()), connect),
        ("Connect by GET", get(format!("encoding=proto&base64=1&message={proto}")), connect),
        ("Connect by GET with JSON", get(format!("encoding=json&base64=1&message={text}")), connect),
        ("REST", post("/v1/orders", "application/json", json), rest),
        ("REST with protobuf", post("/v1/orders", "application/x-protobuf", wire), rest),
    ]
}

fn grpc(answer: &Answer) -> pb::Status {
    assert_eq!(answer.status, StatusCode::OK);
    let block = if answer.trailers.is_empty() { &answer.headers } else { &answer.trailers };
    match block.get("grpc-status-details-bin") {
        Some(details) => told(details.to_str().expect("ASCII")),
        None => code(block["grpc-status"].to_str().expect("ASCII")),
    }
}

fn web(answer: &Answer) -> pb::Status {
    let (flags, block) = envelopes(&answer.body).pop().expect("trailers");
    assert_eq!(flags, 0x80);
    let block = String::from_utf8(block).expect("text");
    let find = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
    match find("grpc-status-details-bin: ") {
        Some(details) => told(details),
        None => code(find("grpc-status: ").expect("a status")),
    }
}

fn code(text: &str) -> pb::Status {
    pb::Status { code: text.parse().expect("a number"), ..pb::Status::default() }
}

fn connect(answer: &Answer) -> pb::Status {
    if answer.status == StatusCode::OK {
        return pb::Status::default();
    }
    let error = answer.json();
    assert_eq!((answer.status.as_u16(), &error["code"]), (400, &json!("invalid_argument")));
    let details = error["details"].as_array().expect("details").iter().map(|detail| prost_types::Any {
        type_url: format!("type.googleapis.com/{}", detail["type"].as_str().expect("a type")),
        value: STANDARD_NO_PAD.decode(detail["value"].as_str().expect("base64")).expect("base64"),
    });
    let message = error["message"].as_str().expect("a message").to_owned();
    pb::Status { code: Code::InvalidArgument.into(), message, details: details.collect() }
}

fn rest(answer: &Answer) -> pb::Status {
    if answer.status == StatusCode::OK {
        return pb::Status::default();
    }
    let error = answer.json();
    assert_eq!((answer.status.as_u16(), &error["code"]), (400, &json!(3)));
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let details = error["details"].as_array().expect("details").iter().map(|detail| {
        let value = match detail["field_violations"].as_array() {
            Some(violations) => {
                let violations = violations.iter().map(|violation| pb::bad_request::FieldViolation {
                    field: text(&violation["field"]),
                    description: text(&violation["description"]),
                    reason: text(&violation["reason"]),
                    localized_message: None,
                });
                pb::BadRequest { field_violations: violations.collect() }.encode_to_vec()
            }
            None => pb::ErrorInfo {
                reason: text(&detail["reason"]),
                domain: text(&detail["domain"]),
                ..pb::ErrorInfo::default()
            }
            .encode_to_vec(),
        };
        prost_types::Any { type_url: text(&detail["@type"]), value }
    });
    pb::Status { code: 3, message: text(&error["message"]), details: details.collect() }
}

/// A12 #118: the same request is refused in the same words, and accepted, by every protocol.
#[tokio::test]
async fn all_protocols_keep_the_same_rules() {
    let gateway = Gateway::new();
    let mut first: Option<pb::Status> = None;
    for (form, request, read) in forms(&wrong()) {
        let status = read(&gateway.send(request).await);
        assert_eq!(gateway.calls(), 0, "{form}");
        let first = first.get_or_insert_with(|| status.clone());
        assert_eq!(*first, status, "{form}");
    }
    let status = first.expect("a status");
    let message = "first day must not be after the last; and 16 more violations";
    assert_eq!((status.code, status.message.as_str()), (3, message));
    let info = pb::ErrorInfo::decode(&*status.details[0].value).expect("an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_FIELDS", "agentrouter"));
    assert_eq!(of_status(status), EXPECTED);

    for (at, (form, request, read)) in (1..).zip(forms(&right())) {
        let answer = gateway.send(request).await;
        assert_eq!((read(&answer).code, gateway.calls()), (0, at), "{form}: {answer:?}");
    }
}

/// A12 #118: what path and query bind is held to the rules like a body, and a body that is a field as well.
#[tokio::test]
async fn every_part_of_a_rest_request_is_checked() {
    let gateway = Gateway::new();
    let answer = gateway.post("/v1/orders/abc", "application/json", r#"{"email":"x"}"#).await;
    let expected = [
        "buyer.email: string.email: must be a valid email address",
        "items: repeated.min_items: must have at least 1 items",
        "payment: required: needs one of its fields",
    ];
    assert_eq!(of_status(rest(&answer)), expected);

    let get = |query: &str| {
        Request::get(format!("/v1/orders/abc?cash=true&{query}")).body(Full::default()).expect("a request")
    };
    let answer = gateway.send(get("buyer.email=a@b.org&last_day=3")).await;
    assert_eq!(of_status(rest(&answer)), [expected[1], "last_day: order.even: must be even"]);
    assert_eq!(gateway.calls(), 0);
}

/// A12 #118: rpcs without rules are called as ever, whatever they get.
#[tokio::test]
async fn rpcs_without_rules_are_left_alone() {
    let validation = Validation::new(&pool()).expect("rules that work");
    let mut rpcs: Vec<_> = validation.rpcs().collect();
    rpcs.sort_unstable();
    let paths = ["Collect", "Fragile", "Narrow", "Order", "Talk", "Watch"];
    assert_eq!(rpcs, paths.map(|name| format!("/validated.v1.Shop/{name}")));

    let gateway = Gateway::new();
    let answer = gateway.post("/validated.v1.Shop/Free", "application/grpc", envelope(b"\xff\xff")).await;
    assert_eq!((grpc(&answer).code, gateway.calls()), (0, 1));
    assert_eq!(gateway.post("/v1/free", "application/json", r#"{"text":"a"}"#).await.status, 200);
}

/// A12 #118: a call that needs no framing is checked as well.
#[tokio::test]
async fn direct_calls_are_checked() {
    let calls = Arc::new(AtomicUsize::new(0));
    let mut rpcs = DirectRpcs::default();
    let counted = Arc::clone(&calls);
    rpcs.add::<(), (), _, _>(PATH, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async { Ok(tonic::Response::new(())) }
    });
    let framed = Arc::new(AtomicUsize::new(0));
    let backend = BoxCloneSyncService::new(Direct::new(rpcs, echo(Arc::clone(&framed))));
    let gateway = Gateway { protocols: before(backend), calls };
    let send = |json: Value| gateway.post("/v1/orders", "application/json", json.to_string());
    assert_eq!(of_status(rest(&send(wrong()).await)), EXPECTED);
    assert_eq!(gateway.calls(), 0);
    assert_eq!(send(right()).await.status, 200);
    assert_eq!((gateway.calls(), framed.load(Ordering::SeqCst)), (1, 0));
}

/// A12 #118, A9 #103: a message that only a lenient reader could read never passes the rules by.
#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let gateway = Gateway::new();
    let expected = [": MALFORMED_PROTOBUF: is no message of this type"];
    for bytes in [&b"\xff"[..], b"\x0a\x01\xff", b"\x0a\x05a"] {
        let answer = gateway.post(PATH, "application/grpc", envelope(bytes)).await;
        assert_eq!(of_status(grpc(&answer)), expected, "{bytes:?}");
        let answer = gateway.post(PATH, "application/proto", bytes).await;
        assert_eq!(of_status(connect(&answer)), expected, "{bytes:?}");
    }
    assert_eq!(gateway.calls(), 0);
}

/// A12 #118: a rule that cannot be evaluated is the server's fault, and nothing of it is told.
#[tokio::test]
async fn a_rule_that_fails_lets_nothing_pass() {
    let gateway = Gateway::new();
    for (number, code) in [("", 0), ("7", 0), ("x", 13)] {
        let message = wire("FragileRequest", &json!({"number": number}).to_string());
        let answer = gateway.post("/validated.v1.Shop/Fragile", "application/grpc", envelope(&message)).await;
        assert_eq!(grpc(&answer).code, code, "{number}");
    }
    let message = wire("FragileRequest", r#"{"number":"-7"}"#);
    let answer = gateway.post("/validated.v1.Shop/Fragile", "application/grpc", envelope(&message)).await;
    assert_eq!(of_status(grpc(&answer)), ["number: fragile.positive: breaks the rule `fragile.positive`"]);
    let answer = gateway.post("/v1/fragile", "application/json", r#"{"number":"x"}"#).await;
    let message = "the request could not be validated";
    assert_eq!((answer.status.as_u16(), answer.json()["message"].as_str()), (500, Some(message)));
}

/// A12 #118, A9 #103, A6 #77: a refusal has a bounded length, and is looked for at a bounded cost.
#[tokio::test]
async fn long_refusals_are_cut() {
    let gateway = Gateway::new();
    let mut order = right();
    order["tags"] = (0..400).map(|_| "").collect();
    let long = "A".repeat(1000);
    order["labels"] = json!({long.as_str(): ""});
    let answer = gateway.post("/v1/orders", "application/json", order.to_string()).await;
    let status = rest(&answer);
    assert!(status.message.ends_with("; and 401 more violations"), "{}", status.message);
    let violations = of_status(status.clone());
    assert!((20..=100).contains(&violations.len()), "{}", violations.len());
    assert!(violations.iter().all(|violation| violation.len() < 400), "{violations:?}");
    // All of it arrives over gRPC, too.
    let wire = wire("OrderRequest", &order.to_string());
    assert_eq!(grpc(&gateway.post(PATH, "application/grpc", envelope(&wire)).await), status);

    // Of a large message only the first is looked for.
    order["tags"] = (0..20_000).map(|_| "").collect();
    let answer = gateway.post("/v1/orders", "application/json", order.to_string()).await;
    assert_eq!(of_status(rest(&answer)).len(), 1);
    order["tags"] = (0..20_000).map(|tag| tag.to_string()).collect();
    order["labels"] = json!({});
    assert_eq!(gateway.post("/v1/orders", "application/json", order.to_string()).await.status, 200);
}
