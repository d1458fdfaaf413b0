//! Percent escapes of paths and query strings, decoded exactly once and never
//! lossily.

use std::borrow::Cow;

/// Which escapes [`decode`] resolves, and how it reads `+`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decode {
    /// Every escape: captures of one path segment.
    All,
    /// Every escape but `%2F`, which stays as written: captures of several
    /// segments, where a decoded slash could be taken for a separator.
    ExceptSlash,
    /// Every escape, and `+` is a space: query strings.
    Form,
}

/// Why an escaped text cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EscapeError {
    /// A `%` without two hexadecimal digits after it.
    Malformed,
    /// The decoded bytes are not UTF-8.
    NotUtf8,
}

impl EscapeError {
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Malformed => "has a malformed percent escape",
            Self::NotUtf8 => "is not valid UTF-8 once percent-decoded",
        }
    }
}

/// Appends a text as one segment of a path.
pub(crate) fn segment(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let digit =
                |value: u8| char::from_digit(u32::from(value), 16).unwrap_or('0').to_ascii_uppercase();
            out.extend(['%', digit(byte >> 4), digit(byte & 0xf)]);
        }
    }
}

pub(crate) fn decode(text: &str, how: Decode) -> Result<Cow<'_, str>, EscapeError> {
    match decode_bytes(text, how)? {
        // Nothing was decoded.
        Cow::Borrowed(_) => Ok(Cow::Borrowed(text)),
        Cow::Owned(bytes) => String::from_utf8(bytes).map(Cow::Owned).map_err(|_| EscapeError::NotUtf8),
    }
}

pub(crate) fn decode_bytes(text: &str, how: Decode) -> Result<Cow<'_, [u8]>, EscapeError> {
    let plus_is_space = how == Decode::Form;
    if !text.bytes().any(|byte| byte == b'%' || (plus_is_space && byte == b'+')) {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        match byte {
            b'%' => {
                let (decoded, after) = hex_pair(tail).ok_or(EscapeError::Malformed)?;
                if decoded == b'/' && how == Decode::ExceptSlash {
                    let kept = rest.len() - after.len();
                    out.extend(rest.iter().take(kept));
                } else {
                    out.push(decoded);
                }
                rest = after;
                continue;
            }
            b'+' if plus_is_space => out.push(b' '),
            other => out.push(other),
        }
        rest = tail;
    }
    Ok(Cow::Owned(out))
}

/// Brings a path segment into the form literals are compared in: escapes of
/// unreserved characters are resolved, the others get upper-case digits.
/// A malformed escape is kept and equals no literal.
pub(crate) fn normalize(segment: &str) -> Cow<'_, str> {
    if !segment.contains('%') {
        return Cow::Borrowed(segment);
    }
    let mut out = String::with_capacity(segment.len());
    let mut parts = segment.split('%');
    out.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let decoded = hex_pair(part.as_bytes()).map(|(byte, _)| byte);
        match (decoded, part.split_at_checked(2)) {
            (Some(byte), Some((_, after))) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                out.push(char::from(byte));
                out.push_str(after);
            }
            (Some(_), Some((digits, after))) => {
                out.push('%');
                out.push_str(&digits.to_ascii_uppercase());
                out.push_str(after);
            }
            _ => {
                out.push('%');
                out.push_str(part);
            }
        }
    }
    Cow::Owned(out)
}

fn hex_pair(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (&[high, low], after) = bytes.split_first_chunk()?;
    let digit = |byte| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some((digit(high)? << 4 | digit(low)?, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A1 #6, #7, #8, #9, #10, A2 #39.
    #[test]
    fn decodes_once() {
        let cases = [
            ("plain", Decode::All, Ok("plain")),
            ("a%2Fb", Decode::All, Ok("a/b")),
            ("a%2fb%20c", Decode::ExceptSlash, Ok("a%2fb c")),
            ("%2525", Decode::All, Ok("%25")),
            ("%25", Decode::All, Ok("%")),
            ("a+b", Decode::All, Ok("a+b")),
            ("a+b%2Bc", Decode::Form, Ok("a b+c")),
            ("%C3%A9", Decode::All, Ok("é")),
            ("é%20", Decode::All, Ok("é ")),
            ("%zz", Decode::All, Err(EscapeError::Malformed)),
            ("%4", Decode::Form, Err(EscapeError::Malformed)),
            ("%", Decode::ExceptSlash, Err(EscapeError::Malformed)),
            ("%+1", Decode::All, Err(EscapeError::Malformed)),
            ("%ff", Decode::All, Err(EscapeError::NotUtf8)),
        ];
        for (text, how, expected) in cases {
            assert_eq!(decode(text, how).as_deref(), expected.as_deref(), "{text}");
        }
    }

    /// A1 #9.
    #[test]
    fn normalizes_unreserved_escapes_only() {
        for (text, expected) in [
            ("users", "users"),
            ("%75sers", "users"),
            ("a%2fb", "a%2Fb"),
            ("%zz%", "%zz%"),
            ("%4", "%4"),
            ("%é9", "%é9"),
            ("%7e%41", "~A"),
        ] {
            assert_eq!(normalize(text), expected, "{text}");
        }
    }
}
