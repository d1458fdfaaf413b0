//! The parameters that an upgrade is started with.

use agentrouter_kernel::Violations;
use prost::Message;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};

/// The most that all parameters may take, encoded.
const BYTES_MAX: usize = 64 * 1024;
/// How deep values may be nested.
const DEPTH_MAX: usize = 16;
const VERSION_MAX: usize = 128;
const CHART_MAX: usize = 512;
const REGISTRY_MAX: usize = 255;
const KEY_MAX: usize = 255;

/// Checked parameters.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Parameters {
    /// The release to upgrade to.
    pub(super) target_version: String,
    /// All of them, as the worker reads them from the event.
    pub(super) metadata: Struct,
}

impl Parameters {
    /// Reads the metadata of a trigger: `target_version`, and optionally `chart`, `registry` and `values`.
    pub(super) fn read(metadata: Option<Struct>, violations: &mut Violations) -> Self {
        let metadata = metadata.unwrap_or_default();
        if metadata.encoded_len() > BYTES_MAX {
            violations.add("metadata", format!("must have at most {BYTES_MAX} bytes"));
            return Self { target_version: String::new(), metadata };
        }
        let mut target_version = None;
        for (key, value) in &metadata.fields {
            let field = format!("metadata.{key}");
            match (key.as_str(), &value.kind) {
                ("target_version", Some(Kind::StringValue(text))) => {
                    target_version = Some(text.clone());
                    violations.require(
                        is_version(text),
                        &field,
                        "must be 1 to 128 letters, digits or any of . _ + -, and begin with a letter or digit",
                    );
                }
                ("chart", Some(Kind::StringValue(text))) => violations.require(
                    is_chart(text),
                    &field,
                    "must name a chart in 1 to 512 characters, without white space and without a login",
                ),
                ("registry", Some(Kind::StringValue(text))) => violations.require(
                    is_registry(text),
                    &field,
                    "must be a host in at most 255 characters, with a port and a path if any, and without a login",
                ),
                ("values", Some(Kind::StructValue(values))) => check_fields(&field, values, 1, violations),
                ("target_version" | "chart" | "registry", _) => violations.add(field, "must be a text"),
                ("values", _) => violations.add(field, "must be an object"),
                _ => violations.add(field, "is not a parameter of an upgrade"),
            }
        }
        if !metadata.fields.contains_key("target_version") {
            violations.add("metadata.target_version", "is required");
        }
        Self { target_version: target_version.unwrap_or_default(), metadata }
    }
}

/// Whether a text can name a release.
pub(super) fn is_version(text: &str) -> bool {
    text.len() <= VERSION_MAX
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
}

fn is_chart(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split('/').next());
    (1..=CHART_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic())
        && authority.is_none_or(|authority| !authority.is_empty() && !authority.contains('@'))
}

fn is_registry(text: &str) -> bool {
    let bare = text.strip_prefix("oci://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let (host, path) = bare.split_once('/').unwrap_or((bare, ""));
    text.len() <= REGISTRY_MAX
        && !bare.contains("://")
        && host.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte))
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

fn check_fields(path: &str, fields: &Struct, depth: usize, violations: &mut Violations) {
    if depth > DEPTH_MAX {
        return violations.add(path, format!("must not be nested more than {DEPTH_MAX} deep"));
    }
    for (key, value) in &fields.fields {
        let is_good = !key.is_empty() && key.len() <= KEY_MAX && !key.contains(char::is_control);
        if is_good {
            check(&format!("{path}.{key}"), value, depth, violations);
        } else {
            violations
                .add(path, format!("must have keys of 1 to {KEY_MAX} bytes without control characters"));
        }
    }
}

