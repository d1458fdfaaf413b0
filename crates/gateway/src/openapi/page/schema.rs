//! Schemas as tables.

use std::fmt::Write as _;

use serde_json::Value;

use super::markdown::{escaped, inline, markdown};
use super::text;

/// A whole schema.
pub(super) fn write(html: &mut String, schema: &Value) -> std::fmt::Result {
    html.push_str(&markdown(text(schema, "description")));
    match schema.get("properties").and_then(Value::as_object).filter(|all| !all.is_empty()) {
        None => writeln!(html, "<p>{}{}</p>", kind(schema), facts(schema)),
        Some(properties) => {
            html.push_str("<table>\n");
            for (name, property) in properties {
                let required = schema.get("required").and_then(Value::as_array);
                let is_required = required.is_some_and(|required| required.iter().any(|own| own == name));
                row(html, name, is_required, property, text(property, "description"))?;
            }
            writeln!(html, "</table>")
        }
    }
}

/// A row for a property or parameter.
pub(super) fn row(
    html: &mut String,
    name: &str,
    is_required: bool,
    schema: &Value,
    description: &str,
) -> std::fmt::Result {
    let required = if is_required { "<b title=\"required\">*</b>" } else { "" };
    writeln!(
        html,
        "<tr><td><code>{}</code>{required}</td><td>{}{}</td><td>{}</td></tr>",
        escaped(name),
        kind(schema),
        facts(schema),
        inline(description),
    )
}

/// What kind of value it is, with a link where it has a name.
pub(super) fn kind(schema: &Value) -> String {
    if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
        let name = escaped(target.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#schema-{name}\">{name}</a>");
    }
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
        return either.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    if let Some(value) = schema.get("const") {
        return format!("<code>{}</code>", escaped(&value.to_string()));
    }
    match (text(schema, "type"), schema.get("items"), schema.get("additionalProperties")) {
        ("array", Some(items), _) => format!("list of {}", kind(items)),
        ("object", _, Some(values @ Value::Object(_))) => format!("map to {}", kind(values)),
        ("", ..) => "any value".to_owned(),
        (kind, ..) => escaped(kind),
    }
}

/// Bounds in words.
fn facts(schema: &Value) -> String {
    const WORDS: [(&str, &str); 10] = [
        ("format", "format "),
        ("minLength", "characters ≥ "),
        ("maxLength", "characters ≤ "),
        ("minimum", "≥ "),
        ("maximum", "≤ "),
        ("minItems", "items ≥ "),
        ("maxItems", "items ≤ "),
        ("maxProperties", "entries ≤ "),
        ("pattern", "matches "),
        ("readOnly", "read only "),
    ];
    let mut facts = String::new();
    for (key, word) in WORDS {
        let value = match schema.get(key) {
            None => continue,
            Some(Value::Bool(true)) => String::new(),
            Some(Value::String(text)) => escaped(text),
            Some(other) => escaped(&other.to_string()),
        };
        // Writing to a string does not fail.
        let _ = write!(facts, " <small>{word}{value}</small>");
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values = values.iter().filter_map(Value::as_str).map(escaped).collect::<Vec<_>>();
        let _ = write!(facts, " <small>{}</small>", values.join(" | "));
    }
    facts
}
