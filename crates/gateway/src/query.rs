//! Query parameters to request fields. Every faulty parameter is reported, and
//! none can touch a field that the path or the body carries.

use crate::bind::{FieldPath, PathError};
use crate::escape::{self, Decode};
use crate::failure::{Problem, Violations, quoted};
use crate::json::{Decoder, Tables, Type, Unknown, put};
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
    let mut query_of = Query { route, tables, start, seen: Vec::new() };
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
        if let Err((problem, description)) = query_of.parameter(&name, value, out) {
            violations.push(&name, problem, description);
        }
    }
}

/// One query string on its way.
struct Query<'q> {
    route: &'q Route,
    tables: &'q Tables,
    start: usize,
    /// The singular fields that were given.
    seen: Vec<FieldPath>,
}

impl Query<'_> {
    fn parameter(&mut self, name: &str, value: &str, out: &mut Vec<u8>) -> Result<(), (Problem, String)> {
        let (route, tables) = (self.route, self.tables);
        let path = match FieldPath::resolve(tables, route.input, name) {
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
        let scalars = Scalars { tables, masks: Masks::Either };
        let kind = leaf.kind().filter(|kind| scalars.is_text(*kind));
        let Some(kind) = kind else {
            let description = if leaf.is_singular() {
                format!("is an object; name one of its fields, as in `{}.field`", quoted(name))
            } else {
                "holds objects, which a query parameter cannot carry".to_owned()
            };
            return Err((Problem::NotBindable, description));
        };
        if leaf.is_singular() {
            if self.seen.contains(&path) {
                return Err((Problem::DuplicateField, "is given more than once".to_owned()));
            }
            self.seen.push(path.clone());
        }

        let text = escape::decode(value, Decode::Form)
            .map_err(|error| (Problem::InvalidValue, error.description().to_owned()))?;
        let so_far = out.get(self.start..).unwrap_or_default();
        let rival = path.rival(tables, so_far);
        path.append(tables, out, |out| text_value(tables, kind, &text, out))
            .map_err(|description| (Problem::InvalidValue, description))?;
        match rival {
            None => Ok(()),
            Some(rival) => {
                let description = format!("cannot be given together with `{}`", rival.name);
                Err((Problem::ConflictingField, description))
            }
        }
    }
}

fn unknown() -> (Problem, String) {
    (Problem::UnknownField, "is not a parameter of this method".to_owned())
}

fn text_value(tables: &Tables, kind: Type, text: &str, out: &mut Vec<u8>) -> Result<(), String> {
    let scalars = Scalars { tables, masks: Masks::Either };
    match kind {
        Type::Message(id) if scalars.is_json_text(kind) => {
            let mut violations = Violations::default();
            let place = put::open(out);
            Decoder { tables, unknown: Unknown::Refused, masks: Masks::Either }.message(
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
