//! Maps from the wire to JSON text.

use std::ops::Range;

use smallvec::SmallVec;

use super::table::Type;
use super::text::{comma, quoted, string};
use super::wire::{Raw, Reader, WireError};
use super::write::{Entry, Fault, Writer, low, merged, text, zigzag};

impl Writer<'_, '_> {
    /// A map whose entries these are.
    pub(super) fn map(
        &mut self,
        out: &mut Vec<u8>,
        key: Type,
        value: Type,
        entries: Range<usize>,
        depth: u32,
    ) -> Result<(), Fault> {
        let mut members = Vec::with_capacity(entries.len());
        for entry in self.entries.get(entries).unwrap_or_default() {
            let Raw::Bytes(bytes) = entry.value else { return Err(WireError::Type.into()) };
            let mut reader = Reader::new(bytes);
            let (mut found_key, mut found_value) = (None, SmallVec::<[Entry<'_>; 1]>::new());
            while let Some((number, raw)) = reader.field()? {
                match number {
                    1 => found_key = Some(raw),
                    2 => found_value.push(Entry { field: 0, value: raw }),
                    _ => {}
                }
            }
            members.push((MapKey::read(key, found_key)?, found_value));
        }
        // Of equal keys the last one counts.
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        out.push(b'{');
        let mut first = true;
        let mut members = members.into_iter().peekable();
        while let Some((key, found)) = members.next() {
            if members.peek().is_some_and(|(next, _)| *next == key) {
                continue;
            }
            comma(out, first);
            first = false;
            key.write(out);
            out.push(b':');
            match (value, found.as_slice()) {
                (_, []) => self.default(out, value),
                (Type::Message(id), [_, _, ..]) => {
                    let merged = merged(&found)?;
                    let mut writer =
                        Writer { encoder: self.encoder, tables: self.tables, entries: Vec::new() };
                    writer.message(out, id, &merged, depth + 1)?;
                }
                (_, [.., last]) => self.value(out, value, last.value, depth)?,
            }
        }
        out.push(b'}');
        Ok(())
    }
}

/// The key of a map entry. Numbers go by size and text by its bytes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum MapKey<'w> {
    Bool(bool),
    Number(i128),
    Text(&'w str),
}

impl<'w> MapKey<'w> {
    fn read(kind: Type, value: Option<Raw<'w>>) -> Result<Self, WireError> {
        Ok(match (kind, value) {
            (Type::String, None) => Self::Text(""),
            (Type::Bool, None) => Self::Bool(false),
            (_, None) => Self::Number(0),
            (Type::String, Some(Raw::Bytes(bytes))) => Self::Text(text(bytes)?),
            (Type::Bool, Some(Raw::Varint(value))) => Self::Bool(value != 0),
            (Type::Int32, Some(Raw::Varint(value))) => Self::Number(low(value).into()),
            (Type::Int64, Some(Raw::Varint(value))) | (Type::Sfixed64, Some(Raw::Fixed64(value))) => {
                Self::Number(value.cast_signed().into())
            }
            (Type::Uint32, Some(Raw::Varint(value))) => Self::Number(low(value).cast_unsigned().into()),
            (Type::Uint64, Some(Raw::Varint(value))) | (Type::Fixed64, Some(Raw::Fixed64(value))) => {
                Self::Number(value.into())
            }
            (Type::Sint32, Some(Raw::Varint(value))) => {
                Self::Number(zigzag(u64::from(low(value).cast_unsigned())).into())
            }
            (Type::Sint64, Some(Raw::Varint(value))) => Self::Number(zigzag(value).into()),
            (Type::Fixed32, Some(Raw::Fixed32(value))) => Self::Number(value.into()),
            (Type::Sfixed32, Some(Raw::Fixed32(value))) => Self::Number(value.cast_signed().into()),
            _ => return Err(WireError::Type),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bool(key) => quoted(out, key),
            Self::Number(key) => quoted(out, key),
            Self::Text(key) => string(out, key),
        }
    }
}
