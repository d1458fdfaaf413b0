//! The paths of an update mask, against the message they are about.

use crate::json::{MessageId, Raw, Tables, Type, wire_fields};
use crate::wkt::WellKnown;

/// The first path of a `google.protobuf.FieldMask` that is no field of a message. What is in lists, in maps and in
/// messages without fields of their own is not looked at.
pub(crate) fn unknown_path<'w>(tables: &Tables, message: MessageId, mask: Raw<'w>) -> Option<&'w str> {
    let Raw::Bytes(mask) = mask else { return None };
    let paths = wire_fields(mask).filter_map(|(number, value)| match value {
        Raw::Bytes(path) if number == 1 => std::str::from_utf8(path).ok(),
        _ => None,
    });
    paths.into_iter().find(|path| !is_known(tables, message, path))
}

fn is_known(tables: &Tables, message: MessageId, path: &str) -> bool {
    let mut at = Some(message);
    for name in path.split('.') {
        if name == "*" {
            return true;
        }
        let Some(message) = at.and_then(|id| tables.message(id)) else { return false };
        if let Some(WellKnown::Struct | WellKnown::Value | WellKnown::Any) = message.well_known {
            return true;
        }
        let field = message.find(name, 0).and_then(|place| message.fields.get(place));
        let Some(field) = field else { return false };
        if !field.is_singular() {
            return true;
        }
        at = match field.kind() {
            Some(Type::Message(inside)) => Some(inside),
            _ => None,
        };
    }
    true
}
