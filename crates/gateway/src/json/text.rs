//! Scalars as JSON text.

use std::io::Write as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::lexer::is_plain;

/// A JSON string.
pub(crate) fn string(out: &mut Vec<u8>, text: &str) {
    if is_plain(text) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else {
        json(out, text);
    }
}

pub(super) fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    let start = out.len();
    out.resize(start + bytes.len().div_ceil(3) * 4, 0);
    let written = out.get_mut(start..).map(|room| BASE64_STANDARD.encode_slice(bytes, room));
    // The room is what padded base64 takes.
    out.truncate(start + written.and_then(Result::ok).unwrap_or_default());
    out.push(b'"');
}

/// An integer.
pub(super) fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// A whole number is written as one: `2`, not `2.0`.
pub(super) fn float(out: &mut Vec<u8>, value: impl serde::Serialize) {
    json(out, &value);
    if out.ends_with(b".0") {
        out.truncate(out.len() - 2);
    }
}

fn json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // Scalars into memory cannot fail; if one did, `null` keeps the text JSON.
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

/// Text that needs no escaping, in quotes.
pub(super) fn quoted(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    out.push(b'"');
    display(out, value);
    out.push(b'"');
}

fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    if write!(out, "{value}").is_err() {
        out.extend_from_slice(b"null");
    }
}

pub(super) fn special(number: f64) -> Option<&'static [u8]> {
    if number.is_nan() {
        Some(b"\"NaN\"")
    } else if number.is_infinite() {
        Some(if number > 0.0 { b"\"Infinity\"" } else { b"\"-Infinity\"" })
    } else {
        None
    }
}

pub(super) fn comma(out: &mut Vec<u8>, first: bool) {
    if !first {
        out.push(b',');
    }
}
