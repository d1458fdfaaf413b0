//! Messages from the wire to JSON text, in one pass and without a message object: members in field-number order and map
//! entries sorted, so that equal messages give equal text.

use thiserror::Error;

use super::MAX_DEPTH;
use super::output::{Defaults, JsonOutput, Names};
use super::selection::Selection;
use super::table::{FieldTable, MessageId, MessageTable, Shape, Tables, Type};
use super::text::{base64, comma, float, integer, quoted, special, string};
use super::wire::{Raw, Reader, WireError};
use super::write_wkt::{any_parts, seconds_and_nanos};
use crate::time;
use crate::wkt::{self, WellKnown};

/// Why a message has no JSON form. Always the sender's fault, never the client's.
#[derive(Debug, Error)]
pub(crate) enum EncodeError {
    #[error("`{0}` holds a value outside its range")]
    OutOfRange(&'static str),
    #[error("a `google.protobuf.Value` holds a number that is not finite")]
    NotFinite,
    #[error("a `google.protobuf.FieldMask` holds a path that JSON cannot give back")]
    Mask,
    #[error("the bytes are no `{message}`: {source}")]
    Wire { message: Box<str>, source: WireError },
    #[error("the message type is not known")]
    Unknown,
}

/// Writes messages; resolves the types inside `Any` in the given tables, the first that knows a name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Encoder<'t> {
    pub(crate) tables: [&'t Tables; 2],
    pub(crate) style: JsonOutput,
    /// What is written of the message, where that is not all.
    pub(crate) selection: Option<&'t Selection>,
}

impl Encoder<'_> {
    /// A message of the first tables.
    pub(crate) fn message(&self, out: &mut Vec<u8>, id: MessageId, wire: &[u8]) -> Result<(), EncodeError> {
        let mut writer = Writer { encoder: *self, tables: self.tables[0], entries: Vec::with_capacity(32) };
        writer.message(out, id, wire, 0).map_err(|fault| fault.of(self.tables[0].message(id)))
    }

    /// One field of a message of the first tables, as it stands after the member name: `null` where it has presence
    /// and is absent.
    pub(crate) fn field(
        &self,
        out: &mut Vec<u8>,
        id: MessageId,
        number: u32,
        wire: &[u8],
    ) -> Result<(), EncodeError> {
        let mut writer = Writer { encoder: *self, tables: self.tables[0], entries: Vec::new() };
        writer.only(out, id, number, wire).map_err(|fault| fault.of(self.tables[0].message(id)))
    }

    /// An `Any`. The content stays base64 where its type is not known, or where it is not of its type.
    pub(crate) fn any(&self, out: &mut Vec<u8>, type_url: &str, bytes: &[u8]) -> Result<(), EncodeError> {
        self.any_at(out, type_url, bytes, 0)
    }
}

/// An error on its way to where the message's name is known.
#[derive(Debug)]
pub(super) enum Fault {
    Wire(WireError),
    Encode(EncodeError),
}

impl Fault {
    pub(super) fn of(self, message: Option<&MessageTable>) -> EncodeError {
        match self {
            Self::Wire(source) => EncodeError::Wire {
                message: message.map(|message| message.name.clone()).unwrap_or_default(),
                source,
            },
            Self::Encode(error) => error,
        }
    }
}

impl From<WireError> for Fault {
    fn from(error: WireError) -> Self {
        Self::Wire(error)
    }
}

/// A field that was found, by its place in the message's table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'w> {
    pub(super) field: usize,
    pub(super) value: Raw<'w>,
}

/// Writes one message and what is inside it.
pub(super) struct Writer<'e, 'w> {
    pub(super) encoder: Encoder<'e>,
    pub(super) tables: &'e Tables,
    /// The fields found of every message that is being written, the innermost last.
    pub(super) entries: Vec<Entry<'w>>,
}

