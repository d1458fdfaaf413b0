//! The well-known types that have a JSON form of their own.

use prost_reflect::MessageDescriptor;

use crate::json::put;
use crate::scalar::Masks;
use crate::time;

/// A `google.protobuf.Value` that is `null`.
pub(crate) const NULL_VALUE: [u8; 2] = [1 << 3, 0];
/// Tags of the other members of its oneof.
pub(crate) const NUMBER_VALUE_TAG: u8 = 2 << 3 | 1;
pub(crate) const STRING_VALUE_TAG: u8 = 3 << 3 | 2;
pub(crate) const BOOL_VALUE_TAG: u8 = 4 << 3;
pub(crate) const STRUCT_VALUE: u32 = 5;
pub(crate) const LIST_VALUE: u32 = 6;

/// Tag of the paths of a `google.protobuf.FieldMask`.
pub(crate) const PATHS_TAG: u8 = 1 << 3 | 2;

/// Ten thousand years, which is what the definition of `Duration` allows.
const MAX_DURATION_SECONDS: i64 = 315_576_000_000;

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
    /// Whether one text can hold a message of a type: not where it is a JSON object
    /// without a known meaning.
    pub(crate) fn is_text(of: Option<Self>) -> bool {
        !matches!(of, None | Some(Self::Any | Self::Empty))
    }

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

/// The content of a `google.protobuf.Timestamp` that a text stands for, as [`time::read`] has it.
pub(crate) fn timestamp(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (seconds, nanos) = time::read(text)?;
    seconds_and_nanos(out, seconds, nanos);
    Some(())
}

/// `-?[0-9]+(\.[0-9]{1,9})?s` of at most ten thousand years.
pub(crate) fn duration(out: &mut Vec<u8>, text: &str) -> Option<()> {
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
    seconds_and_nanos(out, seconds * i64::from(sign), nanos * sign);
    Some(())
}

/// The two fields of a time or a length of time; a default is not written.
fn seconds_and_nanos(out: &mut Vec<u8>, seconds: i64, nanos: i32) {
    for (tag, value) in [(1 << 3, seconds), (2 << 3, i64::from(nanos))] {
        if value != 0 {
            out.push(tag);
            put::varint(out, value.cast_unsigned());
        }
    }
}

/// None where the length is outside ten thousand years, or its parts differ in sign.
pub(crate) fn duration_text(seconds: i64, nanos: i32) -> Option<impl std::fmt::Display> {
    let in_range = seconds.unsigned_abs() <= MAX_DURATION_SECONDS.unsigned_abs()
        && nanos.unsigned_abs() <= 999_999_999
        && (seconds == 0 || nanos == 0 || (seconds < 0) == (nanos < 0));
    in_range.then_some(prost_types::Duration { seconds, nanos })
}

/// Paths separated by commas, in lowerCamelCase or, where that is allowed, as in
/// the proto file; kept as in the proto file.
pub(crate) fn field_mask(out: &mut Vec<u8>, text: &str, masks: Masks) -> Option<()> {
    for path in text.split(',').filter(|path| !path.is_empty()) {
        out.push(PATHS_TAG);
        let place = put::open(out);
        for byte in path.bytes() {
            match byte {
                b'A'..=b'Z' => out.extend_from_slice(&[b'_', byte.to_ascii_lowercase()]),
                b'_' if masks == Masks::Json => return None,
                b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'*' => out.push(byte),
                _ => return None,
            }
        }
        put::close(out, place);
    }
    Some(())
}

/// A path of a mask in ProtoJSON's lowerCamelCase; none where it would not survive
/// the way back, as [`field_mask`] reads it.
pub(crate) fn camel_case(path: &str) -> Option<String> {
    if path.is_empty() {
        return None;
    }
    let mut camel = String::with_capacity(path.len());
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            'a'..='z' | '0'..='9' | '.' | '*' => camel.push(c),
            '_' => match chars.next() {
                Some(next @ 'a'..='z') => camel.push(next.to_ascii_uppercase()),
                _ => return None,
            },
            _ => return None,
        }
    }
    Some(camel)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A4 #64: what is written can be read.
    #[test]
    fn field_mask_paths_change_case() {
        for (path, camel) in [
            ("display_name", Some("displayName")),
            ("a.b_c", Some("a.bC")),
            ("bad_1", None),
            ("Odd", None),
            ("tail_", None),
            ("a>b", None),
            ("a,b", None),
            ("", None),
        ] {
            assert_eq!(camel_case(path).as_deref(), camel, "{path}");
        }
    }
}
