//! The reader's part for well-known types that are JSON objects or arrays.

use super::lexer::{Lexer, Malformed};
use super::put;
use super::read::{Given, Reader};
use super::table::{MessageId, MessageTable, Shape, Type};
use super::type_name;
use crate::failure::Problem;
use crate::wkt::WellKnown;

/// Tags of a `google.protobuf.Any`.
const TYPE_URL_TAG: u8 = 1 << 3 | 2;
const VALUE_TAG: u8 = 2 << 3 | 2;

impl<'t> Reader<'t, '_, '_> {
    /// The content of a `Struct`.
    pub(super) fn struct_fields(&mut self, message: &'t MessageTable, depth: u32) -> Result<(), Malformed> {
        match message.fields.first() {
            Some(field) if let Shape::Map { key, value } = field.shape => {
                self.map(field, key, value, depth + 1)
            }
            _ => self.lexer.skip(),
        }
    }

    /// The content of a `ListValue`.
    pub(super) fn list_values(&mut self, message: &'t MessageTable, depth: u32) -> Result<(), Malformed> {
        match message.fields.first() {
            Some(field) if let Shape::Repeated(kind) = field.shape => self.list(field, kind, depth + 1),
            _ => self.lexer.skip(),
        }
    }

    /// The content of a `Value` that is an object or an array, by the field for these.
    pub(super) fn value_member(
        &mut self,
        message: &'t MessageTable,
        number: u32,
        depth: u32,
    ) -> Result<(), Malformed> {
        let field = message.position(number, 0).and_then(|place| message.fields.get(place));
        let inside = field.and_then(|field| match field.kind()? {
            Type::Message(id) => self.tables.message(id),
            _ => None,
        });
        let (Some(field), Some(inside)) = (field, inside) else { return self.lexer.skip() };
        self.out.extend_from_slice(&field.tag);
        let place = put::open(self.out);
        if inside.well_known == Some(WellKnown::Struct) {
            self.struct_fields(inside, depth + 1)?;
        } else {
            self.list_values(inside, depth + 1)?;
        }
        put::close(self.out, place);
        Ok(())
    }

    /// The content of an `Any`: `{"@type": url, ...}`. The type may stand anywhere, so it is sought first.
    pub(super) fn any(&mut self, depth: u32) -> Result<Given, Malformed> {
        self.is_outermost();
        let start = self.lexer.clone();
        let Some((url_at, type_url)) = self.type_url()? else {
            return self.untyped(start);
        };
        let Some(id) = type_name(&type_url).and_then(|name| self.tables.find(name)) else {
            self.report_at(url_at, "@type", Problem::InvalidValue, "names an unknown message type");
            self.lexer = start;
            return self.lexer.skip().map(|()| Given::Nothing);
        };
        self.lexer = start;
        self.out.push(TYPE_URL_TAG);
        put::bytes(self.out, type_url.as_bytes());
        self.out.push(VALUE_TAG);
        let place = put::open(self.out);
        match self.tables.message(id) {
            Some(message) if message.well_known.is_none() => {
                self.fields(message, depth + 1, Some("@type"))?;
            }
            _ => self.packed(id, depth + 1)?,
        }
        put::close(self.out, place);
        Ok(Given::Value)
    }

    /// The member `@type` of the object that begins here.
    fn type_url(&mut self) -> Result<Option<(usize, String)>, Malformed> {
        self.lexer.enter();
        let mut found = None;
        let mut first = true;
        while let Some((_, name)) = self.lexer.member(&mut first)? {
            if name != "@type" {
                self.lexer.skip()?;
                continue;
            }
            let at = self.at();
            if found.is_some() || self.lexer.peek() != Some(b'"') {
                self.report_at(at, "@type", Problem::InvalidValue, "must be one string");
                self.lexer.skip()?;
                continue;
            }
            found = Some((at, self.lexer.string()?.into_owned()));
        }
        Ok(found)
    }

    /// An `Any` without a type, which is an empty one or none. The lexer stands behind it; `start` is in front of it.
    fn untyped(&mut self, mut start: Lexer<'_>) -> Result<Given, Malformed> {
        let at = start.at();
        start.enter();
        if start.member(&mut true)?.is_none() {
            return Ok(Given::Value);
        }
        self.report_at(at, "@type", Problem::InvalidValue, "is missing");
        Ok(Given::Nothing)
    }

    /// A well-known type inside an `Any` is its JSON form in the member `value`.
    fn packed(&mut self, id: MessageId, depth: u32) -> Result<(), Malformed> {
        let (kind, begin) = (Type::Message(id), self.at());
        self.lexer.enter();
        let (mut first, mut found) = (true, false);
        while let Some((at, name)) = self.lexer.member(&mut first)? {
            match &*name {
                "@type" => self.lexer.skip()?,
                "value" if !found => {
                    found = true;
                    let (value_at, before) = (self.at(), self.violations.len());
                    if self.content(kind, depth)? == Given::Null {
                        self.report(value_at, Problem::InvalidValue, "must not be null");
                    }
                    if self.violations.len() > before {
                        self.violations.prefix(before, "value");
                    }
                }
                _ => {
                    let packed = self.tables.message(id).map(|message| &*message.name).unwrap_or_default();
                    let description = format!("is not a member of a packed `{packed}`");
                    self.report_at(at, &name, Problem::UnknownField, description);
                    self.lexer.skip()?;
                }
            }
        }
        if !found {
            self.report_at(begin, "value", Problem::InvalidValue, self.scalars.expected(kind));
        }
        Ok(())
    }
}
