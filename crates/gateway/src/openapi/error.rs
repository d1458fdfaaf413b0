//! Errors as shared parts: the JSON of `google.rpc.Status`, and an answer for
//! every HTTP status that an operation can fail with.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::endpoint::{Body, Endpoint};
use super::put;
use super::schema::reference;

const STATUS: &str = "google.rpc.Status";
const EXAMPLE_DOMAIN: &str = "example";

/// An HTTP status that operations fail with.
struct Failure {
    status: u16,
    name: &'static str,
    description: &'static str,
    /// The gRPC code and the reason of the example.
    example: (i32, &'static str, &'static str),
    header: Option<&'static str>,
    applies: fn(&Endpoint) -> bool,
}

const fn failure(
    status: u16,
    name: &'static str,
    description: &'static str,
    example: (i32, &'static str, &'static str),
) -> Failure {
    Failure { status, name, description, example, header: None, applies: |_| true }
}

const FAILURES: [Failure; 17] = [
    failure(
        400,
        "InvalidRequest",
        "The request is not as it must be (INVALID_ARGUMENT, OUT_OF_RANGE; a detail `google.rpc.BadRequest` names \
         every wrong field), or things are not as it needs them (FAILED_PRECONDITION).",
        (3, "INVALID_FIELDS", "`name` must be a string"),
    ),
    Failure {
        header: Some("WWW-Authenticate"),
        ..failure(
            401,
            "Unauthenticated",
            "The credential is missing, unknown, expired or revoked (UNAUTHENTICATED).",
            (16, "UNAUTHENTICATED", "the credential is not valid"),
        )
    },
    failure(
        403,
        "PermissionDenied",
        "The caller may not do this (PERMISSION_DENIED).",
        (7, "PERMISSION_DENIED", "this call needs another role"),
    ),
    failure(
        404,
        "NotFound",
        "Something that the request names does not exist, or not for this caller (NOT_FOUND).",
        (5, "NOT_FOUND", "there is no such resource"),
    ),
    failure(
        406,
        "NotAcceptable",
        "The answer has none of the types of `Accept`, or none of the encodings of `Accept-Encoding` \
         (INVALID_ARGUMENT).",
        (3, "NOT_ACCEPTABLE", "the answer can be `application/json` or `application/x-protobuf`"),
    ),
    Failure {
        applies: has_body,
        ..failure(
            408,
            "BodyTooSlow",
            "The body did not move on (DEADLINE_EXCEEDED).",
            (4, "REQUEST_BODY_TOO_SLOW", "the request body did not move on"),
        )
    },
    Failure {
        applies: |endpoint| !is_read(endpoint),
        ..failure(
            409,
            "Conflict",
            "It exists already (ALREADY_EXISTS), or somebody else was faster (ABORTED).",
            (6, "ALREADY_EXISTS", "the name is taken"),
        )
    },
    Failure {
        applies: Endpoint::takes_etag,
        ..failure(
            412,
            "EtagMismatch",
            "`If-Match` names another etag than the resource has (ABORTED).",
            (10, "ETAG_MISMATCH", "the resource has changed"),
        )
    },
    Failure {
        applies: has_body,
        ..failure(
            413,
            "BodyTooLarge",
            "The body is larger than the server reads (RESOURCE_EXHAUSTED).",
            (8, "REQUEST_BODY_TOO_LARGE", "the request body is too large"),
        )
    },
    failure(
        414,
        "UriTooLong",
        "Path and query are longer than the server reads (INVALID_ARGUMENT).",
        (3, "URI_TOO_LONG", "path and query are too long"),
    ),
    Failure {
        header: Some("Accept"),
        applies: has_body,
        ..failure(
            415,
            "UnsupportedMediaType",
            "The body is not JSON in UTF-8, or it is compressed (INVALID_ARGUMENT).",
            (3, "UNSUPPORTED_MEDIA_TYPE", "the request body must be `application/json` in UTF-8"),
        )
    },
    Failure {
        header: Some("Retry-After"),
        ..failure(
            429,
            "ResourceExhausted",
            "The caller asks for too much, or too often (RESOURCE_EXHAUSTED).",
            (8, "RATE_LIMITED", "try again later"),
        )
    },
    failure(
        431,
        "HeadersTooLarge",
        "The head of the request is larger than the server reads (RESOURCE_EXHAUSTED); perhaps without a body.",
        (8, "TOO_MANY_HEADER_FIELDS", "the head of the request is too large"),
    ),
    failure(
        500,
        "Internal",
        "A defect of the server (INTERNAL, UNKNOWN, DATA_LOSS).",
        (13, "INTERNAL", "the server made a mistake"),
    ),
    failure(
        501,
        "Unimplemented",
        "This server does not have the method (UNIMPLEMENTED).",
        (12, "UNIMPLEMENTED", "there is no such method"),
    ),
    Failure {
        header: Some("Retry-After"),
        ..failure(
            503,
            "Unavailable",
            "Something that the server needs cannot be reached; the call may be repeated (UNAVAILABLE).",
            (14, "UNAVAILABLE", "try again"),
        )
    },
    failure(
        504,
        "DeadlineExceeded",
        "The call took longer than it may (DEADLINE_EXCEEDED).",
        (4, "DEADLINE_EXCEEDED", "the call took too long"),
    ),
];

