//! Response messages to bodies and the headers that follow from them.

use bytes::Bytes;
use http::HeaderValue;

use crate::answer::etag;
use crate::error::ErrorRenderer;
use crate::failure::Failure;
use crate::json::{self, EncodeError, Encoder, Selection};
use crate::rule::Route;

/// The type of bytes that say nothing of themselves.
const UNKNOWN: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// The fields of a `google.api.HttpBody`.
const CONTENT_TYPE: u32 = 1;
const DATA: u32 = 2;

/// Writes the part of a response that the rule makes the body, and of that what is selected. What fails here is the
/// backend's fault.
pub(crate) fn json(
    route: &Route,
    wire: &[u8],
    selection: Option<&Selection>,
    errors: &ErrorRenderer,
) -> Result<Vec<u8>, Failure> {
    let encoder = Encoder { selection, ..errors.encoder_as(route.answer.json) };
    encode(route, wire, encoder).map_err(Failure::broken_backend)
}

fn encode(route: &Route, wire: &[u8], encoder: Encoder<'_>) -> Result<Vec<u8>, EncodeError> {
    // Text is most often a little longer than the wire form, and defaults are written out.
    let mut json = Vec::with_capacity(wire.len() * 2 + 128);
    match route.response_body {
        None => encoder.message(&mut json, route.output, wire)?,
        Some(number) => encoder.field(&mut json, route.output, number, wire)?,
    }
    Ok(json)
}

/// The same as protobuf, where the body is a message.
pub(crate) fn protobuf(
    route: &Route,
    wire: &Bytes,
    selection: Option<&Selection>,
    errors: &ErrorRenderer,
) -> Result<Bytes, Failure> {
    let wire = body(route, wire);
    let message = route.answer.partial.and_then(|scope| scope.message);
    let (Some(selection), Some(message)) = (selection, message) else { return Ok(wire) };
    let mut part = Vec::new();
    selection.prune(errors.tables(), message, &wire, &mut part).map_err(Failure::broken_backend)?;
    Ok(part.into())
}

/// The message that is the body.
fn body(route: &Route, wire: &Bytes) -> Bytes {
    match route.response_body {
        None => wire.clone(),
        Some(number) => json::inside(wire, number).into(),
    }
}

/// The type and the bytes of the body where it is a `google.api.HttpBody`.
pub(crate) fn raw(route: &Route, wire: &Bytes) -> (HeaderValue, Bytes) {
    let wire = body(route, wire);
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
