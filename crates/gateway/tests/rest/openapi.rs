//! The OpenAPI document of everything that the annotations can say: checklist A12 #117.

use std::collections::BTreeSet;

use agentrouter_gateway::{Contract, Header, Info, PageSettings, Rules, Security, openapi, page};
use prost_reflect::{FieldDescriptor, MethodDescriptor};
use serde_json::{Value, json};

use super::{get, pool, transcoder};

struct Silent;

impl Contract for Silent {}

fn info() -> Info {
    let [title, version, description, license, bearer] =
        ["Test", "1", "All of it.", "Apache-2.0", "A token."].map(str::to_owned);
    Info { title, version, description, license, bearer }
}

fn document() -> Value {
    openapi(&pool(), &info(), &Silent)
}

fn operation<'d>(document: &'d Value, path: &str, method: &str) -> &'d Value {
    document["paths"][path].get(method).unwrap_or_else(|| panic!("no {method} {path}"))
}

fn names(operation: &Value, place: &str) -> Vec<String> {
    let parameters = operation["parameters"].as_array().expect("parameters").iter();
    let here = parameters.filter(|parameter| parameter["in"] == place);
    here.map(|parameter| parameter["name"].as_str().expect("a name").to_owned()).collect()
}

/// Every route is an operation of its own, and no other is there.
#[test]
fn routes_are_operations() {
    let document = document();
    let mut operations = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            let id = operation["operationId"].as_str().expect("an id");
            assert!(operations.insert(id.to_owned()), "{id} {method} {path}");
            let in_path = names(operation, "path");
            let braces = path.split('{').skip(1).filter_map(|rest| rest.split('}').next());
            assert_eq!(braces.collect::<Vec<_>>(), in_path, "{path}");
        }
    }
    // The rule for every method stands for five.
    assert_eq!(operations.len(), transcoder().routes().len() + 4);
    for id in ["GetItem", "GetItem_2", "Create_13", "Anything", "Anything_post", "Purge", "Count_2"] {
        assert!(operations.contains(id), "{id}");
    }
    assert!(operations.contains("Upload") && !operations.contains("NoRest"));
}

/// A10 #107, A3 #47, A12 #117: client streams and bodies of any type say so.
#[test]
fn bodies_that_are_no_json_object_are_told() {
    let document = document();
    let content =
        |path: &str, method: &str| operation(&document, path, method)["requestBody"]["content"].clone();
    let stream = content("/v1/collect/{room}", "post");
    assert_eq!(stream["application/x-ndjson"]["x-stream"], "lines");
    assert_eq!(stream["application/json"]["schema"]["type"], "array");
    assert_eq!(stream["application/json"]["schema"]["items"], stream["application/x-ndjson"]["schema"]);
    assert_eq!(content("/v1/blobs/{name}", "put"), json!({"*/*": {}}));
    assert_eq!(content("/v1/blob", "put"), json!({"*/*": {}}));
    assert_eq!(operation(&document, "/v1/collect/{room}", "get").get("requestBody"), None);
}

#[test]
fn paths_have_a_parameter_for_each_wildcard() {
    let document = document();
    operation(&document, "/v1/items/search", "post");
    operation(&document, "/v1/items/{s}:revoke", "post");
    assert_eq!(
        names(operation(&document, "/v1/alias/{s}/nested/{msg.name}", "get"), "path"),
        ["s", "msg.name"]
    );
    for path in ["/v1/files/{files_id}", "/v1/files/{files_id}/rev"] {
        let parameter = &operation(&document, path, "get")["parameters"][0];
        assert_eq!((&parameter["name"], &parameter["x-multi-segment"]), (&json!("files_id"), &json!(true)));
    }
    let kinds = operation(&document, "/v1/kinds/{i32}/{u64}/{b}/{e}/{by}", "get");
    let types = kinds["parameters"].as_array().expect("parameters").iter().take(5);
    let types: Vec<_> =
        types.map(|parameter| parameter["schema"]["type"].as_str().unwrap_or("a name")).collect();
    assert_eq!(types, ["integer", "string", "boolean", "a name", "string"]);
    // OpenAPI has no word for methods of one's own.
    operation(&document, "/v1/cache/{s}", "x-purge");
}

