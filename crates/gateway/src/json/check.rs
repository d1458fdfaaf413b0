//! Whether bytes are a message, before a backend is given them: what its decoder refused would count as its own fault.

use super::MAX_DEPTH;
use super::table::{MessageId, Shape, Tables, Type};
use super::wire::{Raw, Reader, WireError};

/// Reads a message through. Returns its fields by their places, each once, in the order they stand in.
pub(crate) fn check(tables: &Tables, id: MessageId, wire: &[u8]) -> Result<Vec<usize>, WireError> {
    let mut places = Vec::new();
    message(tables, id, wire, 0, &mut |place| {
        if !places.contains(&place) {
            places.push(place);
        }
    })?;
    Ok(places)
}

fn message(
    tables: &Tables,
    id: MessageId,
    wire: &[u8],
    depth: u32,
    seen: &mut dyn FnMut(usize),
) -> Result<(), WireError> {
    if depth > MAX_DEPTH {
        return Err(WireError::Depth);
    }
    let Some(table) = tables.message(id) else { return Ok(()) };
    let (mut reader, mut hint) = (Reader::new(wire), 0);
    while let Some((number, raw)) = reader.field()? {
        // What is not known is passed over, as by every reader of protobuf.
        let Some(place) = table.position(number, hint) else { continue };
        let Some(field) = table.fields.get(place) else { continue };
        hint = place;
        seen(place);
        match (field.shape, raw) {
            (Shape::Map { key, value: kind }, Raw::Bytes(entry)) => {
                let mut entry = Reader::new(entry);
                while let Some((number, raw)) = entry.field()? {
                    match number {
                        1 => value(tables, key, raw, depth + 1)?,
                        2 => value(tables, kind, raw, depth + 1)?,
                        _ => {}
                    }
                }
            }
            (Shape::Repeated(kind), Raw::Bytes(values)) if kind.wire_type() != 2 => packed(kind, values)?,
            (Shape::Implicit(kind) | Shape::Explicit(kind) | Shape::Repeated(kind), raw) => {
                value(tables, kind, raw, depth)?;
            }
            (Shape::Map { .. }, _) => return Err(WireError::Type),
        }
    }
    Ok(())
}

fn value(tables: &Tables, kind: Type, raw: Raw<'_>, depth: u32) -> Result<(), WireError> {
    match (kind, raw) {
        (Type::Message(id), Raw::Bytes(inside)) => message(tables, id, inside, depth + 1, &mut |_| {}),
        (Type::String, Raw::Bytes(text)) => std::str::from_utf8(text).map(drop).map_err(|_| WireError::Utf8),
        (Type::Bytes, Raw::Bytes(_)) => Ok(()),
        (Type::Message(_) | Type::String | Type::Bytes, _) => Err(WireError::Type),
        (kind, raw) => {
            let wire_type = match raw {
                Raw::Varint(_) => 0,
                Raw::Fixed64(_) => 1,
                Raw::Bytes(_) => 2,
                Raw::Fixed32(_) => 5,
            };
            if kind.wire_type() == wire_type { Ok(()) } else { Err(WireError::Type) }
        }
    }
}

fn packed(kind: Type, values: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(values);
    while !reader.is_empty() {
        match kind.wire_type() {
            1 => drop(reader.fixed64()?),
            5 => drop(reader.fixed32()?),
            _ => drop(reader.varint()?),
        }
    }
    Ok(())
}
