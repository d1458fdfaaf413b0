//! What differs between two contents, as pointers into their JSON.

use std::collections::{BTreeMap, BTreeSet};

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_api::configurator::ConfigurationChange;
use agentrouter_delivery::version::ConfigurationRow;
use agentrouter_kernel::Fault;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::{Map, Value};

const MESSAGE: &str = "agentrouter.configurator.v1.Configuration";
/// By which fields the elements of a list are recognised, the first that an element has.
const NAMES: [&str; 6] = ["provider_id", "jti", "server_id", "key_hash", "id", "name"];

/// The changes from one version to another, ordered by path.
pub(crate) fn changes(
    from: &ConfigurationRow,
    to: &ConfigurationRow,
) -> Result<Vec<ConfigurationChange>, Fault> {
    let mut changes = Changes(Vec::new());
    changes.objects("", &json(from)?, &json(to)?);
    changes.0.sort_by(|one, other| one.path.cmp(&other.path));
    Ok(changes.0)
}

/// The content of a version as the API shows it. Tombstones have none.
fn json(row: &ConfigurationRow) -> Result<Map<String, Value>, Fault> {
    let descriptor = DESCRIPTOR_POOL
        .get_message_by_name(MESSAGE)
        .ok_or_else(|| Fault::internal("the configuration has no descriptor"))?;
    let payload =
        descriptor.oneofs().next().ok_or_else(|| Fault::internal("the configuration has no payload"))?;
    let fields: BTreeSet<String> = payload.fields().map(|field| field.name().to_owned()).collect();
    let message = DynamicMessage::decode(descriptor, row.content.as_slice()).map_err(Fault::internal)?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    let shown =
        message.serialize_with_options(serde_json::value::Serializer, &options).map_err(Fault::internal)?;
    let Value::Object(members) = shown else { return Err(Fault::internal("a message is no object")) };
    Ok(members.into_iter().filter(|(name, value)| fields.contains(name) && !value.is_null()).collect())
}

struct Changes(Vec<ConfigurationChange>);

impl Changes {
    fn note(&mut self, path: &str, before: Option<&Value>, after: Option<&Value>) {
        let text = |value: &Value| value.to_string();
        self.0.push(ConfigurationChange {
            path: path.to_owned(),
            before: before.map(text),
            after: after.map(text),
        });
    }

    fn values(&mut self, path: &str, before: &Value, after: &Value) {
        match (before, after) {
            _ if before == after => {}
            (Value::Object(before), Value::Object(after)) => self.objects(path, before, after),
            (Value::Array(before), Value::Array(after)) => self.lists(path, before, after),
            _ => self.note(path, Some(before), Some(after)),
        }
    }

    fn objects(&mut self, path: &str, before: &Map<String, Value>, after: &Map<String, Value>) {
        let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for name in names {
            let path = format!("{path}/{}", escaped(name));
            match (before.get(name), after.get(name)) {
                (Some(before), Some(after)) => self.values(&path, before, after),
                (before, after) => self.note(&path, before, after),
            }
        }
    }

    /// Elements are matched by what names them, wherever they stand. Where only their order differs, the list as a
    /// whole has changed.
    fn lists(&mut self, path: &str, before: &[Value], after: &[Value]) {
        let (Some(old), Some(new)) = (named(before), named(after)) else {
            // Elements that are alike cannot be told apart.
            return self.note(path, Some(&before.into()), Some(&after.into()));
        };
        let count = self.0.len();
        for (name, (index, element)) in &new {
            let path = format!("{path}/{index}");
            match old.get(name) {
                Some((_, older)) => self.values(&path, older, element),
                None => self.note(&path, None, Some(element)),
            }
        }
        for (name, (index, element)) in &old {
            if !new.contains_key(name) {
                self.note(&format!("{path}/{index}"), Some(element), None);
            }
        }
        if self.0.len() == count {
            self.note(path, Some(&before.into()), Some(&after.into()));
        }
    }
}

/// The elements of a list with their places, by what names them; none where two have the same name.
fn named(list: &[Value]) -> Option<BTreeMap<String, (usize, &Value)>> {
    let named: BTreeMap<_, _> =
        list.iter().enumerate().map(|(index, element)| (name(element), (index, element))).collect();
    (named.len() == list.len()).then_some(named)
}

fn name(element: &Value) -> String {
    let found = NAMES.iter().find_map(|name| element.get(name));
    found.unwrap_or(element).to_string()
}

/// A name as a reference token of a JSON pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn between(before: &Value, after: &Value) -> Vec<(String, Option<String>, Option<String>)> {
        let mut changes = Changes(Vec::new());
        changes.values("", before, after);
        changes.0.into_iter().map(|change| (change.path, change.before, change.after)).collect()
    }

    #[test]
    fn elements_are_matched_by_name() {
        let before = json!({"list": [{"id": "a", "weight": 1}, {"id": "b", "weight": 1}]});
        let after = json!({"list": [{"id": "0", "weight": 1}, {"id": "b", "weight": 2}]});
        assert_eq!(
            between(&before, &after),
            [
                ("/list/0".to_owned(), None, Some(r#"{"id":"0","weight":1}"#.to_owned())),
                ("/list/1/weight".to_owned(), Some("1".to_owned()), Some("2".to_owned())),
                ("/list/0".to_owned(), Some(r#"{"id":"a","weight":1}"#.to_owned()), None),
            ]
        );
    }

    #[test]
    fn texts_are_matched_by_themselves_and_order_counts() {
        assert_eq!(
            between(&json!(["a", "b"]), &json!(["b", "c"])),
            [
                ("/1".to_owned(), None, Some("\"c\"".to_owned())),
                ("/0".to_owned(), Some("\"a\"".to_owned()), None)
            ]
        );
        assert_eq!(
            between(&json!({"models": ["a", "b"]}), &json!({"models": ["b", "a"]})),
            [("/models".to_owned(), Some(r#"["a","b"]"#.to_owned()), Some(r#"["b","a"]"#.to_owned()))]
        );
        assert_eq!(between(&json!(["a", "a"]), &json!(["a"])).len(), 1);
    }

    #[test]
    fn names_are_escaped_and_kinds_may_differ() {
        assert_eq!(
            between(&json!({"a/b~c": 1}), &json!({"a/b~c": "1"})),
            [("/a~1b~0c".to_owned(), Some("1".to_owned()), Some("\"1\"".to_owned()))]
        );
        assert_eq!(between(&json!({"x": [1, {"y": null}]}), &json!({"x": [1, {"y": null}]})), []);
    }
}
