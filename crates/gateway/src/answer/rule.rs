//! What the answers of a route look like, read once from descriptors and options.

use http::{HeaderValue, StatusCode};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor};

use super::options::AnswerOptions;
use crate::bind::FieldPath;
use crate::escape;
use crate::json::{self, FieldTable, JsonOutput, MessageId, Scope, Tables, Type};
use crate::reading::Selector;
use crate::rule::{HTTP_BODY, string};
use crate::wkt::WellKnown;

const ANSWER: &str = "agentrouter.gateway.v1.answer";
const EVENT: &str = "agentrouter.gateway.v1.event";
const EVENT_ID: i32 = 1;
const EVENT_RETRY: i32 = 2;

/// The gateway's own options, where the pool has them.
#[derive(Debug)]
pub(crate) struct Extensions {
    answer: Option<ExtensionDescriptor>,
    event: Option<ExtensionDescriptor>,
}

impl Extensions {
    pub(crate) fn of(pool: &DescriptorPool) -> Self {
        Self { answer: pool.get_extension_by_name(ANSWER), event: pool.get_extension_by_name(EVENT) }
    }

    /// The status of a method's rule, where it has one.
    pub(crate) fn status(&self, method: &MethodDescriptor) -> Option<i32> {
        let answer = self.answer.as_ref()?;
        let options = method.options();
        let rule = options.get_extension(answer);
        let status = rule.as_message()?.get_field_by_name("status")?.as_i32();
        status.filter(|status| *status != 0)
    }
}

/// The answers of a route.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Of answers that succeed, unless it is 200.
    pub(crate) status: Option<StatusCode>,
    pub(crate) location: Option<Location>,
    pub(crate) json: JsonOutput,
    /// Whether the body is a `google.api.HttpBody`: any bytes of any type.
    pub(crate) is_raw: bool,
    /// Whether the body is one message, so that it has a form in protobuf.
    pub(crate) is_message: bool,
    /// What clients may ask for a part of, where they may.
    pub(crate) partial: Option<Scope>,
    /// Whether the body is a message that never says anything.
    pub(crate) is_empty: bool,
    /// The numbers of the fields that server-sent events have beside their data.
    pub(crate) event_id: Option<Plain>,
    pub(crate) event_retry: Option<Plain>,
}

impl Rule {
    /// The error completes "the rule ...".
    pub(crate) fn of(
        extensions: &Extensions,
        method: &MethodDescriptor,
        tables: &Tables,
        output: MessageId,
        response_body: Option<u32>,
        options: &AnswerOptions,
    ) -> Result<Self, String> {
        let whole = Scope { message: Some(output), is_many: false };
        let scope = response_body.map_or(whole, |number| {
            let fields = tables.message(output).map(|message| message.fields.as_slice());
            let field = fields.unwrap_or_default().iter().find(|field| field.number == number);
            field.map_or(whole, |field| Scope::of(field.shape))
        });
        let body = scope.message.filter(|_| !scope.is_many).and_then(|id| tables.message(id));
        let mut rule = Self {
            status: None,
            location: None,
            json: json_of(options, method.full_name()),
            is_raw: body.is_some_and(|body| *body.name == *HTTP_BODY),
            is_message: body.is_some(),
            partial: options.field_masks.then_some(scope),
            is_empty: body.is_some_and(|body| body.well_known == Some(WellKnown::Empty)),
            event_id: None,
            event_retry: None,
        };
        rule.read_answer(extensions, method, tables, output)?;
        rule.read_events(extensions, method)?;
        Ok(rule)
    }

    fn read_answer(
        &mut self,
        extensions: &Extensions,
        method: &MethodDescriptor,
        tables: &Tables,
        output: MessageId,
    ) -> Result<(), String> {
        let Some(answer) = &extensions.answer else { return Ok(()) };
        let options = method.options();
        if !options.has_extension(answer) {
            return Ok(());
        }
        if method.is_server_streaming() {
            return Err(format!("has the option `{ANSWER}`, and streams always answer 200"));
        }
        if let Some(status) = extensions.status(method) {
            let status = u16::try_from(status).ok().and_then(success);
            let status =
                status.ok_or_else(|| format!("has an option `{ANSWER}` whose status is no success"))?;
            self.status = Some(status);
        }
        let rule = options.get_extension(answer);
        let location = rule.as_message().map(|rule| string(rule, "location"));
        if let Some(text) = location.filter(|text| !text.is_empty()) {
            self.location = Some(Location::parse(&text, tables, output)?);
        }
        Ok(())
    }

