//! The parts of a REST request to one gRPC frame: path, query, body, `If-Match`
//! and the inferred update mask. What is wrong in any of them is reported
//! together.
//!
//! Each part appends to the wire form of the request: protobuf merges what
//! stands in pieces.

use std::convert::Infallible;

use bytes::Bytes;
use http::{HeaderMap, header};

use crate::bind::FieldPath;
use crate::content::Content;
use crate::escape::{self, Decode};
use crate::failure::{Failure, Problem, Violations, quoted};
use crate::grpc;
use crate::json::{FieldTable, Tables, put};
use crate::mask;
use crate::query;
use crate::router::Match;
use crate::rule::{BodyRule, PathVariable, Route};
use crate::scalar::Scalars;
use crate::wkt;

/// A REST request, taken apart.
#[derive(Debug)]
pub(crate) struct Parts<'r> {
    pub(crate) matched: &'r Match<'r>,
    pub(crate) query: Option<&'r str>,
    pub(crate) headers: &'r HeaderMap,
    /// Empty where the client sent none.
    pub(crate) content: Content<'r>,
    /// Which message of the body it is, where there may be several.
    pub(crate) index: Option<usize>,
}

/// Builds the request message and frames it.
pub(crate) fn frame(route: &Route, tables: &Tables, parts: &Parts<'_>) -> Result<Bytes, Failure> {
    let mut violations = Violations::default();
    // Binary is most often shorter than its text.
    let mut out = Vec::with_capacity(grpc::PREFIX + parts.content.len() + 64);
    out.resize(grpc::PREFIX, 0);
    let members = parts.content.append(route, tables, &mut out, &mut violations);
    if let Some(index) = parts.index {
        violations.prefix(0, format_args!("[{index}]"));
    }
    let mut request = Request { route, tables, out, violations: &mut violations };
    for variable in &route.variables {
        request.path_variable(variable, parts.matched);
    }
    if let Some(query) = parts.query {
        let Request { out, violations, .. } = &mut request;
        query::bind(route, tables, query, out, grpc::PREFIX, violations);
    }
    if let Some(etag) = &route.request_etag {
        request.if_match(etag, parts.headers);
    }
    if let Some(mask) = &route.update_mask {
        request.mask(mask, &members);
    }
    let out = request.out;
    violations.into_result()?;
    grpc::frame(out)
}

/// A request message in the making.
struct Request<'r, 'v> {
    route: &'r Route,
    tables: &'r Tables,
    /// Room for the frame's prefix, and the message so far.
    out: Vec<u8>,
    violations: &'v mut Violations,
}

impl Request<'_, '_> {
    fn so_far(&self) -> &[u8] {
        self.out.get(grpc::PREFIX..).unwrap_or_default()
    }

    fn path_variable(&mut self, variable: &PathVariable, matched: &Match<'_>) {
        let Some(leaf) = variable.field.leaf(self.tables) else { return };
        let Some(kind) = leaf.kind() else { return };
        let raw = matched.capture(&self.route.template, variable.start, variable.end);
        let how = if variable.is_single || self.route.reading.fully_decode_reserved_expansion {
            Decode::All
        } else {
            Decode::ExceptSlash
        };
        let scalars = Scalars::of_parameters(self.tables, self.route);
        let start = self.out.len();
        let appended = variable.field.append(self.tables, &mut self.out, |out| {
            let text = escape::decode(raw, how).map_err(|error| error.description().to_owned())?;
            scalars.text(out, kind, &text).map_err(|wrong| scalars.describe(wrong, kind, &text))
        });
        if let Err(description) = appended {
            let field = variable.field.name(self.tables);
            return self.violations.push(&field, Problem::InvalidValue, description);
        }
        if start == grpc::PREFIX {
            // Nothing was there that it could contradict.
            return;
        }
        let fragment = self.out.split_off(start);
        let in_body = variable.field.get(self.tables, self.so_far());
        if in_body.is_some() && in_body != variable.field.get(self.tables, &fragment) {
            let description = format!("is `{}` in the path and something else in the body", quoted(raw));
            let field = variable.field.name(self.tables);
            return self.violations.push(&field, Problem::ConflictingField, description);
        }
        if let Some(rival) = variable.field.rival(self.tables, self.so_far()) {
            let description = format!("is part of the path and excludes `{}`", rival.name);
            let field = variable.field.name(self.tables);
            return self.violations.push(&field, Problem::ConflictingField, description);
        }
        self.out.extend_from_slice(&fragment);
    }

