//! Text and numbers to field values: the leaves of paths, queries and JSON.
//!
//! Paths and queries are strict where JSON is lenient: ProtoJSON lets `"1e5"`
//! stand for an integer, a query string does not. The error of every function
//! is a description that completes "the field ...".

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};

use crate::failure::quoted;
use crate::json;
use crate::wkt::{self, WellKnown};

/// At most this many names are listed for an unknown enum name.
const MAX_LISTED: usize = 32;

/// Padding and trailing bits are not looked at, as ProtoJSON readers do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A number as it stands in JSON.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Number {
    Signed(i64),
    Unsigned(u64),
    Float(f64),
}

/// Whether one text can hold a value of this kind: every kind but messages that
/// are JSON objects without a known meaning.
pub(crate) fn is_text(kind: &Kind) -> bool {
    match kind {
        Kind::Message(message) => {
            !matches!(WellKnown::of(message), None | Some(WellKnown::Any | WellKnown::Empty))
        }
        _ => true,
    }
}

/// The value of a path capture or query parameter, already percent-decoded.
pub(crate) fn from_text(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(expected(kind)),
        },
        Kind::Enum(desc) => match decimal(text) {
            Some(number) => enum_number(number).ok_or_else(|| expected(kind)),
            None => enum_name(desc, text),
        },
        Kind::Message(desc) => match WellKnown::of(desc) {
            Some(WellKnown::Wrapper) => wkt::wrap(desc, |kind| from_text(kind, text)),
            Some(WellKnown::Struct | WellKnown::Value | WellKnown::List) => json::value_from_text(desc, text),
            _ => from_string(kind, text.to_owned()),
        },
        _ => match integer(kind, decimal(text)) {
            Some(found) => found.ok_or_else(|| expected(kind)),
            None => from_string(kind, text.to_owned()),
        },
    }
}

/// The value a JSON string stands for.
pub(crate) fn from_string(kind: &Kind, text: String) -> Result<Value, String> {
    match kind {
        Kind::String => Ok(Value::String(text)),
        Kind::Bytes => bytes(&text).map(|bytes| Value::Bytes(bytes.into())).ok_or_else(|| expected(kind)),
        Kind::Double => float(&text).map(Value::F64).ok_or_else(|| expected(kind)),
        Kind::Float => float(&text).and_then(narrow).map(Value::F32).ok_or_else(|| expected(kind)),
        Kind::Bool => Err(expected(kind)),
        Kind::Enum(desc) => enum_name(desc, &text),
        Kind::Message(desc) => match WellKnown::of(desc) {
            Some(WellKnown::Timestamp) => wkt::timestamp(desc, &text).ok_or_else(|| expected(kind)),
            Some(WellKnown::Duration) => wkt::duration(desc, &text).ok_or_else(|| expected(kind)),
            Some(WellKnown::FieldMask) => wkt::field_mask(desc, &text).ok_or_else(|| expected(kind)),
            Some(WellKnown::Wrapper) => wkt::wrap(desc, |kind| from_string(kind, text)),
            Some(WellKnown::Value) => Ok(wkt::value(desc, wkt::STRING_VALUE, Value::String(text))),
            _ => Err(expected(kind)),
        },
        _ => integer(kind, exact_integer(&text)).flatten().ok_or_else(|| expected(kind)),
    }
}

/// The value a JSON number stands for.
pub(crate) fn from_number(kind: &Kind, number: Number) -> Result<Value, String> {
    let integral = match number {
        Number::Signed(number) => Some(i128::from(number)),
        Number::Unsigned(number) => Some(i128::from(number)),
        Number::Float(number) => integral(number),
    };
    let found = match kind {
        Kind::Double => Some(Value::F64(widen(number))),
        Kind::Float => narrow(widen(number)).map(Value::F32),
        Kind::Enum(_) => integral.and_then(enum_number),
        Kind::Message(desc) => match WellKnown::of(desc) {
            Some(WellKnown::Wrapper) => return wkt::wrap(desc, |kind| from_number(kind, number)),
            Some(WellKnown::Value) => Some(wkt::value(desc, wkt::NUMBER_VALUE, Value::F64(widen(number)))),
            _ => None,
        },
        _ => integer(kind, integral).flatten(),
    };
    found.ok_or_else(|| expected(kind))
}

