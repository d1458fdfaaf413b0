//! JSON text to the wire, in one pass and strictly: unknown and repeated members are errors, and every wrong field of a
//! body is found at once. Only text that is no JSON ends the reading early.

use std::borrow::Cow;

use super::MAX_DEPTH;
use super::lexer::{Lexer, Malformed, Place, position};
use super::put;
use super::table::{FieldTable, MessageId, MessageTable, Shape, Tables, Type};
use crate::failure::{Problem, Violations};
use crate::reading::Lenient;
use crate::scalar::{Masks, Scalars, Wrong, is_default};
use crate::wkt::{self, WellKnown};

/// What is done with members that the message does not have, and with names that the enum does not have, or
/// numbers where it is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    Refused,
    Ignored,
}

/// Reads messages of one pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decoder<'t> {
    pub(crate) tables: &'t Tables,
    pub(crate) unknown: Unknown,
    pub(crate) masks: Masks,
}

impl<'t> Decoder<'t> {
    /// Appends what a JSON value is as a message. Returns the members of the object by their places in the table, also
    /// those that were `null`. What is appended is good for nothing where a violation was found.
    pub(crate) fn message(
        self,
        out: &mut Vec<u8>,
        id: MessageId,
        text: &str,
        violations: &mut Violations,
    ) -> Vec<usize> {
        self.read(out, text, violations, |reader| {
            let (at, kind) = (reader.at(), Type::Message(id));
            if reader.content(kind, 0)? == Given::Null {
                reader.report(at, Problem::InvalidValue, reader.scalars.expected(kind));
            }
            Ok(())
        })
    }

    /// Appends what a JSON value is as a field of a message; nothing for `null`.
    pub(crate) fn field(
        self,
        out: &mut Vec<u8>,
        field: &'t FieldTable,
        text: &str,
        violations: &mut Violations,
    ) -> Vec<usize> {
        let first = violations.len();
        let members = self.read(out, text, violations, |reader| {
            if !field.is_singular() {
                // What is in a list or a map are no members of the body.
                reader.is_outermost();
            }
            reader.field(field, 1).map(|_| ())
        });
        violations.prefix(first, &field.name);
        members
    }

    fn read(
        self,
        out: &mut Vec<u8>,
        text: &str,
        violations: &mut Violations,
        read: impl FnOnce(&mut Reader<'t, '_, '_>) -> Result<(), Malformed>,
    ) -> Vec<usize> {
        let first = violations.len();
        let mut reader = Reader {
            tables: self.tables,
            scalars: Scalars { tables: self.tables, masks: self.masks, lenient: Lenient::default() },
            unknown: self.unknown,
            lexer: Lexer::new(text),
            out,
            violations,
            members: None,
            place: Place::default(),
        };
        reader.at();
        let outcome = read(&mut reader).and_then(|()| reader.lexer.end());
        let members = reader.members.unwrap_or_default();
        if let Err(Malformed { at, what }) = outcome {
            // What was found before it may be due to it.
            violations.truncate(first);
            let (line, column) = position(text, at);
            let description = format!("is malformed JSON: {what} at line {line} column {column}");
            violations.push("", Problem::MalformedJson, description);
        }
        members
    }
}

/// What a JSON value was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Value,
    /// `null`, where that is the absence of a value. Nothing is appended.
    Null,
    /// Something wrong, which is reported, or to be ignored. Nothing is appended.
    Nothing,
}

/// Reads one text.
pub(super) struct Reader<'t, 'x, 'o> {
    pub(super) tables: &'t Tables,
    pub(super) scalars: Scalars<'t>,
    unknown: Unknown,
    pub(super) lexer: Lexer<'x>,
    pub(super) out: &'o mut Vec<u8>,
    pub(super) violations: &'o mut Violations,
    /// Of the outermost object.
    members: Option<Vec<usize>>,
    /// Of the last violation.
    place: Place,
}

impl<'t> Reader<'t, '_, '_> {
    /// Whether this is the first object that asks.
    pub(super) fn is_outermost(&mut self) -> bool {
        let is_outermost = self.members.is_none();
        self.members.get_or_insert_default();
        is_outermost
    }

    /// Where the next value begins.
    pub(super) fn at(&mut self) -> usize {
        self.lexer.peek();
        self.lexer.at()
    }

    /// Appends a field with its tag. `depth` is the nesting of the message that a value of it would be, counted as
    /// `prost` counts it: a map entry is a message, too.
    pub(super) fn field(&mut self, field: &'t FieldTable, depth: u32) -> Result<Given, Malformed> {
        match field.shape {
            Shape::Implicit(kind) => {
                let start = self.out.len();
                let given = self.tagged(field, kind, depth)?;
                if given == Given::Value && is_default(self.out, start + field.tag.len()) {
                    self.out.truncate(start);
                }
                Ok(given)
            }
            Shape::Explicit(kind) => self.tagged(field, kind, depth),
            Shape::Repeated(kind) => match self.lexer.peek() {
                Some(b'[') => self.list(field, kind, depth).map(|()| Given::Value),
                _ => self.no_container("must be a JSON array"),
            },
            Shape::Map { key, value } => match self.lexer.peek() {
                Some(b'{') => self.map(field, key, value, depth).map(|()| Given::Value),
                _ => self.no_container("must be a JSON object"),
            },
        }
    }

