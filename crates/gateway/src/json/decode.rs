//! JSON text to messages, strictly: unknown and repeated members are errors,
//! and every wrong field of a body is found in one pass.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, Value};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::MAX_DEPTH;
use crate::bind;
use crate::failure::{Problem, Violations};
use crate::scalar::{self, Number};
use crate::wkt::{self, WellKnown};

/// A decoded body.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// `None` for JSON `null`, and where something was wrong.
    pub(crate) value: Option<Value>,
    /// The members of the outermost object, also those that were `null`.
    pub(crate) members: Vec<FieldDescriptor>,
}

/// Decodes a JSON object into a message.
pub(crate) fn message(desc: &MessageDescriptor, text: &str, violations: &mut Violations) -> Decoded {
    decode(&Target::Message(&Kind::Message(desc.clone())), text, violations)
}

/// Decodes the JSON value of one field of a message.
pub(crate) fn field(field: &FieldDescriptor, text: &str, violations: &mut Violations) -> Decoded {
    let first = violations.len();
    let decoded = decode(&Target::Field(field, &field.kind()), text, violations);
    violations.prefix(first, field.name());
    decoded
}

/// A `Struct`, `Value` or `ListValue` given as JSON text in a query string.
pub(crate) fn value_from_text(desc: &MessageDescriptor, text: &str) -> Result<Value, String> {
    let mut violations = Violations::default();
    message(desc, text, &mut violations)
        .value
        .ok_or_else(|| format!("{} as JSON text", scalar::expected(&Kind::Message(desc.clone()))))
}

/// Positions cost a slow reader, so they are looked up by a second run, and
/// only where the first one found something wrong.
fn decode(target: &Target<'_>, text: &str, violations: &mut Violations) -> Decoded {
    let context = Context::default();
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let outcome =
        target.decode(&context, &mut deserializer).and_then(|decoded| deserializer.end().map(|()| decoded));
    match outcome {
        Ok(decoded) if context.violations.borrow().len() == 0 => decoded,
        Ok(_) => {
            let position = Cell::new(Position { line: 1, column: 0 });
            let context = Context { position: Some(&position), ..Context::default() };
            let reader = Located { rest: text.as_bytes(), position: &position };
            // The same text was just read to its end, so this run ends the same way.
            match target.decode(&context, &mut serde_json::Deserializer::from_reader(reader)) {
                Ok(_) => violations.append(context.violations.into_inner()),
                Err(error) => violations.push("", Problem::MalformedJson, error.to_string()),
            }
            Decoded::default()
        }
        Err(error) => {
            violations.push("", Problem::MalformedJson, format!("is malformed JSON: {error}"));
            Decoded::default()
        }
    }
}

enum Target<'d> {
    Message(&'d Kind),
    Field(&'d FieldDescriptor, &'d Kind),
}

impl Target<'_> {
    fn decode<'de, D: Deserializer<'de>>(
        &self,
        context: &Context<'_>,
        deserializer: D,
    ) -> Result<Decoded, D::Error> {
        let (shape, depth) = match self {
            Self::Message(kind) => (Shape::Single(kind), 0),
            Self::Field(field, kind) => (Shape::of(field, kind), 1),
        };
        let parsed = Seed { shape, context, depth }.deserialize(deserializer)?;
        if parsed.is_null && matches!(self, Self::Message(_)) {
            context.report(Problem::InvalidValue, shape.expected());
        }
        Ok(Decoded { value: parsed.value, members: parsed.members })
    }
}

/// Where the reader is: the end of the value a violation is about.
#[derive(Debug, Clone, Copy)]
struct Position {
    line: usize,
    column: usize,
}

struct Located<'t, 'c> {
    rest: &'t [u8],
    position: &'c Cell<Position>,
}

impl std::io::Read for Located<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.rest.read(buffer)?;
        let mut position = self.position.get();
        for byte in buffer.iter().take(count) {
            if *byte == b'\n' {
                position = Position { line: position.line + 1, column: 0 };
            } else {
                position.column += 1;
            }
        }
        self.position.set(position);
        Ok(count)
    }
}

#[derive(Default)]
pub(super) struct Context<'c> {
    position: Option<&'c Cell<Position>>,
    violations: RefCell<Violations>,
}

impl Context<'_> {
    pub(super) fn report(&self, problem: Problem, description: impl Into<String>) {
        self.report_at("", problem, description);
    }

    pub(super) fn report_at(&self, field: &str, problem: Problem, description: impl Into<String>) {
        let mut description = description.into();
        if let Some(position) = self.position {
            let Position { line, column } = position.get();
            description = format!("{description} (line {line}, column {column})");
        }
        self.violations.borrow_mut().push(field, problem, description);
    }

    pub(super) fn len(&self) -> usize {
        self.violations.borrow().len()
    }

    pub(super) fn prefix(&self, first: usize, parent: impl fmt::Display) {
        if self.len() > first {
            self.violations.borrow_mut().prefix(first, parent);
        }
    }
}