fn check(path: &str, value: &Value, depth: usize, violations: &mut Violations) {
    match &value.kind {
        None => violations.add(path, "must have a value"),
        Some(Kind::NumberValue(number)) => {
            violations.require(number.is_finite(), path, "must be a finite number");
        }
        Some(Kind::StructValue(fields)) => check_fields(path, fields, depth + 1, violations),
        Some(Kind::ListValue(ListValue { values })) => {
            if depth >= DEPTH_MAX {
                return violations.add(path, format!("must not be nested more than {DEPTH_MAX} deep"));
            }
            for (index, value) in values.iter().enumerate() {
                check(&format!("{path}[{index}]"), value, depth + 1, violations);
            }
        }
        Some(Kind::NullValue(_) | Kind::StringValue(_) | Kind::BoolValue(_)) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Kind::StringValue(text.to_owned()).into()
    }

    fn object<const N: usize>(fields: [(&str, Value); N]) -> Struct {
        Struct { fields: fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect() }
    }

    fn wrong(metadata: Struct) -> Vec<String> {
        let mut violations = Violations::new();
        Parameters::read(Some(metadata), &mut violations);
        let fault = violations.finish().expect_err("a violation");
        fault.violations().iter().map(|violation| violation.field.clone()).collect()
    }

    #[test]
    fn good_parameters_are_kept_as_they_are() {
        let values = object([
            ("replicas", Kind::NumberValue(2.0).into()),
            (
                "images",
                Kind::ListValue(ListValue { values: vec![text("a"), Kind::BoolValue(true).into()] }).into(),
            ),
            ("none", Kind::NullValue(0).into()),
        ]);
        let metadata = object([
            ("target_version", text("v1.4.0-rc.1+build_7")),
            ("chart", text("oci://registry.example/charts/gateway@sha256:00")),
            ("registry", text("registry.example:5000/team")),
            ("values", Kind::StructValue(values).into()),
        ]);
        let mut violations = Violations::new();
        let read = Parameters::read(Some(metadata.clone()), &mut violations);
        assert!(violations.is_empty(), "{violations:?}");
        assert_eq!((read.target_version.as_str(), read.metadata), ("v1.4.0-rc.1+build_7", metadata));
    }

    #[test]
    fn every_violation_is_told() {
        let mut violations = Violations::new();
        Parameters::read(None, &mut violations);
        assert_eq!(violations.finish().unwrap_err().violations()[0].field, "metadata.target_version");
        let values = object([
            ("", text("a")),
            ("infinite", Kind::NumberValue(f64::INFINITY).into()),
            ("list", Kind::ListValue(ListValue { values: vec![Value { kind: None }] }).into()),
        ]);
        let fields = wrong(object([
            ("target_version", text("1 2")),
            ("chart", text("https://user:password@charts.example/gateway")),
            ("registry", text("user@registry.example")),
            ("values", Kind::StructValue(values).into()),
            ("upgrade_event_id", text("evt_1")),
        ]));
        let expected = [
            "metadata.chart",
            "metadata.registry",
            "metadata.target_version",
            "metadata.upgrade_event_id",
            "metadata.values",
            "metadata.values.infinite",
            "metadata.values.list[0]",
        ];
        assert_eq!(fields, expected);
        let fields = wrong(object([
            ("target_version", Kind::NumberValue(1.0).into()),
            ("chart", Kind::BoolValue(true).into()),
            ("registry", Value { kind: None }),
            ("values", text("a: b")),
        ]));
        assert_eq!(
            fields,
            ["metadata.chart", "metadata.registry", "metadata.target_version", "metadata.values"]
        );
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let nested = |depth: usize| {
            let mut value = Kind::StructValue(Struct::default()).into();
            for _ in 1..depth {
                value = Kind::StructValue(object([("a", value)])).into();
            }
            object([("target_version", text("1")), ("values", value)])
        };
        let mut violations = Violations::new();
        Parameters::read(Some(nested(DEPTH_MAX)), &mut violations);
        assert!(violations.is_empty(), "{violations:?}");
        assert_eq!(wrong(nested(DEPTH_MAX + 1)), [format!("metadata.values{}", ".a".repeat(DEPTH_MAX))]);
        let lists = (0..DEPTH_MAX)
            .fold(text("a"), |value, _| Kind::ListValue(ListValue { values: vec![value] }).into());
        let values = Kind::StructValue(object([("a", lists)])).into();
        assert_eq!(wrong(object([("target_version", text("1")), ("values", values)])).len(), 1);
        let values = Kind::StructValue(object([("a", text(&"x".repeat(BYTES_MAX)))])).into();
        assert_eq!(wrong(object([("target_version", text("1")), ("values", values)])), ["metadata"]);
    }

    #[test]
    fn names() {
        for good in ["1", "v2", "2026.01.01", "1.0.0+a_b-c"] {
            assert!(is_version(good), "{good}");
        }
        for bad in ["", "-1", ".1", "1/2", "ä", &"1".repeat(129)] {
            assert!(!is_version(bad), "{bad}");
        }
        for good in ["r", "r.example", "r.example:5000", "10.0.0.1/a/b", "oci://r.example/a", "[::1]:5000"] {
            assert!(is_registry(good), "{good}");
        }
        for bad in ["", "/a", "http://r.example", "u@r", "r.example/a b", "r.example/a?b", &"r".repeat(256)] {
            assert!(!is_registry(bad), "{bad}");
        }
        for bad in ["", "a b", "oci://", "oci:///a", "https://u:p@r/a", &"a".repeat(513)] {
            assert!(!is_chart(bad), "{bad}");
        }
    }
}
