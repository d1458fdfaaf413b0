//! What the document says of requests is what the services check: everything that it forbids is refused, by the name
//! of the field and in every protocol.

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_testkit::TestDb;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use prost_reflect::DynamicMessage;
use serde_json::{Map, Value, json};

use crate::answers::World;
use crate::document::{Call, Operation, of_rpc, resolved};
use crate::surface::client::{Client, method, to_json};
use crate::surface::table::RPCS;
use crate::surface::tenant::Form;

/// A call that breaks one rule.
struct Broken {
    /// What the rule is about.
    field: String,
    /// Over REST.
    call: Call,
    /// The same as the rpc's request.
    message: Value,
}

// A12 #118.
pub(crate) async fn what_the_document_forbids_is_refused(db: TestDb) {
    let world = World::new(db).await;
    let grpc = Client(world.server.channel().await);
    let mut accepted = Vec::new();
    let (mut over_rest, mut over_grpc, mut over_connect) = (0, 0, 0);
    for rpc in RPCS {
        let message = world.tenant.request(rpc, Form::Slug);
        let token = world.tenant.rightful(rpc);
        for operation in of_rpc(rpc.name) {
            for Broken { field, call, message } in forbidden(operation, &message) {
                let mut judge = |protocol, count: &mut usize, named: Vec<String>, told: String| {
                    // Or something in it.
                    if named.iter().any(|named| named.starts_with(&field)) {
                        *count += 1;
                    } else {
                        let asked: String = message.to_string().chars().take(200).collect();
                        accepted.push(format!("{protocol}: {} {field} for {asked}: {told}", operation.id));
                    }
                };
                let response = world.send(operation, &call, &[], Some(token)).await;
                let status = response.status().as_u16();
                let answer = response.text().await.unwrap();
                let named = if status == 400 { fields(&answer) } else { Vec::new() };
                judge("REST", &mut over_rest, named, format!("{status} {answer}"));

                // Not every wrong text is a message.
                if DynamicMessage::deserialize(method(rpc.name).input(), &message).is_ok() {
                    let outcome = grpc.call(rpc.name, &message, Some(token)).await;
                    let named = outcome.as_ref().err().map(|refusal| refusal.violations());
                    let named = named.unwrap_or_default().into_iter().map(str::to_owned).collect();
                    judge("gRPC", &mut over_grpc, named, format!("{outcome:?}"));
                }
                if !method(rpc.name).is_server_streaming() {
                    let (status, answer) = world.connect(rpc.name, &message, token).await;
                    let named = if status == 400 { connect_fields(&answer) } else { Vec::new() };
                    judge("Connect", &mut over_connect, named, format!("{status} {answer}"));
                }
            }
        }
    }
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
    let refused = [over_rest, over_grpc, over_connect];
    assert!(refused.iter().all(|refused| *refused > 250), "only {refused:?} calls were forbidden");
    world.server.stop().await;
}

/// The fields that a REST answer finds wrong.
fn fields(answer: &str) -> Vec<String> {
    let answer: Value = serde_json::from_str(answer).unwrap();
    answer["details"].as_array().into_iter().flatten().flat_map(named).collect()
}

/// The fields that a Connect error finds wrong.
fn connect_fields(answer: &Value) -> Vec<String> {
    const DETAIL: &str = "google.rpc.BadRequest";
    let of_type = DESCRIPTOR_POOL.get_message_by_name(DETAIL).unwrap();
    let details = answer["details"].as_array().into_iter().flatten();
    let details = details.filter(|detail| detail["type"] == DETAIL);
    let decoded = details.map(|detail| {
        let value = BASE64_STANDARD_NO_PAD.decode(detail["value"].as_str().unwrap()).unwrap();
        to_json(&of_type, &value)
    });
    decoded.flat_map(|detail| named(&detail)).collect()
}

/// The fields that a detail of an error names.
fn named(detail: &Value) -> Vec<String> {
    let violations = detail["field_violations"].as_array().into_iter().flatten();
    violations.filter_map(|violation| Some(violation["field"].as_str()?.to_owned())).collect()
}

