//! The body of a request to the wire form of what the rule binds it to.

use http::HeaderValue;

use crate::bind::FieldPath;
use crate::failure::{Problem, Violations};
use crate::json::{self, Decoder, FieldTable, Tables, Unknown, put};
use crate::parts::{self, Parts};
use crate::query;
use crate::rule::{BodyRule, Route};
use crate::scalar::Masks;

/// Tags of the fields of a `google.api.HttpBody`.
const CONTENT_TYPE_TAG: u8 = 1 << 3 | 2;
const DATA_TAG: u8 = 2 << 3 | 2;

/// A body, or one message of a body that has several.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Content<'b> {
    Json(&'b [u8]),
    Protobuf(&'b [u8]),
    /// Of the type `application/x-www-form-urlencoded`.
    Form(&'b [u8]),
    /// Of the type `multipart/form-data`.
    Parts(&'b Parts),
    /// For a `google.api.HttpBody`.
    Raw {
        content_type: Option<&'b HeaderValue>,
        data: &'b [u8],
    },
}

impl Content<'_> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Json(data) | Self::Protobuf(data) | Self::Form(data) | Self::Raw { data, .. } => data.len(),
            Self::Parts(parts) => parts::len(parts),
        }
    }

    /// Appends it to the request message. Returns the places of the members of its outermost object.
    pub(crate) fn append(
        self,
        route: &Route,
        tables: &Tables,
        out: &mut Vec<u8>,
        violations: &mut Violations,
    ) -> Vec<usize> {
        match self {
            Self::Json(text) => json(text, route, tables, out, violations),
            Self::Protobuf(wire) => protobuf(wire, route, tables, out, violations),
            Self::Form(body) => {
                below(route, tables, violations, |violations| form(body, route, tables, out, violations))
            }
            Self::Parts(parts) => below(route, tables, violations, |violations| {
                parts::bind(route, tables, parts, out, violations)
            }),
            Self::Raw { content_type, data } => {
                let append = |out: &mut Vec<u8>| http_body(out, content_type, data);
                match route.body {
                    BodyRule::None => {}
                    BodyRule::Whole => append(out),
                    BodyRule::Field(place) => {
                        FieldPath::of(route.input, place).append_message(tables, out, append);
                    }
                }
                Vec::new()
            }
        }
    }
}

/// Appends the content of a `google.api.HttpBody`.
pub(crate) fn http_body(out: &mut Vec<u8>, content_type: Option<&HeaderValue>, data: &[u8]) {
    if let Some(content_type) = content_type {
        out.push(CONTENT_TYPE_TAG);
        put::bytes(out, content_type.as_bytes());
    }
    if !data.is_empty() {
        out.push(DATA_TAG);
        put::bytes(out, data);
    }
}

fn json(
    body: &[u8],
    route: &Route,
    tables: &Tables,
    out: &mut Vec<u8>,
    violations: &mut Violations,
) -> Vec<usize> {
    if matches!(route.body, BodyRule::None) && route.reading.options.ignore_unexpected_body {
        return Vec::new();
    }
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let valid = body.get(..error.valid_up_to()).unwrap_or_default();
            let (line, column) = json::position(&String::from_utf8_lossy(valid), valid.len());
            let description = format!("is malformed JSON: not UTF-8 at line {line} column {column}");
            violations.push("", Problem::MalformedJson, description);
            return Vec::new();
        }
    };
    // RFC 8259 knows four whitespace characters; Unicode's others are no JSON.
    if text.trim_start_matches([' ', '\t', '\r', '\n']).is_empty() {
        return Vec::new();
    }
    let options = &route.reading.options;
    let unknown = if options.ignore_unknown_fields { Unknown::Ignored } else { Unknown::Refused };
    let decoder = Decoder { tables, unknown, masks: Masks::Either };
    match route.body {
        BodyRule::None => {
            violations.push("", Problem::UnexpectedBody, "must not have a body");
            Vec::new()
        }
        BodyRule::Whole => decoder.message(out, route.input, text, violations),
        BodyRule::Field(place) => match FieldPath::of(route.input, place).leaf(tables) {
            Some(field) => decoder.field(out, field, text, violations),
            None => Vec::new(),
        },
    }
}

fn form(
    body: &[u8],
    route: &Route,
    tables: &Tables,
    out: &mut Vec<u8>,
    violations: &mut Violations,
) -> Vec<usize> {
    if let Ok(text) = std::str::from_utf8(body) {
        return query::bind_form(route, tables, text, out, violations);
    }
    violations.push("", Problem::MalformedForm, "is a malformed form: not UTF-8");
    Vec::new()
}

/// Binds names that begin at the body. What is wrong is told by names that begin at the request, as of JSON.
fn below(
    route: &Route,
    tables: &Tables,
    violations: &mut Violations,
    bind: impl FnOnce(&mut Violations) -> Vec<usize>,
) -> Vec<usize> {
    let first = violations.len();
    let members = bind(violations);
    if let BodyRule::Field(place) = route.body {
        violations.prefix(first, FieldPath::of(route.input, place).name(tables));
    }
    members
}

fn protobuf(
    wire: &[u8],
    route: &Route,
    tables: &Tables,
    out: &mut Vec<u8>,
    violations: &mut Violations,
) -> Vec<usize> {
    let field = match route.body {
        BodyRule::Field(place) => Some(FieldPath::of(route.input, place)),
        BodyRule::Whole | BodyRule::None => None,
    };
    let message = match &field {
        None => Some(route.input),
        Some(field) => field.leaf(tables).and_then(FieldTable::message),
    };
    let Some(message) = message else { return Vec::new() };
    match json::check(tables, message, wire) {
        Ok(members) => {
            match field {
                None => out.extend_from_slice(wire),
                // An empty body leaves the field unset, as an empty JSON one does.
                Some(_) if wire.is_empty() => {}
                Some(field) => field.append_message(tables, out, |out| out.extend_from_slice(wire)),
            }
            members
        }
        Err(error) => {
            violations.push("", Problem::MalformedProtobuf, format!("is malformed protobuf: {error}"));
            Vec::new()
        }
    }
}
