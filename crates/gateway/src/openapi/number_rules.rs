//! The rules of `buf.validate` for numbers and enums.

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, Value as Annotation};
use serde_json::{Map, Value, json};

use super::put;
use super::validation::get;

/// The keywords of bounds, by rule.
const LOWER: [(&str, &str); 2] = [("gt", "exclusiveMinimum"), ("gte", "minimum")];
const UPPER: [(&str, &str); 2] = [("lt", "exclusiveMaximum"), ("lte", "maximum")];

/// The keywords of rules for integers that are numbers in JSON.
pub(super) fn keywords(rules: &DynamicMessage) -> Map<String, Value> {
    let mut schema = bounds(rules);
    choices(&mut schema, rules, json);
    schema
}

/// The keywords of rules for integers that are text in JSON. Text has no bounds; they are told beside it.
pub(super) fn as_text(rules: &DynamicMessage) -> Map<String, Value> {
    let mut schema = Map::new();
    let text = |number: &Annotation| integer(number).map(|number| Value::from(number.to_string()));
    for (rule, keyword) in LOWER.into_iter().chain(UPPER) {
        if let Some(bound) = get(rules, rule).as_ref().and_then(text) {
            put(&mut schema, &format!("x-{keyword}"), bound);
        }
    }
    if !is_outside(rules)
        && let Some(least) = lower(rules)
    {
        // That it has no sign, or is not 0 either, can be said.
        match least {
            ..0 => {}
            0 => put(&mut schema, "pattern", "^[0-9]{1,20}$"),
            1.. => put(&mut schema, "pattern", "^[1-9][0-9]{0,19}$"),
        }
    }
    choices(&mut schema, rules, text);
    schema
}

/// Narrows the schema of a floating-point number: one of a number, and one of the names of what JSON has no number for.
pub(super) fn of_float(schema: &mut Map<String, Value>, rules: &DynamicMessage) {
    let narrow = keywords(rules);
    let is_finite = get(rules, "finite").and_then(|value| value.as_bool()) == Some(true);
    let is_chosen = narrow.contains_key("const") || narrow.contains_key("enum");
    let (has_lower, has_upper) = (has_any(rules, LOWER), has_any(rules, UPPER));
    let Some(Value::Array(either)) = schema.get_mut("anyOf") else { return };
    if let Some(Value::Object(number)) = either.first_mut() {
        number.extend(narrow);
    }
    // Nothing is on one side of NaN. Where both sides are open, so are both ends.
    let is_outside = is_outside(rules);
    let names: Vec<&str> = [
        ("NaN", !has_lower && !has_upper),
        ("Infinity", is_outside || !has_upper),
        ("-Infinity", is_outside || !has_lower),
    ]
    .into_iter()
    .filter_map(|(name, is_allowed)| (is_allowed && !is_finite && !is_chosen).then_some(name))
    .collect();
    if let Some(Value::Object(text)) = either.get_mut(1) {
        put(text, "enum", names.clone());
    }
    if names.is_empty() {
        either.truncate(1);
    }
}

/// The keywords of rules for enums, whose JSON are names. Numbers without a name have none.
pub(super) fn of_enum(rules: &DynamicMessage, desc: &EnumDescriptor) -> Map<String, Value> {
    let mut schema = Map::new();
    choices(&mut schema, rules, |number| name(number, desc));
    schema
}

/// Whether 0 breaks the rules.
pub(super) fn refuse_zero(rules: &DynamicMessage) -> bool {
    let is_zero = |value: &Annotation| float(value) == Some(0.0);
    let sign = |name: &str| get(rules, name).as_ref().and_then(float);
    let above = sign("gt").is_some_and(|bound| bound >= 0.0) || sign("gte").is_some_and(|bound| bound > 0.0);
    let below = sign("lt").is_some_and(|bound| bound <= 0.0) || sign("lte").is_some_and(|bound| bound < 0.0);
    let is_outside = if is_outside(rules) { above && below } else { above || below };
    let list = |name: &str| get(rules, name).and_then(|value| value.as_list().map(<[_]>::to_vec));
    is_outside
        || get(rules, "const").is_some_and(|value| !is_zero(&value))
        || list("in").is_some_and(|values| !values.iter().any(is_zero))
        || list("not_in").is_some_and(|values| values.iter().any(is_zero))
}

