//! One request, and what both sides have to say to it.

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use serde_json::{Value, json};

use crate::front::{self, Answer};

/// What is expected of the two.
#[derive(Debug)]
enum Expected {
    /// One status and one JSON value of both, which holds this.
    Same(u16, Value),
    /// One status of both. Each tells the error in its own words: Envoy in plain text, we in JSON that names the field.
    Refused(u16, &'static str),
    /// Envoy is wrong, or has other rules.
    Differ { why: &'static str, envoy: (u16, Value), ours: (u16, Value) },
}

/// A row of a table.
#[derive(Debug)]
pub(crate) struct Row {
    name: &'static str,
    method: &'static str,
    uri: String,
    headers: Vec<(&'static str, &'static str)>,
    body: Bytes,
    expected: Expected,
}

/// A request without a body.
pub(crate) fn request(method: &'static str, uri: impl Into<String>) -> Row {
    let expected = Expected::Same(200, json!({}));
    Row { name: "", method, uri: uri.into(), headers: Vec::new(), body: Bytes::new(), expected }
}

/// A GET.
pub(crate) fn get(uri: impl Into<String>) -> Row {
    request("GET", uri)
}

/// A POST of JSON.
pub(crate) fn post(uri: impl Into<String>, body: &'static str) -> Row {
    request("POST", uri).header("content-type", "application/json").body(body)
}

impl Row {
    pub(crate) fn named(self, name: &'static str) -> Self {
        Self { name, ..self }
    }

    /// In place of another one of this name.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value));
        self
    }

    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Both answer the same JSON, which holds this.
    pub(crate) fn same(self, status: u16, holds: Value) -> Self {
        Self { expected: Expected::Same(status, holds), ..self }
    }

    /// Both refuse it with the same status; ours names this field, where there is one.
    pub(crate) fn refused(self, status: u16, field: &'static str) -> Self {
        Self { expected: Expected::Refused(status, field), ..self }
    }

    /// They answer differently, for this reason. A text is to be within Envoy's, a JSON value within JSON.
    pub(crate) fn differ(self, why: &'static str, envoy: (u16, Value), ours: (u16, Value)) -> Self {
        Self { expected: Expected::Differ { why, envoy, ours }, ..self }
    }

    fn title(&self) -> String {
        let Self { name, method, uri, .. } = self;
        let uri: String = uri.chars().take(100).collect();
        format!("{name} [{method} {uri} {}]", String::from_utf8_lossy(&self.body))
    }

    async fn send(&self, port: u16) -> Answer {
        let mut request = Request::builder().method(self.method).uri(&self.uri);
        for (name, value) in &self.headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(self.body.clone())).expect("a request");
        front::try_send(port, request).await.unwrap_or_else(|| panic!("no answer: {}", self.title()))
    }

    /// What is wrong with the two answers.
    async fn faults(&self, envoy: u16, ours: u16) -> Vec<String> {
        let (envoy, ours) = (self.send(envoy).await, self.send(ours).await);
        let mut faults = Vec::new();
        let mut expect = |holds: bool, what: &str| {
            if !holds {
                faults.push(format!(
                    "{}: {what}\n  Envoy: {} {}\n  ours:  {} {}",
                    self.title(),
                    envoy.status,
                    String::from_utf8_lossy(&envoy.body),
                    ours.status,
                    String::from_utf8_lossy(&ours.body)
                ));
            }
        };
        let statuses = (envoy.status.as_u16(), ours.status.as_u16());
        match &self.expected {
            Expected::Same(status, value) => {
                expect(statuses == (*status, *status), "another status");
                expect(tells(&ours, value), "it does not hold what it shall");
                expect(envoy.value() == ours.value(), "not the same JSON");
            }
            Expected::Refused(status, field) => {
                expect(statuses == (*status, *status), "another status");
                let value = ours.value();
                expect(value["code"].is_u64() && value["message"].is_string(), "no error in JSON");
                expect(field.is_empty() || fields(&value).contains(field), "the field is not named");
            }
            Expected::Differ { why, envoy: theirs, ours: own } => {
                expect(statuses == (theirs.0, own.0), &format!("another status ({why})"));
                expect(tells(&ours, &own.1), &format!("ours has changed ({why})"));
                expect(tells(&envoy, &theirs.1), &format!("Envoy's has changed ({why})"));
                let same = statuses.0 == statuses.1 && envoy.value() == ours.value();
                expect(!same, &format!("they agree by now ({why})"));
            }
        }
        // What a header is asked for is asked of us alone: Envoy has no word on these.
        if ours.status == 405 {
            expect(
                ours.header("allow").split(", ").is_sorted() && !ours.header("allow").is_empty(),
                "no `Allow`",
            );
        }
        faults
    }
}

/// Sends every row to both sides and tells all that is wrong.
pub(crate) async fn check(rows: Vec<Row>, envoy: u16, ours: u16) {
    let mut faults = Vec::new();
    for row in rows {
        faults.extend(row.faults(envoy, ours).await);
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Whether an answer holds what it shall: anything where that is null, a part of its text, or a part of its JSON.
fn tells(answer: &Answer, part: &Value) -> bool {
    match (answer.value(), part) {
        (_, Value::Null) => true,
        (Value::String(text), Value::String(part)) => text.contains(part.as_str()),
        (value, part) => holds(&value, part),
    }
}

/// Whether a value holds all of another one: the members of an object, the items of an array.
fn holds(value: &Value, part: &Value) -> bool {
    match (value, part) {
        (Value::Object(value), Value::Object(part)) => {
            part.iter().all(|(name, part)| value.get(name).is_some_and(|value| holds(value, part)))
        }
        (Value::Array(value), Value::Array(part)) => {
            value.len() == part.len() && value.iter().zip(part).all(|(value, part)| holds(value, part))
        }
        _ => value == part,
    }
}

/// The fields that an error of ours names.
fn fields(error: &Value) -> Vec<&str> {
    let details = error["details"].as_array().into_iter().flatten();
    let violations = details.filter_map(|detail| detail["field_violations"].as_array()).flatten();
    violations.filter_map(|violation| violation["field"].as_str()).collect()
}