/// What is documented is bound, and what is not bound is not documented.
#[tokio::test]
async fn query_parameters_are_those_that_are_bound() {
    let document = document();
    let query = operation(&document, "/v1/query", "get");
    let documented = names(query, "query");
    for parameter in query["parameters"].as_array().expect("parameters") {
        let name = parameter["name"].as_str().expect("a name");
        let schema =
            parameter.get("schema").or_else(|| parameter.pointer("/content/application~1json/schema"));
        let value = sample(&document, schema.expect("a schema"));
        let answer = get(&format!("/v1/query?{name}={value}")).await;
        assert_eq!(answer.status, 200, "{name}={value}: {answer:?}");
    }
    for bound in
        ["s", "msg.name", "msg.page_size", "msg.tags", "times", "structure", "choice_b", "wrapped_int"]
    {
        assert!(documented.iter().any(|name| name == bound), "{bound}");
    }
    for unbound in ["msg", "msgs", "labels", "by_number", "any", "empty", "any.type_url", "otherName"] {
        assert!(!documented.iter().any(|name| name == unbound), "{unbound}");
    }
    // A message that holds itself is entered once.
    assert!(!documented.iter().any(|name| name.starts_with("msg.child")), "{documented:?}");
    // What the path carries is no query parameter, and a whole body leaves none.
    assert!(!names(operation(&document, "/v1/items/{s}", "get"), "query").contains(&"s".to_owned()));
    assert_eq!(names(operation(&document, "/v1/create", "post"), "query"), [""; 0]);
    let beside = names(operation(&document, "/v1/body/msg", "post"), "query");
    assert!(
        beside.contains(&"s".to_owned()) && !beside.iter().any(|name| name.starts_with("msg")),
        "{beside:?}"
    );
}

/// A text that a schema allows.
fn sample(document: &Value, schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        return sample(document, document.pointer(target.trim_start_matches('#')).expect("a schema"));
    }
    if let Some(first) = schema["enum"].as_array().and_then(|names| names.first()) {
        return first.as_str().expect("a name").to_owned();
    }
    match (schema["type"].as_str(), schema["format"].as_str()) {
        (Some("array"), _) if schema["items"] != json!({}) => sample(document, &schema["items"]),
        (Some("array"), _) => "[1]".to_owned(),
        (Some("object") | None, _) if schema.get("anyOf").is_none() => "{}".to_owned(),
        (Some("string"), Some("date-time")) => "2026-01-31T12:00:00Z".to_owned(),
        (Some("string"), Some("byte")) => "YQ==".to_owned(),
        (Some("string"), _) if schema["pattern"].as_str().is_some_and(|pattern| pattern.ends_with("s$")) => {
            "1.5s".to_owned()
        }
        (Some("boolean"), _) => "true".to_owned(),
        _ => "1".to_owned(),
    }
}