/// The value a JSON boolean stands for.
pub(crate) fn from_bool(kind: &Kind, value: bool) -> Result<Value, String> {
    match kind {
        Kind::Bool => Ok(Value::Bool(value)),
        Kind::Message(desc) => match WellKnown::of(desc) {
            Some(WellKnown::Wrapper) => wkt::wrap(desc, |kind| from_bool(kind, value)),
            Some(WellKnown::Value) => Ok(wkt::value(desc, wkt::BOOL_VALUE, Value::Bool(value))),
            _ => Err(expected(kind)),
        },
        _ => Err(expected(kind)),
    }
}

/// What a value of this kind looks like, as an error description.
pub(crate) fn expected(kind: &Kind) -> String {
    let what = match kind {
        Kind::Double => "a number",
        Kind::Float => "a number in the range of a 32-bit float",
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => "a 32-bit integer",
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => "a 64-bit integer",
        Kind::Uint32 | Kind::Fixed32 => "an unsigned 32-bit integer",
        Kind::Uint64 | Kind::Fixed64 => "an unsigned 64-bit integer",
        Kind::Bool => "`true` or `false`",
        Kind::String => "a string",
        Kind::Bytes => "a base64 string",
        Kind::Enum(_) => "the name or the number of an enum value",
        Kind::Message(desc) => match WellKnown::of(desc) {
            Some(WellKnown::Timestamp) => "an RFC 3339 time such as `2026-01-31T12:00:00Z`",
            Some(WellKnown::Duration) => "a number of seconds with the suffix `s`, such as `1.5s`",
            Some(WellKnown::FieldMask) => "a comma-separated list of field paths",
            Some(WellKnown::Wrapper) => match desc.get_field(1).map(|field| field.kind()) {
                Some(Kind::Message(_)) | None => "a value",
                Some(kind) => return expected(&kind),
            },
            Some(WellKnown::Value) => "a JSON value",
            Some(WellKnown::List) => "a JSON array",
            Some(WellKnown::Any) => "an object with a known `@type`",
            Some(WellKnown::Struct | WellKnown::Empty) | None => "a JSON object",
        },
    };
    format!("must be {what}")
}

/// The key of a map field from its JSON member name.
pub(crate) fn map_key(kind: &Kind, text: &str) -> Result<prost_reflect::MapKey, String> {
    let value = match kind {
        Kind::String => Value::String(text.to_owned()),
        _ => from_text(kind, text)?,
    };
    value.into_map_key().ok_or_else(|| expected(kind))
}

fn enum_name(desc: &EnumDescriptor, name: &str) -> Result<Value, String> {
    if let Some(value) = desc.get_value_by_name(name) {
        return Ok(Value::EnumNumber(value.number()));
    }
    let mut names: Vec<String> =
        desc.values().take(MAX_LISTED).map(|value| format!("`{}`", value.name())).collect();
    if desc.values().len() > MAX_LISTED {
        names.push("…".to_owned());
    }
    Err(format!("must be one of {}, not `{}`", names.join(", "), quoted(name)))
}

/// Enums are open: a number without a name is kept.
fn enum_number(number: i128) -> Option<Value> {
    i32::try_from(number).ok().map(Value::EnumNumber)
}

/// `None` where the kind is no integer, `Some(None)` where the number does not fit.
#[expect(clippy::option_option, reason = "the two absences mean different things to the two callers")]
fn integer(kind: &Kind, number: Option<i128>) -> Option<Option<Value>> {
    Some(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            number.and_then(|number| number.try_into().ok()).map(Value::I32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            number.and_then(|number| number.try_into().ok()).map(Value::I64)
        }
        Kind::Uint32 | Kind::Fixed32 => number.and_then(|number| number.try_into().ok()).map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => number.and_then(|number| number.try_into().ok()).map(Value::U64),
        _ => return None,
    })
}

