//! The well-known types that have a JSON form of their own.

use std::borrow::Cow;

use prost_reflect::{Kind, MessageDescriptor, Value};

use crate::scalar::message;

/// Field numbers of `google.protobuf.Value`.
pub(crate) const NULL_VALUE: u32 = 1;
pub(crate) const NUMBER_VALUE: u32 = 2;
pub(crate) const STRING_VALUE: u32 = 3;
pub(crate) const BOOL_VALUE: u32 = 4;
pub(crate) const STRUCT_VALUE: u32 = 5;
pub(crate) const LIST_VALUE: u32 = 6;

/// Ten thousand years, which is what the definition of `Duration` allows.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;
/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const TIMESTAMP_SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: std::ops::RangeInclusive<i32> = 0..=999_999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WellKnown {
    Any,
    Timestamp,
    Duration,
    FieldMask,
    /// One of the nine `...Value` messages around a scalar.
    Wrapper,
    Struct,
    Value,
    List,
    Empty,
}

impl WellKnown {
    pub(crate) fn of(desc: &MessageDescriptor) -> Option<Self> {
        Some(match desc.full_name().strip_prefix("google.protobuf.")? {
            "Any" => Self::Any,
            "Timestamp" => Self::Timestamp,
            "Duration" => Self::Duration,
            "FieldMask" => Self::FieldMask,
            "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
            | "BoolValue" | "StringValue" | "BytesValue" => Self::Wrapper,
            "Struct" => Self::Struct,
            "Value" => Self::Value,
            "ListValue" => Self::List,
            "Empty" => Self::Empty,
            _ => return None,
        })
    }
}

/// Whether `null` is a value of this kind rather than the absence of one.
pub(crate) fn null(kind: &Kind) -> Option<Value> {
    match kind {
        Kind::Message(desc) if WellKnown::of(desc) == Some(WellKnown::Value) => {
            Some(value(desc, NULL_VALUE, Value::EnumNumber(0)))
        }
        Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue" => Some(Value::EnumNumber(0)),
        _ => None,
    }
}

/// A `google.protobuf.Value` with one member of its oneof set.
pub(crate) fn value(desc: &MessageDescriptor, number: u32, member: Value) -> Value {
    message(desc, [(number, member)])
}

/// A wrapper message around what `inner` makes of the wrapped kind.
pub(crate) fn wrap(
    desc: &MessageDescriptor,
    inner: impl FnOnce(&Kind) -> Result<Value, String>,
) -> Result<Value, String> {
    match desc.get_field(1).map(|field| field.kind()) {
        // A message inside would not be a wrapper; refusing it ends the recursion.
        Some(Kind::Message(_)) | None => Err("cannot be given as text".to_owned()),
        Some(kind) => Ok(message(desc, [(1, inner(&kind)?)])),
    }
}

/// RFC 3339 with an upper-case `T` and `Z` or a numeric offset, at most nine
/// fraction digits, in the years 1 to 9999.
pub(crate) fn timestamp(desc: &MessageDescriptor, text: &str) -> Option<Value> {
    is_rfc3339(text).then_some(())?;
    let parsed: prost_types::Timestamp = text.parse().ok()?;
    TIMESTAMP_SECONDS.contains(&parsed.seconds).then_some(())?;
    Some(message(desc, [(1, Value::I64(parsed.seconds)), (2, Value::I32(parsed.nanos))]))
}

/// None where the time is outside the years 1 to 9999.
pub(crate) fn timestamp_text(seconds: i64, nanos: i32) -> Option<impl std::fmt::Display> {
    let in_range = TIMESTAMP_SECONDS.contains(&seconds) && NANOS.contains(&nanos);
    in_range.then_some(prost_types::Timestamp { seconds, nanos })
}