    fn no_container(&mut self, expected: &str) -> Result<Given, Malformed> {
        if self.lexer.peek() == Some(b'n') {
            return self.lexer.word("null").map(|()| Given::Null);
        }
        self.wrong(expected)
    }

    /// Reports the next value and passes over it.
    pub(super) fn wrong(&mut self, expected: impl Into<String>) -> Result<Given, Malformed> {
        let at = self.at();
        self.report(at, Problem::InvalidValue, expected);
        self.lexer.skip().map(|()| Given::Nothing)
    }

    fn tagged(&mut self, field: &FieldTable, kind: Type, depth: u32) -> Result<Given, Malformed> {
        let start = self.out.len();
        self.out.extend_from_slice(&field.tag);
        let given = if let Some(end) = &field.end {
            let given = self.content(kind, depth)?;
            self.out.extend_from_slice(end);
            given
        } else {
            self.value(kind, depth)?
        };
        if given != Given::Value {
            self.out.truncate(start);
        }
        Ok(given)
    }

    /// Appends one value without its tag.
    pub(super) fn value(&mut self, kind: Type, depth: u32) -> Result<Given, Malformed> {
        let start = self.out.len();
        if let Type::Message(_) = kind {
            let place = put::open(self.out);
            let given = self.content(kind, depth)?;
            if given == Given::Value {
                put::close(self.out, place);
            } else {
                self.out.truncate(start);
            }
            return Ok(given);
        }
        let at = self.at();
        let (outcome, text) = match self.lexer.peek() {
            Some(b'"') => {
                let text = self.lexer.string()?;
                (self.scalars.string(self.out, kind, &text), Some(text))
            }
            Some(b'-' | b'0'..=b'9') => {
                let text = self.lexer.number()?;
                (self.scalars.number(self.out, kind, text), Some(Cow::Borrowed(text)))
            }
            Some(b't') => {
                self.lexer.word("true")?;
                (self.scalars.boolean(self.out, kind, true), None)
            }
            Some(b'f') => {
                self.lexer.word("false")?;
                (self.scalars.boolean(self.out, kind, false), None)
            }
            Some(b'n') => {
                self.lexer.word("null")?;
                if kind != Type::Null {
                    return Ok(Given::Null);
                }
                self.out.push(0);
                (Ok(()), None)
            }
            _ => return self.wrong(self.scalars.expected(kind)),
        };
        let Err(wrong) = outcome else { return Ok(Given::Value) };
        self.out.truncate(start);
        if !(matches!(wrong, Wrong::Name(_)) && self.unknown == Unknown::Ignored) {
            let description = self.scalars.describe(wrong, kind, text.as_deref().unwrap_or_default());
            self.report(at, Problem::InvalidValue, description);
        }
        Ok(Given::Nothing)
    }

    /// Appends the content of a message, without tag and length.
    pub(super) fn content(&mut self, kind: Type, depth: u32) -> Result<Given, Malformed> {
        let Type::Message(id) = kind else { return self.wrong("has no type") };
        let Some(message) = self.tables.message(id) else { return self.wrong("has no type") };
        let (at, start) = (self.at(), self.out.len());
        let outcome = match self.lexer.peek() {
            Some(b'{') => return self.object(message, kind, depth),
            Some(b'[') => return self.array(message, kind, depth),
            Some(b'n') => {
                self.lexer.word("null")?;
                if message.well_known != Some(WellKnown::Value) {
                    return Ok(Given::Null);
                }
                self.out.extend_from_slice(&wkt::NULL_VALUE);
                return Ok(Given::Value);
            }
            Some(b'"') => {
                let text = self.lexer.string()?;
                self.scalars.content_of_string(self.out, kind, &text)
            }
            Some(b'-' | b'0'..=b'9') => {
                let text = self.lexer.number()?;
                self.scalars.content_of_number(self.out, kind, text)
            }
            Some(b't') => {
                self.lexer.word("true")?;
                self.scalars.content_of_bool(self.out, kind, true)
            }
            Some(b'f') => {
                self.lexer.word("false")?;
                self.scalars.content_of_bool(self.out, kind, false)
            }
            _ => return self.wrong("must be a JSON value"),
        };
        if outcome.is_ok() {
            return Ok(Given::Value);
        }
        self.out.truncate(start);
        self.report(at, Problem::InvalidValue, self.scalars.expected(kind));
        Ok(Given::Nothing)
    }

    fn object(&mut self, message: &'t MessageTable, kind: Type, depth: u32) -> Result<Given, Malformed> {
        if self.is_too_deep(depth)? {
            return Ok(Given::Nothing);
        }
        match message.well_known {
            None | Some(WellKnown::Empty) => self.fields(message, depth, None)?,
            Some(WellKnown::Any) => return self.any(depth),
            Some(WellKnown::Struct) => self.struct_fields(message, depth)?,
            Some(WellKnown::Value) => self.value_member(message, wkt::STRUCT_VALUE, depth)?,
            Some(_) => return self.wrong(self.scalars.expected(kind)),
        }
        Ok(Given::Value)
    }