    /// `If-Match: "tag"` is the request's etag, unless the request says one itself.
    /// `*` asks for nothing that the rpc does not check anyway.
    fn if_match(&mut self, etag: &FieldPath, headers: &HeaderMap) {
        let mut values = headers.get_all(header::IF_MATCH).iter();
        let Some(value) = values.next() else { return };
        if etag.get(self.tables, self.so_far()).is_some() {
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
            let description = "must be one entity tag, such as `\"abc\"`";
            return self.violations.push("If-Match", Problem::InvalidValue, description);
        }
        self.append(etag, |out| put::bytes(out, tag.as_bytes()));
    }

    /// A mask of the client's stands where its paths are fields. An absent one is filled: `*` for a PUT, and for a
    /// PATCH what its body has.
    fn mask(&mut self, mask: &FieldPath, members: &[usize]) {
        let Some(given) = mask.get(self.tables, self.so_far()) else {
            return if self.route.replaces {
                self.append_mask(mask, ["*"].into_iter());
            } else if !members.is_empty() {
                self.infer_mask(mask, members);
            };
        };
        // Of a whole request only the rpc knows which part of it the mask is about.
        let BodyRule::Field(place) = self.route.body else { return };
        let body = FieldPath::of(self.route.input, place).leaf(self.tables).and_then(FieldTable::message);
        let Some(body) = body else { return };
        if let Some(path) = mask::unknown_path(self.tables, body, given) {
            let name = self.tables.message(body).map(|message| &*message.name).unwrap_or_default();
            let description = format!("names `{}`, which is no field of `{name}`", quoted(path));
            let field = mask.name(self.tables);
            self.violations.push(&field, Problem::UnknownField, description);
        }
    }

    /// Fills it with the members of the body, nulls included: a client that sends a field means it. Fields the path
    /// binds cannot change, and an etag is a condition and no change.
    fn infer_mask(&mut self, mask: &FieldPath, members: &[usize]) {
        let route = self.route;
        let is_path_bound = |member: usize| {
            route.variables.iter().any(|variable| match route.body {
                BodyRule::Whole => variable.field.len() == 1 && variable.field.is_within(member),
                BodyRule::Field(body) => {
                    variable.field.is_within(body) && variable.field.only_below_first() == Some(member)
                }
                BodyRule::None => false,
            })
        };
        let is_whole = matches!(route.body, BodyRule::Whole);
        let tables = self.tables;
        let body = match route.body {
            BodyRule::Field(place) => {
                FieldPath::of(route.input, place).leaf(tables).and_then(FieldTable::message)
            }
            BodyRule::Whole | BodyRule::None => Some(route.input),
        };
        let fields = body.and_then(|id| tables.message(id)).map(|message| message.fields.as_slice());
        let names: Vec<&str> = members
            .iter()
            .filter(|member| !is_path_bound(**member))
            .filter(|member| !is_whole || !mask.is_within(**member))
            .filter_map(|member| fields?.get(*member).map(|field| &*field.name))
            .filter(|name| *name != "etag")
            .collect();
        self.append_mask(mask, names.into_iter());
    }

    fn append_mask<'n>(&mut self, mask: &FieldPath, names: impl Iterator<Item = &'n str>) {
        mask.append_message(self.tables, &mut self.out, |out| {
            for name in names {
                out.push(wkt::PATHS_TAG);
                put::bytes(out, name.as_bytes());
            }
        });
    }

    fn append(&mut self, field: &FieldPath, value: impl FnOnce(&mut Vec<u8>)) {
        let appended = field.append(self.tables, &mut self.out, |out| {
            value(out);
            Ok::<_, Infallible>(())
        });
        match appended {
            Ok(()) => {}
            Err(never) => match never {},
        }
    }
}