impl<'e, 'w> Writer<'e, 'w> {
    pub(super) fn message(
        &mut self,
        out: &mut Vec<u8>,
        id: MessageId,
        wire: &'w [u8],
        depth: u32,
    ) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(WireError::Depth.into());
        }
        let message = self.tables.message(id).ok_or(Fault::Encode(EncodeError::Unknown))?;
        match message.well_known {
            None | Some(WellKnown::Empty) => {
                out.push(b'{');
                self.members(out, message, wire, depth, true)?;
                out.push(b'}');
            }
            Some(WellKnown::Any) => {
                let (type_url, bytes) = any_parts(wire)?;
                self.encoder.any_at(out, type_url, bytes, depth).map_err(Fault::Encode)?;
            }
            Some(WellKnown::Timestamp) => {
                let (seconds, nanos) = seconds_and_nanos(wire)?;
                out.push(b'"');
                out_of_range(time::write(out, seconds, nanos), "google.protobuf.Timestamp")?;
                out.push(b'"');
            }
            Some(WellKnown::Duration) => {
                let (seconds, nanos) = seconds_and_nanos(wire)?;
                let text = wkt::duration_text(seconds, nanos);
                out_of_range(text, "google.protobuf.Duration").map(|text| quoted(out, text))?;
            }
            Some(WellKnown::FieldMask) => self.field_mask(out, wire)?,
            Some(WellKnown::Wrapper | WellKnown::Struct | WellKnown::List) => {
                let base = self.scan(message, wire)?;
                if let Some(field) = message.fields.first() {
                    let end = self.run(base, 0);
                    self.field(out, field, base..end, depth)?;
                }
                self.entries.truncate(base);
            }
            Some(WellKnown::Value) => {
                let base = self.scan(message, wire)?;
                match self.entries.last().copied().filter(|_| self.entries.len() > base) {
                    None => out.extend_from_slice(b"null"),
                    Some(Entry { value: Raw::Fixed64(bits), .. }) if !f64::from_bits(bits).is_finite() => {
                        return Err(Fault::Encode(EncodeError::NotFinite));
                    }
                    Some(entry) => {
                        let end = self.entries.len();
                        let start = (base..end).rev().take_while(|at| self.at(*at) == Some(entry.field));
                        let start = start.last().unwrap_or(end);
                        if let Some(field) = message.fields.get(entry.field) {
                            self.field(out, field, start..end, depth)?;
                        }
                    }
                }
                self.entries.truncate(base);
            }
        }
        Ok(())
    }

    /// The members of a message, without its braces.
    pub(super) fn members(
        &mut self,
        out: &mut Vec<u8>,
        message: &'e MessageTable,
        wire: &'w [u8],
        depth: u32,
        mut first: bool,
    ) -> Result<(), Fault> {
        if depth > MAX_DEPTH {
            return Err(WireError::Depth.into());
        }
        let base = self.scan(message, wire)?;
        let selection = self.encoder.selection;
        let mut at = base;
        for (index, field) in message.fields.iter().enumerate() {
            let end = self.run(at, index);
            let found = at..end;
            at = end;
            if !self.is_written(field, found.clone()) {
                continue;
            }
            if let Some(selection) = selection {
                let Some(extent) = selection.of(index) else { continue };
                self.encoder.selection = extent.part();
            }
            comma(out, first);
            first = false;
            out.extend_from_slice(match self.encoder.style.names {
                Names::Proto => &field.key,
                Names::Json => &field.json_key,
            });
            if found.is_empty() && matches!(field.shape, Shape::Explicit(_)) {
                out.extend_from_slice(b"null");
            } else {
                self.field(out, field, found, depth)?;
            }
        }
        self.encoder.selection = selection;
        self.entries.truncate(base);
        Ok(())
    }

    /// Whether a field becomes a member, these being its entries.
    fn is_written(&self, field: &FieldTable, found: std::ops::Range<usize>) -> bool {
        let found = self.entries.get(found).unwrap_or_default();
        let is_empty = |entry: &Entry<'_>| matches!(entry.value, Raw::Bytes([]));
        match (field.shape, self.encoder.style.defaults) {
            (Shape::Explicit(kind), Defaults::Always) => {
                !found.is_empty() || (field.oneof.is_none() && !field.is_extension && !self.has_null(kind))
            }
            (Shape::Explicit(_), _) => !found.is_empty(),
            (_, Defaults::Always | Defaults::Implicit) => !field.is_extension || !found.is_empty(),
            (Shape::Implicit(_), Defaults::Never) => found.last().is_some_and(|last| !is_default(last.value)),
            (Shape::Repeated(kind), Defaults::Never) if is_packable(kind) => !found.iter().all(is_empty),
            (_, Defaults::Never) => !found.is_empty(),
        }
    }

    /// Whether `null` is a value of the type, and so no word for an absent one.
    fn has_null(&self, kind: Type) -> bool {
        match kind {
            Type::Null => true,
            Type::Message(id) => {
                self.tables.message(id).is_some_and(|message| message.well_known == Some(WellKnown::Value))
            }
            _ => false,
        }
    }

    /// An integer of 64 bits.
    fn long(&self, out: &mut Vec<u8>, value: impl itoa::Integer) {
        if self.encoder.style.int64_as_numbers {
            return integer(out, value);
        }
        out.push(b'"');
        integer(out, value);
        out.push(b'"');
    }

    /// One field of a message and nothing else of it.
    fn only(&mut self, out: &mut Vec<u8>, id: MessageId, number: u32, wire: &'w [u8]) -> Result<(), Fault> {
        let message = self.tables.message(id).ok_or(Fault::Encode(EncodeError::Unknown))?;
        self.scan(message, wire)?;
        let index = message.position(number, 0).ok_or(Fault::Encode(EncodeError::Unknown))?;
        let start = self.entries.iter().position(|entry| entry.field == index).unwrap_or(self.entries.len());
        let end = self.run(start, index);
        match message.fields.get(index) {
            Some(field) if start == end && matches!(field.shape, Shape::Explicit(_)) => {
                out.extend_from_slice(b"null");
            }
            Some(field) => self.field(out, field, start..end, 0)?,
            None => {}
        }
        Ok(())
    }

    /// Finds the known fields of a message, ordered by field and else as they came. Where they begin.
    fn scan(&mut self, message: &MessageTable, wire: &'w [u8]) -> Result<usize, Fault> {
        let base = self.entries.len();
        let mut reader = Reader::new(wire);
        let (mut hint, mut is_ordered) = (0, true);
        while let Some((number, value)) = reader.field()? {
            let Some(field) = message.position(number, hint) else { continue };
            is_ordered &= field >= hint;
            hint = field;
            if message.has_oneofs {
                self.forget_rivals(message, base, field);
            }
            self.entries.push(Entry { field, value });
        }
        if !is_ordered && let Some(found) = self.entries.get_mut(base..) {
            found.sort_by_key(|entry| entry.field);
        }
        Ok(base)
    }

    /// Of a oneof only the member that came last is set.
    fn forget_rivals(&mut self, message: &MessageTable, base: usize, field: usize) {
        let oneof = |field: usize| message.fields.get(field).and_then(|field| field.oneof);
        let Some(mine) = oneof(field) else { return };
        let mut at = base;
        while let Some(entry) = self.entries.get(at) {
            if entry.field != field && oneof(entry.field) == Some(mine) {
                self.entries.remove(at);
            } else {
                at += 1;
            }
        }
    }

    fn at(&self, at: usize) -> Option<usize> {
        self.entries.get(at).map(|entry| entry.field)
    }

    /// Where the entries of a field end that begin here.
    fn run(&self, start: usize, field: usize) -> usize {
        let mut end = start;
        while self.at(end) == Some(field) {
            end += 1;
        }
        end
    }

    /// The value of a field whose entries these are.
    fn field(
        &mut self,
        out: &mut Vec<u8>,
        field: &'e FieldTable,
        entries: std::ops::Range<usize>,
        depth: u32,
    ) -> Result<(), Fault> {
        match field.shape {
            Shape::Implicit(kind) | Shape::Explicit(kind) => match (kind, entries.len()) {
                (_, 0) => {
                    self.default(out, kind);
                    Ok(())
                }
                (Type::Message(id), 2..) => {
                    let parts = self.entries.get(entries).unwrap_or_default();
                    let merged = merged(parts)?;
                    let mut writer =
                        Writer { encoder: self.encoder, tables: self.tables, entries: Vec::new() };
                    writer.message(out, id, &merged, depth + 1)
                }
                _ => match self.entries.get(entries.end - 1) {
                    Some(entry) => self.value(out, kind, entry.value, depth),
                    None => Ok(()),
                },
            },
            Shape::Repeated(kind) => {
                out.push(b'[');
                let mut first = true;
                for at in entries {
                    let Some(entry) = self.entries.get(at).copied() else { break };
                    match entry.value {
                        Raw::Bytes(packed) if is_packable(kind) => {
                            let mut reader = Reader::new(packed);
                            while !reader.is_empty() {
                                comma(out, first);
                                first = false;
                                let value = unpacked(&mut reader, kind)?;
                                self.value(out, kind, value, depth)?;
                            }
                        }
                        value => {
                            comma(out, first);
                            first = false;
                            self.value(out, kind, value, depth)?;
                        }
                    }
                }
                out.push(b']');
                Ok(())
            }
            Shape::Map { key, value } => self.map(out, key, value, entries, depth),
        }
    }

    pub(super) fn value(
        &mut self,
        out: &mut Vec<u8>,
        kind: Type,
        value: Raw<'w>,
        depth: u32,
    ) -> Result<(), Fault> {
        match (kind, value) {
            (Type::Message(id), Raw::Bytes(wire)) => self.message(out, id, wire, depth + 1)?,
            (Type::String, Raw::Bytes(bytes)) => string(out, text(bytes)?),
            (Type::Bytes, Raw::Bytes(bytes)) => base64(out, bytes),
            (Type::Bool, Raw::Varint(value)) => {
                out.extend_from_slice(if value == 0 { b"false" } else { b"true" });
            }
            (Type::Enum(id), Raw::Varint(value)) => match self.tables.enum_name(id, low(value)) {
                Some(name) if !self.encoder.style.enums_as_numbers => out.extend_from_slice(name),
                _ => integer(out, low(value)),
            },
            (Type::Null, Raw::Varint(_)) => out.extend_from_slice(b"null"),
            (Type::Int32, Raw::Varint(value)) => integer(out, low(value)),
            (Type::Uint32, Raw::Varint(value)) => integer(out, low(value).cast_unsigned()),
            (Type::Sint32, Raw::Varint(value)) => integer(out, zigzag(u64::from(low(value).cast_unsigned()))),
            (Type::Int64, Raw::Varint(value)) | (Type::Sfixed64, Raw::Fixed64(value)) => {
                self.long(out, value.cast_signed());
            }
            (Type::Uint64, Raw::Varint(value)) | (Type::Fixed64, Raw::Fixed64(value)) => {
                self.long(out, value);
            }
            (Type::Sint64, Raw::Varint(value)) => self.long(out, zigzag(value)),
            (Type::Fixed32, Raw::Fixed32(value)) => integer(out, value),
            (Type::Sfixed32, Raw::Fixed32(value)) => integer(out, value.cast_signed()),
            (Type::Double, Raw::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                match special(value) {
                    Some(name) => out.extend_from_slice(name),
                    None => float(out, value),
                }
            }
            (Type::Float, Raw::Fixed32(bits)) => {
                let value = f32::from_bits(bits);
                match special(f64::from(value)) {
                    Some(name) => out.extend_from_slice(name),
                    None => float(out, value),
                }
            }
            _ => return Err(WireError::Type.into()),
        }
        Ok(())
    }

    pub(super) fn default(&self, out: &mut Vec<u8>, kind: Type) {
        let text: &[u8] = match kind {
            Type::Bool => b"false",
            Type::String | Type::Bytes => b"\"\"",
            Type::Int64 | Type::Uint64 | Type::Sint64 | Type::Fixed64 | Type::Sfixed64
                if !self.encoder.style.int64_as_numbers =>
            {
                b"\"0\""
            }
            Type::Enum(id) if !self.encoder.style.enums_as_numbers => {
                self.tables.enum_name(id, 0).unwrap_or(b"0")
            }
            Type::Null => b"null",
            // An absent message stands in a map only, where it is an empty one.
            Type::Message(id) => {
                let mut writer = Writer { encoder: self.encoder, tables: self.tables, entries: Vec::new() };
                if writer.message(out, id, &[], 0).is_err() {
                    out.extend_from_slice(b"null");
                }
                return;
            }
            _ => b"0",
        };
        out.extend_from_slice(text);
    }
}

