//! Rules in the place of annotations: checklist A1 #16.

use agentrouter_gateway::{
    BuildError, Contract, HttpRule, HttpRules, HttpRulesError, Info, Transcoder, openapi,
};
use prost_reflect::DescriptorPool;
use serde_json::json;

use super::backend::{Backend, backend};
use super::{pool, request, send};

fn transcoder(pool: &DescriptorPool) -> Transcoder<Backend> {
    Transcoder::new(pool, backend(pool.clone())).expect("rules that can be served")
}

fn config(rule: &serde_json::Value) -> String {
    json!({"name": "library.example.com", "http": {"rules": [rule]}}).to_string()
}

fn rejected(rule: &serde_json::Value) -> HttpRulesError {
    let applied = HttpRules::from_json(&config(rule)).and_then(|rules| rules.apply(&pool()));
    applied.expect_err("a faulty rule")
}

/// A1 #16: a rule replaces all of a method's annotation, and gives a method its first; others keep theirs.
#[tokio::test]
async fn rules_replace_annotations() {
    let text = json!({
        "http": {
            "rules": [
                {"selector": "gateway.test.v1.Echo.NoRest", "get": "/v2/overridden"},
                {
                    "selector": "gateway.test.v1.Echo.GetItem",
                    "get": "/v2/things/{s}",
                    "additionalBindings": [
                        {"post": "/v2/things", "body": "msg", "response_body": "msg"},
                        {"custom": {"kind": "LOOK", "path": "/v2/things/{s}"}},
                    ],
                },
                {"selector": "gateway.test.v1.Echo.NoRest", "delete": "/v2/rest/{i32}"},
            ],
        },
    });
    let pool = HttpRules::from_json(&text.to_string()).expect("rules").apply(&pool()).expect("good rules");
    let transcoder = transcoder(&pool);
    for (method, uri, body, rpc, pointer, bound) in [
        ("GET", "/v2/things/x", "", "GetItem", "/s", json!("x")),
        ("LOOK", "/v2/things/y", "", "GetItem", "/s", json!("y")),
        ("POST", "/v2/things", r#"{"name":"n"}"#, "GetItem", "/name", json!("n")),
        ("DELETE", "/v2/rest/7", "", "NoRest", "/i32", json!(7)),
        ("POST", "/v1/items/a:revoke", "", "RevokeItem", "/s", json!("a")),
    ] {
        let answer = send(&transcoder, request(method, uri, body)).await;
        assert_eq!(
            answer.header("x-rpc"),
            format!("gateway.test.v1.Echo.{rpc}"),
            "{method} {uri}: {answer:?}"
        );
        assert_eq!(answer.json().pointer(pointer), Some(&bound), "{method} {uri}");
    }
    // The annotation had these, and the last rule of a method counts.
    for (uri, status) in [("/v1/items/5", 405), ("/v1/alias/x/nested/y", 404), ("/v2/overridden", 404)] {
        assert_eq!(send(&transcoder, request("GET", uri, "")).await.status, status, "{uri}");
    }
}

/// A1 #16: the OpenAPI document tells of the same routes, with the comments of the proto file.
#[test]
fn the_document_follows_the_rules() {
    struct Silent;
    impl Contract for Silent {}
    let rule = HttpRule {
        selector: "gateway.test.v1.Echo.GetItem".to_owned(),
        get: Some("/v2/things/{s}".to_owned()),
        ..HttpRule::default()
    };
    let replaced = HttpRules { rules: vec![rule] }.apply(&pool()).expect("a good rule");
    let [title, version, description, license, bearer] = ["a", "1", "b", "c", "d"].map(str::to_owned);
    let info = Info { title, version, description, license, bearer };
    let document = openapi(&replaced, &info, &Silent);
    let operation = &document["paths"]["/v2/things/{s}"]["get"];
    assert_eq!(operation["operationId"], "GetItem");
    let before = openapi(&pool(), &info, &Silent);
    assert_eq!(operation["description"], before["paths"]["/v1/items/{s}"]["get"]["description"]);
    assert!(document["paths"]["/v1/items/{s}"].get("get").is_none());
}

/// A1 #16: what is wrong is told at the start.
#[test]
fn faulty_rules_are_refused() {
    let method = "gateway.test.v1.Echo.GetItem";
    for selector in ["gateway.test.v1.Echo.Nope", "Echo.GetItem", ""] {
        let error = rejected(&json!({"selector": selector, "get": "/x"}));
        assert!(matches!(&error, HttpRulesError::NoMethod(name) if name == selector), "{error}");
    }
    for rule in [
        json!({"selector": method}),
        json!({"selector": method, "get": "/x", "put": "/x"}),
        json!({"selector": method, "get": "/x", "custom": {"kind": "A", "path": "/x"}}),
        json!({"selector": method, "get": "/x", "additional_bindings": [{"body": "*"}]}),
    ] {
        let error = rejected(&rule);
        assert!(matches!(&error, HttpRulesError::Pattern(name) if name == method), "{error}");
    }
    for rule in [json!({"selector": method, "gte": "/x"}), json!({"selector": method, "get": 5}), json!("x")]
    {
        assert!(matches!(rejected(&rule), HttpRulesError::Text(_)), "{rule}");
    }
    assert!(matches!(HttpRules::from_json("{"), Err(HttpRulesError::Text(_))));
    assert!(matches!(HttpRules::default().apply(&DescriptorPool::new()), Err(HttpRulesError::NoAnnotations)));

    let rule = json!({"selector": method, "get": "/v2/{nope}"});
    let pool =
        HttpRules::from_json(&config(&rule)).expect("rules").apply(&pool()).expect("a method of the pool");
    let error = Transcoder::new(&pool, backend(pool.clone())).expect_err("a faulty template");
    let BuildError::Rules(errors) = error else { panic!("{error}") };
    assert_eq!((errors[0].rpc.as_str(), errors[0].template.as_str()), (method, "/v2/{nope}"));
}
