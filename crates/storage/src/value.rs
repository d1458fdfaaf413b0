//! Values bound to a statement, on either engine.

use std::collections::BTreeMap;

use agentrouter_kernel::id::Id;
use agentrouter_kernel::page::CursorValue;
use agentrouter_kernel::{Timestamp, id};
use uuid::Uuid;

use crate::list::labels_to_text;

/// A bound value. Nulls are typed, because PostgreSQL needs to know.
#[derive(Debug, Clone)]
pub enum Value {
    /// An integer or a time.
    Integer(Option<i64>),
    /// A truth value.
    Bool(Option<bool>),
    /// A text.
    Text(Option<String>),
    /// Bytes.
    Bytes(Option<Vec<u8>>),
    /// A row id.
    Uuid(Option<Uuid>),
    /// Many row ids in one parameter: an array on PostgreSQL, a JSON array of hexadecimal texts on SQLite.
    /// Statements that take one come in two texts (see [`crate::Sql::Each`]).
    Uuids(Vec<Uuid>),
    /// Many integers in one parameter, likewise.
    Integers(Vec<i64>),
    /// Many texts in one parameter, likewise.
    Texts(Vec<String>),
}

macro_rules! from {
    ($($type:ty => $variant:ident, |$value:ident| $convert:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                Self::$variant(Some($convert))
            }
        }
        impl From<Option<$type>> for Value {
            fn from(value: Option<$type>) -> Self {
                Self::$variant(value.map(|$value| $convert))
            }
        }
    )*};
}

from! {
    i64 => Integer, |value| value;
    i32 => Integer, |value| i64::from(value);
    u32 => Integer, |value| i64::from(value);
    Timestamp => Integer, |value| value.as_micros();
    bool => Bool, |value| value;
    String => Text, |value| value;
    &str => Text, |value| value.to_owned();
    &String => Text, |value| value.clone();
    Vec<u8> => Bytes, |value| value;
    &[u8] => Bytes, |value| value.to_owned();
    Uuid => Uuid, |value| value;
}

impl<K: id::Kind> From<Id<K>> for Value {
    fn from(id: Id<K>) -> Self {
        Self::Uuid(Some(id.uuid()))
    }
}

impl<K: id::Kind> From<Option<Id<K>>> for Value {
    fn from(id: Option<Id<K>>) -> Self {
        Self::Uuid(id.map(Id::uuid))
    }
}

impl From<&BTreeMap<String, String>> for Value {
    /// Labels.
    fn from(labels: &BTreeMap<String, String>) -> Self {
        labels_to_text(labels).into()
    }
}

impl From<CursorValue> for Value {
    fn from(value: CursorValue) -> Self {
        match value {
            CursorValue::Integer(integer) => integer.into(),
            CursorValue::Text(text) => text.into(),
            CursorValue::Uuid(uuid) => Uuid::from_u128(uuid).into(),
        }
    }
}
