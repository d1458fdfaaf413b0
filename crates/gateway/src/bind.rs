//! Field paths of a request message: looked up once, set without panics.

use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};

use crate::wkt::WellKnown;

/// Longest dotted path a query parameter may have. Far more than any sensible
/// message needs, and less than what a decoder refuses as too deep.
pub(crate) const MAX_PATH: usize = 32;

/// The fields from a request message down to one of its leaves.
#[derive(Debug, Clone)]
pub(crate) struct FieldPath(Vec<FieldDescriptor>);

/// Why a dotted path names no field that text can be put into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    Unknown,
    /// A part before the last is not a singular message.
    NoParent,
    TooLong,
}

/// Why a value cannot be set.
#[derive(Debug)]
pub(crate) enum SetError {
    /// Another member of the same oneof is set.
    Oneof(FieldDescriptor),
    WrongType,
}

/// Finds a field by the name in the proto file or by its JSON name.
pub(crate) fn find_field(desc: &MessageDescriptor, name: &str) -> Option<FieldDescriptor> {
    desc.get_field_by_name(name).or_else(|| desc.get_field_by_json_name(name))
}

/// Another member of the field's oneof that is set already.
pub(crate) fn oneof_rival(message: &DynamicMessage, field: &FieldDescriptor) -> Option<FieldDescriptor> {
    field
        .containing_oneof()?
        .fields()
        .find(|other| other.number() != field.number() && message.has_field(other))
}

impl FieldPath {
    /// Resolves a dotted path, each part by either of its names.
    pub(crate) fn resolve(root: &MessageDescriptor, path: &str) -> Result<Self, PathError> {
        let mut fields: Vec<FieldDescriptor> = Vec::new();
        for name in path.split('.') {
            if fields.len() == MAX_PATH {
                return Err(PathError::TooLong);
            }
            let field = match fields.last() {
                None => find_field(root, name),
                Some(parent) => match parent.kind() {
                    Kind::Message(desc)
                        if !parent.is_list() && !parent.is_map() && WellKnown::of(&desc).is_none() =>
                    {
                        find_field(&desc, name)
                    }
                    _ => return Err(PathError::NoParent),
                },
            };
            fields.push(field.ok_or(PathError::Unknown)?);
        }
        Ok(Self(fields))
    }

    pub(crate) fn leaf(&self) -> Option<&FieldDescriptor> {
        self.0.last()
    }

    /// Whether the first field of the path is this one.
    pub(crate) fn is_within(&self, field: &FieldDescriptor) -> bool {
        self.0.first().is_some_and(|first| first.number() == field.number())
    }

    /// The path without its first field; empty where there is only one.
    pub(crate) fn below_first(&self) -> &[FieldDescriptor] {
        self.0.split_first().map_or(&[], |(_, below)| below)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(FieldDescriptor::number)
    }

    /// The leaf's value, where it and its parents are set.
    pub(crate) fn get(&self, message: &DynamicMessage) -> Option<Value> {
        let (field, below) = self.0.split_first()?;
        get(message, field, below)
    }

    /// Sets the leaf, appending where it is repeated, and creates its parents.
    pub(crate) fn set(&self, message: &mut DynamicMessage, value: Value) -> Result<(), SetError> {
        let (leaf, parents) = self.0.split_last().ok_or(SetError::WrongType)?;
        let mut at = message;
        for parent in parents {
            if let Some(rival) = oneof_rival(at, parent) {
                return Err(SetError::Oneof(rival));
            }
            at = at.get_field_mut(parent).as_message_mut().ok_or(SetError::WrongType)?;
        }
        if let Some(rival) = oneof_rival(at, leaf) {
            return Err(SetError::Oneof(rival));
        }
        if leaf.is_list() {
            if !value.is_valid(&leaf.kind()) {
                return Err(SetError::WrongType);
            }
            at.get_field_mut(leaf).as_list_mut().ok_or(SetError::WrongType)?.push(value);
            Ok(())
        } else {
            at.try_set_field(leaf, value).map_err(|_| SetError::WrongType)
        }
    }
}

/// The names in the proto file, joined with dots.
impl fmt::Display for FieldPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, field) in self.0.iter().enumerate() {
            let dot = if index == 0 { "" } else { "." };
            write!(formatter, "{dot}{}", field.name())?;
        }
        Ok(())
    }
}

/// Paths are equal when they lead to one field, whichever names they used.
impl PartialEq for FieldPath {
    fn eq(&self, other: &Self) -> bool {
        self.numbers().eq(other.numbers())
    }
}

fn get(message: &DynamicMessage, field: &FieldDescriptor, below: &[FieldDescriptor]) -> Option<Value> {
    if !message.has_field(field) {
        return None;
    }
    let value = message.get_field(field);
    match below.split_first() {
        None => Some(value.into_owned()),
        Some((next, below)) => get(value.as_message()?, next, below),
    }
}
