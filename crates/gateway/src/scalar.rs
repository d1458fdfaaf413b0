//! Text and numbers to values on the wire: the leaves of paths, queries and JSON.
//!
//! Paths and queries are strict where JSON is lenient: ProtoJSON lets `"1e5"`
//! stand for an integer, a query string does not. Every function appends the
//! value without its tag. What it appends before an error is for the caller to
//! cut off.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use crate::failure::quoted;
use crate::json::put;
use crate::json::{EnumId, MessageTable, Tables, Type};
use crate::reading::Lenient;
use crate::rule::Route;
use crate::wkt::{self, WellKnown};

/// At most this many names are listed for an unknown enum name.
const MAX_LISTED: usize = 32;

/// Padding and trailing bits are not looked at, as ProtoJSON readers do.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Why a text or number is no value of a type. What to say of it is asked of
/// [`Scalars::expected`], and only where somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wrong {
    Value,
    /// An enum has no value of that name, or is closed and has none of that number.
    Name(EnumId),
}

type Result = std::result::Result<(), Wrong>;

/// Which names the paths of a `FieldMask` may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Masks {
    /// lowerCamelCase only, as ProtoJSON has it.
    Json,
    /// Those of the proto file, too.
    Either,
}

/// Reads leaves by the tables of their types.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scalars<'t> {
    pub(crate) tables: &'t Tables,
    pub(crate) masks: Masks,
    pub(crate) lenient: Lenient,
}

impl<'t> Scalars<'t> {
    /// For the paths and queries of a route.
    pub(crate) fn of_parameters(tables: &'t Tables, route: &Route) -> Self {
        Self { tables, masks: Masks::Either, lenient: Lenient::of(&route.reading.options) }
    }

    /// Whether one text can hold a value of this type: every type but messages
    /// that are JSON objects without a known meaning.
    pub(crate) fn is_text(self, kind: Type) -> bool {
        self.well_known(kind).is_none_or(|(_, well_known)| WellKnown::is_text(well_known))
    }

    /// Whether a text is read as JSON: what can be any JSON value has no other form.
    pub(crate) fn is_json_text(self, kind: Type) -> bool {
        let well_known = self.well_known(kind).and_then(|(_, well_known)| well_known);
        matches!(well_known, Some(WellKnown::Struct | WellKnown::Value | WellKnown::List))
    }

    /// The value of a path capture or query parameter, already percent-decoded.
    /// Not for those that are JSON texts.
    pub(crate) fn text(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        match kind {
            Type::Bool => match text {
                "true" => put::varint(out, 1),
                "false" => put::varint(out, 0),
                "1" | "" if self.lenient.booleans => put::varint(out, 1),
                "0" if self.lenient.booleans => put::varint(out, 0),
                _ => return Err(Wrong::Value),
            },
            Type::Enum(_) | Type::Null if is_decimal(text) => {
                return self.enum_number(out, kind, integer(text));
            }
            Type::Enum(id) if self.lenient.enums => {
                let names = self.tables.enumeration(id).map(|names| names.names.as_slice());
                let mut names = names.unwrap_or_default().iter();
                let named = names.find(|(name, _)| name.eq_ignore_ascii_case(text));
                put::varint(out, sign_extended(named.ok_or(Wrong::Name(id))?.1));
            }
            Type::Message(_) => {
                return self.message(out, kind, text, |leaves, out, kind| leaves.text(out, kind, text));
            }
            _ if kind.is_integer() => {
                return whole(out, kind, is_decimal(text).then(|| integer(text)).flatten());
            }
            _ => return self.string(out, kind, text),
        }
        Ok(())
    }

    /// The value that a JSON string stands for.
    pub(crate) fn string(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        match kind {
            Type::String => put::bytes(out, text.as_bytes()),
            Type::Bytes => {
                let place = put::open(out);
                let engine = if text.contains(['-', '_']) { &BASE64_URL } else { &BASE64 };
                engine.decode_vec(text, out).map_err(|_| Wrong::Value)?;
                put::close(out, place);
            }
            Type::Double | Type::Float => match text {
                "NaN" => float(out, kind, f64::NAN),
                "Infinity" => float(out, kind, f64::INFINITY),
                "-Infinity" => float(out, kind, f64::NEG_INFINITY),
                _ if is_json_number(text) => return self.number(out, kind, text),
                _ => return Err(Wrong::Value),
            },
            Type::Null if text == "NULL_VALUE" => put::varint(out, 0),
            Type::Bool | Type::Null => return Err(Wrong::Value),
            Type::Enum(id) => match self.tables.enumeration(id).and_then(|names| names.number(text)) {
                Some(number) => put::varint(out, sign_extended(number)),
                None => return Err(Wrong::Name(id)),
            },
            Type::Message(_) => {
                return self.message(out, kind, text, |leaves, out, kind| leaves.string(out, kind, text));
            }
            _ if is_json_number(text) => return self.number(out, kind, text),
            _ => return Err(Wrong::Value),
        }
        Ok(())
    }

