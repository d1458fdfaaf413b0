//! The answers of an operation.

use serde_json::{Map, Value, json};

use super::endpoint::Endpoint;
use super::schema::Schemas;
use super::{Source, error, example, put};
use crate::answer::Extensions;

/// All answers, by HTTP status.
pub(super) fn answers(
    source: &Source<'_>,
    endpoint: &Endpoint,
    schemas: &mut Schemas<'_>,
) -> Map<String, Value> {
    let mut answers: Map<String, Value> = error::of(endpoint).collect();
    let schema = schemas.answer(endpoint);
    let mut answer = Map::new();
    if endpoint.rpc.is_server_streaming() {
        put(
            &mut answer,
            "description",
            "A stream of messages that goes on until the caller ends it. An error that comes later than the first \
             message ends it: as the line `{\"error\": ...}`, as an event of the type `error`, or by an \
             array that has no end.",
        );
        put(&mut answer, "content", stream(source, endpoint, &schema));
    } else {
        put(&mut answer, "description", "Success");
        put(
            &mut answer,
            "content",
            json!({"application/json": {"schema": schema, "example": example::answer(source, endpoint)}}),
        );
    }
    if endpoint.gives_etag() {
        if endpoint.http == "GET" {
            let known = json!({
                "description": "The caller has this answer already: `If-None-Match` names its `ETag`.",
                "headers": {"ETag": {"$ref": "#/components/headers/ETag"}},
            });
            put(&mut answers, "304", known);
        }
        put(&mut answer, "headers", json!({"ETag": {"$ref": "#/components/headers/ETag"}}));
    }
    let status = Extensions::of(endpoint.rpc.parent_pool()).status(&endpoint.rpc).unwrap_or(200);
    if matches!(status, 204 | 205) {
        answer.remove("content");
    }
    put(&mut answers, &status.to_string(), answer);
    answers
}

/// The three forms of a stream. The schema is that of one message: OpenAPI 3.1 has no word for a sequence of them.
fn stream(source: &Source<'_>, endpoint: &Endpoint, item: &Value) -> Value {
    let failed = json!({
        "type": "object",
        "properties": {"error": error::status()},
        "required": ["error"],
    });
    let message = example::answer(source, endpoint).to_string();
    json!({
        "application/x-ndjson": {
            "schema": {
                "description": "One line of the stream.",
                "anyOf": [item, failed],
            },
            "x-stream": "lines",
        },
        "application/json": {
            "schema": {"type": "array", "items": item},
            "x-stream": "array",
        },
        "text/event-stream": {
            "schema": {
                "type": "string",
                "description": "Events whose `data` is one message as JSON.",
                "contentMediaType": "application/json",
                "contentSchema": item,
            },
            "example": format!("data: {message}\n\n"),
            "x-stream": "events",
        },
    })
}
