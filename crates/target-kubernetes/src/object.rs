//! One object of the cluster: what it shall be, and whether it is that.

use std::fmt;

use agentrouter_manifests::{MANAGED_BY, MANAGED_BY_LABEL, Resource, SLOT_LABEL};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::api::DynamicObject;
use serde_json::{Map, Value};

/// Tells the objects of several data planes in one namespace apart.
pub(crate) const INSTANCE_LABEL: &str = "agentrouter/instance";
/// What an object was when it was applied: fields that are not desired any more leave no other trace.
const HASH_ANNOTATION: &str = "agentrouter/hash";

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) api_version: &'static str,
    pub(crate) name: &'static str,
    pub(crate) plural: &'static str,
}

/// Kinds that routes and policies refer to, in the order in which they are made. What is not named follows, routes
/// last. How a backend is spoken to comes before the backend: a key must not go out in clear text while a provider
/// moves to https.
const FIRST: [&str; 6] =
    ["Secret", "EnvoyProxy", "Gateway", "BackendTLSPolicy", "Backend", "AIServiceBackend"];

impl Kind {
    /// Every kind of this target. What belongs to the whole cluster, such as the class of a gateway, is left to those
    /// who run the cluster.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Resource::KINDS
            .iter()
            .filter(|(.., namespaced)| *namespaced)
            .map(|(api_version, name, plural, _)| Self { api_version, name, plural })
    }

    fn of(resource: &Resource) -> Option<Self> {
        Self::all().find(|kind| kind.name == resource.kind() && kind.api_version == resource.api_version())
    }

    pub(crate) fn group(self) -> &'static str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    pub(crate) fn version(self) -> &'static str {
        self.api_version.split_once('/').map_or(self.api_version, |(_, version)| version)
    }

    pub(crate) fn holds_secrets(self) -> bool {
        self.name == "Secret"
    }

    /// What is referred to comes before what refers to it; removals go the other way.
    pub(crate) fn rank(self) -> usize {
        match FIRST.iter().position(|name| *name == self.name) {
            Some(position) => position,
            None if self.name.ends_with("Route") => FIRST.len() + 1,
            None => FIRST.len(),
        }
    }
}

/// An object as it shall be.
#[derive(Clone)]
pub(crate) struct Desired {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The slot it came from, by [`SLOT_LABEL`]; empty for what belongs to all.
    pub(crate) slot: String,
    pub(crate) json: Value,
    hash: String,
}

impl fmt::Debug for Desired {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desired")
            .field("kind", &self.kind.name)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The labels that a target's objects have.
pub(crate) fn selector(instance: &str) -> String {
    format!("{MANAGED_BY_LABEL}={MANAGED_BY},{INSTANCE_LABEL}={instance}")
}

/// Whether an object belongs to a target.
pub(crate) fn is_ours(object: &DynamicObject, instance: &str) -> bool {
    let has = |label: &str, value: &str| {
        object
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(label))
            .is_some_and(|found| found == value)
    };
    has(MANAGED_BY_LABEL, MANAGED_BY) && has(INSTANCE_LABEL, instance)
}

impl Desired {
    /// A rendered resource as an object of a namespace; none for a kind that is not of this target.
    pub(crate) fn new(resource: &Resource, namespace: &str, instance: &str) -> Option<Self> {
        let kind = Kind::of(resource)?;
        let metadata = resource.metadata();
        let slot = metadata.labels.get(SLOT_LABEL).cloned().unwrap_or_default();
        let mut json = serde_json::to_value(resource).ok()?;
        let object = json.as_object_mut()?;
        // The server merges `stringData` into `data` and forgets it, so that nothing would own the values.
        if let Some(Value::Object(texts)) = object.remove("stringData") {
            let encode = |value: &Value| Value::from(STANDARD.encode(value.as_str().unwrap_or_default()));
            let data: Map<String, Value> =
                texts.iter().map(|(key, value)| (key.clone(), encode(value))).collect();
            object.insert("data".to_owned(), Value::Object(data));
        }
        set(object, "labels", INSTANCE_LABEL, instance);
        object.get_mut("metadata")?.as_object_mut()?.insert("namespace".to_owned(), namespace.into());
        let hash = hash(object);
        set(object, "annotations", HASH_ANNOTATION, &hash);
        Some(Self { kind, name: metadata.name.clone(), slot, json, hash })
    }

