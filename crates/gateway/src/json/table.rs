//! Descriptors as flat tables, made once: all that writing a message needs to know, without a look-up by name.

use std::collections::HashMap;

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

use crate::wkt::WellKnown;

/// A message of a [`Tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageId(usize);

/// An enum of a [`Tables`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EnumId(usize);

/// The messages and enums of a descriptor pool.
#[derive(Debug)]
pub(crate) struct Tables {
    messages: Vec<MessageTable>,
    enums: Vec<Vec<(i32, Box<[u8]>)>>,
    by_name: HashMap<Box<str>, MessageId>,
}

/// A message.
#[derive(Debug)]
pub(crate) struct MessageTable {
    pub(crate) name: Box<str>,
    pub(crate) well_known: Option<WellKnown>,
    /// In the order of their numbers.
    pub(crate) fields: Vec<FieldTable>,
    /// Whether any field belongs to a oneof.
    pub(crate) has_oneofs: bool,
}

/// A field.
#[derive(Debug)]
pub(crate) struct FieldTable {
    pub(crate) number: u32,
    /// `"name":`.
    pub(crate) key: Box<[u8]>,
    pub(crate) shape: Shape,
    /// The oneof it is a member of, by its place in the message.
    pub(crate) oneof: Option<usize>,
}

/// How often a field may stand in a message, and of what type it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shape {
    /// Written even where it is absent.
    Implicit(Type),
    /// Left out where it is absent.
    Explicit(Type),
    Repeated(Type),
    Map {
        key: Type,
        value: Type,
    },
}

/// The type of a single value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Double,
    Float,
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Fixed32,
    Fixed64,
    Sfixed32,
    Sfixed64,
    Bool,
    String,
    Bytes,
    Enum(EnumId),
    /// `google.protobuf.NullValue`.
    Null,
    Message(MessageId),
}

impl Tables {
    /// Reads a pool.
    pub(crate) fn new(pool: &DescriptorPool) -> Self {
        let messages: Vec<MessageDescriptor> = pool.all_messages().collect();
        let enums: Vec<EnumDescriptor> = pool.all_enums().collect();
        let by_name: HashMap<Box<str>, MessageId> = messages
            .iter()
            .enumerate()
            .map(|(index, message)| (message.full_name().into(), MessageId(index)))
            .collect();
        let names = Names {
            messages: &by_name,
            enums: enums
                .iter()
                .enumerate()
                .map(|(index, desc)| (desc.full_name().to_owned(), EnumId(index)))
                .collect(),
        };
        let messages = messages.iter().map(|message| names.message(message)).collect();
        let enums = enums.iter().map(enum_table).collect();
        Self { messages, enums, by_name }
    }

    /// A message by its full name.
    pub(crate) fn find(&self, name: &str) -> Option<MessageId> {
        self.by_name.get(name).copied()
    }

    /// A message. An id is only good for the tables that gave it.
    pub(crate) fn message(&self, id: MessageId) -> Option<&MessageTable> {
        self.messages.get(id.0)
    }

    /// The name of an enum value, quoted; none where the number has none.
    pub(crate) fn enum_name(&self, id: EnumId, number: i32) -> Option<&[u8]> {
        let values = self.enums.get(id.0)?;
        let at = values.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        values.get(at).map(|(_, name)| &**name)
    }
}

impl MessageTable {
    /// The place of a field, sought first where the field after the last one found would be.
    pub(crate) fn position(&self, number: u32, hint: usize) -> Option<usize> {
        let is_at = |at: usize| self.fields.get(at).is_some_and(|field| field.number == number);
        if is_at(hint) {
            return Some(hint);
        }
        if is_at(hint + 1) {
            return Some(hint + 1);
        }
        self.fields.binary_search_by_key(&number, |field| field.number).ok()
    }
}

/// The ids of everything in a pool.
struct Names<'n> {
    messages: &'n HashMap<Box<str>, MessageId>,
    enums: HashMap<String, EnumId>,
}

impl Names<'_> {
    fn message(&self, message: &MessageDescriptor) -> MessageTable {
        let mut fields: Vec<_> = message.fields().filter_map(|field| self.field(&field)).collect();
        fields.sort_unstable_by_key(|field| field.number);
        MessageTable {
            name: message.full_name().into(),
            well_known: WellKnown::of(message),
            has_oneofs: fields.iter().any(|field| field.oneof.is_some()),
            fields,
        }
    }

    fn field(&self, field: &FieldDescriptor) -> Option<FieldTable> {
        let kind = field.kind();
        let shape = match (&kind, field.cardinality()) {
            (Kind::Message(entry), _) if field.is_map() => Shape::Map {
                key: self.type_of(&entry.get_field(1)?.kind())?,
                value: self.type_of(&entry.get_field(2)?.kind())?,
            },
            (_, Cardinality::Repeated) => Shape::Repeated(self.type_of(&kind)?),
            _ if field.supports_presence() => Shape::Explicit(self.type_of(&kind)?),
            _ => Shape::Implicit(self.type_of(&kind)?),
        };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.and_then(|oneof| {
            let mut all = field.parent_message().oneofs();
            all.position(|other| other.full_name() == oneof.full_name())
        });
        // A proto identifier needs no escaping.
        let key = format!("\"{}\":", field.name()).into_bytes().into();
        Some(FieldTable { number: field.number(), key, shape, oneof })
    }

    fn type_of(&self, kind: &Kind) -> Option<Type> {
        Some(match kind {
            Kind::Double => Type::Double,
            Kind::Float => Type::Float,
            Kind::Int32 => Type::Int32,
            Kind::Int64 => Type::Int64,
            Kind::Uint32 => Type::Uint32,
            Kind::Uint64 => Type::Uint64,
            Kind::Sint32 => Type::Sint32,
            Kind::Sint64 => Type::Sint64,
            Kind::Fixed32 => Type::Fixed32,
            Kind::Fixed64 => Type::Fixed64,
            Kind::Sfixed32 => Type::Sfixed32,
            Kind::Sfixed64 => Type::Sfixed64,
            Kind::Bool => Type::Bool,
            Kind::String => Type::String,
            Kind::Bytes => Type::Bytes,
            Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue" => Type::Null,
            Kind::Enum(desc) => Type::Enum(*self.enums.get(desc.full_name())?),
            Kind::Message(desc) => Type::Message(*self.messages.get(desc.full_name())?),
        })
    }
}

fn enum_table(desc: &EnumDescriptor) -> Vec<(i32, Box<[u8]>)> {
    let mut values: Vec<(i32, Box<[u8]>)> = desc
        .values()
        .map(|value| (value.number(), format!("\"{}\"", value.name()).into_bytes().into()))
        .collect();
    // Of aliases the first one counts, as in the descriptor.
    values.sort_by_key(|(number, _)| *number);
    values.dedup_by_key(|(number, _)| *number);
    values
}
