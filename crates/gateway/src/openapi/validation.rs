//! What `buf.validate` says of fields and messages, as keywords of their schemas.
//!
//! Everything here is only told; what keeps the rules is a crate of its own. A keyword never says more than its rule:
//! what JSON Schema has no word for, or none that a rule's own words fit, is left out.

use prost_reflect::{
    DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    Value as Annotation,
};
use serde_json::{Map, Value, json};

use super::{number_rules, put, text_rules};
use crate::descriptors::has_presence;
use crate::wkt::WellKnown;

/// The values of `buf.validate.Ignore`.
const IF_ZERO: i32 = 1;
const ALWAYS: i32 = 3;

/// The rules of a field, of the items of a list, or of the keys or values of a map.
#[derive(Debug, Clone)]
pub(super) struct Rules {
    all: DynamicMessage,
    /// The name and content of the rules for its type.
    typed: Option<(String, DynamicMessage)>,
    ignores_zero: bool,
}

impl Rules {
    /// Those of a field; none where they are ignored.
    pub(super) fn of(field: &FieldDescriptor) -> Option<Self> {
        let extension = extension(field.parent_pool().get_extension_by_name("buf.validate.field"));
        let rules = annotation(&field.options(), extension.as_ref())?;
        let is_silent = get(&rules, "ignore").is_none();
        let mut read = Self::read(rules)?;
        // Those that a message says to be alternatives count for nothing while they are empty.
        read.ignores_zero |= is_silent
            && oneofs(field.parent_message())
                .iter()
                .any(|(names, _)| names.iter().any(|name| name == field.name()));
        Some(read)
    }

    fn read(rules: DynamicMessage) -> Option<Self> {
        let ignore = get(&rules, "ignore").and_then(|value| value.as_enum_number()).unwrap_or_default();
        if ignore == ALWAYS {
            return None;
        }
        let oneof = rules.descriptor().oneofs().find(|oneof| oneof.name() == "type")?;
        let typed = oneof.fields().find(|field| rules.has_field(field)).and_then(|field| {
            let typed = rules.get_field(&field).as_message()?.clone();
            Some((field.name().to_owned(), typed))
        });
        Some(Self { all: rules, typed, ignores_zero: ignore == IF_ZERO })
    }

    /// The rules inside of those for lists and maps: `items`, `keys` or `values`.
    pub(super) fn inner(&self, name: &str) -> Option<Self> {
        let (_, typed) = self.typed.as_ref()?;
        Self::read(get(typed, name)?.as_message()?.clone())
    }

    /// Whether a request without the field breaks them.
    pub(super) fn is_required(&self, field: &FieldDescriptor) -> bool {
        is_required(&self.all)
            || !self.ignores_zero && !has_presence(field) && self.refuse_zero(&field.kind())
    }

    /// Whether empty text, 0, or no items break them. Of rules in other words than those for the type nothing is known.
    fn refuse_zero(&self, kind: &Kind) -> bool {
        let Some((name, typed)) = &self.typed else { return false };
        match name.as_str() {
            "repeated" => count(typed, "min_items").is_some_and(|least| least > 0),
            "map" => count(typed, "min_pairs").is_some_and(|least| least > 0),
            "string" => text_rules::refuse_empty(typed),
            "bytes" => {
                ["len", "min_len"].iter().any(|name| count(typed, name).is_some_and(|least| least > 0))
            }
            "enum" => number_rules::refuse_zero(typed) && matches!(kind, Kind::Enum(_)),
            "bool" => get(typed, "const").and_then(|value| value.as_bool()) == Some(true),
            _ => number_rules::refuse_zero(typed),
        }
    }

    /// Narrows the schema of one value.
    pub(super) fn narrow_value(&self, schema: &mut Map<String, Value>, kind: &Kind) {
        let Some((name, typed)) = &self.typed else { return };
        let narrow = match (name.as_str(), kind) {
            (_, Kind::Message(message)) => {
                // The JSON of a wrapper is that of what it wraps, or null.
                if WellKnown::of(message) == Some(WellKnown::Wrapper)
                    && let Some(value) = message.get_field(1)
                    && let Some(Value::Object(wrapped)) =
                        schema.get_mut("anyOf").and_then(|either| either.get_mut(0))
                {
                    self.narrow_value(wrapped, &value.kind());
                }
                return;
            }
            ("string", Kind::String) => text_rules::keywords(typed),
            ("bytes", Kind::Bytes) => text_rules::of_bytes(typed),
            ("bool", Kind::Bool) => get(typed, "const")
                .and_then(|wanted| wanted.as_bool())
                .map(|wanted| ("const".to_owned(), wanted.into()))
                .into_iter()
                .collect(),
            ("enum", Kind::Enum(desc)) => number_rules::of_enum(typed, desc),
            ("float" | "double", Kind::Float | Kind::Double) => return number_rules::of_float(schema, typed),
            ("int64" | "uint64" | "sint64" | "fixed64" | "sfixed64", _) => number_rules::as_text(typed),
            ("int32" | "uint32" | "sint32" | "fixed32" | "sfixed32", _) => number_rules::keywords(typed),
            _ => return,
        };
        match zero(kind).filter(|_| self.ignores_zero && self.refuse_zero(kind)) {
            Some(zero) => put(schema, "anyOf", json!([{"const": zero}, narrow])),
            None => schema.extend(narrow),
        }
    }

    /// Narrows the schema of a list.
    pub(super) fn narrow_list(&self, schema: &mut Map<String, Value>) {
        let Some((name, typed)) = &self.typed else { return };
        if name != "repeated" {
            return;
        }
        // An empty list is none.
        if !self.ignores_zero {
            put_count(schema, typed, "min_items", "minItems");
        }
        put_count(schema, typed, "max_items", "maxItems");
        if get(typed, "unique").and_then(|value| value.as_bool()) == Some(true) {
            put(schema, "uniqueItems", true);
        }
    }

