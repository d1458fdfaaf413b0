//! Path templates as OpenAPI paths.
//!
//! OpenAPI knows one kind of parameter: one segment. So a variable of several
//! segments becomes a parameter for each of its wildcards, named after the
//! literal before it; a `**` is one parameter and is marked as `x-multi-segment`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::endpoint::Endpoint;
use crate::template::Segment;

/// Every HTTP method that a path item may hold; those that a rule for any method stands for.
const METHODS: [&str; 8] = ["GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"];
const ANY: [&str; 5] = ["GET", "PUT", "POST", "DELETE", "PATCH"];

/// The paths so far. Templates that differ in the names of their variables only are one path.
#[derive(Debug, Default)]
pub(super) struct Paths {
    /// The parameters' names, by the path without them.
    shapes: BTreeMap<String, Vec<String>>,
    items: BTreeMap<String, Map<String, Value>>,
}

impl Paths {
    /// The names of the wildcards of a template, in order.
    pub(super) fn parameters(&mut self, endpoint: &Endpoint) -> Vec<String> {
        let shape = write(endpoint, &[]);
        self.shapes.entry(shape).or_insert_with(|| names(endpoint)).clone()
    }

    pub(super) fn insert(&mut self, endpoint: &Endpoint, names: &[String], operation: &Map<String, Value>) {
        let item = self.items.entry(write(endpoint, names)).or_default();
        let methods: &[&str] = match endpoint.http.as_str() {
            "*" => &ANY,
            one => &[one],
        };
        for (index, method) in methods.iter().enumerate() {
            let mut operation = operation.clone();
            if index > 0 {
                let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
                let id = format!("{id}_{}", method.to_ascii_lowercase());
                operation.insert("operationId".to_owned(), id.into());
            }
            let key = method.to_ascii_lowercase();
            let key = if METHODS.contains(method) { key } else { format!("x-{key}") };
            // A rule for one method wins over one for any, whichever comes first.
            if endpoint.http != "*" || !item.contains_key(&key) {
                item.insert(key, Value::Object(operation));
            }
        }
    }

    pub(super) fn into_json(self) -> Value {
        self.items.into_iter().map(|(path, item)| (path, Value::Object(item))).collect()
    }
}

/// The path with its parameters by these names; by none, its shape.
fn write(endpoint: &Endpoint, names: &[String]) -> String {
    let mut names = names.iter();
    let mut path = String::new();
    for segment in &endpoint.template.segments {
        path.push('/');
        match segment {
            Segment::Literal(text) => path.push_str(text),
            Segment::One | Segment::Many => {
                path.push('{');
                path.push_str(names.next().map_or("", String::as_str));
                path.push('}');
            }
        }
    }
    if let Some(verb) = &endpoint.template.verb {
        path.push(':');
        path.push_str(verb);
    }
    path
}

fn names(endpoint: &Endpoint) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let mut literal = "segment";
    for (index, segment) in endpoint.template.segments.iter().enumerate() {
        if let Segment::Literal(text) = segment {
            literal = text;
            continue;
        }
        let variable = endpoint.variables.iter().map(|field| &field.variable);
        let variable = variable.clone().find(|variable| variable.start <= index && index < variable.end);
        let name = match variable {
            Some(variable) if variable.end - variable.start == 1 => variable.field_path.clone(),
            _ => format!("{literal}_id"),
        };
        let numbered = (2..).map(|number| format!("{name}_{number}"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !names.contains(name));
        names.push(free.unwrap_or(name));
    }
    names
}