/// What a JSON value is read as.
#[derive(Clone, Copy)]
pub(super) enum Shape<'d> {
    Single(&'d Kind),
    List(&'d Kind),
    /// The map entry message.
    Map(&'d MessageDescriptor),
}

impl<'d> Shape<'d> {
    fn of(field: &FieldDescriptor, kind: &'d Kind) -> Self {
        match kind {
            Kind::Message(entry) if field.is_map() => Self::Map(entry),
            kind if field.is_list() => Self::List(kind),
            kind => Self::Single(kind),
        }
    }

    fn expected(self) -> String {
        match self {
            Self::Single(kind) => scalar::expected(kind),
            Self::List(_) => "must be a JSON array".to_owned(),
            Self::Map(_) => "must be a JSON object".to_owned(),
        }
    }
}

#[derive(Default)]
pub(super) struct Parsed {
    pub(super) value: Option<Value>,
    pub(super) is_null: bool,
    members: Vec<FieldDescriptor>,
}

impl From<Value> for Parsed {
    fn from(value: Value) -> Self {
        Self { value: Some(value), ..Self::default() }
    }
}

/// Reads one value. `depth` is the nesting of the message the value would be,
/// counted as `prost` counts it: a map entry is a message too.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) shape: Shape<'a>,
    pub(super) context: &'a Context<'a>,
    pub(super) depth: u32,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Parsed;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Parsed, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Parsed;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Parsed, E> {
        Ok(self.leaf(|kind| scalar::from_bool(kind, value)))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Parsed, E> {
        Ok(self.leaf(|kind| scalar::from_number(kind, Number::Signed(value))))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Parsed, E> {
        Ok(self.leaf(|kind| scalar::from_number(kind, Number::Unsigned(value))))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Parsed, E> {
        Ok(self.leaf(|kind| scalar::from_number(kind, Number::Float(value))))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Parsed, E> {
        self.visit_string(value.to_owned())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Parsed, E> {
        Ok(self.leaf(|kind| scalar::from_string(kind, value)))
    }

    fn visit_unit<E: Error>(self) -> Result<Parsed, E> {
        let value = match self.shape {
            Shape::Single(kind) => wkt::null(kind),
            Shape::List(_) | Shape::Map(_) => None,
        };
        Ok(Parsed { is_null: value.is_none(), value, ..Parsed::default() })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Parsed, A::Error> {
        if self.too_deep() {
            while array.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Parsed::default());
        }
        if let Shape::List(kind) = self.shape {
            return self.elements(kind, self.depth, array).map(|values| Value::List(values).into());
        }
        if let Shape::Single(Kind::Message(desc)) = self.shape {
            match WellKnown::of(desc) {
                Some(WellKnown::List) => return self.list_value(desc, self.depth, array).map(Parsed::from),
                Some(WellKnown::Value) => {
                    if let Some(Kind::Message(list)) =
                        desc.get_field(wkt::LIST_VALUE).map(|field| field.kind())
                    {
                        let list = self.list_value(&list, self.depth + 1, array)?;
                        return Ok(wkt::value(desc, wkt::LIST_VALUE, list).into());
                    }
                }
                _ => {}
            }
        }
        self.context.report(Problem::InvalidValue, self.shape.expected());
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Parsed::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Parsed, A::Error> {
        if self.too_deep() {
            while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(Parsed::default());
        }
        match self.shape {
            Shape::Map(entry) => return self.map(entry, self.depth, object).map(Parsed::from),
            Shape::Single(Kind::Message(desc)) => match WellKnown::of(desc) {
                None | Some(WellKnown::Empty) => {
                    let (message, members) = self.object(desc, object)?;
                    return Ok(Parsed { members, ..Value::Message(message).into() });
                }
                Some(WellKnown::Any) => return self.any(desc, object),
                Some(WellKnown::Struct) => {
                    return self.struct_value(desc, self.depth, object).map(Parsed::from);
                }
                Some(WellKnown::Value) => {
                    if let Some(Kind::Message(inner)) =
                        desc.get_field(wkt::STRUCT_VALUE).map(|field| field.kind())
                    {
                        let inner = self.struct_value(&inner, self.depth + 1, object)?;
                        return Ok(wkt::value(desc, wkt::STRUCT_VALUE, inner).into());
                    }
                }
                Some(_) => {}
            },
            Shape::Single(_) | Shape::List(_) => {}
        }
        self.context.report(Problem::InvalidValue, self.shape.expected());
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Parsed::default())
    }
}

impl<'a> Seed<'a> {
    fn leaf(self, read: impl FnOnce(&Kind) -> Result<Value, String>) -> Parsed {
        let value = match self.shape {
            Shape::Single(kind) => read(kind),
            Shape::List(_) | Shape::Map(_) => Err(self.shape.expected()),
        };
        match value {
            Ok(value) => value.into(),
            Err(description) => {
                self.context.report(Problem::InvalidValue, description);
                Parsed::default()
            }
        }
    }

    fn too_deep(self) -> bool {
        let too_deep = self.depth > MAX_DEPTH;
        if too_deep {
            self.context.report(Problem::InvalidValue, "is nested too deeply");
        }
        too_deep
    }

    fn at(self, shape: Shape<'a>, depth: u32) -> Self {
        Self { shape, depth, ..self }
    }

    pub(super) fn elements<'de, A: SeqAccess<'de>>(
        self,
        kind: &'a Kind,
        depth: u32,
        mut array: A,
    ) -> Result<Vec<Value>, A::Error> {
        let mut values = Vec::new();
        for index in 0_usize.. {
            let first = self.context.len();
            let Some(parsed) = array.next_element_seed(self.at(Shape::Single(kind), depth))? else { break };
            if parsed.is_null {
                self.context.report(Problem::InvalidValue, "must not be null");
            }
            values.extend(parsed.value);
            self.context.prefix(first, format_args!("[{index}]"));
        }
        Ok(values)
    }

    pub(super) fn map<'de, A: MapAccess<'de>>(
        self,
        entry: &MessageDescriptor,
        depth: u32,
        mut object: A,
    ) -> Result<Value, A::Error> {
        let (Some(key_field), Some(value_field)) = (entry.get_field(1), entry.get_field(2)) else {
            return Err(A::Error::custom("a map entry without key and value"));
        };
        let (key_kind, value_kind) = (key_field.kind(), value_field.kind());
        let mut values = HashMap::new();
        while let Some(name) = object.next_key::<String>()? {
            let first = self.context.len();
            // The entry is one level, the message in it the next.
            let seed = Seed { shape: Shape::Single(&value_kind), context: self.context, depth: depth + 1 };
            let parsed = object.next_value_seed(seed)?;
            if parsed.is_null {
                self.context.report(Problem::InvalidValue, "must not be null");
            }
            match scalar::map_key(&key_kind, &name) {
                Ok(key) => match values.entry(key) {
                    Entry::Vacant(slot) => {
                        if let Some(value) = parsed.value {
                            slot.insert(value);
                        }
                    }
                    Entry::Occupied(_) => {
                        self.context.report(Problem::DuplicateField, "is given more than once");
                    }
                },
                Err(description) => {
                    self.context.report(Problem::InvalidValue, format!("has a wrong key: it {description}"));
                }
            }
            if self.context.len() > first {
                self.context.prefix(first, format_args!("[{}]", crate::failure::quoted(&name)));
            }
        }
        Ok(Value::Map(values))
    }

    /// An object with one member per field.
    pub(super) fn object<'de, A: MapAccess<'de>>(
        self,
        desc: &MessageDescriptor,
        mut object: A,
    ) -> Result<(DynamicMessage, Vec<FieldDescriptor>), A::Error> {
        let mut message = DynamicMessage::new(desc.clone());
        let mut members: Vec<FieldDescriptor> = Vec::new();
        while let Some(member) = object.next_key_seed(MemberSeed(desc))? {
            let field = match member {
                Member::Known(field) => field,
                Member::Unknown(name) => {
                    let description = format!("is not a field of `{}`", desc.full_name());
                    self.context.report_at(&name, Problem::UnknownField, description);
                    object.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            let first = self.context.len();
            if members.iter().any(|member| member.number() == field.number()) {
                object.next_value::<IgnoredAny>()?;
                self.context.report(Problem::DuplicateField, "is given more than once");
            } else {
                let kind = field.kind();
                let shape = Shape::of(&field, &kind);
                let seed = Seed { shape, context: self.context, depth: self.depth + 1 };
                if let Some(value) = object.next_value_seed(seed)?.value {
                    if let Some(rival) = bind::oneof_rival(&message, &field) {
                        let description = format!("cannot be given together with `{}`", rival.name());
                        self.context.report(Problem::ConflictingField, description);
                    } else if message.try_set_field(&field, value).is_err() {
                        self.context.report(Problem::InvalidValue, shape.expected());
                    }
                }
            }
            self.context.prefix(first, field.name());
            members.push(field);
        }
        Ok((message, members))
    }
}

/// A member name, looked up without keeping the text of known ones.
enum Member {
    Known(FieldDescriptor),
    Unknown(String),
}

struct MemberSeed<'d>(&'d MessageDescriptor);

impl<'de> DeserializeSeed<'de> for MemberSeed<'_> {
    type Value = Member;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Member, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MemberSeed<'_> {
    type Value = Member;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Member, E> {
        Ok(bind::find_field(self.0, name).map_or_else(|| Member::Unknown(name.to_owned()), Member::Known))
    }
}
