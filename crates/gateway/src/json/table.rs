//! Descriptors as flat tables, made once: all that reading and writing messages needs to know.

use std::collections::HashMap;

use prost_reflect::{
    Cardinality, DescriptorPool, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind,
    MessageDescriptor,
};

use super::put;
use crate::descriptors;
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
    enums: Vec<EnumTable>,
    by_name: HashMap<Box<str>, MessageId>,
}

/// A message.
#[derive(Debug)]
pub(crate) struct MessageTable {
    pub(crate) name: Box<str>,
    pub(crate) well_known: Option<WellKnown>,
    /// In the order of their numbers.
    pub(crate) fields: Vec<FieldTable>,
    /// Both names of every field, sorted, and its place.
    names: Vec<(Box<str>, usize)>,
    /// Whether any field belongs to a oneof.
    pub(crate) has_oneofs: bool,
}

/// A field.
#[derive(Debug)]
pub(crate) struct FieldTable {
    pub(crate) number: u32,
    /// As in the proto file; of an extension its full name in brackets.
    pub(crate) name: Box<str>,
    pub(crate) json_name: Box<str>,
    /// `"name":`.
    pub(crate) key: Box<[u8]>,
    /// `"jsonName":`.
    pub(crate) json_key: Box<[u8]>,
    pub(crate) shape: Shape,
    /// The oneof it is a member of, by its place in the message.
    pub(crate) oneof: Option<usize>,
    pub(crate) is_extension: bool,
    /// In front of one value.
    pub(crate) tag: Box<[u8]>,
    /// In front of all values of a list that is packed.
    pub(crate) packed: Option<Box<[u8]>>,
    /// Behind a group.
    pub(crate) end: Option<Box<[u8]>>,
}

/// An enum.
#[derive(Debug)]
pub(crate) struct EnumTable {
    /// In the order of the proto file.
    pub(crate) names: Vec<(Box<str>, i32)>,
    /// The first name of every number, quoted, by number.
    by_number: Vec<(i32, Box<[u8]>)>,
    is_closed: bool,
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

    /// An enum.
    pub(crate) fn enumeration(&self, id: EnumId) -> Option<&EnumTable> {
        self.enums.get(id.0)
    }

    /// Whether a text may give an enum a number: any, unless the enum is closed.
    pub(crate) fn may_be(&self, id: EnumId, number: i32) -> bool {
        let is_open = self.enums.get(id.0).is_none_or(|table| !table.is_closed);
        is_open || self.enum_name(id, number).is_some()
    }

    /// The name of an enum value, quoted; none where the number has none.
    pub(crate) fn enum_name(&self, id: EnumId, number: i32) -> Option<&[u8]> {
        let values = &self.enums.get(id.0)?.by_number;
        let at = values.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        values.get(at).map(|(_, name)| &**name)
    }
}

impl EnumTable {
    /// The number of a name.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.names.iter().find(|(known, _)| **known == *name).map(|(_, number)| *number)
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

    /// The place of a field by either of its names, sought first at `hint`.
    pub(crate) fn find(&self, name: &str, hint: usize) -> Option<usize> {
        if self.fields.get(hint).is_some_and(|field| *field.json_name == *name || *field.name == *name) {
            return Some(hint);
        }
        let at = self.names.binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        self.names.get(at).map(|(_, place)| *place)
    }
}

impl FieldTable {
    /// The type of one value; of a map none.
    pub(crate) fn kind(&self) -> Option<Type> {
        match self.shape {
            Shape::Implicit(kind) | Shape::Explicit(kind) | Shape::Repeated(kind) => Some(kind),
            Shape::Map { .. } => None,
        }
    }

    /// The message that one value is.
    pub(crate) fn message(&self) -> Option<MessageId> {
        match self.kind()? {
            Type::Message(id) => Some(id),
            _ => None,
        }
    }

    pub(crate) fn is_singular(&self) -> bool {
        matches!(self.shape, Shape::Implicit(_) | Shape::Explicit(_))
    }
}