    fn read_events(&mut self, extensions: &Extensions, method: &MethodDescriptor) -> Result<(), String> {
        let Some(event) = extensions.event.as_ref().filter(|_| method.is_server_streaming()) else {
            return Ok(());
        };
        for field in method.output().fields() {
            let options = field.options();
            if !options.has_extension(event) {
                continue;
            }
            let meaning = options.get_extension(event);
            let is_text = matches!(field.kind(), prost_reflect::Kind::String);
            let is_value = !field.is_list() && (is_text || is_whole(&field.kind()));
            let place = match meaning.as_enum_number() {
                Some(EVENT_ID) if is_value => &mut self.event_id,
                Some(EVENT_RETRY) if is_value && !is_text => &mut self.event_retry,
                Some(EVENT_ID | EVENT_RETRY) => {
                    return Err(format!("streams `{}`, whose type is no such `{EVENT}`", field.full_name()));
                }
                _ => continue,
            };
            let is_unsigned = matches!(field.kind(), prost_reflect::Kind::Uint64);
            *place = Some(Plain { number: field.number(), is_unsigned });
        }
        Ok(())
    }
}

fn json_of(options: &AnswerOptions, rpc: &str) -> JsonOutput {
    let selected = options.json_of.iter().rev().find(|(selector, _)| Selector::new(selector).selects(rpc));
    selected.map_or(options.json, |(_, json)| *json)
}

fn is_whole(kind: &prost_reflect::Kind) -> bool {
    use prost_reflect::Kind;
    // Those whose varint is the number.
    matches!(kind, Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64)
}

/// A status of an answer that is no error.
pub(crate) fn success(status: u16) -> Option<StatusCode> {
    let is_success = (200..400).contains(&status) && status != StatusCode::NOT_MODIFIED.as_u16();
    StatusCode::from_u16(status).ok().filter(|_| is_success)
}

/// A field at the top of a message that is a text or a whole number.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain {
    number: u32,
    is_unsigned: bool,
}

impl Plain {
    /// The value; none where it is not set.
    pub(crate) fn of(self, wire: &[u8]) -> Option<String> {
        plain(json::find(wire, &[self.number])?, self.is_unsigned).filter(|text| !text.is_empty())
    }
}

fn plain(value: json::Raw<'_>, is_unsigned: bool) -> Option<String> {
    match value {
        json::Raw::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        json::Raw::Varint(value) if is_unsigned => Some(value.to_string()),
        // Negative numbers of any width stand as 64 bits.
        json::Raw::Varint(value) => Some(value.cast_signed().to_string()),
        json::Raw::Fixed64(_) | json::Raw::Fixed32(_) => None,
    }
}

/// Where the thing is that an answer is about.
#[derive(Debug)]
pub(crate) struct Location(Vec<Part>);

#[derive(Debug)]
enum Part {
    Text(String),
    /// The flag tells of numbers without a sign.
    Field(FieldPath, bool),
}

impl Location {
    fn parse(text: &str, tables: &Tables, output: MessageId) -> Result<Self, String> {
        let wrong = |what: &str| format!("has the location `{text}`, {what}");
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').ok_or_else(|| wrong("whose brace is not closed"))?;
            let field = FieldPath::resolve(tables, output, name)
                .map_err(|_| wrong("which names no field of the response"))?;
            let kinds = [Type::String, Type::Int32, Type::Int64, Type::Uint32, Type::Uint64];
            let leaf = field.leaf(tables).filter(|leaf| leaf.is_singular());
            let kind = leaf.and_then(FieldTable::kind).filter(|kind| kinds.contains(kind));
            let kind =
                kind.ok_or_else(|| wrong("which names a field that is no text and no whole number"))?;
            parts.extend([Part::Text(before.to_owned()), Part::Field(field, kind == Type::Uint64)]);
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        let is_visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        if is_visible { Ok(Self(parts)) } else { Err(wrong("which is no URI")) }
    }

    /// The header for a message; none where a field of it is not set.
    pub(crate) fn of(&self, tables: &Tables, wire: &[u8]) -> Option<HeaderValue> {
        let mut text = String::new();
        for part in &self.0 {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Field(field, is_unsigned) => {
                    let value = plain(field.get(tables, wire)?, *is_unsigned);
                    let value = value.filter(|value| !value.is_empty())?;
                    escape::segment(&mut text, &value);
                }
            }
        }
        HeaderValue::try_from(text).ok()
    }
}