fn bounds(rules: &DynamicMessage) -> Map<String, Value> {
    let side = |pairs: [(&str, &str); 2]| {
        let mut side = Map::new();
        for (rule, keyword) in pairs {
            if let Some(bound) = get(rules, rule).as_ref().and_then(json) {
                put(&mut side, keyword, bound);
            }
        }
        side
    };
    let (mut lower, upper) = (side(LOWER), side(UPPER));
    if is_outside(rules) {
        return Map::from_iter([("anyOf".to_owned(), json!([upper, lower]))]);
    }
    lower.extend(upper);
    lower
}

/// Whether the bounds say which numbers there are not: those between them.
fn is_outside(rules: &DynamicMessage) -> bool {
    let bound = |pairs: [(&str, &str); 2]| pairs.iter().find_map(|(rule, _)| get(rules, rule));
    match (bound(LOWER), bound(UPPER)) {
        (Some(lower), Some(upper)) => match (integer(&lower), integer(&upper)) {
            (Some(lower), Some(upper)) => lower > upper,
            _ => float(&lower).zip(float(&upper)).is_some_and(|(lower, upper)| lower > upper),
        },
        _ => false,
    }
}

fn has_any(rules: &DynamicMessage, pairs: [(&str, &str); 2]) -> bool {
    pairs.iter().any(|(rule, _)| get(rules, rule).is_some())
}

/// The smallest integer that the bounds allow.
fn lower(rules: &DynamicMessage) -> Option<i128> {
    let bound = |name: &str| get(rules, name).as_ref().and_then(integer);
    bound("gte").or_else(|| bound("gt").map(|bound| bound + 1))
}

fn choices(
    schema: &mut Map<String, Value>,
    rules: &DynamicMessage,
    shown: impl Fn(&Annotation) -> Option<Value>,
) {
    let list = |name: &str| {
        let values = get(rules, name)?;
        values.as_list()?.iter().map(&shown).collect::<Option<Vec<Value>>>()
    };
    if let Some(value) = get(rules, "const").as_ref().and_then(&shown) {
        put(schema, "const", value);
    }
    if let Some(values) = list("in") {
        put(schema, "enum", values);
    }
    if let Some(values) = list("not_in") {
        put(schema, "not", json!({"enum": values}));
    }
}

/// A value as JSON has it, of any type that has rules for numbers.
pub(super) fn shown(value: &Annotation, kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Enum(desc) => name(value, desc),
        _ => json(value).or_else(|| integer(value).map(|number| number.to_string().into())),
    }
}

fn name(number: &Annotation, desc: &EnumDescriptor) -> Option<Value> {
    desc.get_value(number.as_i32()?).map(|value| value.name().into())
}

fn integer(value: &Annotation) -> Option<i128> {
    Some(match value {
        Annotation::I32(number) => (*number).into(),
        Annotation::I64(number) => (*number).into(),
        Annotation::U32(number) => (*number).into(),
        Annotation::U64(number) => (*number).into(),
        _ => return None,
    })
}

#[expect(clippy::cast_precision_loss, reason = "only its sign, or its place among others, is asked for")]
fn float(value: &Annotation) -> Option<f64> {
    match value {
        Annotation::F32(number) => Some((*number).into()),
        Annotation::F64(number) => Some(*number),
        other => integer(other).map(|number| number as f64),
    }
}

/// A number as JSON has it. A float is the shortest text that means it.
fn json(value: &Annotation) -> Option<Value> {
    match value {
        Annotation::F32(number) => number.to_string().parse::<serde_json::Number>().ok().map(Value::Number),
        Annotation::F64(number) => serde_json::Number::from_f64(*number).map(Value::Number),
        Annotation::I32(number) => Some((*number).into()),
        Annotation::U32(number) => Some((*number).into()),
        _ => None,
    }
}