    /// The value that a JSON number stands for, as it is written.
    pub(crate) fn number(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        match kind {
            Type::Double => {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                float(out, kind, value.ok_or(Wrong::Value)?);
            }
            Type::Float => {
                let value = text.parse::<f32>().ok().filter(|value| value.is_finite());
                out.extend_from_slice(&value.ok_or(Wrong::Value)?.to_le_bytes());
            }
            Type::Enum(_) | Type::Null => return self.enum_number(out, kind, exact_integer(text)),
            Type::Message(_) => {
                let place = put::open(out);
                self.content_of_number(out, kind, text)?;
                put::close(out, place);
            }
            Type::String | Type::Bytes | Type::Bool => return Err(Wrong::Value),
            _ => return whole(out, kind, exact_integer(text)),
        }
        Ok(())
    }

    /// A number without a name is kept, unless the enum is closed.
    fn enum_number(self, out: &mut Vec<u8>, kind: Type, number: Option<i128>) -> Result {
        let number = number.and_then(|number| i32::try_from(number).ok()).ok_or(Wrong::Value)?;
        match kind {
            Type::Enum(id) if !self.tables.may_be(id, number) => return Err(Wrong::Name(id)),
            _ => put::varint(out, sign_extended(number)),
        }
        Ok(())
    }

    /// The value that `true` or `false` stands for.
    pub(crate) fn boolean(self, out: &mut Vec<u8>, kind: Type, value: bool) -> Result {
        match kind {
            Type::Bool => put::varint(out, value.into()),
            Type::Message(_) => {
                let place = put::open(out);
                self.content_of_bool(out, kind, value)?;
                put::close(out, place);
            }
            _ => return Err(Wrong::Value),
        }
        Ok(())
    }

    /// The content of a message that a JSON string stands for.
    pub(crate) fn content_of_string(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        self.content(out, kind, text, |leaves, out, kind| leaves.string(out, kind, text))
    }

    /// The content of a message that a JSON number stands for.
    pub(crate) fn content_of_number(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        match self.well_known(kind) {
            Some((message, Some(WellKnown::Wrapper))) => {
                wrap(out, message, |out, kind| self.number(out, kind, text))
            }
            Some((_, Some(WellKnown::Value))) => {
                out.push(wkt::NUMBER_VALUE_TAG);
                self.number(out, Type::Double, text)
            }
            _ => Err(Wrong::Value),
        }
    }

    /// The content of a message that `true` or `false` stands for.
    pub(crate) fn content_of_bool(self, out: &mut Vec<u8>, kind: Type, value: bool) -> Result {
        match self.well_known(kind) {
            Some((message, Some(WellKnown::Wrapper))) => {
                wrap(out, message, |out, kind| self.boolean(out, kind, value))
            }
            Some((_, Some(WellKnown::Value))) => {
                out.push(wkt::BOOL_VALUE_TAG);
                put::varint(out, value.into());
                Ok(())
            }
            _ => Err(Wrong::Value),
        }
    }

    fn message(
        self,
        out: &mut Vec<u8>,
        kind: Type,
        text: &str,
        wrapped: impl FnOnce(Self, &mut Vec<u8>, Type) -> Result,
    ) -> Result {
        let place = put::open(out);
        self.content(out, kind, text, wrapped)?;
        put::close(out, place);
        Ok(())
    }

    fn content(
        self,
        out: &mut Vec<u8>,
        kind: Type,
        text: &str,
        wrapped: impl FnOnce(Self, &mut Vec<u8>, Type) -> Result,
    ) -> Result {
        let Some((message, Some(well_known))) = self.well_known(kind) else { return Err(Wrong::Value) };
        let is_one = match well_known {
            WellKnown::Timestamp => wkt::timestamp(out, text).is_some(),
            WellKnown::Duration => wkt::duration(out, text).is_some(),
            WellKnown::FieldMask => wkt::field_mask(out, text, self.masks).is_some(),
            WellKnown::Wrapper => return wrap(out, message, |out, kind| wrapped(self, out, kind)),
            WellKnown::Value => {
                out.push(wkt::STRING_VALUE_TAG);
                put::bytes(out, text.as_bytes());
                true
            }
            _ => false,
        };
        if is_one { Ok(()) } else { Err(Wrong::Value) }
    }

