//! Response messages to bodies and the headers that follow from them.

use bytes::Bytes;
use http::HeaderValue;

use crate::answer::etag;
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::json::{self, EncodeError};
use crate::rule::Route;

/// The type of bytes that say nothing of themselves.
const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The fields of a `google.api.HttpBody`.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// Writes the part of a response that the rule makes the body. What fails here is the backend's fault.
pub(crate) fn json(route: &Route, wire: &[u8], errors: &ErrorRenderer) -> Result<Vec<u8>, Failure> {
    encode(route, wire, errors).map_err(Failure::broken_backend)
}

fn encode(route: &Route, wire: &[u8], errors: &ErrorRenderer) -> Result<Vec<u8>, EncodeError> {
    let encoder = errors.encoder_as(route.answer.json);
    // Text is most often a little longer than the wire form, and defaults are written out.
    let mut json = Vec::with_capacity(wire.len() * 2 + 128);
    match route.response_body {
        None => encoder.message(&mut json, route.output, wire)?,
        Some(number) => encoder.field(&mut json, route.output, number, wire)?,
    }
    Ok(json)
}

/// The same part as protobuf, where it is a message.
pub(crate) fn protobuf(route: &Route, wire: &Bytes) -> Bytes {
    match route.response_body {
        None => wire.clone(),
        Some(number) => json::inside(wire, number).into(),
    }
}

/// The type and the bytes of that part where it is a `google.api.HttpBody`.
pub(crate) fn raw(route: &Route, wire: &Bytes) -> (HeaderValue, Bytes) {
    let wire = protobuf(route, wire);
    let content_type = json::last_text(&wire, CONTENT_TYPE).filter(|text| !text.is_empty());
    let content_type = content_type.and_then(|text| HeaderValue::try_from(text).ok()).unwrap_or(UNKNOWN);
    let data = match json::find(&wire, &[DATA]) {
        Some(json::Raw::Bytes(data)) => wire.slice_ref(data),
        _ => Bytes::new(),
    };
    (content_type, data)
}

/// The `ETag` of a response that has an etag.
pub(crate) fn entity_tag(route: &Route, wire: &[u8]) -> Option<HeaderValue> {
    route.response_etag.and_then(|number| etag::quoted(json::last_text(wire, number)?))
}
