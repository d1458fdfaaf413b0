//! The document as clients read it, and calls made of nothing else.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use agentrouter::openapi;
use serde_json::{Map, Value};

/// An operation of the document.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) id: &'static str,
    /// In upper case.
    pub(crate) method: String,
    pub(crate) path: &'static str,
    pub(crate) value: &'static Value,
}

/// A call of an operation.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Option<Value>,
}

/// The whole document.
pub(crate) fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);
    &DOCUMENT
}

/// All operations.
pub(crate) fn operations() -> &'static [Operation] {
    static OPERATIONS: LazyLock<Vec<Operation>> = LazyLock::new(|| {
        let paths = document()["paths"].as_object().unwrap();
        let operations = paths.iter().flat_map(|(path, item)| {
            item.as_object().unwrap().iter().map(move |(method, value)| Operation {
                id: value["operationId"].as_str().unwrap(),
                method: method.to_uppercase(),
                path,
                value,
            })
        });
        operations.collect()
    });
    &OPERATIONS
}

/// The operations of an RPC, by the short name of its service.
pub(crate) fn of_rpc(name: &str) -> Vec<&'static Operation> {
    let found = operations().iter().filter(|operation| operation.rpc().ends_with(&format!(".{name}")));
    let found: Vec<_> = found.collect();
    assert!(!found.is_empty(), "no operation of {name}");
    found
}

/// What a reference within the document leads to; any other value itself.
pub(crate) fn resolved(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(target) => document().pointer(target.strip_prefix('#').unwrap()).unwrap(),
        None => value,
    }
}

impl Operation {
    pub(crate) fn rpc(&self) -> &'static str {
        self.value["x-grpc-method"].as_str().unwrap()
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.value.pointer("/responses/200/content/text~1event-stream").is_some()
    }

    pub(crate) fn parameters(&self, place: &str) -> impl Iterator<Item = &'static Value> {
        let parameters = self.value["parameters"].as_array().unwrap().iter();
        parameters.filter(move |parameter| parameter["in"] == place)
    }

    /// The schema of the body.
    pub(crate) fn body(&self) -> Option<&'static Value> {
        self.value.pointer("/requestBody/content/application~1json/schema").map(resolved)
    }

    /// The call that a request message of the RPC stands for. Every member must have a place in the document.
    pub(crate) fn call(&self, message: &Value) -> Call {
        let mut rest = message.as_object().unwrap().clone();
        let mut path = self.path.to_owned();
        for parameter in self.parameters("path") {
            let name = parameter["name"].as_str().unwrap();
            let value = rest.remove(name).unwrap_or_else(|| panic!("{}: no {name} in {message}", self.id));
            path = path.replace(&format!("{{{name}}}"), value.as_str().unwrap());
        }
        assert!(!path.contains('{'), "{path} is not filled");
        let mut query = Vec::new();
        if self.body().is_none() {
            let known: BTreeMap<&str, &Value> = self
                .parameters("query")
                .map(|parameter| (parameter["name"].as_str().unwrap(), parameter))
                .collect();
            flatten("", &rest, &mut query);
            for (name, _) in &query {
                assert!(known.contains_key(name.as_str()), "{}: no parameter {name}", self.id);
            }
            rest.clear();
        }
        Call { path, query, body: self.body().map(|_| Value::Object(rest)) }
    }
}

fn flatten(prefix: &str, message: &Map<String, Value>, query: &mut Vec<(String, String)>) {
    for (name, value) in message {
        let name = format!("{prefix}{name}");
        match value {
            Value::Object(inner) => flatten(&format!("{name}."), inner, query),
            Value::Array(items) => query.extend(items.iter().map(|item| (name.clone(), text(item)))),
            scalar => query.push((name, text(scalar))),
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
