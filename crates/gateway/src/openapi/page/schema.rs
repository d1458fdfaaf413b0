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
    const BOUNDS: [(&str, &str, &str); 4] = [
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " entries"),
        ("minimum", "maximum", ""),
    ];
    let mut facts = Vec::new();
    if let Some(format) = schema.get("format").and_then(Value::as_str) {
        facts.push(format!("format {}", escaped(format)));
    }
    for (least, most, unit) in BOUNDS {
        match (schema.get(least), schema.get(most)) {
            (None, None) => {}
            (Some(least), None) => facts.push(format!("at least {least}{unit}")),
            (None, Some(most)) => facts.push(format!("at most {most}{unit}")),
            (Some(least), Some(most)) => facts.push(format!("{least} to {most}{unit}")),
        }
    }
    if let Some(pattern) = schema.get("pattern").and_then(Value::as_str) {
        facts.push(format!("matches {}", escaped(pattern)));
    }
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        let values = values.iter().filter_map(Value::as_str).map(escaped).collect::<Vec<_>>();
        facts.push(values.join(" | "));
    }
    for (key, words) in
        [("uniqueItems", "no item twice"), ("readOnly", "read only"), ("writeOnly", "write only")]
    {
        if schema.get(key).is_some_and(|holds| holds == true) {
            facts.push(words.to_owned());
        }
    }
    facts.iter().flat_map(|fact| [" <small>", fact.as_str(), "</small>"]).collect()
}
