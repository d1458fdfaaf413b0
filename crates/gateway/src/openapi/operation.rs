//! One operation.

use serde_json::{Map, Value, json};

use super::contract::{BEARER, Security};
use super::endpoint::{Body, Endpoint};
use super::rules::Behavior;
use super::schema::Schemas;
use super::{Source, answer, comments, example, parameters, put};

pub(super) fn operation(
    source: &Source<'_>,
    endpoint: &Endpoint,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Map<String, Value> {
    let rpc = &endpoint.rpc;
    let service = rpc.parent_service();
    let comment = source.comments.of(&service.parent_file(), rpc.path()).unwrap_or_default();
    let note = source.contract.note(rpc).unwrap_or_default();
    let description = [comment, note.as_str()].join("\n\n");

    let mut operation = Map::new();
    put(&mut operation, "operationId", source.names.operation(endpoint));
    put(&mut operation, "tags", vec![source.names.tag(service)]);
    put(&mut operation, "summary", comments::summary(comment));
    put(&mut operation, "description", description.trim());
    put(&mut operation, "parameters", parameters::parameters(source, endpoint, names, schemas));
    if let Some(schema) = schemas.body(endpoint) {
        put(&mut operation, "requestBody", body(source, endpoint, &schema));
    }
    put(&mut operation, "responses", answer::answers(source, endpoint, schemas));
    if source.contract.security(rpc) == Security::Optional {
        put(&mut operation, "security", json!([{BEARER: []}, {}]));
    }
    let deprecated = rpc.options().get_field_by_name("deprecated").and_then(|value| value.as_bool());
    if deprecated == Some(true) {
        put(&mut operation, "deprecated", true);
    }
    put(&mut operation, "x-grpc-method", format!("{}/{}", service.full_name(), rpc.name()));
    operation
}

fn body(source: &Source<'_>, endpoint: &Endpoint, schema: &Value) -> Value {
    let is_required = match &endpoint.body {
        Body::None => false,
        Body::Field(field) => Behavior::of(field).is_required,
        Body::Whole => {
            let input = endpoint.rpc.input();
            input.fields().any(|field| Behavior::of(&field).is_required && !endpoint.is_in_path(field.name()))
        }
    };
    let mut body = Map::new();
    put(&mut body, "required", is_required);
    if endpoint.infers_mask() {
        put(
            &mut body,
            "description",
            "Only what the body names changes. A mask of its own, where one is given, wins.",
        );
    }
    put(&mut body, "content", content(source, endpoint, schema));
    Value::Object(body)
}

/// The forms of a body. The schema of lines is that of one of them: OpenAPI 3.1 has no word for a sequence.
fn content(source: &Source<'_>, endpoint: &Endpoint, schema: &Value) -> Value {
    if endpoint.takes_bytes() {
        // OpenAPI 3.1 says nothing of bytes: they have no schema.
        return json!({"*/*": {}});
    }
    let example = example::body(source, endpoint);
    if endpoint.rpc.is_client_streaming() {
        return json!({
            "application/x-ndjson": {"schema": schema, "x-stream": "lines"},
            "application/json": {"schema": {"type": "array", "items": schema}, "example": [example]},
        });
    }
    json!({"application/json": {"schema": schema, "example": example}})
}