#[test]
fn bodies_and_answers_have_the_form_that_is_read_and_written() {
    let document = document();
    let body = |path: &str| {
        operation(&document, path, "post")["requestBody"]["content"]["application/json"]["schema"].clone()
    };
    assert_eq!(body("/v1/create"), json!({"$ref": "#/components/schemas/EverythingInput"}));
    // What the path carries is not repeated in the body.
    assert_eq!(body("/v1/create/{s}"), json!({"$ref": "#/components/schemas/EverythingInput_Create_2"}));
    assert_eq!(body("/v1/body/msg"), json!({"$ref": "#/components/schemas/NestedInput"}));
    assert_eq!(body("/v1/body/e"), json!({"$ref": "#/components/schemas/Colour"}));
    assert_eq!(body("/v1/body/strings"), json!({"type": "array", "items": {"type": "string"}}));
    assert_eq!(
        body("/v1/body/labels"),
        json!({"type": "object", "additionalProperties": {"type": "string"}})
    );
    let answer = |path: &str, method: &str| {
        operation(&document, path, method)["responses"]["200"]["content"]["application/json"]["schema"]
            .clone()
    };
    assert_eq!(answer("/v1/create", "post"), json!({"$ref": "#/components/schemas/Everything"}));
    assert_eq!(answer("/v1/part/strings", "post"), json!({"type": "array", "items": {"type": "string"}}));
    assert_eq!(answer("/v1/items/{s}", "delete"), json!({"type": "object", "additionalProperties": false}));

    let schemas = &document["components"]["schemas"];
    let everything = &schemas["Everything"];
    let required: Vec<&str> =
        everything["required"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for (name, is_written) in [
        ("s", true),
        ("e", true),
        ("strings", true),
        ("labels", true),
        ("opt", false),
        ("msg", false),
        ("choice_a", false),
        ("ts", false),
    ] {
        assert_eq!(required.contains(&name), is_written, "{name}");
    }
    assert_eq!(everything.get("additionalProperties"), None);
    let input = &schemas["EverythingInput"];
    assert_eq!((input.get("required"), &input["additionalProperties"]), (None, &json!(false)));
    assert!(schemas["EverythingInput_Create_2"]["properties"].get("s").is_none());
    assert_eq!(
        everything["dependentSchemas"]["choice_a"],
        json!({"not": {"anyOf": [{"required": ["choice_b"]}]}})
    );
    for (name, schema) in [
        ("i64", json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})),
        ("by", json!({"type": "string", "format": "byte", "contentEncoding": "base64"})),
        ("ts", json!({"type": "string", "format": "date-time"})),
        ("value", json!({})),
        ("nothing", json!({"type": "null"})),
        ("wrapped_bool", json!({"anyOf": [{"type": "boolean"}, {"type": "null"}]})),
        ("msg", json!({"$ref": "#/components/schemas/Nested"})),
        (
            "by_number",
            json!({"type": "object", "additionalProperties": {"$ref": "#/components/schemas/Nested"}}),
        ),
    ] {
        assert_eq!(everything["properties"][name], schema, "{name}");
    }
    assert_eq!(schemas["Colour"]["enum"], json!(["COLOUR_UNSPECIFIED", "COLOUR_RED", "COLOUR_GREEN"]));
}

#[test]
fn etags_masks_streams_and_errors() {
    let document = document();
    let book = operation(&document, "/v1/books/{id}", "get");
    assert_eq!(book["responses"]["200"]["headers"]["ETag"]["$ref"], "#/components/headers/ETag");
    assert_eq!(names(book, "header"), ["If-Match"]);
    assert_eq!(names(operation(&document, "/v1/items/{s}", "get"), "header"), [""; 0]);
    let update = operation(&document, "/v1/books/{id}", "patch");
    assert_eq!(names(update, "header"), ["If-Match"]);
    assert!(update["requestBody"]["description"].as_str().is_some_and(|text| text.contains("mask")));
    let statuses = |operation: &Value| {
        let statuses = operation["responses"].as_object().expect("answers").keys();
        statuses.map(|status| status.parse().expect("a status")).collect::<Vec<u16>>()
    };
    assert_eq!(
        statuses(update),
        [200, 400, 401, 403, 404, 406, 408, 409, 412, 413, 414, 415, 429, 431, 500, 501, 503, 504]
    );
    // What has no side effects conflicts with nothing.
    assert_eq!(statuses(book), [200, 304, 400, 401, 403, 404, 406, 412, 414, 429, 431, 500, 501, 503, 504]);
    for response in document["components"]["responses"].as_object().expect("errors").values() {
        let schema = &response["content"]["application/json"]["schema"];
        assert_eq!(schema["$ref"], "#/components/schemas/google.rpc.Status");
    }
    let stream = &operation(&document, "/v1/count/{to}", "get")["responses"]["200"]["content"];
    let media: Vec<_> = stream.as_object().expect("media types").keys().collect();
    assert_eq!(media, ["application/json", "application/x-ndjson", "text/event-stream"]);
    assert_eq!(
        stream["application/x-ndjson"]["schema"]["anyOf"][0],
        json!({"$ref": "#/components/schemas/CountResponse"})
    );
}

