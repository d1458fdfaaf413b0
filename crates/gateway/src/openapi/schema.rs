//! Schemas of messages and enums, each once, under `components`.
//!
//! A message of requests and one of answers differ: an answer writes every field
//! without presence, so those are required there and a client need not ask for
//! them; a request is refused for a member that it does not know. A message on
//! both sides has two schemas, and that of requests is called `…Input`.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Map, Value, json};

use super::endpoint::{Body, Endpoint};
use super::rules::{self, Behavior};
use super::validation::{MessageRules, Rules as Validation};
use super::{Source, put, well_known};
use crate::descriptors::has_presence;
use crate::wkt::WellKnown;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Request,
    Answer,
}

/// The schemas so far.
pub(super) struct Schemas<'s> {
    source: &'s Source<'s>,
    /// Full names of the messages that answers hold.
    answered: BTreeSet<String>,
    /// Full names of the messages that bodies hold whole.
    held: BTreeSet<String>,
    /// The names of bodies whose fields the path carries in part, by message and those fields.
    partial: BTreeMap<(String, Vec<String>), String>,
    components: BTreeMap<String, Value>,
}

impl<'s> Schemas<'s> {
    pub(super) fn new(source: &'s Source<'s>, endpoints: &[Endpoint]) -> Self {
        let (mut answered, mut held) = (BTreeSet::new(), BTreeSet::new());
        for endpoint in endpoints {
            reach(&endpoint.rpc.output(), &mut answered);
            let input = endpoint.rpc.input();
            match &endpoint.body {
                Body::None => {}
                Body::Whole if endpoint.path_names().is_empty() => reach(&input, &mut held),
                Body::Whole => input.fields().for_each(|field| reach_field(&field, &mut held)),
                Body::Field(field) => reach_field(field, &mut held),
            }
        }
        Self { source, answered, held, partial: BTreeMap::new(), components: BTreeMap::new() }
    }

    pub(super) fn into_components(mut self) -> Value {
        super::error::schemas(&mut self.components);
        self.components.into_iter().collect()
    }

    /// The schema of a request's body; `None` where it has none.
    pub(super) fn body(&mut self, endpoint: &Endpoint) -> Option<Value> {
        match &endpoint.body {
            Body::None => None,
            Body::Whole => {
                let input = endpoint.rpc.input();
                Some(self.whole(&input, endpoint.path_names(), &self.source.names.operation(endpoint)))
            }
            Body::Field(field) => Some(self.field(field, Side::Request)),
        }
    }

    /// The schema of one message of an answer.
    pub(super) fn answer(&mut self, endpoint: &Endpoint) -> Value {
        match &endpoint.response_body {
            Some(field) => self.field(field, Side::Answer),
            None => self.kind(&Kind::Message(endpoint.rpc.output()), Side::Answer),
        }
    }

    /// A whole message as a body, without what the path carries.
    fn whole(&mut self, message: &MessageDescriptor, in_path: Vec<String>, operation: &str) -> Value {
        if well_known::message(message).is_some() || in_path.is_empty() {
            return self.kind(&Kind::Message(message.clone()), Side::Request);
        }
        let key = (message.full_name().to_owned(), in_path);
        if let Some(name) = self.partial.get(&key) {
            return reference(name);
        }
        let mut name = self.name(message, Side::Request);
        if self.held.contains(message.full_name()) || self.components.contains_key(&name) {
            name = format!("{name}_{operation}");
        }
        let in_path = key.1.clone();
        self.partial.insert(key, name.clone());
        let schema = self.object(message, Side::Request, &in_path);
        self.components.insert(name.clone(), schema);
        reference(&name)
    }

    fn name(&self, message: &MessageDescriptor, side: Side) -> String {
        let name = self.source.names.schema(message.full_name(), message.package_name());
        let is_shared = side == Side::Request && self.answered.contains(message.full_name());
        if is_shared { format!("{name}Input") } else { name }
    }

