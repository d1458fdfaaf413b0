//! Query parameters to request fields. Every faulty parameter is reported, and
//! none can touch a field that the path or the body carries.

use prost_reflect::DynamicMessage;

use crate::bind::{FieldPath, PathError, SetError};
use crate::escape::{self, Decode};
use crate::failure::{Problem, Violations, quoted};
use crate::rule::{BodyRule, Route};
use crate::scalar;

pub(crate) fn bind(
    route: &Route,
    query: &str,
    max_parameters: usize,
    message: &mut DynamicMessage,
    violations: &mut Violations,
) {
    let mut seen: Vec<FieldPath> = Vec::new();
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
        if let Err((problem, description)) = parameter(route, &name, value, &mut seen, message) {
            violations.push(&name, problem, description);
        }
    }
}

fn parameter(
    route: &Route,
    name: &str,
    value: &str,
    seen: &mut Vec<FieldPath>,
    message: &mut DynamicMessage,
) -> Result<(), (Problem, String)> {
    let path = match FieldPath::resolve(&route.input, name) {
        Ok(path) => path,
        Err(PathError::TooLong) => return Err((Problem::UnknownField, "is nested too deeply".to_owned())),
        Err(PathError::Unknown | PathError::NoParent) => {
            return Err((Problem::UnknownField, "is not a parameter of this method".to_owned()));
        }
    };
    if route.variables.iter().any(|variable| variable.field == path) {
        let description = "is part of the path and cannot be a query parameter".to_owned();
        return Err((Problem::ConflictingField, description));
    }
    let in_body = match &route.body {
        BodyRule::None => false,
        BodyRule::Whole => true,
        BodyRule::Field(field) => path.is_within(field),
    };
    if in_body {
        let description = "belongs in the request body and cannot be a query parameter".to_owned();
        return Err((Problem::NotBindable, description));
    }
    let Some(leaf) = path.leaf() else {
        return Err((Problem::UnknownField, "is not a parameter of this method".to_owned()));
    };
    let kind = leaf.kind();
    if leaf.is_map() || !scalar::is_text(&kind) {
        let description = if leaf.is_list() || leaf.is_map() {
            "holds objects, which a query parameter cannot carry".to_owned()
        } else {
            format!("is an object; name one of its fields, as in `{}.field`", quoted(name))
        };
        return Err((Problem::NotBindable, description));
    }
    if !leaf.is_list() {
        if seen.contains(&path) {
            return Err((Problem::DuplicateField, "is given more than once".to_owned()));
        }
        seen.push(path.clone());
    }

    let text = escape::decode(value, Decode::Form)
        .map_err(|error| (Problem::InvalidValue, error.description().to_owned()))?;
    let value =
        scalar::from_text(&kind, &text).map_err(|description| (Problem::InvalidValue, description))?;
    path.set(message, value).map_err(|error| match error {
        SetError::Oneof(rival) => {
            (Problem::ConflictingField, format!("cannot be given together with `{}`", rival.name()))
        }
        SetError::WrongType => (Problem::InvalidValue, scalar::expected(&kind)),
    })
}