/// Strictly `-?[0-9]+`.
fn decimal(text: &str) -> Option<i128> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    (!digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// An integer in JSON number notation: `100`, `1e2`, `1.00e2` and `100.0` are one number.
fn exact_integer(text: &str) -> Option<i128> {
    if let Some(number) = decimal(text) {
        return Some(number);
    }
    is_json_number(text).then_some(())?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let fraction = fraction.trim_end_matches('0');
    let shift = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    if digits == 0 {
        return Some(0);
    }
    let scale = 10_i128.checked_pow(shift.unsigned_abs())?;
    if shift >= 0 { digits.checked_mul(scale) } else { (digits % scale == 0).then(|| digits / scale) }
}

fn float(text: &str) -> Option<f64> {
    match text {
        "NaN" => Some(f64::NAN),
        "Infinity" => Some(f64::INFINITY),
        "-Infinity" => Some(f64::NEG_INFINITY),
        _ => is_json_number(text).then(|| text.parse().ok())?.filter(|number: &f64| number.is_finite()),
    }
}

/// The number grammar of RFC 8259; the standard library's is wider.
fn is_json_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let whole = whole.strip_prefix('-').unwrap_or(whole);
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && digits(fraction)
        && digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}

#[expect(clippy::cast_possible_truncation, reason = "checked to be integral and inside the range of i128")]
fn integral(number: f64) -> Option<i128> {
    (number.fract() == 0.0 && number.abs() < 1e20).then_some(number as i128)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "ProtoJSON numbers of float fields are rounded to the nearest"
)]
fn widen(number: Number) -> f64 {
    match number {
        Number::Signed(number) => number as f64,
        Number::Unsigned(number) => number as f64,
        Number::Float(number) => number,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "rounding to the nearest float is meant; overflow is refused"
)]
fn narrow(number: f64) -> Option<f32> {
    let narrowed = number as f32;
    (narrowed.is_finite() || !number.is_finite()).then_some(narrowed)
}

/// Standard or URL-safe alphabet, padded or not.
fn bytes(text: &str) -> Option<Vec<u8>> {
    if text.contains(['-', '_']) {
        BASE64.decode(text.replace('-', "+").replace('_', "/")).ok()
    } else {
        BASE64.decode(text).ok()
    }
}

/// A message of type `desc` with the given fields.
pub(crate) fn message<const N: usize>(desc: &MessageDescriptor, fields: [(u32, Value); N]) -> Value {
    let mut message = DynamicMessage::new(desc.clone());
    for (number, value) in fields {
        // A descriptor whose well-known type has other fields is not well known;
        // such a field is left out.
        if message.try_set_field_by_number(number, value).is_err() {
            tracing::debug!(message = desc.full_name(), number, "a well-known type with unusual fields");
        }
    }
    Value::Message(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A2 #32, A4 #57: integers are exact.
    #[test]
    fn integers_in_json_notation_are_exact() {
        for (text, expected) in [
            ("9007199254740993", Some(9_007_199_254_740_993)),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("1e5", Some(100_000)),
            ("1.50e1", Some(15)),
            ("-1E+2", Some(-100)),
            ("100e-2", Some(1)),
            ("0.0e-999999", Some(0)),
            ("1.5", None),
            ("1e-1", None),
            ("1e999999999", None),
            ("", None),
            (" 1", None),
            ("+1", None),
            ("01.0", None),
            ("0x1", None),
            ("1_0", None),
        ] {
            assert_eq!(exact_integer(text), expected, "{text}");
        }
    }

    #[test]
    fn floats_follow_the_json_grammar() {
        for text in ["inf", "nan", "infinity", "1.", ".5", "+1", "1e", "1e400", "", "0x1p3"] {
            assert_eq!(float(text), None, "{text}");
        }
        assert_eq!(float("-1.5e3"), Some(-1500.0));
        assert_eq!(float("-Infinity"), Some(f64::NEG_INFINITY));
        assert_eq!(narrow(1e39), None);
        assert_eq!(narrow(f64::INFINITY), Some(f32::INFINITY));
    }

    /// A2 #32, A4 #59.
    #[test]
    fn base64_of_either_alphabet() {
        for text in ["-_8=", "-_8", "+/8=", "+/8"] {
            assert_eq!(bytes(text).as_deref(), Some(&[0xfb, 0xff][..]), "{text}");
        }
        assert_eq!(bytes("*"), None);
    }
}
