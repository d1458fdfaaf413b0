//! Query parameters to request fields. Every faulty parameter is reported, and
//! none can touch a field that the path or the body carries.

use std::borrow::Cow;

use crate::answer;
use crate::bind::{FieldPath, PathError};
use crate::escape::{self, Decode};
use crate::failure::{Problem, Violations, quoted};
use crate::json::{Decoder, Shape, Tables, Type, Unknown, put};
use crate::reading::SystemParameters;
use crate::rule::{BodyRule, Route};
use crate::scalar::{Masks, Scalars};

/// Appends what the parameters say to the request message that begins at
/// `start`.
pub(crate) fn bind(
    route: &Route,
    tables: &Tables,
    query: &str,
    out: &mut Vec<u8>,
    start: usize,
    violations: &mut Violations,
) {
    let max_parameters = route.reading.max_query_parameters;
    let mut query_of =
        Query { route, tables, scalars: Scalars::of_parameters(tables, route), start, seen: Vec::new() };
    for (index, pair) in query.split('&').filter(|pair| !pair.is_empty()).enumerate() {
        if index == max_parameters {
            let description = format!("has more than {max_parameters} query parameters");
            violations.push("", Problem::TooManyParameters, description);
            return;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = match escape::decode(name, Decode::Form) {
            Ok(name) => name,
            Err(error) => {
                violations.push(name, Problem::InvalidValue, format!("as a name {}", error.description()));
                continue;
            }
        };
        if name == answer::PRETTY {
            if !matches!(value, "true" | "false") {
                violations.push(&name, Problem::InvalidValue, "must be `true` or `false`");
            }
            continue;
        }
        // It is judged with the answer that it is about.
        if name == answer::FIELDS && answer::is_parameter(route) {
            continue;
        }
        if let Err((problem, description)) = query_of.parameter(&name, value, out) {
            violations.push(&name, problem, description);
        }
    }
}

/// Those of the parameters that are no fields; none where there are none.
pub(crate) fn system_parameters(route: &Route, query: Option<&str>) -> Option<SystemParameters> {
    let names = &route.reading.options.system_parameters;
    let query = query.filter(|_| !names.is_empty())?;
    let text = |text| escape::decode(text, Decode::Form).ok().map(Cow::into_owned);
    let found = query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = text(name).filter(|name| names.contains(name))?;
        Some((name, text(value)?))
    });
    // What is wrong with one is found where they are bound.
    let found: Vec<_> = found.take(route.reading.max_query_parameters).collect();
    (!found.is_empty()).then_some(SystemParameters(found))
}

/// One query string on its way.
struct Query<'q> {
    route: &'q Route,
    tables: &'q Tables,
    scalars: Scalars<'q>,
    start: usize,
    /// The singular fields that were given, and the entries of maps by their keys on the wire.
    seen: Vec<(FieldPath, Vec<u8>)>,
}

/// What a parameter gives a value to.
struct Leaf {
    path: FieldPath,
    kind: Type,
    /// Where it is an entry of a map: the entry so far, without its value.
    entry: Option<Vec<u8>>,
    is_singular: bool,
}