    /// The schema of a field with its description and bounds.
    pub(super) fn field(&mut self, field: &FieldDescriptor, side: Side) -> Value {
        let bounds = match side {
            Side::Request => self.source.contract.rules(field),
            // What is stored keeps them anyway, and empty text stands for none in answers.
            Side::Answer => super::Rules::default(),
        };
        // What the product says stands above these.
        let validation = if side == Side::Request { Validation::of(field) } else { None };
        let inner = |name| validation.as_ref().and_then(|rules| rules.inner(name));
        let mut schema = if field.is_map() {
            let Kind::Message(entry) = field.kind() else { return Value::Bool(true) };
            let mut value = match entry.get_field(2) {
                Some(value) => into_object(self.kind(&value.kind(), side)),
                None => Map::new(),
            };
            if let (Some(rules), Some(field)) = (inner("values"), entry.get_field(2)) {
                rules.narrow_value(&mut value, &field.kind());
            }
            rules::of_value(&mut value, &bounds);
            let mut map = into_object(json!({"type": "object", "additionalProperties": value}));
            if let Some(rules) = &validation {
                rules.narrow_map(&mut map);
            }
            rules::of_map(&mut map, &bounds);
            map
        } else {
            let mut value = into_object(self.kind(&field.kind(), side));
            let narrowing = if field.is_list() { inner("items") } else { validation.clone() };
            if let Some(rules) = narrowing {
                rules.narrow_value(&mut value, &field.kind());
            }
            rules::of_value(&mut value, &bounds);
            if field.is_list() {
                let mut list = into_object(json!({"type": "array", "items": value}));
                if let Some(rules) = &validation {
                    rules.narrow_list(&mut list);
                }
                rules::of_list(&mut list, &bounds);
                list
            } else {
                value
            }
        };
        let comment = self.source.comments.of(&field.parent_message().parent_file(), field.path());
        let words = validation.and_then(|rules| rules.words());
        describe(&mut schema, comment, words.as_deref());
        let behavior = Behavior::of(field);
        // Empty text without presence is the same as none.
        let is_plain_text = field.kind() == Kind::String && !field.is_list() && !has_presence(field);
        if side == Side::Request && behavior.is_required && is_plain_text && !schema.contains_key("pattern") {
            schema.entry("minLength").or_insert_with(|| 1.into());
        }
        if let (Side::Request, true, Kind::Enum(desc)) = (side, behavior.is_required, field.kind())
            && !field.is_list()
        {
            let mut refused = vec![json!({"const": desc.default_value().name()})];
            refused.extend(schema.remove("not"));
            let refused = if let [one] = &refused[..] { one.clone() } else { json!({"anyOf": refused}) };
            put(&mut schema, "not", refused);
        }
        if behavior.is_required && side == Side::Request && field.is_list() {
            schema.entry("minItems").or_insert_with(|| 1.into());
        }
        if behavior.is_output_only {
            put(&mut schema, "readOnly", true);
        }
        if behavior.is_input_only {
            put(&mut schema, "writeOnly", true);
        }
        if field.options().get_field_by_name("deprecated").is_some_and(|value| value.as_bool() == Some(true))
        {
            put(&mut schema, "deprecated", true);
        }
        Value::Object(schema)
    }

    fn kind(&mut self, kind: &Kind, side: Side) -> Value {
        match kind {
            Kind::Message(message) => match well_known::message(message) {
                Some(schema) => schema,
                None => self.message(message, side),
            },
            Kind::Enum(desc) => self.names_of(desc),
            scalar => well_known::scalar(scalar).unwrap_or(Value::Bool(true)),
        }
    }

    fn message(&mut self, message: &MessageDescriptor, side: Side) -> Value {
        let name = self.name(message, side);
        if !self.components.contains_key(&name) {
            // A place for it first: a message may hold itself.
            self.components.insert(name.clone(), Value::Null);
            let schema = self.object(message, side, &[]);
            self.components.insert(name.clone(), schema);
        }
        reference(&name)
    }