fn has_body(endpoint: &Endpoint) -> bool {
    !matches!(endpoint.body, Body::None)
}

/// Whether the rpc says that it has no side effects.
fn is_read(endpoint: &Endpoint) -> bool {
    const NO_SIDE_EFFECTS: i32 = 1;
    let options = endpoint.rpc.options();
    let level = options.get_field_by_name("idempotency_level");
    level.and_then(|level| level.as_enum_number()) == Some(NO_SIDE_EFFECTS)
}

/// The errors of an operation, by status.
pub(super) fn of(endpoint: &Endpoint) -> impl Iterator<Item = (String, Value)> {
    FAILURES.iter().filter(|failure| (failure.applies)(endpoint)).map(|failure| {
        let reference = format!("#/components/responses/{}", failure.name);
        (failure.status.to_string(), json!({"$ref": reference}))
    })
}

/// The errors as components.
pub(super) fn responses() -> Value {
    FAILURES.iter().map(|failure| (failure.name.to_owned(), response(failure))).collect()
}

fn response(failure: &Failure) -> Value {
    let (code, reason, message) = failure.example;
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": EXAMPLE_DOMAIN,
        "metadata": {},
    });
    let mut response = Map::new();
    put(&mut response, "description", failure.description);
    if let Some(header) = failure.header {
        put(&mut response, "headers", json!({header: {"$ref": format!("#/components/headers/{header}")}}));
    }
    put(
        &mut response,
        "content",
        json!({"application/json": {
            "schema": reference(STATUS),
            "example": {"code": code, "message": message, "details": [info]},
        }}),
    );
    Value::Object(response)
}

/// The headers of answers, as components.
pub(super) fn headers() -> Value {
    let header = |description: &str, schema: Value, example: &str| json!({"description": description, "schema": schema, "example": example});
    json!({
        "Accept": header("The media type that the body may have.", json!({"type": "string"}), "application/json"),
        "ETag": header(
            "The `etag` of the resource, to be sent back in `If-Match`.",
            json!({"type": "string"}),
            "\"r1\"",
        ),
        "Retry-After": header(
            "Seconds to wait before the next try, where that is known.",
            json!({"type": "string", "pattern": "^[0-9]+$"}),
            "2",
        ),
        "WWW-Authenticate": header("How to authenticate.", json!({"type": "string"}), "Bearer"),
    })
}

/// The schema of an error, by name.
pub(super) fn status() -> Value {
    reference(STATUS)
}

/// The schemas of errors. Their names are full, so that none of a product's own is in the way.
pub(super) fn schemas(components: &mut BTreeMap<String, Value>) {
    let text = || json!({"type": "string"});
    let mut details = Vec::new();
    let mut detail = |name: &str, description: &str, properties: Value| {
        let name = format!("google.rpc.{name}");
        let mut all = super::schema::into_object(properties);
        let required: Vec<String> = all.keys().filter(|name| *name != "retry_delay").cloned().collect();
        put(&mut all, "@type", json!({"const": format!("type.googleapis.com/{name}")}));
        let mut required = required;
        required.insert(0, "@type".to_owned());
        details.push(reference(&name));
        components.insert(
            name,
            json!({"type": "object", "description": description, "properties": all, "required": required}),
        );
    };
    detail(
        "ErrorInfo",
        "What clients decide by: the reason never changes, the message may.",
        json!({
            "reason": {"type": "string", "description": "A reason in UPPER_SNAKE_CASE."},
            "domain": {"type": "string", "description": "Who gives reasons their meaning."},
            "metadata": {"type": "object", "additionalProperties": text()},
        }),
    );
    let violation = json!({
        "type": "object",
        "properties": {
            "field": {"type": "string", "description": "Path of the field; empty for the request as a whole."},
            "description": text(),
            "reason": text(),
        },
        "required": ["field", "description", "reason"],
    });
    detail(
        "BadRequest",
        "Everything that is wrong with the request.",
        json!({"field_violations": {"type": "array", "items": violation}}),
    );
    detail(
        "ResourceInfo",
        "What the error is about.",
        json!({"resource_type": text(), "resource_name": text(), "owner": text(), "description": text()}),
    );
    detail(
        "RetryInfo",
        "When to try again.",
        json!({"retry_delay": {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"}}),
    );
    details.push(json!({
        "type": "object",
        "properties": {"@type": text()},
        "required": ["@type"],
        "additionalProperties": true,
    }));
    components.insert(
        STATUS.to_owned(),
        json!({
            "type": "object",
            "description": "An error.",
            "properties": {
                "code": {"type": "integer", "format": "int32", "description": "The gRPC code."},
                "message": {"type": "string", "description": "A sentence for people."},
                "details": {"type": "array", "items": {"anyOf": details}},
            },
            "required": ["code", "message", "details"],
        }),
    );
}