    pub(crate) fn is(&self, object: &DynamicObject) -> bool {
        object.metadata.name.as_deref() == Some(&self.name)
    }

    /// Whether an object has everything that is desired, and nothing of what was desired once and is not any more.
    /// Fields that others set are theirs.
    pub(crate) fn is_met_by(&self, object: &DynamicObject) -> bool {
        let applied = object.metadata.annotations.as_ref().and_then(|found| found.get(HASH_ANNOTATION));
        applied.is_some_and(|applied| *applied == self.hash)
            && object.metadata.deletion_timestamp.is_none()
            && serde_json::to_value(object).is_ok_and(|live| contains(&live, &self.json))
    }

    /// Whether an object is what applying it would make of it. `applied` comes from a dry run; this tells values that
    /// the server writes in another way (a quantity, a default) from those that somebody changed.
    pub(crate) fn is_same(applied: &DynamicObject, object: &DynamicObject) -> bool {
        applied.metadata.labels == object.metadata.labels
            && applied.metadata.annotations == object.metadata.annotations
            && object.metadata.deletion_timestamp.is_none()
            && without_status(&applied.data) == without_status(&object.data)
    }
}

fn without_status(data: &Value) -> Value {
    let mut data = data.clone();
    if let Some(object) = data.as_object_mut() {
        object.remove("status");
    }
    data
}

fn set(object: &mut Map<String, Value>, field: &str, key: &str, value: &str) {
    let metadata = object.entry("metadata").or_insert_with(|| Value::Object(Map::new()));
    if let Some(metadata) = metadata.as_object_mut() {
        let entries = metadata.entry(field).or_insert_with(|| Value::Object(Map::new()));
        if let Some(entries) = entries.as_object_mut() {
            entries.insert(key.to_owned(), value.into());
        }
    }
}

/// SHA-256 of an object, the values of secrets left out: those are compared as they are, and a hash of them would be a
/// way to guess them.
fn hash(object: &Map<String, Value>) -> String {
    let mut object = object.clone();
    if let Some(Value::Object(data)) = object.get_mut("data") {
        data.values_mut().for_each(|value| *value = Value::Null);
    }
    let text = Value::Object(object).to_string();
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    hex(digest.as_ref())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Whether `live` has everything of `wanted`: members may be added, elements of lists may not.
fn contains(live: &Value, wanted: &Value) -> bool {
    match (live, wanted) {
        (Value::Object(live), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| match live.get(key) {
                Some(found) => contains(found, value),
                // What is empty is not always kept.
                None => value.is_null(),
            })
        }
        (Value::Array(live), Value::Array(wanted)) => {
            live.len() == wanted.len() && live.iter().zip(wanted).all(|(live, wanted)| contains(live, wanted))
        }
        (Value::Number(live), Value::Number(wanted)) => live == wanted || live.as_f64() == wanted.as_f64(),
        (live, wanted) => live == wanted,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_add_is_no_change() {
        let wanted = json!({"spec": {"rules": [{"weight": 1}], "name": "a"}});
        for same in [
            json!({"spec": {"rules": [{"weight": 1.0, "kind": "x"}], "name": "a"}, "status": {}}),
            json!({"metadata": {}, "spec": {"rules": [{"weight": 1}], "name": "a", "default": true}}),
        ] {
            assert!(contains(&same, &wanted), "{same}");
        }
        for other in [
            json!({"spec": {"rules": [{"weight": 2}], "name": "a"}}),
            json!({"spec": {"rules": [], "name": "a"}}),
            json!({"spec": {"rules": [{"weight": 1}, {"weight": 1}], "name": "a"}}),
            json!({"spec": {"rules": [{"weight": 1}]}}),
            json!({}),
        ] {
            assert!(!contains(&other, &wanted), "{other}");
        }
    }

    #[test]
    fn routes_come_last_and_secrets_first() {
        let mut kinds: Vec<Kind> = Kind::all().collect();
        kinds.sort_by_key(|kind| kind.rank());
        assert_eq!(kinds.first().map(|kind| kind.name), Some("Secret"));
        assert!(kinds.iter().rev().take(2).all(|kind| kind.name.ends_with("Route")));
        let rank = |name| kinds.iter().position(|kind| kind.name == name);
        assert!(rank("Backend") < rank("AIServiceBackend"));
        assert!(rank("AIServiceBackend") < rank("BackendSecurityPolicy"));
    }
}
