//! The rules of `buf.validate` for text and bytes.

use prost_reflect::{DynamicMessage, ReflectMessage as _, Value as Annotation};
use serde_json::{Map, Value, json};

use super::put;
use super::validation::{count, get, texts};

/// The formats of JSON Schema by the rules for known forms; those that it does not know are left out.
const FORMATS: [(&str, &str); 7] = [
    ("email", "email"),
    ("hostname", "hostname"),
    ("ipv4", "ipv4"),
    ("ipv6", "ipv6"),
    ("uri", "uri"),
    ("uri_ref", "uri-reference"),
    ("uuid", "uuid"),
];
/// Forms that one of several formats may have.
const EITHER: [(&str, &[&str]); 2] = [("ip", &["ipv4", "ipv6"]), ("address", &["hostname", "ipv4", "ipv6"])];
/// Forms that are patterns.
const PATTERNS: [(&str, &str); 2] =
    [("tuuid", "^[0-9a-fA-F]{32}$"), ("ulid", "^[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}$")];
/// The only known form that is fine with empty text.
const MAY_BE_EMPTY: &str = "uri_ref";

/// The keywords of rules for text.
pub(super) fn keywords(rules: &DynamicMessage) -> Map<String, Value> {
    let mut schema = Map::new();
    for (names, keyword) in [
        (["len", "min_len"], "minLength"),
        // A text has no more characters than bytes.
        (["len_bytes", "max_bytes"], "maxLength"),
        (["len", "max_len"], "maxLength"),
    ] {
        if let Some(count) = names.iter().find_map(|name| count(rules, name)) {
            put(&mut schema, keyword, count);
        }
    }
    for (name, format) in FORMATS {
        if is(rules, name) {
            put(&mut schema, "format", format);
        }
    }
    for (name, formats) in EITHER {
        if is(rules, name) {
            let either: Vec<Value> = formats.iter().map(|format| json!({"format": format})).collect();
            put(&mut schema, "anyOf", either);
        }
    }
    if let Some(text) = text(rules, "const") {
        put(&mut schema, "const", text);
    }
    if let Some(values) = list(rules, "in") {
        put(&mut schema, "enum", values);
    }

    let mut patterns: Vec<String> =
        text(rules, "pattern").filter(|pattern| is_common(pattern)).into_iter().collect();
    patterns.extend(
        PATTERNS.iter().filter(|(name, _)| is(rules, name)).map(|(_, pattern)| (*pattern).to_owned()),
    );
    patterns.extend(text(rules, "prefix").map(|text| format!("^{}", escaped(&text))));
    patterns.extend(text(rules, "suffix").map(|text| format!("{}$", escaped(&text))));
    patterns.extend(text(rules, "contains").map(|text| escaped(&text)));
    match patterns.as_slice() {
        [] => {}
        [pattern] => put(&mut schema, "pattern", pattern.as_str()),
        _ => {
            let all: Vec<Value> = patterns.iter().map(|pattern| json!({"pattern": pattern})).collect();
            put(&mut schema, "allOf", all);
        }
    }

    let mut refused: Vec<Value> =
        list(rules, "not_in").map(|values| json!({"enum": values})).into_iter().collect();
    refused.extend(text(rules, "not_contains").map(|text| json!({"pattern": escaped(&text)})));
    match refused.as_slice() {
        [] => {}
        [one] => put(&mut schema, "not", one.clone()),
        _ => put(&mut schema, "not", json!({"anyOf": refused})),
    }
    schema
}

/// The keywords of rules for bytes, whose JSON is base64 with or without padding.
pub(super) fn of_bytes(rules: &DynamicMessage) -> Map<String, Value> {
    let mut schema = Map::new();
    let bound = |names: [&str; 2]| names.iter().find_map(|name| count(rules, name));
    if let Some(least) = bound(["len", "min_len"]) {
        put(&mut schema, "minLength", least.saturating_mul(4).div_ceil(3));
    }
    if let Some(most) = bound(["len", "max_len"]) {
        put(&mut schema, "maxLength", most.div_ceil(3).saturating_mul(4));
    }
    schema
}

/// Whether empty text breaks the rules.
pub(super) fn refuse_empty(rules: &DynamicMessage) -> bool {
    let is_long = ["len", "min_len", "len_bytes", "min_bytes"]
        .iter()
        .any(|name| count(rules, name).is_some_and(|least| least > 0));
    let has_text = ["const", "prefix", "suffix", "contains"]
        .iter()
        .any(|name| text(rules, name).is_some_and(|text| !text.is_empty()));
    let is_chosen = list(rules, "in").is_some_and(|values| !values.iter().any(String::is_empty));
    let is_known =
        rules.descriptor().oneofs().find(|oneof| oneof.name() == "well_known").is_some_and(|oneof| {
            oneof.fields().any(|form| form.name() != MAY_BE_EMPTY && is(rules, form.name()))
        });
    is_long || has_text || is_chosen || is_known
}

fn is(rules: &DynamicMessage, name: &str) -> bool {
    get(rules, name).and_then(|value| value.as_bool()) == Some(true)
}

fn text(rules: &DynamicMessage, name: &str) -> Option<String> {
    get(rules, name)?.as_str().map(str::to_owned)
}

fn list(rules: &DynamicMessage, name: &str) -> Option<Vec<String>> {
    get(rules, name).as_ref().and_then(Annotation::as_list).map(texts)
}

/// Whether an expression means the same in ECMA-262, which OpenAPI has, as in RE2, which the rules have.
fn is_common(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.find(['\\', '(', '[']) {
        let (_, after) = rest.split_at(at);
        let is_other = if let Some(escape) = after.strip_prefix('\\') {
            escape.starts_with(['A', 'z', 'C', 'Q', 'E', 'a', 'p', 'P', 'x'])
        } else {
            after.starts_with("(?") && !after.starts_with("(?:") || after.starts_with("[[:")
        };
        if is_other {
            return false;
        }
        // An escaped letter is no beginning of anything.
        let length = if after.starts_with('\\') { 2 } else { 1 };
        rest = after.char_indices().nth(length).map_or("", |(end, _)| after.get(end..).unwrap_or_default());
    }
    true
}

/// An expression that means this text.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if r"\^$.|?*+()[]{}/".contains(letter) {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_of_one_engine_only_are_known() {
        for common in ["^[a-z]+$", r"^\d{2}(?:a|b)\.c$", r"\\A", "", r"[\]]", "é(ü)"] {
            assert!(is_common(common), "{common}");
        }
        for other in ["(?i)a", r"\Aa", "(?P<n>a)", "[[:alpha:]]", r"a\pL", r"\\\z"] {
            assert!(!is_common(other), "{other}");
        }
        assert_eq!(escaped("a.b/c é"), r"a\.b\/c é");
    }
}
