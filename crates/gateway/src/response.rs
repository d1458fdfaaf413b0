//! Response messages to JSON bodies and the headers that follow from them.

use http::HeaderValue;

use crate::failure::Failure;
use crate::json::{self, EncodeError, Encoder};
use crate::rule::Route;

/// A response message in its REST form.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) json: Vec<u8>,
    /// The `ETag` of a message that has an etag.
    pub(crate) etag: Option<HeaderValue>,
}

/// Writes the part of a response that the rule makes the body. What fails here is the backend's fault.
pub(crate) fn body(route: &Route, wire: &[u8], encoder: Encoder<'_>) -> Result<Body, Failure> {
    encode(route, wire, encoder).map_err(Failure::broken_backend)
}

fn encode(route: &Route, wire: &[u8], encoder: Encoder<'_>) -> Result<Body, EncodeError> {
    // Text is most often a little longer than the wire form, and defaults are written out.
    let mut json = Vec::with_capacity(wire.len() * 2 + 128);
    match route.response_body {
        None => encoder.message(&mut json, route.output, wire)?,
        Some(number) => encoder.field(&mut json, route.output, number, wire)?,
    }
    let etag = route.response_etag.and_then(|number| entity_tag(json::last_text(wire, number)?));
    Ok(Body { json, etag })
}

/// `"tag"`, unless the tag is empty or holds what an entity tag cannot.
fn entity_tag(tag: &str) -> Option<HeaderValue> {
    let is_opaque = |byte: u8| byte == 0x21 || (0x23..=0x7e).contains(&byte);
    (!tag.is_empty() && tag.bytes().all(is_opaque))
        .then(|| HeaderValue::try_from(format!("\"{tag}\"")).ok())?
}
