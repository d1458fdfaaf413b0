//! What annotations say of fields, as keywords of their schemas.

use prost_reflect::{FieldDescriptor, Value as Annotation};
use serde_json::{Map, Value};

use super::contract::{Rules, bounds};
use super::{put, validation};

/// The published annotation of what a field is for.
const BEHAVIOR: &str = "google.api.field_behavior";

/// What a field is for, as `google.api.field_behavior` says, and `buf.validate` where it has to be there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Behavior {
    pub(super) is_required: bool,
    pub(super) is_output_only: bool,
    pub(super) is_input_only: bool,
}

impl Behavior {
    pub(super) fn of(field: &FieldDescriptor) -> Self {
        let is_required = validation::Rules::of(field).is_some_and(|rules| rules.is_required(field));
        let mut behavior = Self { is_required, ..Self::default() };
        let Some(extension) = field.parent_pool().get_extension_by_name(BEHAVIOR) else { return behavior };
        let options = field.options();
        let values = options.get_extension(&extension);
        for value in values.as_list().unwrap_or_default().iter().filter_map(Annotation::as_enum_number) {
            match value {
                2 => behavior.is_required = true,
                3 => behavior.is_output_only = true,
                4 => behavior.is_input_only = true,
                _ => {}
            }
        }
        behavior
    }
}

/// Narrows the schema of one value.
pub(super) fn of_value(schema: &mut Map<String, Value>, rules: &Rules) {
    let is_text = schema.get("type").is_some_and(|kind| kind == "string");
    let is_integer = schema.get("type").is_some_and(|kind| kind == "integer");
    if is_text {
        bounds(schema, rules.length, ("minLength", "maxLength"));
        if let Some(pattern) = &rules.pattern {
            put(schema, "pattern", pattern.as_str());
        }
        if let Some(format) = &rules.format {
            put(schema, "format", format.as_str());
        }
        if !rules.values.is_empty() {
            put(schema, "enum", rules.values.clone());
        }
    }
    if is_integer {
        bounds(schema, rules.range, ("minimum", "maximum"));
    } else if is_text && schema.get("format").is_some_and(|format| format == "int64") {
        // Text has no bounds; that it has no sign, or is not 0 either, can be said.
        match rules.range.0 {
            Some(0) => put(schema, "pattern", "^[0-9]{1,19}$"),
            Some(1..) => put(schema, "pattern", "^[1-9][0-9]{0,18}$"),
            _ => {}
        }
    }
}

/// Narrows the schema of a list.
pub(super) fn of_list(schema: &mut Map<String, Value>, rules: &Rules) {
    bounds(schema, rules.items, ("minItems", "maxItems"));
    if rules.is_set {
        put(schema, "uniqueItems", true);
    }
}

/// Narrows the schema of a map.
pub(super) fn of_map(schema: &mut Map<String, Value>, rules: &Rules) {
    bounds(schema, rules.items, ("minProperties", "maxProperties"));
    let mut names = Map::new();
    bounds(&mut names, rules.keys, ("minLength", "maxLength"));
    if !names.is_empty() {
        put(schema, "propertyNames", names);
    }
}
