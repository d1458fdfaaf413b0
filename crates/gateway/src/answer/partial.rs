//! Partial answers: a client names the fields that it wants to see.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use crate::escape::{self, Decode, EscapeError};
use crate::failure::{Problem, Violations, quoted};
use crate::json::{Place, Scope, Selection, Tables};
use crate::rule::Route;

/// The query parameter that names them. No field of a message can be called so.
pub(crate) const FIELDS: &str = "$fields";
/// The header that does the same, as Google's APIs have it.
const HEADER: HeaderName = HeaderName::from_static("x-goog-fieldmask");

/// Whether a route has the parameter. Where an operator has reserved its name, it is for the rpc.
pub(crate) fn is_parameter(route: &Route) -> bool {
    let reserved = &route.reading.options.system_parameters;
    route.answer.partial.is_some() && !reserved.iter().any(|name| name == FIELDS)
}

/// What a request selects of its answer; none where that is all. The parameter counts before the header. The errors
/// name every path that the answer does not have.
pub(crate) fn selection(
    route: &Route,
    tables: &Tables,
    query: Option<&str>,
    headers: &HeaderMap,
) -> Result<Option<Selection>, Violations> {
    // Bytes have no fields.
    let Some(scope) = route.answer.partial.filter(|_| !route.answer.is_raw) else { return Ok(None) };
    let mut parameters = query.into_iter().flat_map(parameters).filter(|_| is_parameter(route));
    let first = parameters.next();
    if first.is_none() && !headers.contains_key(HEADER) {
        return Ok(None);
    }
    let (selection, violations) = (Selection::default(), Violations::default());
    let mut mask = Mask { tables, scope, selection, is_everything: false, violations };
    match first {
        None => {
            for value in headers.get_all(HEADER) {
                // What is no text is no field either.
                mask.read("X-Goog-FieldMask", &String::from_utf8_lossy(value.as_bytes()));
            }
        }
        Some(Ok(paths)) => mask.read(FIELDS, &paths),
        Some(Err(error)) => mask.violations.push(FIELDS, Problem::InvalidValue, error.description()),
    }
    if parameters.next().is_some() {
        mask.violations.push(FIELDS, Problem::DuplicateField, "is given more than once");
    }
    let is_all = mask.is_everything || mask.selection.is_empty();
    if mask.violations.len() > 0 { Err(mask.violations) } else { Ok((!is_all).then_some(mask.selection)) }
}

/// The values of the parameter.
fn parameters(query: &str) -> impl Iterator<Item = Result<Cow<'_, str>, EscapeError>> {
    query.split('&').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        super::is_system(name, FIELDS).then(|| escape::decode(value, Decode::Form))
    })
}

/// A mask on its way.
struct Mask<'m> {
    tables: &'m Tables,
    scope: Scope,
    selection: Selection,
    is_everything: bool,
    violations: Violations,
}

impl Mask<'_> {
    fn read(&mut self, source: &str, paths: &str) {
        for path in paths.split(',').map(str::trim).filter(|path| !path.is_empty()) {
            match Place::resolve(self.tables, self.scope, path) {
                Some(Place::Everything) => self.is_everything = true,
                Some(Place::Field(places)) => self.selection.add(&places),
                None => {
                    let description = format!("names `{}`, which is no field of the answer", quoted(path));
                    self.violations.push(source, Problem::UnknownField, description);
                }
            }
        }
    }
}