    /// The key of a map entry from its JSON member name.
    pub(crate) fn map_key(self, out: &mut Vec<u8>, kind: Type, text: &str) -> Result {
        if kind == Type::String { self.string(out, kind, text) } else { self.text(out, kind, text) }
    }

    fn well_known(self, kind: Type) -> Option<(&'t MessageTable, Option<WellKnown>)> {
        let Type::Message(id) = kind else { return None };
        self.tables.message(id).map(|message| (message, message.well_known))
    }

    /// What is wrong with a text, as an error description that completes "the
    /// field ...".
    pub(crate) fn describe(self, wrong: Wrong, kind: Type, text: &str) -> String {
        let Wrong::Name(id) = wrong else { return self.expected(kind) };
        let names = self.tables.enumeration(id).map(|names| names.names.as_slice()).unwrap_or_default();
        let mut listed: Vec<_> = names.iter().take(MAX_LISTED).map(|(name, _)| format!("`{name}`")).collect();
        if names.len() > MAX_LISTED {
            listed.push("…".to_owned());
        }
        format!("must be one of {}, not `{}`", listed.join(", "), quoted(text))
    }

    /// What a value of this type looks like, as an error description.
    pub(crate) fn expected(self, kind: Type) -> String {
        let what = match kind {
            Type::Double => "a number",
            Type::Float => "a number in the range of a 32-bit float",
            Type::Int32 | Type::Sint32 | Type::Sfixed32 => "a 32-bit integer",
            Type::Int64 | Type::Sint64 | Type::Sfixed64 => "a 64-bit integer",
            Type::Uint32 | Type::Fixed32 => "an unsigned 32-bit integer",
            Type::Uint64 | Type::Fixed64 => "an unsigned 64-bit integer",
            Type::Bool => "`true` or `false`",
            Type::String => "a string",
            Type::Bytes => "a base64 string",
            Type::Enum(_) | Type::Null => "the name or the number of an enum value",
            Type::Message(_) => match self.well_known(kind) {
                Some((_, Some(WellKnown::Timestamp))) => "an RFC 3339 time such as `2026-01-31T12:00:00Z`",
                Some((_, Some(WellKnown::Duration))) => {
                    "a number of seconds with the suffix `s`, such as `1.5s`"
                }
                Some((_, Some(WellKnown::FieldMask))) => "a comma-separated list of field paths",
                Some((message, Some(WellKnown::Wrapper))) => match wrapped(message) {
                    None => "a value",
                    Some(kind) => return self.expected(kind),
                },
                Some((_, Some(WellKnown::Value))) => "a JSON value",
                Some((_, Some(WellKnown::List))) => "a JSON array",
                Some((_, Some(WellKnown::Any))) => "an object with a known `@type`",
                Some((_, Some(WellKnown::Struct | WellKnown::Empty) | None)) | None => "a JSON object",
            },
        };
        format!("must be {what}")
    }
}

impl Type {
    fn is_integer(self) -> bool {
        use Type::{Fixed32, Fixed64, Int32, Int64, Sfixed32, Sfixed64, Sint32, Sint64, Uint32, Uint64};
        matches!(
            self,
            Int32 | Int64 | Uint32 | Uint64 | Sint32 | Sint64 | Fixed32 | Fixed64 | Sfixed32 | Sfixed64
        )
    }
}

/// What a wrapper is around. A message inside would not be a wrapper; refusing
/// it ends the recursion.
fn wrapped(message: &MessageTable) -> Option<Type> {
    message.fields.first()?.kind().filter(|kind| !matches!(kind, Type::Message(_)))
}

/// The content of a wrapper; a default is not written.
fn wrap(
    out: &mut Vec<u8>,
    message: &MessageTable,
    inner: impl FnOnce(&mut Vec<u8>, Type) -> Result,
) -> Result {
    let (Some(kind), Some(field)) = (wrapped(message), message.fields.first()) else {
        return Err(Wrong::Value);
    };
    let start = out.len();
    out.extend_from_slice(&field.tag);
    let value = out.len();
    inner(out, kind)?;
    if is_default(out, value) {
        out.truncate(start);
    }
    Ok(())
}

/// Whether the value from here on is the default of its type: no other one is
/// all zeros.
pub(crate) fn is_default(out: &[u8], start: usize) -> bool {
    out.get(start..).is_some_and(|value| value.iter().all(|byte| *byte == 0))
}

fn sign_extended(number: i32) -> u64 {
    i64::from(number).cast_unsigned()
}

