//! Examples made of what the contract knows of fields, and of defaults where it knows nothing.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::endpoint::{Body, Endpoint};
use super::rules::Behavior;
use super::schema::Side;
use super::{Source, validation};
use crate::descriptors::has_presence;
use crate::wkt::WellKnown;

/// A body for the operation.
pub(super) fn body(source: &Source<'_>, endpoint: &Endpoint) -> Value {
    let mut example = Example { source, side: Side::Request, parents: Vec::new() };
    match &endpoint.body {
        Body::None => Value::Null,
        Body::Whole => example.message(&endpoint.rpc.input(), &endpoint.path_names()),
        Body::Field(field) => example.field(field).unwrap_or_else(|| json!({})),
    }
}

/// What the operation may answer.
pub(super) fn answer(source: &Source<'_>, endpoint: &Endpoint) -> Value {
    let mut example = Example { source, side: Side::Answer, parents: Vec::new() };
    match &endpoint.response_body {
        Some(field) => example.field(field).unwrap_or_default(),
        None => example.message(&endpoint.rpc.output(), &[]),
    }
}

struct Example<'e, 's> {
    source: &'e Source<'s>,
    side: Side,
    /// The messages around: one that holds itself is not shown again.
    parents: Vec<MessageDescriptor>,
}

impl Example<'_, '_> {
    fn message(&mut self, message: &MessageDescriptor, without: &[String]) -> Value {
        self.parents.push(message.clone());
        let mut example = Map::new();
        let mut oneofs = Vec::new();
        for field in message.fields().filter(|field| !without.iter().any(|name| name == field.name())) {
            let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
            if oneof.as_ref().is_some_and(|oneof| oneofs.contains(oneof)) {
                continue;
            }
            if let Some(value) = self.field(&field) {
                example.insert(field.name().to_owned(), value);
                oneofs.extend(oneof);
            }
        }
        self.parents.pop();
        Value::Object(example)
    }

    /// `None` where the example does without the field.
    fn field(&mut self, field: &FieldDescriptor) -> Option<Value> {
        if let Some(value) = self.source.contract.example(field) {
            return (!value.is_null()).then_some(value);
        }
        let is_required = match self.side {
            Side::Request => Behavior::of(field).is_required,
            Side::Answer => !has_presence(field) || matches!(field.kind(), Kind::Message(_)),
        };
        if !is_required {
            return None;
        }
        if field.is_map() {
            return Some(json!({}));
        }
        let rules = validation::Rules::of(field).filter(|_| self.side == Side::Request);
        let rules = if field.is_list() { rules.and_then(|rules| rules.inner("items")) } else { rules };
        let named = rules.and_then(|rules| rules.example(&field.kind()));
        let value = named.or_else(|| self.kind(&field.kind()));
        if field.is_list() {
            // A list of texts that nobody has an example for says no more with one.
            return Some(value.filter(|value| value.as_str() != Some("")).into_iter().collect());
        }
        value
    }

    fn kind(&mut self, kind: &Kind) -> Option<Value> {
        Some(match kind {
            Kind::Bool => json!(true),
            Kind::String | Kind::Bytes => json!(""),
            Kind::Enum(desc) => {
                let named = desc.values().find(|value| value.number() != 0);
                json!(named.unwrap_or_else(|| desc.default_value()).name())
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => json!("1"),
            Kind::Message(message) => match WellKnown::of(message) {
                Some(WellKnown::Timestamp) => json!("2026-01-31T12:00:00Z"),
                Some(WellKnown::Duration) => json!("30s"),
                Some(WellKnown::FieldMask) => json!(""),
                Some(WellKnown::List) => json!([]),
                Some(WellKnown::Struct | WellKnown::Value | WellKnown::Any | WellKnown::Empty) => json!({}),
                Some(WellKnown::Wrapper) => {
                    return message.get_field(1).and_then(|field| self.kind(&field.kind()));
                }
                None if self.parents.contains(message) => return None,
                None => self.message(message, &[]),
            },
            _ => json!(1),
        })
    }
}