/// `-?[0-9]+(\.[0-9]{1,9})?s` of at most ten thousand years.
pub(crate) fn duration(desc: &MessageDescriptor, text: &str) -> Option<Value> {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = match unsigned.strip_suffix('s')?.split_once('.') {
        Some((whole, fraction)) if (1..=9).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (unsigned.strip_suffix('s')?, ""),
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    (!whole.is_empty() && digits(whole) && digits(fraction)).then_some(())?;
    let seconds: i64 = whole.parse().ok()?;
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    (seconds <= MAX_DURATION_SECONDS).then_some(())?;
    let sign = if unsigned.len() < text.len() { -1 } else { 1 };
    Some(message(desc, [(1, Value::I64(seconds * i64::from(sign))), (2, Value::I32(nanos * sign))]))
}

/// None where the length is outside ten thousand years, or its parts differ in sign.
pub(crate) fn duration_text(seconds: i64, nanos: i32) -> Option<impl std::fmt::Display> {
    let in_range = seconds.unsigned_abs() <= MAX_DURATION_SECONDS.unsigned_abs()
        && nanos.unsigned_abs() <= 999_999_999
        && (seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0));
    in_range.then_some(prost_types::Duration { seconds, nanos })
}

/// Paths separated by commas, in lowerCamelCase or as in the proto file; kept
/// as in the proto file.
pub(crate) fn field_mask(desc: &MessageDescriptor, text: &str) -> Option<Value> {
    let mut paths = Vec::new();
    for path in text.split(',').filter(|path| !path.is_empty()) {
        let mut snake = String::with_capacity(path.len() + 4);
        for c in path.chars() {
            match c {
                'A'..='Z' => {
                    snake.push('_');
                    snake.push(c.to_ascii_lowercase());
                }
                'a'..='z' | '0'..='9' | '_' | '.' | '*' => snake.push(c),
                _ => return None,
            }
        }
        paths.push(Value::String(snake));
    }
    Some(message(desc, [(1, Value::List(paths))]))
}

/// A path of a mask in ProtoJSON's lowerCamelCase. One that would not survive the
/// way back is kept as it is: refusing the whole answer would help nobody.
pub(crate) fn camel_case(path: &str) -> Cow<'_, str> {
    let mut camel = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            'A'..='Z' => return path.into(),
            '_' => match chars.next() {
                Some(next @ 'a'..='z') => camel.push(next.to_ascii_uppercase()),
                _ => return path.into(),
            },
            other => camel.push(other),
        }
    }
    camel.into()
}

fn is_rfc3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((date_time, rest)) = bytes.split_at_checked(19) else { return false };
    let shape = |bytes: &[u8], shape: &[u8]| {
        bytes.len() == shape.len()
            && bytes.iter().zip(shape).all(|(byte, wanted)| match wanted {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            })
    };
    let (fraction, zone) = match rest.split_first() {
        Some((b'.', fraction)) => {
            let end = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            match fraction.split_at_checked(end) {
                Some((digits, zone)) if !digits.is_empty() => (digits, zone),
                _ => return false,
            }
        }
        _ => (&b""[..], rest),
    };
    shape(date_time, b"0000-00-00T00:00:00")
        && fraction.len() <= 9
        && (zone == b"Z" || shape(zone, b"+00:00") || shape(zone, b"-00:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_is_strict() {
        for text in ["2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789+01:00"] {
            assert!(is_rfc3339(text), "{text}");
        }
        for text in [
            "2026-01-31t12:00:00Z",
            "2026-01-31T12:00:00z",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00Z",
            "é026-01-31T12:00:00Z",
            "",
        ] {
            assert!(!is_rfc3339(text), "{text}");
        }
    }

    #[test]
    fn field_mask_paths_change_case() {
        for (path, camel) in [
            ("display_name", "displayName"),
            ("a.b_c", "a.bC"),
            ("bad_1", "bad_1"),
            ("Odd", "Odd"),
            ("tail_", "tail_"),
        ] {
            assert_eq!(camel_case(path), camel, "{path}");
        }
    }
}
