//! Fields by their names: query parameters, and forms as bodies. Every faulty one is reported, and none can touch a
//! field that another part of the request carries.

use std::borrow::Cow;

use crate::answer;
use crate::bind::{FieldPath, PathError};
use crate::escape::{self, Decode};
use crate::failure::{Problem, Violations, quoted};
use crate::json::{Decoder, FieldTable, Shape, Tables, Type, Unknown, put};
use crate::reading::SystemParameters;
use crate::rule::{BodyRule, Route};
use crate::scalar::{Masks, Scalars};

/// Where the names stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    Query,
    /// They begin at what the rule makes the body.
    Form,
}

impl Source {
    fn noun(self) -> &'static str {
        match self {
            Self::Query => "query parameter",
            Self::Form => "form field",
        }
    }
}

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
    Named::new(route, tables, Source::Query, start).pairs(query, out, violations);
}

/// The same for a body of the type `application/x-www-form-urlencoded`. Returns the places of the fields of the body
/// that it names.
pub(crate) fn bind_form(
    route: &Route,
    tables: &Tables,
    form: &str,
    out: &mut Vec<u8>,
    violations: &mut Violations,
) -> Vec<usize> {
    let start = out.len();
    let mut named = Named::new(route, tables, Source::Form, start);
    named.pairs(form, out, violations);
    named.into_members()
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

/// Named fields on their way.
pub(crate) struct Named<'q> {
    route: &'q Route,
    tables: &'q Tables,
    source: Source,
    scalars: Scalars<'q>,
    start: usize,
    /// The singular fields that were given, and the entries of maps by their keys on the wire.
    seen: Vec<(FieldPath, Vec<u8>)>,
    /// The fields of the body that were given something, by their places, each once.
    members: Vec<usize>,
}

/// What a name gives a value to.
pub(crate) struct Leaf {
    path: FieldPath,
    /// None where it is a map.
    pub(crate) kind: Option<Type>,
    /// Where it is an entry of a map: the entry so far, without its value.
    entry: Option<Vec<u8>>,
    is_singular: bool,
}

impl<'q> Named<'q> {
    /// For a request message that begins at `start`.
    pub(crate) fn new(route: &'q Route, tables: &'q Tables, source: Source, start: usize) -> Self {
        let scalars = Scalars::of_parameters(tables, route);
        Self { route, tables, source, scalars, start, seen: Vec::new(), members: Vec::new() }
    }

    /// The fields of the body that were named, by their places.
    pub(crate) fn into_members(self) -> Vec<usize> {
        self.members
    }

    /// Binds a query string, or a form that is written as one.
    fn pairs(&mut self, text: &str, out: &mut Vec<u8>, violations: &mut Violations) {
        let max_parameters = self.route.reading.max_query_parameters;
        for (index, pair) in text.split('&').filter(|pair| !pair.is_empty()).enumerate() {
            if index == max_parameters {
                let description = format!("has more than {max_parameters} {}s", self.source.noun());
                violations.push("", Problem::TooManyParameters, description);
                return;
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = match escape::decode(name, Decode::Form) {
                Ok(name) => name,
                Err(error) => {
                    let description = format!("as a name {}", error.description());
                    violations.push(name, Problem::InvalidValue, description);
                    continue;
                }
            };
            if self.source == Source::Query && name == answer::PRETTY {
                if !matches!(value, "true" | "false") {
                    violations.push(&name, Problem::InvalidValue, "must be `true` or `false`");
                }
                continue;
            }
            // It is judged with the answer that it is about.
            if self.source == Source::Query && name == answer::FIELDS && answer::is_parameter(self.route) {
                continue;
            }
            if let Err((problem, description)) = self.pair(&name, value, out) {
                violations.push(&name, problem, description);
            }
        }
    }

    fn pair(&mut self, name: &str, value: &str, out: &mut Vec<u8>) -> Result<(), (Problem, String)> {
        let text = || {
            escape::decode(value, Decode::Form)
                .map_err(|error| (Problem::InvalidValue, error.description().to_owned()))
        };
        let options = &self.route.reading.options;
        if self.source == Source::Query && options.system_parameters.iter().any(|known| known == name) {
            return text().map(drop);
        }
        let Some(leaf) = self.leaf(name)? else { return Ok(()) };
        let kind = self.text_kind(&leaf, name)?;
        self.text(&leaf, kind, &text()?, out)
    }

    /// Gives a leaf of this type the value that a text stands for.
    pub(crate) fn text(
        &mut self,
        leaf: &Leaf,
        kind: Type,
        text: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), (Problem, String)> {
        let scalars = self.scalars;
        self.give(leaf, out, |out| text_value(scalars, kind, text, out))
    }

    /// Gives a leaf the value that `write` appends.
    pub(crate) fn give(
        &mut self,
        leaf: &Leaf,
        out: &mut Vec<u8>,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), (Problem, String)>,
    ) -> Result<(), (Problem, String)> {
        if leaf.is_singular {
            let (path, entry) = (&leaf.path, leaf.entry.as_deref().unwrap_or_default());
            if self.seen.iter().any(|(other, seen)| *seen == *entry && other.overlaps(path)) {
                return Err((Problem::DuplicateField, "is given more than once".to_owned()));
            }
            self.seen.push((path.clone(), entry.to_owned()));
        }
        if self.source == Source::Form {
            let depth = usize::from(!matches!(self.route.body, BodyRule::Whole));
            let member = leaf.path.place(depth).filter(|place| !self.members.contains(place));
            self.members.extend(member);
        }
        let (tables, kind) = (self.tables, leaf.kind);
        let so_far = out.get(self.start..).unwrap_or_default();
        let rival = leaf.path.rival(tables, so_far);
        leaf.path.append(tables, out, |out| match &leaf.entry {
            None => write(out),
            Some(entry) => {
                let place = put::open(out);
                out.extend_from_slice(entry);
                out.extend_from_slice(&put::tag(2, kind.map_or(0, Type::wire_type)));
                write(out)?;
                put::close(out, place);
                Ok(())
            }
        })?;
        match rival {
            None => Ok(()),
            Some(rival) => {
                let description = format!("cannot be given together with `{}`", rival.name);
                Err((Problem::ConflictingField, description))
            }
        }
    }

