//! What the document says of requests is what the services check: everything that it forbids is refused, by the name
//! of the field.

use agentrouter_testkit::TestDb;
use serde_json::{Value, json};

use crate::answers::World;
use crate::document::{Call, Operation, of_rpc, resolved};
use crate::surface::table::RPCS;
use crate::surface::tenant::Form;

// A12 #118: for REST.
pub(crate) async fn what_the_document_forbids_is_refused(db: TestDb) {
    let world = World::new(db).await;
    let mut accepted = Vec::new();
    let mut refused = 0;
    for rpc in RPCS {
        let message = world.tenant.request(rpc, Form::Slug);
        let token = world.tenant.rightful(rpc);
        for operation in of_rpc(rpc.name) {
            for (field, call) in forbidden(operation, &operation.call(&message)) {
                let response = world.send(operation, &call, &[], Some(token)).await;
                let status = response.status().as_u16();
                let answer = response.text().await.unwrap();
                if status == 400 && names(&answer, &field) {
                    refused += 1;
                } else {
                    let asked = format!("{:?} {:?}", call.query, call.body);
                    let asked: String = asked.chars().take(200).collect();
                    accepted.push(format!("{} {field}: {status} for {asked}: {answer}", operation.id));
                }
            }
        }
    }
    assert!(accepted.is_empty(), "{}", accepted.join("\n"));
    assert!(refused > 250, "only {refused} calls were forbidden");
    world.server.stop().await;
}

/// Whether the answer names the field, or something in it.
fn names(answer: &str, field: &str) -> bool {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let details = answer["details"].as_array().into_iter().flatten();
    let violations = details.filter_map(|detail| detail["field_violations"].as_array()).flatten();
    violations.filter_map(|violation| violation["field"].as_str()).any(|named| named.starts_with(field))
}

/// Calls that break one rule each, with the field that the rule is about.
fn forbidden(operation: &Operation, call: &Call) -> Vec<(String, Call)> {
    let mut calls = Vec::new();
    for parameter in operation.parameters("query") {
        let name = parameter["name"].as_str().unwrap();
        let others: Vec<_> = call.query.iter().filter(|(other, _)| other != name).cloned().collect();
        if parameter["required"] == true {
            calls.push((name.to_owned(), Call { query: others.clone(), ..call.clone() }));
        }
        for bad in wrong(resolved(&parameter["schema"])) {
            let bad = bad.as_str().map_or_else(|| bad.to_string(), str::to_owned);
            let query = others.iter().cloned().chain([(name.to_owned(), bad)]).collect();
            calls.push((name.to_owned(), Call { query, ..call.clone() }));
        }
    }
    let (Some(schema), Some(body)) = (operation.body(), &call.body) else { return calls };
    for name in schema["required"].as_array().into_iter().flatten() {
        let name = name.as_str().unwrap();
        let mut without = body.clone();
        without
            .as_object_mut()
            .unwrap()
            .remove(name)
            .unwrap_or_else(|| panic!("{}: no {name}", operation.id));
        calls.push((name.to_owned(), Call { body: Some(without), ..call.clone() }));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        for bad in wrong(property) {
            let mut with = body.clone();
            with[name] = bad;
            calls.push((name.clone(), Call { body: Some(with), ..call.clone() }));
        }
    }
    calls
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
        wrong.push(
            (0..=most)
                .map(|index| (format!("k{index}"), json!("v")))
                .collect::<serde_json::Map<_, _>>()
                .into(),
        );
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
