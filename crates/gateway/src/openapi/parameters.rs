//! What is bound from path, query and headers, by the binder's own rules: a
//! query parameter is every leaf that neither path nor body carries.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::endpoint::{Body, Endpoint};
use super::rules::Behavior;
use super::schema::{Schemas, Side, into_object};
use super::{Header, Source, put, well_known};
use crate::template::Segment;
use crate::wkt::WellKnown;

const IF_MATCH: Header = Header {
    name: "If-Match",
    description: "The `etag` of the resource that the caller knows: where it has changed since, the call is \
                  answered with 412 and changes nothing. The same as the field `etag` of the request.",
    example: "\"r1\"",
    max_length: None,
};

/// All parameters of an operation; `names` are those of its path's wildcards.
pub(super) fn parameters(
    source: &Source<'_>,
    endpoint: &Endpoint,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Vec<Value> {
    let mut parameters = in_path(source, endpoint, names, schemas);
    let mut walk = Walk { source, endpoint, schemas, parents: Vec::new(), found: Vec::new() };
    walk.message(&endpoint.rpc.input(), "", true);
    parameters.append(&mut walk.found);
    if endpoint.takes_etag() {
        parameters.push(IF_MATCH.to_json());
    }
    parameters.extend(source.contract.headers(&endpoint.rpc).iter().map(Header::to_json));
    parameters
}

fn in_path(
    source: &Source<'_>,
    endpoint: &Endpoint,
    names: &[String],
    schemas: &mut Schemas<'_>,
) -> Vec<Value> {
    let segments = endpoint.template.segments.iter().enumerate();
    let wildcards = segments.filter(|(_, segment)| !matches!(segment, Segment::Literal(_)));
    let parameters = wildcards.zip(names).map(|((index, segment), name)| {
        let mut parameter = into_object(json!({"name": name, "in": "path", "required": true}));
        let field = endpoint.variables.iter().find(|field| {
            let variable = &field.variable;
            variable.start <= index && index < variable.end
        });
        let mut schema = into_object(json!({"type": "string", "minLength": 1}));
        if let Some(field) = field {
            let whole = field.variable.end - field.variable.start == 1;
            if whole {
                schema = into_object(schemas.field(&field.leaf, Side::Request));
                if schema.get("type").is_some_and(|kind| kind == "string") {
                    schema.entry("minLength").or_insert_with(|| 1.into());
                }
                if let Some(example) = source.contract.example(&field.leaf) {
                    put(&mut parameter, "example", example);
                }
            }
            if let Some(description) = description(source, &field.leaf) {
                put(&mut parameter, "description", description);
            }
        }
        schema.remove("description");
        if *segment == Segment::Many {
            put(&mut parameter, "x-multi-segment", true);
        }
        put(&mut parameter, "schema", schema);
        Value::Object(parameter)
    });
    parameters.collect()
}

fn description<'s>(source: &'s Source<'_>, field: &FieldDescriptor) -> Option<&'s str> {
    source.comments.of(&field.parent_message().parent_file(), field.path())
}

/// The way through a request message to its leaves.
struct Walk<'w, 's> {
    source: &'w Source<'w>,
    endpoint: &'w Endpoint,
    schemas: &'w mut Schemas<'s>,
    /// The messages around: one that holds itself is not entered again.
    parents: Vec<MessageDescriptor>,
    found: Vec<Value>,
}

impl Walk<'_, '_> {
    fn message(&mut self, message: &MessageDescriptor, prefix: &str, may_require: bool) {
        if self.parents.contains(message) {
            return;
        }
        self.parents.push(message.clone());
        for field in message.fields() {
            let name = format!("{prefix}{}", field.name());
            if !self.is_elsewhere(&field, &name) && !field.is_map() {
                self.field(&field, &name, may_require);
            }
        }
        self.parents.pop();
    }

    fn is_elsewhere(&self, field: &FieldDescriptor, name: &str) -> bool {
        let in_body = match &self.endpoint.body {
            Body::None => false,
            Body::Whole => true,
            Body::Field(body) => self.parents.len() == 1 && body.number() == field.number(),
        };
        in_body || self.endpoint.is_in_path(name)
    }

    fn field(&mut self, field: &FieldDescriptor, name: &str, may_require: bool) {
        let kind = field.kind();
        if let Kind::Message(message) = &kind
            && !WellKnown::is_text(WellKnown::of(message))
        {
            if !field.is_list() && WellKnown::of(message).is_none() {
                self.message(message, &format!("{name}."), false);
            }
            return;
        }
        let mut parameter = into_object(json!({"name": name, "in": "query"}));
        if may_require && Behavior::of(field).is_required {
            put(&mut parameter, "required", true);
        }
        if let Some(description) = description(self.source, field) {
            put(&mut parameter, "description", description);
        }
        if let Some(example) = self.source.contract.example(field) {
            put(&mut parameter, "example", example);
        }
        let mut schema = into_object(self.schemas.field(field, Side::Request));
        schema.remove("description");
        if matches!(&kind, Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue") {
            // Its name is text; only JSON has a null.
            schema = into_object(json!({"type": "string", "enum": ["NULL_VALUE"]}));
        }
        if well_known::is_json_text(&kind) {
            put(&mut parameter, "content", json!({"application/json": {"schema": schema}}));
        } else {
            put(&mut parameter, "schema", text_of(schema));
            if field.is_list() {
                put(&mut parameter, "style", "form");
                put(&mut parameter, "explode", true);
            }
        }
        self.found.push(Value::Object(parameter));
    }
}

/// A parameter is there or not; it is never null.
fn text_of(mut schema: Map<String, Value>) -> Map<String, Value> {
    let wrapped = schema.get("anyOf").and_then(Value::as_array).and_then(|either| match either.as_slice() {
        [wrapped, null] if null.get("type").is_some_and(|kind| kind == "null") => Some(wrapped.clone()),
        _ => None,
    });
    if let Some(Value::Object(wrapped)) = wrapped {
        schema.remove("anyOf");
        schema.extend(wrapped);
    }
    schema
}