    /// Narrows the schema of a map.
    pub(super) fn narrow_map(&self, schema: &mut Map<String, Value>) {
        let Some((name, typed)) = &self.typed else { return };
        if name != "map" {
            return;
        }
        if !self.ignores_zero {
            put_count(schema, typed, "min_pairs", "minProperties");
        }
        put_count(schema, typed, "max_pairs", "maxProperties");
        let keys = self.inner("keys").filter(|keys| !keys.ignores_zero).and_then(|keys| keys.typed);
        if let Some((name, keys)) = keys
            && name == "string"
        {
            let names = text_rules::keywords(&keys);
            if !names.is_empty() {
                put(schema, "propertyNames", names);
            }
        }
    }

    /// What rules in CEL say of themselves, as a list.
    pub(super) fn words(&self) -> Option<String> {
        words(&self.all)
    }

    /// A value that keeps them, where they name one.
    pub(super) fn example(&self, kind: &Kind) -> Option<Value> {
        let (_, typed) = self.typed.as_ref()?;
        let first = |name: &str| get(typed, name)?.as_list()?.first().cloned();
        let value = first("example").or_else(|| get(typed, "const")).or_else(|| first("in"))?;
        match value {
            Annotation::Bool(value) => Some(value.into()),
            Annotation::String(text) => Some(text.into()),
            number => number_rules::shown(&number, kind),
        }
    }
}

/// The rules of a message.
#[derive(Debug)]
pub(super) struct MessageRules {
    /// Fields of which one has to be there.
    pub(super) one_of: Vec<Vec<String>>,
    /// What rules in CEL say of themselves, as a list.
    pub(super) words: Option<String>,
}

impl MessageRules {
    pub(super) fn of(message: &MessageDescriptor) -> Self {
        let pool = message.parent_pool();
        let of_oneofs = extension(pool.get_extension_by_name("buf.validate.oneof"));
        let oneofs = message.oneofs().filter(|oneof| {
            annotation(&oneof.options(), of_oneofs.as_ref()).is_some_and(|rules| is_required(&rules))
        });
        let mut one_of: Vec<Vec<String>> =
            oneofs.map(|oneof| oneof.fields().map(|field| field.name().to_owned()).collect()).collect();
        one_of.extend(
            self::oneofs(message).into_iter().filter_map(|(names, is_required)| is_required.then_some(names)),
        );
        Self { one_of, words: of_message(message).as_ref().and_then(words) }
    }
}

fn of_message(message: &MessageDescriptor) -> Option<DynamicMessage> {
    let extension = extension(message.parent_pool().get_extension_by_name("buf.validate.message"));
    annotation(&message.options(), extension.as_ref())
}

/// The fields that a message says to be alternatives, and whether there has to be one.
fn oneofs(message: &MessageDescriptor) -> Vec<(Vec<String>, bool)> {
    let rules = of_message(message).and_then(|rules| get(&rules, "oneof"));
    let rules = rules.as_ref().and_then(Annotation::as_list).unwrap_or_default().iter();
    let named = rules.filter_map(Annotation::as_message).map(|rule| {
        let names = get(rule, "fields").and_then(|names| names.as_list().map(texts));
        (names.unwrap_or_default(), is_required(rule))
    });
    named.collect()
}

fn is_required(rules: &DynamicMessage) -> bool {
    get(rules, "required").and_then(|value| value.as_bool()).unwrap_or_default()
}

/// An annotation whose type is read here: that of another file of the same name may be anything.
fn extension(extension: Option<ExtensionDescriptor>) -> Option<ExtensionDescriptor> {
    extension.filter(|extension| matches!(extension.kind(), Kind::Message(_)) && !extension.is_list())
}

fn annotation(options: &DynamicMessage, extension: Option<&ExtensionDescriptor>) -> Option<DynamicMessage> {
    let extension = extension.filter(|extension| options.has_extension(extension))?;
    options.get_extension(extension).as_message().cloned()
}

fn words(rules: &DynamicMessage) -> Option<String> {
    let rules = get(rules, "cel")?;
    let texts = rules.as_list()?.iter().filter_map(|rule| {
        let text = get(rule.as_message()?, "message")?.as_str()?.to_owned();
        (!text.is_empty()).then(|| format!("- {text}"))
    });
    let list = texts.collect::<Vec<_>>().join("\n");
    (!list.is_empty()).then_some(list)
}

/// The value of a rule that is there.
pub(super) fn get(rules: &DynamicMessage, name: &str) -> Option<Annotation> {
    let field = rules.descriptor().get_field_by_name(name).filter(|field| rules.has_field(field))?;
    Some(rules.get_field(&field).into_owned())
}

pub(super) fn count(rules: &DynamicMessage, name: &str) -> Option<u64> {
    get(rules, name)?.as_u64()
}

fn put_count(schema: &mut Map<String, Value>, rules: &DynamicMessage, name: &str, keyword: &str) {
    if let Some(count) = count(rules, name) {
        put(schema, keyword, count);
    }
}

pub(super) fn texts(list: &[Annotation]) -> Vec<String> {
    list.iter().filter_map(Annotation::as_str).map(str::to_owned).collect()
}

/// The JSON of a value that is as good as none.
fn zero(kind: &Kind) -> Option<Value> {
    Some(match kind {
        Kind::Bool => false.into(),
        Kind::String | Kind::Bytes => "".into(),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => 0.into(),
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => "0".into(),
        Kind::Enum(desc) => desc.default_value().name().into(),
        Kind::Float | Kind::Double | Kind::Message(_) => return None,
    })
}