impl Type {
    /// How one value stands on the wire.
    pub(crate) fn wire_type(self) -> u8 {
        match self {
            Self::Double | Self::Fixed64 | Self::Sfixed64 => 1,
            Self::String | Self::Bytes | Self::Message(_) => 2,
            Self::Float | Self::Fixed32 | Self::Sfixed32 => 5,
            _ => 0,
        }
    }
}

/// The ids of everything in a pool.
struct Names<'n> {
    messages: &'n HashMap<Box<str>, MessageId>,
    enums: HashMap<String, EnumId>,
}

impl Names<'_> {
    fn message(&self, message: &MessageDescriptor) -> MessageTable {
        let extensions = message.extensions();
        let extensions = extensions.filter_map(|extension| self.extension(&extension));
        let mut fields: Vec<_> =
            message.fields().filter_map(|field| self.field(&field)).chain(extensions).collect();
        fields.sort_unstable_by_key(|field| field.number);
        let mut names: Vec<_> = fields
            .iter()
            .enumerate()
            .flat_map(|(place, field)| [(field.name.clone(), place), (field.json_name.clone(), place)])
            .collect();
        names.sort_unstable();
        names.dedup();
        MessageTable {
            name: message.full_name().into(),
            well_known: WellKnown::of(message),
            has_oneofs: fields.iter().any(|field| field.oneof.is_some()),
            fields,
            names,
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
            _ if descriptors::has_presence(field) => Shape::Explicit(self.type_of(&kind)?),
            _ => Shape::Implicit(self.type_of(&kind)?),
        };
        let oneof = field.containing_oneof().filter(|oneof| !oneof.is_synthetic());
        let oneof = oneof.and_then(|oneof| {
            let mut all = field.parent_message().oneofs();
            all.position(|other| other.full_name() == oneof.full_name())
        });
        let wire = Wire { number: field.number(), is_group: field.is_group(), is_packed: field.is_packed() };
        Some(wire.table(field.name(), field.json_name(), shape, oneof))
    }

    fn extension(&self, extension: &ExtensionDescriptor) -> Option<FieldTable> {
        let kind = extension.kind();
        let shape = match extension.cardinality() {
            Cardinality::Repeated => Shape::Repeated(self.type_of(&kind)?),
            _ => Shape::Explicit(self.type_of(&kind)?),
        };
        let wire = Wire {
            number: extension.number(),
            is_group: extension.is_group(),
            is_packed: extension.is_packed(),
        };
        let name = format!("[{}]", extension.full_name());
        Some(FieldTable { is_extension: true, ..wire.table(&name, &name, shape, None) })
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

/// How a field stands on the wire.
struct Wire {
    number: u32,
    is_group: bool,
    is_packed: bool,
}

impl Wire {
    fn table(&self, name: &str, json_name: &str, shape: Shape, oneof: Option<usize>) -> FieldTable {
        let wire_type = match shape {
            _ if self.is_group => 3,
            Shape::Map { .. } => 2,
            Shape::Implicit(kind) | Shape::Explicit(kind) | Shape::Repeated(kind) => kind.wire_type(),
        };
        FieldTable {
            number: self.number,
            name: name.into(),
            json_name: json_name.into(),
            // A proto identifier needs no escaping; a name that was chosen for JSON may.
            key: format!("\"{name}\":").into_bytes().into(),
            json_key: format!("{}:", serde_json::Value::from(json_name)).into_bytes().into(),
            shape,
            oneof,
            is_extension: false,
            tag: put::tag(self.number, wire_type),
            packed: (self.is_packed && matches!(shape, Shape::Repeated(_))).then(|| put::tag(self.number, 2)),
            end: self.is_group.then(|| put::tag(self.number, 4)),
        }
    }
}

fn enum_table(desc: &EnumDescriptor) -> EnumTable {
    let names = desc.values().map(|value| (value.name().into(), value.number())).collect();
    let mut by_number: Vec<(i32, Box<[u8]>)> = desc
        .values()
        .map(|value| (value.number(), format!("\"{}\"", value.name()).into_bytes().into()))
        .collect();
    // Of aliases the first one counts, as in the descriptor.
    by_number.sort_by_key(|(number, _)| *number);
    by_number.dedup_by_key(|(number, _)| *number);
    EnumTable { names, by_number, is_closed: descriptors::is_closed(desc) }
}
