//! Which rpcs have rules, and whether all of them work.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use prost_protovalidate::{Error, Filter, ValidationOption, Validator, ValidatorOption};
use prost_reflect::{
    DescriptorPool, DynamicMessage, ExtensionDescriptor, FieldDescriptor, Kind, MessageDescriptor,
    OneofDescriptor, Value,
};

/// How the evaluator begins to tell of a rule that lies in a message further in, which is told of by itself.
const FURTHER_IN: &str = "failed to compile embedded type";

/// Rules that cannot be kept, because they do not compile, do not fit their field, or fail with empty values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} faulty rules of validation:{}", .0.len(), lines(.0))]
pub struct FaultyRules(pub Vec<FaultyRule>);

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultyRule {
    /// The file that it stands in.
    pub file: String,
    /// Full name of its field or message.
    pub place: String,
    /// What is wrong, and with which rule.
    pub problem: String,
}

impl fmt::Display for FaultyRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, place, problem } = self;
        write!(formatter, "{file}: {place}: {problem}")
    }
}

fn lines(faulty: &[FaultyRule]) -> String {
    faulty.iter().flat_map(|rule| ["\n  ".to_owned(), rule.to_string()]).collect()
}

/// The annotations that hold rules, where a pool has them.
#[derive(Debug)]
pub(crate) struct Annotations {
    messages: Option<ExtensionDescriptor>,
    fields: Option<ExtensionDescriptor>,
    oneofs: Option<ExtensionDescriptor>,
}

impl Annotations {
    pub(crate) fn of(pool: &DescriptorPool) -> Self {
        let find = |name: &str| pool.get_extension_by_name(&format!("buf.validate.{name}"));
        Self { messages: find("message"), fields: find("field"), oneofs: find("oneof") }
    }

    fn are_on_field(&self, field: &FieldDescriptor) -> bool {
        has(&field.options(), self.fields.as_ref())
    }

    fn are_on(&self, message: &MessageDescriptor) -> bool {
        has(&message.options(), self.messages.as_ref())
            || message.fields().any(|field| self.are_on_field(&field))
            || message.oneofs().any(|oneof| has(&oneof.options(), self.oneofs.as_ref()))
    }

    /// The messages within this one, itself included, if any of them has rules.
    pub(crate) fn reached(&self, message: &MessageDescriptor) -> Option<Vec<MessageDescriptor>> {
        let mut seen = HashSet::from([message.full_name().to_owned()]);
        let mut found = vec![message.clone()];
        let mut next = 0;
        while let Some(message) = found.get(next).cloned() {
            next += 1;
            for field in message.fields() {
                if let Kind::Message(inner) = field.kind()
                    && seen.insert(inner.full_name().to_owned())
                {
                    found.push(inner);
                }
            }
        }
        found.iter().any(|message| self.are_on(message)).then_some(found)
    }
}

fn has(options: &DynamicMessage, extension: Option<&ExtensionDescriptor>) -> bool {
    extension.is_some_and(|extension| options.has_extension(extension))
}

/// Whether a field has no presence in an edition. Its pool has the file as one of proto2, where every field has.
fn is_implicit(field: &FieldDescriptor) -> bool {
    const IMPLICIT: i32 = 2;
    let features = || field.options().transcode_to::<FieldOptions>().ok()?.features?.field_presence;
    field.supports_presence() && features() == Some(IMPLICIT)
}

/// As much of `google.protobuf.FieldOptions` as says so.
#[derive(Clone, PartialEq, prost::Message)]
struct FieldOptions {
    #[prost(message, optional, tag = "21")]
    features: Option<FeatureSet>,
}

/// As much of `google.protobuf.FeatureSet`.
#[derive(Clone, PartialEq, prost::Message)]
struct FeatureSet {
    #[prost(int32, optional, tag = "1")]
    field_presence: Option<i32>,
}

/// The evaluator of a pool's rules.
pub(crate) fn validator(pool: &DescriptorPool) -> Validator {
    // Rules of one's own are extensions of the published ones.
    let has_own = pool
        .all_extensions()
        .any(|extension| extension.containing_message().full_name().starts_with("buf.validate."));
    let own = has_own.then(|| ValidatorOption::AdditionalDescriptorSetBytes(pool.encode_to_vec()));
    Validator::with_options(own.as_slice())
}

/// Tries all rules of these messages.
pub(crate) fn try_all(
    validator: &Validator,
    annotations: &Annotations,
    messages: &[MessageDescriptor],
) -> Result<(), FaultyRules> {
    let mut faulty = Vec::new();
    for message in messages.iter().filter(|message| !message.is_map_entry()) {
        let file = message.parent_file().name().to_owned();
        let mut note = |place: &str, problem: Option<String>| {
            let problem = problem.filter(|problem| !problem.starts_with(FURTHER_IN));
            faulty.extend(problem.map(|problem| FaultyRule {
                file: file.clone(),
                place: place.to_owned(),
                problem,
            }));
        };
        let empty = DynamicMessage::new(message.clone());
        note(message.full_name(), problem(validator, &empty, Only::Message));
        for field in message.fields() {
            if annotations.are_on_field(&field) && is_implicit(&field) {
                // Where it is absent, the evaluator would not look at its rules.
                note(field.full_name(), Some("rules of fields without presence need proto3".to_owned()));
                continue;
            }
            let only = || Only::Field(field.clone());
            let found = problem(validator, &empty, only()).or_else(|| {
                let filled = filled(&empty, &field);
                problem(validator, &filled, only())
            });
            note(field.full_name(), found);
        }
    }
    if faulty.is_empty() { Ok(()) } else { Err(FaultyRules(faulty)) }
}

/// What is wrong with some rules; that a message breaks them is not.
fn problem(validator: &Validator, message: &DynamicMessage, only: Only) -> Option<String> {
    match validator.validate_with(message, &[ValidationOption::Filter(Arc::new(only))]) {
        Ok(()) | Err(Error::Validation(_)) => None,
        Err(Error::Compilation(error)) => Some(error.cause),
        Err(Error::Runtime(error)) => Some(format!("with an empty value: {}", error.cause)),
        Err(error) => Some(error.to_string()),
    }
}

/// A message whose field is there with an empty value, or one item of that.
fn filled(empty: &DynamicMessage, field: &FieldDescriptor) -> DynamicMessage {
    let mut filled = empty.clone();
    let value = match field.kind() {
        Kind::Message(entry) if field.is_map() => {
            let key = entry.map_entry_key_field();
            let value = entry.map_entry_value_field();
            key.default_value()
                .into_map_key()
                .map(|key| Value::Map(HashMap::from([(key, value.default_value())])))
        }
        kind if field.is_list() => Some(Value::List(vec![kind.default_value()])),
        _ => Some(field.default_value()),
    };
    if let Some(value) = value {
        filled.set_field(field, value);
    }
    filled
}

/// Lets some rules of a message alone be tried.
enum Only {
    Message,
    Field(FieldDescriptor),
}

impl Filter for Only {
    fn should_validate(&self, _: &DynamicMessage, _: &MessageDescriptor) -> bool {
        matches!(self, Self::Message)
    }

    fn should_validate_field(&self, _: &DynamicMessage, field: &FieldDescriptor) -> bool {
        matches!(self, Self::Field(only) if only == field)
    }

    fn should_validate_oneof(&self, _: &DynamicMessage, _: &OneofDescriptor) -> bool {
        false
    }
}