/// A product that has something to say of everything.
struct Talkative;

impl Contract for Talkative {
    fn security(&self, method: &MethodDescriptor) -> Security {
        if method.name() == "GetBook" { Security::Optional } else { Security::Required }
    }

    fn note(&self, method: &MethodDescriptor) -> Option<String> {
        Some(format!("A note on {}.", method.name()))
    }

    fn headers(&self, _: &MethodDescriptor) -> Vec<Header> {
        vec![Header { name: "x-trace", description: "Traces.", example: "on", max_length: Some(2) }]
    }

    fn rules(&self, field: &FieldDescriptor) -> Rules {
        match field.name() {
            "s" => Rules { length: (Some(2), Some(3)), pattern: Some("^a".to_owned()), ..Rules::default() },
            "i32" => Rules { range: (Some(-1), Some(1)), ..Rules::default() },
            "i64" => Rules { range: (Some(0), None), ..Rules::default() },
            "strings" => Rules {
                items: (Some(1), Some(2)),
                is_set: true,
                values: vec!["a".to_owned()],
                ..Rules::default()
            },
            "labels" => Rules {
                items: (None, Some(4)),
                keys: (Some(1), Some(9)),
                length: (None, Some(5)),
                ..Rules::default()
            },
            _ => Rules::default(),
        }
    }

    fn example(&self, field: &FieldDescriptor) -> Option<Value> {
        (field.name() == "display_name").then(|| json!("Moby"))
    }
}

#[test]
fn a_contract_is_heard() {
    let document = openapi(&pool(), &info(), &Talkative);
    let book = operation(&document, "/v1/books/{id}", "get");
    assert_eq!(book["security"], json!([{"bearer": []}, {}]));
    assert_eq!(operation(&document, "/v1/query", "get").get("security"), None);
    assert_eq!(document["security"], json!([{"bearer": []}]));
    assert!(book["description"].as_str().is_some_and(|text| text.ends_with("A note on GetBook.")));
    assert_eq!(names(book, "header"), ["If-Match", "x-trace"]);
    assert_eq!(book["responses"]["200"]["content"]["application/json"]["example"]["display_name"], "Moby");
    let input = &document["components"]["schemas"]["EverythingInput"]["properties"];
    for (name, schema) in [
        ("s", json!({"type": "string", "minLength": 2, "maxLength": 3, "pattern": "^a"})),
        ("i32", json!({"type": "integer", "format": "int32", "minimum": -1, "maximum": 1})),
        ("i64", json!({"type": "string", "format": "int64", "pattern": "^[0-9]{1,19}$"})),
        (
            "strings",
            json!({"type": "array", "minItems": 1, "maxItems": 2, "uniqueItems": true, "items": {"type": "string", "enum": ["a"]}}),
        ),
        (
            "labels",
            json!({
                "type": "object", "maxProperties": 4, "propertyNames": {"minLength": 1, "maxLength": 9},
                "additionalProperties": {"type": "string", "maxLength": 5},
            }),
        ),
    ] {
        assert_eq!(input[name], schema, "{name}");
    }
    // Answers are not narrowed: they hold what was stored under whatever rules there were then.
    let output = &document["components"]["schemas"]["Everything"]["properties"];
    assert_eq!(output["s"], json!({"type": "string"}));
}

#[test]
fn the_page_shows_every_operation() {
    let document = openapi(&pool(), &info(), &Talkative);
    let settings = PageSettings { document: "/api.json", base_url: "$BASE", token: "$TOKEN" };
    let html = page(&document, settings).html;
    for shown in [
        "id=\"Create_13\"",
        "/v1/kinds/{i32}/{u64}/{b}/{e}/{by}",
        "<a href=\"#schema-EverythingInput\">EverythingInput</a>",
        "curl -X PATCH &quot;$BASE/v1/books/{id}&quot;",
        "Authorization: Bearer $TOKEN",
        "<a href=\"/api.json\">",
    ] {
        assert!(html.contains(shown), "{shown}");
    }
}