    fn object(&mut self, message: &MessageDescriptor, side: Side, without: &[String]) -> Value {
        let fields = message.fields().filter(|field| !without.iter().any(|name| name == field.name()));
        let fields: Vec<FieldDescriptor> = fields.collect();
        let properties: Map<String, Value> =
            fields.iter().map(|field| (field.name().to_owned(), self.field(field, side))).collect();
        let required = fields.iter().filter(|field| match side {
            Side::Request => Behavior::of(field).is_required,
            Side::Answer => field.is_list() || field.is_map() || !has_presence(field),
        });
        let required: Vec<&str> = required.map(FieldDescriptor::name).collect();

        let mut schema = into_object(json!({"type": "object", "properties": properties}));
        if !required.is_empty() {
            put(&mut schema, "required", required);
        }
        if side == Side::Request {
            put(&mut schema, "additionalProperties", false);
        }
        let comment = self.source.comments.of(&message.parent_file(), message.path());
        let rules = (side == Side::Request).then(|| MessageRules::of(message));
        if let Some(alternatives) = rules.as_ref().and_then(|rules| alternatives(&rules.one_of, without)) {
            put(&mut schema, "allOf", alternatives);
        }
        describe(&mut schema, comment, rules.as_ref().and_then(|rules| rules.words.as_deref()));
        if let Some(rivals) = rivals(&fields) {
            put(&mut schema, "dependentSchemas", rivals);
        }
        Value::Object(schema)
    }

    /// An enum by its names. Numbers are taken, too, which no client needs to know.
    fn names_of(&mut self, desc: &EnumDescriptor) -> Value {
        if desc.full_name() == "google.protobuf.NullValue" {
            return json!({"type": "null"});
        }
        let name = self.source.names.schema(desc.full_name(), desc.package_name());
        if !self.components.contains_key(&name) {
            let file = desc.parent_file();
            let comment = self.source.comments.of(&file, desc.path()).unwrap_or_default();
            let values = desc.values().map(|value| {
                let comment = self.source.comments.of(&file, value.path()).unwrap_or_default();
                format!("- `{}`: {comment}", value.name())
            });
            let description = format!("{comment}\n\n{}", values.collect::<Vec<_>>().join("\n"));
            let names: Vec<String> = desc.values().map(|value| value.name().to_owned()).collect();
            let schema = json!({"type": "string", "enum": names, "description": description.trim()});
            self.components.insert(name.clone(), schema);
        }
        reference(&name)
    }
}

/// That of each of these sets of fields one is there, as far as the path has none of them.
fn alternatives(sets: &[Vec<String>], without: &[String]) -> Option<Vec<Value>> {
    let sets = sets.iter().filter(|set| !set.iter().any(|name| without.contains(name)));
    let alternatives: Vec<Value> = sets
        .map(|set| {
            let each: Vec<Value> = set.iter().map(|name| json!({"required": [name]})).collect();
            json!({"anyOf": each})
        })
        .collect();
    (!alternatives.is_empty()).then_some(alternatives)
}

/// A comment, and a list of rules below it.
fn describe(schema: &mut Map<String, Value>, comment: Option<&str>, rules: Option<&str>) {
    let parts: Vec<&str> = comment.into_iter().chain(rules).collect();
    if !parts.is_empty() {
        put(schema, "description", parts.join("\n\n"));
    }
}

/// That of a oneof's members at most one is there: each excludes the others.
fn rivals(fields: &[FieldDescriptor]) -> Option<Map<String, Value>> {
    let mut rivals = Map::new();
    for field in fields {
        let others: Vec<Value> = field.containing_oneof().map_or_else(Vec::new, |oneof| {
            let others = oneof.fields().filter(|other| other.number() != field.number());
            others.map(|other| json!({"required": [other.name()]})).collect()
        });
        if !others.is_empty() {
            put(&mut rivals, field.name(), json!({"not": {"anyOf": others}}));
        }
    }
    (!rivals.is_empty()).then_some(rivals)
}

/// Notes a message and all that it holds.
fn reach(message: &MessageDescriptor, seen: &mut BTreeSet<String>) {
    if WellKnown::of(message).is_none() && seen.insert(message.full_name().to_owned()) {
        message.fields().for_each(|field| reach_field(&field, seen));
    }
}

fn reach_field(field: &FieldDescriptor, seen: &mut BTreeSet<String>) {
    if let Kind::Message(message) = field.kind() {
        reach(&message, seen);
    }
}

pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

pub(super) fn into_object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}
