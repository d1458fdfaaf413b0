//! The rules in the OpenAPI document, which is made by the gateway itself.

use agentrouter_gateway::{Contract, Info, Rules, openapi};
use prost_reflect::FieldDescriptor;
use serde_json::{Value, json};

use super::*;

struct Silent;

impl Contract for Silent {}

/// A product that knows better what one field takes.
struct Strict;

impl Contract for Strict {
    fn rules(&self, field: &FieldDescriptor) -> Rules {
        match field.name() {
            "length" => Rules { length: (None, Some(4)), ..Rules::default() },
            _ => Rules::default(),
        }
    }
}

fn document(contract: &dyn Contract) -> Value {
    let [title, version, description, license, bearer] =
        ["Test", "1", "All of it.", "Apache-2.0", "A token."].map(str::to_owned);
    openapi(&pool(), &Info { title, version, description, license, bearer }, contract)
}

/// A12 #117, #118: rules are keywords of the schemas of requests, and only of those.
#[test]
fn rules_are_in_the_document() {
    let document = document(&Silent);
    let schemas = &document["components"]["schemas"];
    let narrow = &schemas["NarrowRequest"];
    let long = "^[1-9][0-9]{0,19}$";
    for (name, expected) in [
        ("length", json!({"type": "string", "minLength": 2, "maxLength": 5})),
        ("exact", json!({"type": "string", "minLength": 3, "maxLength": 3})),
        ("constant", json!({"type": "string", "const": "on", "minLength": 1})),
        ("one_of", json!({"type": "string", "enum": ["a", "b"], "minLength": 1})),
        ("none_of", json!({"type": "string", "not": {"enum": ["a", "b"]}})),
        (
            "prefix",
            json!({
                "type": "string", "allOf": [{"pattern": r"^a\."}, {"pattern": "z$"}], "not": {"pattern": "!"},
                "minLength": 1,
            }),
        ),
        ("pattern", json!({"type": "string", "pattern": "^[a-f]+$"})),
        ("engine", json!({"type": "string"})),
        ("email", json!({"type": "string", "format": "email", "minLength": 1})),
        ("uri", json!({"type": "string", "format": "uri", "minLength": 1})),
        ("uuid", json!({"type": "string", "format": "uuid", "minLength": 1})),
        (
            "address",
            json!({
                "type": "string", "anyOf": [{"format": "hostname"}, {"format": "ipv4"}, {"format": "ipv6"}],
                "minLength": 1,
            }),
        ),
        (
            "lenient",
            json!({"type": "string", "anyOf": [{"const": ""}, {"format": "ipv4"}], "description": "May be left out."}),
        ),
        ("ignored", json!({"type": "string"})),
        ("present", json!({"type": "string"})),
        ("between", json!({"type": "integer", "format": "int32", "exclusiveMinimum": 0, "maximum": 9})),
        (
            "outside",
            json!({"type": "integer", "format": "int32", "anyOf": [{"exclusiveMaximum": 1}, {"exclusiveMinimum": 9}]}),
        ),
        (
            "few",
            json!({"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX, "exclusiveMaximum": 4}),
        ),
        (
            "long",
            json!({
                "type": "string", "format": "int64", "pattern": long,
                "x-minimum": "1", "x-exclusiveMaximum": "9007199254740993",
            }),
        ),
        (
            "long_choice",
            json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$", "enum": ["1", "2"]}),
        ),
        ("ratio", json!({"anyOf": [{"type": "number", "format": "double", "minimum": 0.0, "maximum": 1.5}]})),
        ("finite", json!({"anyOf": [{"type": "number", "format": "float"}]})),
        ("agreed", json!({"type": "boolean", "const": true})),
        (
            "token",
            json!({"type": "string", "format": "byte", "contentEncoding": "base64", "minLength": 3, "maxLength": 8}),
        ),
        (
            "size",
            json!({
                "$ref": "#/components/schemas/Size", "enum": ["SIZE_SMALL", "SIZE_LARGE"],
                "not": {"const": "SIZE_UNSPECIFIED"},
            }),
        ),
        ("no_size", json!({"$ref": "#/components/schemas/Size", "not": {"enum": ["SIZE_LARGE"]}})),
        (
            "list",
            json!({
                "type": "array", "minItems": 1, "maxItems": 3, "uniqueItems": true,
                "items": {"type": "string", "minLength": 1},
            }),
        ),
        (
            "map",
            json!({
                "type": "object", "minProperties": 1, "maxProperties": 3, "propertyNames": {"maxLength": 9},
                "additionalProperties": {"type": "integer", "format": "int32", "minimum": 1},
            }),
        ),
        ("wrapped", json!({"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]})),
        ("even", json!({"type": "integer", "format": "int32", "description": "A number.\n\n- must be even"})),
        ("must", json!({"$ref": "#/components/schemas/Size", "not": {"const": "SIZE_UNSPECIFIED"}})),
    ] {
        assert_eq!(narrow["properties"][name], expected, "{name}");
    }
    let required = json!([
        "length",
        "exact",
        "constant",
        "one_of",
        "prefix",
        "email",
        "uri",
        "uuid",
        "address",
        "present",
        "between",
        "long",
        "long_choice",
        "agreed",
        "token",
        "size",
        "list",
        "map",
        "must",
    ]);
    assert_eq!(narrow["required"], required);
    assert_eq!(narrow["allOf"], json!([{"anyOf": [{"required": ["choice_a"]}, {"required": ["choice_b"]}]}]));
    let description = narrow["description"].as_str().expect("a description");
    assert!(description.ends_with(".\n\n- the sum of both must be even"), "{description}");
    // Rules within a message, and of a oneof.
    let order = &schemas["OrderRequestInput"];
    assert_eq!(order["properties"]["items"]["items"], json!({"$ref": "#/components/schemas/ItemInput"}));
    assert_eq!(schemas["ItemInput"]["required"], json!(["sku", "count"]));
    assert_eq!(order["allOf"], json!([{"anyOf": [{"required": ["card"]}, {"required": ["cash"]}]}]));
    // Answers are not held to them.
    let answer = &schemas["OrderRequest"];
    assert_eq!(answer["properties"]["name"], json!({"type": "string"}));
    assert_eq!(answer.get("allOf"), None);
    // What the path carries is narrowed there.
    let path = &document["paths"]["/v1/orders/{name}"]["post"]["parameters"][0];
    assert_eq!(
        path["schema"],
        json!({"type": "string", "minLength": 2, "maxLength": 8, "pattern": "^[a-z]*$"})
    );
}

/// A12 #117: the contract of a product stands above the rules of the descriptors.
#[test]
fn a_contract_stands_above_the_rules() {
    let schema = &document(&Strict)["components"]["schemas"]["NarrowRequest"]["properties"]["length"];
    assert_eq!(*schema, json!({"type": "string", "minLength": 2, "maxLength": 4}));
}

/// A12 #117: examples are values that the rules name.
#[test]
fn examples_keep_the_rules() {
    let document = document(&Silent);
    let content = &document["paths"]["/v1/narrow"]["post"]["requestBody"]["content"]["application/json"];
    let example = &content["example"];
    for (name, value) in [
        ("constant", json!("on")),
        ("one_of", json!("a")),
        ("long_choice", json!("1")),
        ("agreed", json!(true)),
        ("size", json!("SIZE_SMALL")),
    ] {
        assert_eq!(example[name], value, "{name}");
    }
}
