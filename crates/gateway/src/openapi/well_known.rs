//! Schemas of what is not an object of its own: scalars, enums as text, and the
//! well-known types.

use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::wkt::WellKnown;

/// The schema of a scalar's JSON form. `None` for messages and enums.
pub(super) fn scalar(kind: &Kind) -> Option<Value> {
    Some(match kind {
        Kind::Bool => json!({"type": "boolean"}),
        Kind::String => json!({"type": "string"}),
        Kind::Bytes => json!({"type": "string", "format": "byte", "contentEncoding": "base64"}),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => json!({"type": "integer", "format": "int32"}),
        Kind::Uint32 | Kind::Fixed32 => {
            json!({"type": "integer", "format": "uint32", "minimum": 0, "maximum": u32::MAX})
        }
        // As text, because a JSON number does not hold 64 bits everywhere.
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            json!({"type": "string", "format": "int64", "pattern": "^-?[0-9]{1,19}$"})
        }
        Kind::Uint64 | Kind::Fixed64 => {
            json!({"type": "string", "format": "uint64", "pattern": "^[0-9]{1,20}$"})
        }
        Kind::Float => float("float"),
        Kind::Double => float("double"),
        Kind::Message(_) | Kind::Enum(_) => return None,
    })
}

fn float(format: &str) -> Value {
    json!({"anyOf": [
        {"type": "number", "format": format},
        {"type": "string", "enum": ["NaN", "Infinity", "-Infinity"]},
    ]})
}

/// The schema of a well-known type's JSON form. `None` for other messages.
pub(super) fn message(desc: &MessageDescriptor) -> Option<Value> {
    Some(match WellKnown::of(desc)? {
        WellKnown::Timestamp => json!({"type": "string", "format": "date-time"}),
        WellKnown::Duration => {
            json!({"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?s$"})
        }
        WellKnown::FieldMask => json!({"type": "string", "pattern": r"^[A-Za-z0-9_.*,]*$"}),
        WellKnown::Struct => json!({"type": "object", "additionalProperties": true}),
        WellKnown::Value => json!({}),
        WellKnown::List => json!({"type": "array", "items": {}}),
        WellKnown::Empty => json!({"type": "object", "additionalProperties": false}),
        WellKnown::Any => json!({
            "type": "object",
            "properties": {"@type": {"type": "string"}},
            "additionalProperties": true,
        }),
        WellKnown::Wrapper => {
            let wrapped =
                desc.get_field(1).and_then(|field| scalar(&field.kind())).unwrap_or(Value::Bool(true));
            json!({"anyOf": [wrapped, {"type": "null"}]})
        }
    })
}

/// Whether a query parameter carries the JSON text of a value of this type.
pub(super) fn is_json_text(kind: &Kind) -> bool {
    matches!(kind, Kind::Message(desc)
        if matches!(WellKnown::of(desc), Some(WellKnown::Struct | WellKnown::Value | WellKnown::List)))
}