    fn array(&mut self, message: &'t MessageTable, kind: Type, depth: u32) -> Result<Given, Malformed> {
        if self.is_too_deep(depth)? {
            return Ok(Given::Nothing);
        }
        match message.well_known {
            Some(WellKnown::List) => self.list_values(message, depth)?,
            Some(WellKnown::Value) => self.value_member(message, wkt::LIST_VALUE, depth)?,
            _ => return self.wrong(self.scalars.expected(kind)),
        }
        Ok(Given::Value)
    }

    /// Whether the next value would be nested too deep; then it is passed over.
    pub(super) fn is_too_deep(&mut self, depth: u32) -> Result<bool, Malformed> {
        let is_too_deep = depth > MAX_DEPTH;
        if is_too_deep {
            self.wrong("is nested too deeply")?;
        }
        Ok(is_too_deep)
    }

    /// The members of an object as fields; `but` one, which was read already.
    pub(super) fn fields(
        &mut self,
        message: &'t MessageTable,
        depth: u32,
        but: Option<&str>,
    ) -> Result<(), Malformed> {
        self.lexer.enter();
        let mut seen = Seen::default();
        let mut oneofs: Vec<(usize, &'t FieldTable)> = Vec::new();
        let mut members = self.is_outermost().then(Vec::new);
        let (mut first, mut hint) = (true, 0);
        while let Some((at, name)) = self.lexer.member(&mut first)? {
            if but == Some(&*name) {
                self.lexer.skip()?;
                continue;
            }
            let Some((place, field)) =
                message.find(&name, hint).and_then(|place| Some((place, message.fields.get(place)?)))
            else {
                if self.unknown == Unknown::Refused {
                    let description = format!("is not a field of `{}`", message.name);
                    self.report_at(at, &name, Problem::UnknownField, description);
                }
                self.lexer.skip()?;
                continue;
            };
            hint = place + 1;
            let before = self.violations.len();
            if seen.insert(place) {
                let given = self.field(field, depth + 1)?;
                if let (Some(oneof), Given::Value) = (field.oneof, given) {
                    match oneofs.iter().find(|(other, _)| *other == oneof) {
                        Some((_, rival)) => {
                            let description = format!("cannot be given together with `{}`", rival.name);
                            self.report(at, Problem::ConflictingField, description);
                        }
                        None => oneofs.push((oneof, field)),
                    }
                }
            } else {
                self.report(at, Problem::DuplicateField, "is given more than once");
                self.lexer.skip()?;
            }
            if self.violations.len() > before {
                self.violations.prefix(before, &field.name);
            }
            if let Some(members) = &mut members {
                members.push(place);
            }
        }
        if let Some(members) = members {
            self.members = Some(members);
        }
        Ok(())
    }

    pub(super) fn list(&mut self, field: &FieldTable, kind: Type, depth: u32) -> Result<(), Malformed> {
        if self.is_too_deep(depth)? {
            return Ok(());
        }
        self.lexer.enter();
        let start = self.out.len();
        let place = field.packed.as_ref().map(|tag| {
            self.out.extend_from_slice(tag);
            put::open(self.out)
        });
        let (mut first, mut index) = (true, 0_usize);
        while self.lexer.element(&mut first)? {
            let (at, before) = (self.at(), self.violations.len());
            let given =
                if place.is_some() { self.value(kind, depth)? } else { self.tagged(field, kind, depth)? };
            if given == Given::Null {
                self.report(at, Problem::InvalidValue, "must not be null");
            }
            if self.violations.len() > before {
                self.violations.prefix(before, format_args!("[{index}]"));
            }
            index += 1;
        }
        if let Some(place) = place {
            let content = put::close(self.out, place);
            if content == self.out.len() {
                self.out.truncate(start);
            }
        }
        Ok(())
    }

    pub(super) fn report(&mut self, at: usize, problem: Problem, description: impl Into<String>) {
        self.report_at(at, "", problem, description);
    }

    pub(super) fn report_at(
        &mut self,
        at: usize,
        field: &str,
        problem: Problem,
        description: impl Into<String>,
    ) {
        // Beyond what is told, a place is not even looked for: there may be millions.
        if self.violations.is_full() {
            return;
        }
        let (line, column) = self.place.move_to(self.lexer.text(), at);
        let description = format!("{} (line {line}, column {column})", description.into());
        self.violations.push(field, problem, description);
    }
}

/// The fields of a message that were given, by their places.
#[derive(Debug, Default)]
struct Seen {
    low: u64,
    high: Vec<u64>,
}

impl Seen {
    /// Whether it was not given before.
    fn insert(&mut self, place: usize) -> bool {
        let (word, bit) = (place / 64, 1_u64 << (place % 64));
        let word = match word.checked_sub(1) {
            None => &mut self.low,
            Some(above) => {
                if self.high.len() <= above {
                    self.high.resize(above + 1, 0);
                }
                match self.high.get_mut(above) {
                    Some(word) => word,
                    None => return false,
                }
            }
        };
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }
}