/// Calls that break one rule each.
fn forbidden(operation: &Operation, message: &Value) -> Vec<Broken> {
    let call = operation.call(message);
    let mut broken = Vec::new();
    for parameter in operation.parameters("query") {
        let name = parameter["name"].as_str().unwrap();
        let others: Vec<_> = call.query.iter().filter(|(other, _)| other != name).cloned().collect();
        if parameter["required"] == true {
            let call = Call { query: others.clone(), ..call.clone() };
            broken.push(Broken { field: name.to_owned(), call, message: with(message, name, Value::Null) });
        }
        for bad in wrong(resolved(&parameter["schema"])) {
            let message = with(message, name, bad.clone());
            let bad = bad.as_str().map_or_else(|| bad.to_string(), str::to_owned);
            let query = others.iter().cloned().chain([(name.to_owned(), bad)]).collect();
            let call = Call { query, ..call.clone() };
            broken.push(Broken { field: name.to_owned(), call, message });
        }
    }
    let (Some(schema), Some(body)) = (operation.body(), &call.body) else { return broken };
    let mut push = |name: &str, bad: Value| {
        let body = Some(with(body, name, bad.clone()));
        let call = Call { body, ..call.clone() };
        broken.push(Broken { field: name.to_owned(), call, message: with(message, name, bad) });
    };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        assert!(!body[name].is_null(), "{}: no {name}", operation.id);
        push(name, Value::Null);
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        for bad in wrong(property) {
            push(name, bad);
        }
    }
    broken
}

/// The message with another value at a dotted path; without it where that is null.
fn with(message: &Value, path: &str, value: Value) -> Value {
    let mut changed = message.clone();
    let mut at = &mut changed;
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
        at = at.as_object_mut().unwrap().entry(parent).or_insert_with(|| Map::new().into());
    }
    let members = at.as_object_mut().unwrap();
    if value.is_null() {
        members.remove(name);
    } else {
        members.insert(name.to_owned(), value);
    }
    changed
}

/// Values that break one rule of a schema each.
fn wrong(schema: &'static Value) -> Vec<Value> {
    let beside = &schema["not"]["const"];
    let schema = resolved(schema);
    let number = |key: &str| schema[key].as_u64().map(|number| usize::try_from(number).unwrap());
    let mut wrong = Vec::new();
    if let Some(most) = number("maxLength") {
        let start = if schema["format"] == "uri" { "https://long.example/" } else { "" };
        wrong.push(json!(format!("{start}{}", "x".repeat(most + 1 - start.len()))));
    }
    if schema["type"] == "string" && (!schema["pattern"].is_null() || !schema["enum"].is_null()) {
        wrong.push(json!("-Not this!"));
    }
    if matches!(schema["format"].as_str(), Some("uri" | "email" | "uuid" | "date-time")) {
        wrong.push(json!("neither"));
    }
    if let Some(least) = schema["minimum"].as_i64() {
        wrong.push(json!(least - 1));
    }
    if let Some(most) = schema["maximum"].as_i64() {
        wrong.push(json!(most + 1));
    }
    if let Some(most) = number("maxItems") {
        let item = |index: usize| {
            if schema["items"]["type"] == "string" { json!(format!("i{index}")) } else { json!({}) }
        };
        wrong.push((0..=most).map(item).collect());
    }
    if schema["uniqueItems"] == true {
        wrong.push(json!(["twice", "twice"]));
    }
    if !beside.is_null() {
        wrong.push(beside.clone());
    }
    if number("minItems").is_some() {
        wrong.push(json!([]));
    }
    if let Some(most) = number("maxProperties") {
        wrong.push((0..=most).map(|index| (format!("k{index}"), json!("v"))).collect::<Map<_, _>>().into());
    }
    if let Some(most) = schema["propertyNames"]["maxLength"].as_u64() {
        let key = "k".repeat(usize::try_from(most).unwrap() + 1);
        wrong.push(json!({key: "v"}));
        wrong.push(json!({"": "v"}));
    }
    if schema["additionalProperties"].is_object() {
        wrong.extend(self::wrong(&schema["additionalProperties"]).into_iter().map(|bad| json!({"key": bad})));
    }
    if schema["items"].is_object() {
        let items = resolved(&schema["items"]);
        wrong.extend(self::wrong(items).into_iter().map(|bad| json!([bad])));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        wrong.extend(self::wrong(property).into_iter().map(|bad| json!({name: bad})));
    }
    wrong
}
