//! Messages to JSON text in the REST form: names as in the proto file, every
//! field without presence written, members in field-number order and map
//! entries sorted, so that equal messages give equal text.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage as _, Value,
};
use thiserror::Error;

use super::type_name;
use crate::wkt::{self, WellKnown};

/// Why a message has no JSON form. Always the sender's fault, never the client's.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    #[error("`{0}` holds a value outside its range")]
    OutOfRange(String),
    #[error("a `google.protobuf.Value` holds a number that is not finite")]
    NotFinite,
    #[error("the bytes are no `{message}`: {source}")]
    Wire { message: String, source: prost::DecodeError },
}

/// Writes messages; resolves the types inside `Any` in the given pools, the
/// first that knows a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder<'p> {
    pub(crate) pools: [&'p DescriptorPool; 2],
}

impl Encoder<'_> {
    pub(crate) fn message(&self, out: &mut Vec<u8>, message: &DynamicMessage) -> Result<(), EncodeError> {
        let desc = message.descriptor();
        let inner = |number| message.get_field_by_number(number);
        let out_of_range = || EncodeError::OutOfRange(desc.full_name().to_owned());
        match WellKnown::of(&desc) {
            None | Some(WellKnown::Empty) => {
                out.push(b'{');
                self.members(out, message, true)?;
                out.push(b'}');
            }
            Some(WellKnown::Any) => {
                let type_url = inner(1);
                let bytes = inner(2);
                let type_url = type_url.as_ref().and_then(|value| value.as_str()).unwrap_or_default();
                let bytes = bytes.as_ref().and_then(|value| value.as_bytes());
                self.any(out, type_url, bytes.map(AsRef::as_ref).unwrap_or_default())?;
            }
            Some(WellKnown::Timestamp) => {
                string(out, &wkt::timestamp_text(message).ok_or_else(out_of_range)?);
            }
            Some(WellKnown::Duration) => string(out, &wkt::duration_text(message).ok_or_else(out_of_range)?),
            Some(WellKnown::FieldMask) => string(out, &wkt::field_mask_text(message)),
            Some(WellKnown::Wrapper | WellKnown::Struct | WellKnown::List) => {
                if let Some(field) = desc.get_field(1) {
                    self.field(out, &field, &message.get_field(&field))?;
                }
            }
            Some(WellKnown::Value) => match message.fields().next() {
                Some((_, Value::F64(number))) if !number.is_finite() => return Err(EncodeError::NotFinite),
                Some((field, value)) => self.field(out, &field, value)?,
                None => out.extend_from_slice(b"null"),
            },
        }
        Ok(())
    }

    /// The JSON form of one field's value, as it stands after the member name.
    pub(crate) fn field(
        &self,
        out: &mut Vec<u8>,
        field: &FieldDescriptor,
        value: &Value,
    ) -> Result<(), EncodeError> {
        let kind = field.kind();
        match value {
            Value::List(values) => {
                out.push(b'[');
                for (index, value) in values.iter().enumerate() {
                    comma(out, index == 0);
                    self.value(out, &kind, value)?;
                }
                out.push(b']');
            }
            Value::Map(values) => {
                let value_kind = match &kind {
                    Kind::Message(entry) => entry.get_field(2).map(|field| field.kind()),
                    _ => None,
                };
                let mut entries: Vec<_> = values.iter().collect();
                entries.sort_unstable_by_key(|(key, _)| *key);
                out.push(b'{');
                for (index, (key, value)) in entries.into_iter().enumerate() {
                    comma(out, index == 0);
                    map_key(out, key);
                    out.push(b':');
                    self.value(out, value_kind.as_ref().unwrap_or(&kind), value)?;
                }
                out.push(b'}');
            }
            value => self.value(out, &kind, value)?,
        }
        Ok(())
    }

    /// An `Any`. The content stays base64 where its type is not known.
    pub(crate) fn any(&self, out: &mut Vec<u8>, type_url: &str, bytes: &[u8]) -> Result<(), EncodeError> {
        if type_url.is_empty() && bytes.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        out.extend_from_slice(b"{\"@type\":");
        string(out, type_url);

        let desc = type_name(type_url)
            .and_then(|name| self.pools.iter().find_map(|pool| pool.get_message_by_name(name)));
        let message = desc.and_then(|desc| DynamicMessage::decode(desc, bytes).ok());
        match &message {
            Some(message) if WellKnown::of(&message.descriptor()).is_none() => {
                self.members(out, message, false)?;
            }
            Some(message) => {
                out.extend_from_slice(b",\"value\":");
                self.message(out, message)?;
            }
            None => {
                out.extend_from_slice(b",\"value\":");
                string(out, &BASE64_STANDARD.encode(bytes));
            }
        }
        out.push(b'}');
        Ok(())
    }

    fn members(
        &self,
        out: &mut Vec<u8>,
        message: &DynamicMessage,
        mut first: bool,
    ) -> Result<(), EncodeError> {
        for field in message.descriptor().fields() {
            if field.supports_presence() && !message.has_field(&field) {
                continue;
            }
            comma(out, first);
            first = false;
            // A proto identifier needs no escaping.
            out.push(b'"');
            out.extend_from_slice(field.name().as_bytes());
            out.extend_from_slice(b"\":");
            self.field(out, &field, &message.get_field(&field))?;
        }
        Ok(())
    }

    fn value(&self, out: &mut Vec<u8>, kind: &Kind, value: &Value) -> Result<(), EncodeError> {
        match value {
            Value::Bool(value) => out.extend_from_slice(if *value { b"true" } else { b"false" }),
            Value::I32(value) => display(out, value),
            Value::U32(value) => display(out, value),
            Value::I64(value) => display(out, &format_args!("\"{value}\"")),
            Value::U64(value) => display(out, &format_args!("\"{value}\"")),
            Value::F32(value) => match special(f64::from(*value)) {
                Some(name) => out.extend_from_slice(name),
                None => json(out, value),
            },
            Value::F64(value) => match special(*value) {
                Some(name) => out.extend_from_slice(name),
                None => json(out, value),
            },
            Value::String(value) => string(out, value),
            Value::Bytes(value) => {
                out.push(b'"');
                out.extend_from_slice(BASE64_STANDARD.encode(value).as_bytes());
                out.push(b'"');
            }
            Value::EnumNumber(number) => match kind {
                Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue" => {
                    out.extend_from_slice(b"null");
                }
                Kind::Enum(desc) => match desc.get_value(*number) {
                    Some(value) => string(out, value.name()),
                    None => display(out, number),
                },
                _ => display(out, number),
            },
            Value::Message(message) => self.message(out, message)?,
            // A list or map stands in a field, never inside another value.
            Value::List(_) | Value::Map(_) => out.extend_from_slice(b"null"),
        }
        Ok(())
    }
}

/// A JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    json(out, text);
}

fn json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Scalars into memory cannot fail; if one did, `null` keeps the text JSON.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

fn display(out: &mut Vec<u8>, value: &impl std::fmt::Display) {
    if write!(out, "{value}").is_err() {
        out.extend_from_slice(b"null");
    }
}

fn special(number: f64) -> Option<&'static [u8]> {
    if number.is_nan() {
        Some(b"\"NaN\"")
    } else if number.is_infinite() {
        Some(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })
    } else {
        None
    }
}

fn map_key(out: &mut Vec<u8>, key: &MapKey) {
    match key {
        MapKey::Bool(key) => display(out, &format_args!("\"{key}\"")),
        MapKey::I32(key) => display(out, &format_args!("\"{key}\"")),
        MapKey::I64(key) => display(out, &format_args!("\"{key}\"")),
        MapKey::U32(key) => display(out, &format_args!("\"{key}\"")),
        MapKey::U64(key) => display(out, &format_args!("\"{key}\"")),
        MapKey::String(key) => string(out, key),
    }
}

fn comma(out: &mut Vec<u8>, first: bool) {
    if !first {
        out.push(b',');
    }
}