    /// What a name means; none where it is passed over.
    pub(crate) fn leaf(&self, name: &str) -> Result<Option<Leaf>, (Problem, String)> {
        match self.find(name) {
            Err((Problem::UnknownField, _)) if self.route.reading.options.unknown_parameters.allows(name) => {
                Ok(None)
            }
            leaf => leaf.map(Some),
        }
    }

    fn find(&self, name: &str) -> Result<Leaf, (Problem, String)> {
        let (route, tables) = (self.route, self.tables);
        let entry = name.strip_suffix(']').filter(|_| route.reading.options.map_parameters);
        let (field, key) = match entry.and_then(|name| name.split_once('[')) {
            None => (name, None),
            Some((field, key)) => (field, Some(key)),
        };
        let path = match (self.source, &route.body) {
            (Source::Form, BodyRule::Field(place)) => {
                FieldPath::of(route.input, *place).resolve_below(tables, field)
            }
            _ => FieldPath::resolve(tables, route.input, field),
        };
        let path = match path {
            Ok(path) => path,
            Err(PathError::TooLong) => {
                return Err((Problem::UnknownField, "is nested too deeply".to_owned()));
            }
            Err(PathError::Unknown | PathError::NoParent) => return Err(self.unknown()),
        };
        if route.variables.iter().any(|variable| variable.field == path) {
            let description = format!("is part of the path and cannot be a {}", self.source.noun());
            return Err((Problem::ConflictingField, description));
        }
        let in_body = match route.body {
            _ if self.source == Source::Form => false,
            BodyRule::None => false,
            BodyRule::Whole => true,
            BodyRule::Field(place) => path.is_within(place),
        };
        if in_body {
            let description = "belongs in the request body and cannot be a query parameter".to_owned();
            return Err((Problem::NotBindable, description));
        }
        let leaf = path.leaf(tables).ok_or_else(|| self.unknown())?;
        let (kind, entry) = match (leaf.shape, key) {
            (Shape::Map { key: kind, value }, Some(key)) => {
                let mut entry = put::tag(1, kind.wire_type()).into_vec();
                self.scalars
                    .map_key(&mut entry, kind, key)
                    .map_err(|wrong| (Problem::InvalidValue, self.scalars.describe(wrong, kind, key)))?;
                (Some(value), Some(entry))
            }
            (_, Some(_)) => return Err(self.unknown()),
            (_, None) => (leaf.kind(), None),
        };
        let is_singular = leaf.is_singular() || entry.is_some();
        Ok(Leaf { path, kind, entry, is_singular })
    }

    /// The type of a leaf that one text can be.
    pub(crate) fn text_kind(&self, leaf: &Leaf, name: &str) -> Result<Type, (Problem, String)> {
        if let Some(kind) = leaf.kind.filter(|kind| self.scalars.is_text(*kind)) {
            return Ok(kind);
        }
        let field = leaf.path.leaf(self.tables);
        let description = if field.is_some_and(FieldTable::is_singular) {
            format!("is an object; name one of its fields, as in `{}.field`", quoted(name))
        } else {
            format!("holds objects, which a {} cannot carry", self.source.noun())
        };
        Err((Problem::NotBindable, description))
    }

    fn unknown(&self) -> (Problem, String) {
        let description = match self.source {
            Source::Query => "is not a parameter of this method",
            Source::Form => "is not a field of the request body",
        };
        (Problem::UnknownField, description.to_owned())
    }
}

fn text_value(
    scalars: Scalars<'_>,
    kind: Type,
    text: &str,
    out: &mut Vec<u8>,
) -> Result<(), (Problem, String)> {
    let wrong = match kind {
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
            (violations.len() > 0).then(|| format!("{} as JSON text", scalars.expected(kind)))
        }
        _ => scalars.text(out, kind, text).err().map(|wrong| scalars.describe(wrong, kind, text)),
    };
    wrong.map_or(Ok(()), |description| Err((Problem::InvalidValue, description)))
}
