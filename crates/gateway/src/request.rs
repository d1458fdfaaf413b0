//! The parts of a REST request to one gRPC frame: path, query, body, `If-Match`
//! and the inferred update mask. What is wrong in any of them is reported
//! together.

use bytes::Bytes;
use http::{HeaderMap, header};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use crate::bind::SetError;
use crate::escape::{self, Decode};
use crate::failure::{Failure, Problem, Violations, quoted};
use crate::options::Options;
use crate::router::Match;
use crate::rule::{BodyRule, PathVariable, Route};
use crate::{grpc, json, query, scalar};

/// A REST request, taken apart.
#[derive(Debug)]
pub(crate) struct Parts<'r> {
    pub(crate) matched: &'r Match<'r>,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
    /// Empty where the client sent none.
    pub(crate) body: &'r [u8],
}

/// Builds the request message and frames it.
pub(crate) fn frame(route: &Route, parts: &Parts<'_>, options: &Options) -> Result<Bytes, Failure> {
    let mut violations = Violations::default();
    let (mut message, members) = from_body(route, parts.body, &mut violations);
    for variable in &route.variables {
        from_path(route, variable, parts.matched, options, &mut message, &mut violations);
    }
    if let Some(query) = parts.query {
        query::bind(route, query, options.max_query_parameters, &mut message, &mut violations);
    }
    if let Some(etag) = &route.request_etag {
        from_if_match(etag, parts.headers, &mut message, &mut violations);
    }
    if let Some(mask) = &route.update_mask {
        infer_mask(route, mask, &members, &mut message);
    }
    violations.into_result()?;
    grpc::frame(&message)
}

/// The message as far as the body goes, and the members of its outermost object.
fn from_body(
    route: &Route,
    body: &[u8],
    violations: &mut Violations,
) -> (DynamicMessage, Vec<FieldDescriptor>) {
    let empty = || DynamicMessage::new(route.input.clone());
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => {
            let valid = body.get(..error.valid_up_to()).unwrap_or_default();
            let line = valid.split(|byte| *byte == b'\n').count();
            let column = valid.iter().rev().take_while(|byte| **byte != b'\n').count() + 1;
            let description = format!("is malformed JSON: not UTF-8 at line {line} column {column}");
            violations.push("", Problem::MalformedJson, description);
            return (empty(), Vec::new());
        }
    };
    // RFC 8259 knows four whitespace characters; Unicode's others are no JSON.
    if text.trim_start_matches([' ', '\t', '\r', '\n']).is_empty() {
        return (empty(), Vec::new());
    }
    match &route.body {
        BodyRule::None => {
            violations.push("", Problem::UnexpectedBody, "must not have a body");
            (empty(), Vec::new())
        }
        BodyRule::Whole => {
            let decoded = json::message(&route.input, text, violations);
            match decoded.value {
                Some(Value::Message(message)) => (message, decoded.members),
                _ => (empty(), decoded.members),
            }
        }
        BodyRule::Field(field) => {
            let decoded = json::field(field, text, violations);
            let mut message = empty();
            if let Some(value) = decoded.value
                && message.try_set_field(field, value).is_err()
            {
                violations.push(field.name(), Problem::InvalidValue, scalar::expected(&field.kind()));
            }
            (message, decoded.members)
        }
    }
}

fn from_path(
    route: &Route,
    variable: &PathVariable,
    matched: &Match<'_>,
    options: &Options,
    message: &mut DynamicMessage,
    violations: &mut Violations,
) {
    let Some(leaf) = variable.field.leaf() else { return };
    let raw = matched.capture(&route.template, variable.start, variable.end);
    let how = if variable.is_single || options.fully_decode_reserved_expansion {
        Decode::All
    } else {
        Decode::ExceptSlash
    };
    let value = escape::decode(raw, how)
        .map_err(|error| error.description().to_owned())
        .and_then(|text| scalar::from_text(&leaf.kind(), &text));
    let field = variable.field.to_string();
    let value = match value {
        Ok(value) => value,
        Err(description) => return violations.push(&field, Problem::InvalidValue, description),
    };
    if variable.field.get(message).is_some_and(|in_body| in_body != value) {
        let description = format!("is `{}` in the path and something else in the body", quoted(raw));
        return violations.push(&field, Problem::ConflictingField, description);
    }
    match variable.field.set(message, value) {
        Ok(()) => {}
        Err(SetError::Oneof(rival)) => {
            let description = format!("is part of the path and excludes `{}`", rival.name());
            violations.push(&field, Problem::ConflictingField, description);
        }
        Err(SetError::WrongType) => {
            violations.push(&field, Problem::InvalidValue, scalar::expected(&leaf.kind()));
        }
    }
}

/// `If-Match: "tag"` is the request's etag, unless the request says one itself.
/// `*` asks for nothing that the rpc does not check anyway.
fn from_if_match(
    etag: &FieldDescriptor,
    headers: &HeaderMap,
    message: &mut DynamicMessage,
    violations: &mut Violations,
) {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return };
    if message.has_field(etag) {
        return;
    }
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && values.next().is_none() {
        return;
    }
    // A cache or proxy that compresses the answer marks the tag as weak.
    let tag = text.strip_prefix("W/").unwrap_or(text);
    let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).unwrap_or(tag);
    if tag.is_empty() || tag.contains(['"', ',']) || values.next().is_some() {
        violations.push("If-Match", Problem::InvalidValue, "must be one entity tag, such as `\"abc\"`");
    } else if message.try_set_field(etag, Value::String(tag.to_owned())).is_err() {
        violations.push("If-Match", Problem::InvalidValue, "does not apply to this method");
    }
}

/// Fills an absent mask with the members of the body, nulls included: a client
/// that sends a field means it. Fields the path binds cannot change, and an
/// etag is a condition and no change.
fn infer_mask(
    route: &Route,
    mask: &FieldDescriptor,
    members: &[FieldDescriptor],
    message: &mut DynamicMessage,
) {
    let Kind::Message(desc) = mask.kind() else { return };
    if message.has_field(mask) || members.is_empty() {
        return;
    }
    let is_path_bound = |member: &FieldDescriptor| {
        route.variables.iter().any(|variable| match &route.body {
            BodyRule::Whole => variable.field.len() == 1 && variable.field.is_within(member),
            BodyRule::Field(body) => {
                let below = variable.field.below_first();
                variable.field.is_within(body)
                    && below.len() == 1
                    && below.iter().all(|field| field.number() == member.number())
            }
            BodyRule::None => false,
        })
    };
    let is_whole = matches!(route.body, BodyRule::Whole);
    let paths = members
        .iter()
        .filter(|member| member.name() != "etag" && !(is_whole && member.number() == mask.number()))
        .filter(|member| !is_path_bound(member))
        .map(|member| Value::String(member.name().to_owned()))
        .collect();
    let inferred = scalar::message(&desc, [(1, Value::List(paths))]);
    if message.try_set_field(mask, inferred).is_err() {
        tracing::debug!(rpc = route.info.rpc, "update_mask is no FieldMask");
    }
}