impl Query<'_> {
    fn parameter(&mut self, name: &str, value: &str, out: &mut Vec<u8>) -> Result<(), (Problem, String)> {
        let text = || {
            escape::decode(value, Decode::Form)
                .map_err(|error| (Problem::InvalidValue, error.description().to_owned()))
        };
        let options = &self.route.reading.options;
        if options.system_parameters.iter().any(|known| known == name) {
            return text().map(drop);
        }
        let leaf = match self.leaf(name) {
            Err((Problem::UnknownField, _)) if options.unknown_parameters.allows(name) => return Ok(()),
            leaf => leaf?,
        };
        if leaf.is_singular {
            let seen = (leaf.path.clone(), leaf.entry.clone().unwrap_or_default());
            if self.seen.contains(&seen) {
                return Err((Problem::DuplicateField, "is given more than once".to_owned()));
            }
            self.seen.push(seen);
        }
        let (tables, text) = (self.tables, text()?);
        let so_far = out.get(self.start..).unwrap_or_default();
        let rival = leaf.path.rival(tables, so_far);
        let appended = leaf.path.append(tables, out, |out| match &leaf.entry {
            None => text_value(self.scalars, leaf.kind, &text, out),
            Some(entry) => {
                let place = put::open(out);
                out.extend_from_slice(entry);
                out.extend_from_slice(&put::tag(2, leaf.kind.wire_type()));
                text_value(self.scalars, leaf.kind, &text, out)?;
                put::close(out, place);
                Ok(())
            }
        });
        appended.map_err(|description| (Problem::InvalidValue, description))?;
        match rival {
            None => Ok(()),
            Some(rival) => {
                let description = format!("cannot be given together with `{}`", rival.name);
                Err((Problem::ConflictingField, description))
            }
        }
    }

    fn leaf(&self, name: &str) -> Result<Leaf, (Problem, String)> {
        let (route, tables) = (self.route, self.tables);
        let entry = name.strip_suffix(']').filter(|_| route.reading.options.map_parameters);
        let (field, key) = match entry.and_then(|name| name.split_once('[')) {
            None => (name, None),
            Some((field, key)) => (field, Some(key)),
        };
        let path = match FieldPath::resolve(tables, route.input, field) {
            Ok(path) => path,
            Err(PathError::TooLong) => {
                return Err((Problem::UnknownField, "is nested too deeply".to_owned()));
            }
            Err(PathError::Unknown | PathError::NoParent) => return Err(unknown()),
        };
        if route.variables.iter().any(|variable| variable.field == path) {
            let description = "is part of the path and cannot be a query parameter".to_owned();
            return Err((Problem::ConflictingField, description));
        }
        let in_body = match route.body {
            BodyRule::None => false,
            BodyRule::Whole => true,
            BodyRule::Field(place) => path.is_within(place),
        };
        if in_body {
            let description = "belongs in the request body and cannot be a query parameter".to_owned();
            return Err((Problem::NotBindable, description));
        }
        let leaf = path.leaf(tables).ok_or_else(unknown)?;
        let (kind, entry) = match (leaf.shape, key) {
            (Shape::Map { key: kind, value }, Some(key)) => {
                let mut entry = put::tag(1, kind.wire_type()).into_vec();
                self.scalars
                    .map_key(&mut entry, kind, key)
                    .map_err(|wrong| (Problem::InvalidValue, self.scalars.describe(wrong, kind, key)))?;
                (Some(value), Some(entry))
            }
            (_, Some(_)) => return Err(unknown()),
            (_, None) => (leaf.kind(), None),
        };
        let is_singular = leaf.is_singular() || entry.is_some();
        if let Some(kind) = kind.filter(|kind| self.scalars.is_text(*kind)) {
            return Ok(Leaf { path, kind, entry, is_singular });
        }
        let description = if leaf.is_singular() {
            format!("is an object; name one of its fields, as in `{}.field`", quoted(name))
        } else {
            "holds objects, which a query parameter cannot carry".to_owned()
        };
        Err((Problem::NotBindable, description))
    }
}

fn unknown() -> (Problem, String) {
    (Problem::UnknownField, "is not a parameter of this method".to_owned())
}

fn text_value(scalars: Scalars<'_>, kind: Type, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    match kind {
        Type::Message(id) if scalars.is_json_text(kind) => {
            let mut violations = Violations::default();
            let place = put::open(out);
            Decoder { tables: scalars.tables, unknown: Unknown::Refused, masks: Masks::Either }.message(
                out,
                id,
                text,
                &mut violations,
            );
            put::close(out, place);
            if violations.len() == 0 {
                Ok(())
            } else {
                Err(format!("{} as JSON text", scalars.expected(kind)))
            }
        }
        _ => scalars.text(out, kind, text).map_err(|wrong| scalars.describe(wrong, kind, text)),
    }
}