fn float(out: &mut Vec<u8>, kind: Type, value: f64) {
    if kind == Type::Double {
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        #[expect(clippy::cast_possible_truncation, reason = "only what is not finite comes here as a float")]
        out.extend_from_slice(&(value as f32).to_le_bytes());
    }
}

/// An integer of a type, where it fits.
fn whole(out: &mut Vec<u8>, kind: Type, number: Option<i128>) -> Result {
    fn fit<T: TryFrom<i128>>(number: i128) -> std::result::Result<T, Wrong> {
        T::try_from(number).map_err(|_| Wrong::Value)
    }
    let number = number.ok_or(Wrong::Value)?;
    match kind {
        Type::Int32 => put::varint(out, sign_extended(fit(number)?)),
        Type::Int64 => put::varint(out, fit::<i64>(number)?.cast_unsigned()),
        Type::Uint32 => put::varint(out, fit::<u32>(number)?.into()),
        Type::Uint64 => put::varint(out, fit(number)?),
        Type::Sint32 => {
            let number: i32 = fit(number)?;
            put::varint(out, ((number << 1) ^ (number >> 31)).cast_unsigned().into());
        }
        Type::Sint64 => {
            let number: i64 = fit(number)?;
            put::varint(out, ((number << 1) ^ (number >> 63)).cast_unsigned());
        }
        Type::Fixed32 => out.extend_from_slice(&fit::<u32>(number)?.to_le_bytes()),
        Type::Fixed64 => out.extend_from_slice(&fit::<u64>(number)?.to_le_bytes()),
        Type::Sfixed32 => out.extend_from_slice(&fit::<i32>(number)?.to_le_bytes()),
        Type::Sfixed64 => out.extend_from_slice(&fit::<i64>(number)?.to_le_bytes()),
        _ => return Err(Wrong::Value),
    }
    Ok(())
}

/// Strictly `-?[0-9]+`.
fn is_decimal(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// A decimal integer; none where it is far larger than any field.
fn integer(text: &str) -> Option<i128> {
    // Most are short.
    if text.len() <= 18 { text.parse::<i64>().ok().map(i128::from) } else { text.parse().ok() }
}

/// An integer in JSON number notation: `100`, `1e2`, `1.00e2` and `100.0` are one number.
fn exact_integer(text: &str) -> Option<i128> {
    if is_decimal(text) {
        return integer(text);
    }
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

#[cfg(test)]
mod tests {
    use prost_reflect::DescriptorPool;

    use super::*;

    fn read(kind: Type, text: &str) -> Option<Vec<u8>> {
        let (tables, mut out) = (Tables::new(&DescriptorPool::new()), Vec::new());
        Scalars { tables: &tables, masks: Masks::Json, lenient: Lenient::default() }
            .string(&mut out, kind, text)
            .ok()
            .map(|()| out)
    }

    /// A2 #32, A4 #57: integers are exact.
    #[test]
    fn integers_in_json_notation_are_exact() {
        for (text, expected) in [
            ("9007199254740993", Some(9_007_199_254_740_993_i64)),
            ("9007199254740993.0", Some(9_007_199_254_740_993)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
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
            let expected = expected.map(|number| number.to_le_bytes().to_vec());
            assert_eq!(read(Type::Sfixed64, text), expected, "{text}");
        }
    }

    /// A4 #58.
    #[test]
    fn floats_follow_the_json_grammar() {
        for text in ["inf", "nan", "infinity", "1.", ".5", "+1", "1e", "1e400", "", "0x1p3"] {
            assert_eq!(read(Type::Double, text), None, "{text}");
        }
        assert_eq!(read(Type::Double, "-1.5e3"), Some((-1500.0_f64).to_le_bytes().to_vec()));
        assert_eq!(read(Type::Double, "-Infinity"), Some(f64::NEG_INFINITY.to_le_bytes().to_vec()));
        assert_eq!(read(Type::Double, "5e-324"), Some(5e-324_f64.to_le_bytes().to_vec()));
        assert_eq!(read(Type::Float, "1e39"), None);
        assert_eq!(read(Type::Float, "Infinity"), Some(f32::INFINITY.to_le_bytes().to_vec()));
        assert_eq!(read(Type::Float, "3.4028235e38"), Some(f32::MAX.to_le_bytes().to_vec()));
    }

    /// A2 #32, A4 #59.
    #[test]
    fn base64_of_either_alphabet() {
        for text in ["-_8=", "-_8", "+/8=", "+/8"] {
            assert_eq!(read(Type::Bytes, text).as_deref(), Some(&[2, 0xfb, 0xff][..]), "{text}");
        }
        assert_eq!(read(Type::Bytes, "*"), None);
    }
}