/// Messages that follow each other are one message, merged.
pub(super) fn merged(parts: &[Entry<'_>]) -> Result<Vec<u8>, WireError> {
    let mut merged = Vec::new();
    for part in parts {
        let Raw::Bytes(bytes) = part.value else { return Err(WireError::Type) };
        merged.extend_from_slice(bytes);
    }
    Ok(merged)
}

/// The last text under this number at the top of a message; none where there is none.
pub(crate) fn last_text(wire: &[u8], number: u32) -> Option<&str> {
    let mut last = None;
    let mut reader = Reader::new(wire);
    while let Ok(Some((found, value))) = reader.field() {
        if let (true, Raw::Bytes(bytes)) = (found == number, value) {
            last = Some(bytes);
        }
    }
    text(last?).ok()
}

fn is_default(value: Raw<'_>) -> bool {
    matches!(value, Raw::Varint(0) | Raw::Fixed64(0) | Raw::Fixed32(0) | Raw::Bytes([]))
}

fn is_packable(kind: Type) -> bool {
    !matches!(kind, Type::String | Type::Bytes | Type::Message(_))
}

fn unpacked<'w>(reader: &mut Reader<'w>, kind: Type) -> Result<Raw<'w>, WireError> {
    Ok(match kind {
        Type::Double | Type::Fixed64 | Type::Sfixed64 => Raw::Fixed64(reader.fixed64()?),
        Type::Float | Type::Fixed32 | Type::Sfixed32 => Raw::Fixed32(reader.fixed32()?),
        _ => Raw::Varint(reader.varint()?),
    })
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, WireError> {
    std::str::from_utf8(bytes).map_err(|_| WireError::Utf8)
}

fn out_of_range<T>(text: Option<T>, name: &'static str) -> Result<T, Fault> {
    text.ok_or(Fault::Encode(EncodeError::OutOfRange(name)))
}

/// The low half, which is what a varint of a 32-bit field counts by.
#[expect(clippy::cast_possible_truncation, reason = "the wire format asks for it")]
pub(super) fn low(value: u64) -> i32 {
    value as i32
}

pub(super) fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
