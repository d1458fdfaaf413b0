//! The writer's part for well-known types.

use std::borrow::Cow;

use super::output::JsonOutput;
use super::table::{MessageId, Tables};
use super::text::{base64, string};
use super::type_name;
use super::wire::{Raw, Reader, WireError};
use super::write::{EncodeError, Encoder, Fault, Writer, low, text};
use crate::wkt;

impl Encoder<'_> {
    pub(super) fn any_at(
        &self,
        out: &mut Vec<u8>,
        type_url: &str,
        bytes: &[u8],
        depth: u32,
    ) -> Result<(), EncodeError> {
        if type_url.is_empty() && bytes.is_empty() {
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        out.extend_from_slice(b"{\"@type\":");
        string(out, type_url);
        let start = out.len();
        let found = type_name(type_url)
            .and_then(|name| self.tables.iter().find_map(|tables| Some((*tables, tables.find(name)?))));
        if let Some((tables, id)) = found {
            match self.inside_any(out, tables, id, bytes, depth) {
                Ok(()) => {
                    out.push(b'}');
                    return Ok(());
                }
                Err(Fault::Wire(_)) => out.truncate(start),
                Err(fault) => return Err(fault.of(tables.message(id))),
            }
        }
        out.extend_from_slice(b",\"value\":");
        base64(out, bytes);
        out.push(b'}');
        Ok(())
    }

    fn inside_any(
        &self,
        out: &mut Vec<u8>,
        tables: &Tables,
        id: MessageId,
        bytes: &[u8],
        depth: u32,
    ) -> Result<(), Fault> {
        let mut writer = Writer { encoder: *self, tables, entries: Vec::new() };
        let message = tables.message(id).ok_or(Fault::Encode(EncodeError::Unknown))?;
        if message.well_known.is_some() {
            out.extend_from_slice(b",\"value\":");
            writer.message(out, id, bytes, depth + 1)
        } else {
            writer.members(out, message, bytes, depth + 1, false)
        }
    }
}

impl Writer<'_, '_> {
    /// A mask in ProtoJSON's lowerCamelCase. Only plain ProtoJSON promises the way back: in other
    /// answers a path that would not survive it is kept, since refusing the whole answer would help nobody.
    pub(super) fn field_mask(&self, out: &mut Vec<u8>, wire: &[u8]) -> Result<(), Fault> {
        let mut paths: Vec<Cow<'_, str>> = Vec::new();
        let mut reader = Reader::new(wire);
        while let Some((number, value)) = reader.field()? {
            match (number, value) {
                (1, Raw::Bytes(bytes)) => {
                    let path = text(bytes)?;
                    paths.push(match wkt::camel_case(path) {
                        Some(camel) => camel.into(),
                        None if self.encoder.style != JsonOutput::PROTO => path.into(),
                        None => return Err(Fault::Encode(EncodeError::Mask)),
                    });
                }
                (1, _) => return Err(WireError::Type.into()),
                _ => {}
            }
        }
        string(out, &paths.join(","));
        Ok(())
    }
}

/// The two fields of a time or a length of time.
pub(super) fn seconds_and_nanos(wire: &[u8]) -> Result<(i64, i32), WireError> {
    let (mut seconds, mut nanos) = (0, 0);
    let mut reader = Reader::new(wire);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Raw::Varint(value)) => seconds = value.cast_signed(),
            (2, Raw::Varint(value)) => nanos = low(value),
            (1 | 2, _) => return Err(WireError::Type),
            _ => {}
        }
    }
    Ok((seconds, nanos))
}

pub(super) fn any_parts(wire: &[u8]) -> Result<(&str, &[u8]), WireError> {
    let (mut type_url, mut content) = ("", &[][..]);
    let mut reader = Reader::new(wire);
    while let Some((number, value)) = reader.field()? {
        match (number, value) {
            (1, Raw::Bytes(bytes)) => type_url = text(bytes)?,
            (2, Raw::Bytes(bytes)) => content = bytes,
            (1 | 2, _) => return Err(WireError::Type),
            _ => {}
        }
    }
    Ok((type_url, content))
}
