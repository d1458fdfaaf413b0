//! Response messages to JSON bodies and the headers that follow from them.

use bytes::Bytes;
use http::HeaderValue;
use prost_reflect::DynamicMessage;

use crate::failure::Failure;
use crate::json::{EncodeError, Encoder};
use crate::rule::Route;

/// A response message in its REST form.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) json: Vec<u8>,
    /// The `ETag` of a message that has an etag.
    pub(crate) etag: Option<HeaderValue>,
}

/// Decodes a response from the wire and writes the part of it that the rule
/// makes the body. What fails here is the backend's fault.
pub(crate) fn body(route: &Route, wire: Bytes, encoder: Encoder<'_>) -> Result<Body, Failure> {
    encode(route, wire, encoder).map_err(Failure::broken_backend)
}

fn encode(route: &Route, wire: Bytes, encoder: Encoder<'_>) -> Result<Body, EncodeError> {
    // Text is most often a little longer than the wire form.
    let mut json = Vec::with_capacity(wire.len() * 2 + 64);
    let message = DynamicMessage::decode(route.output.clone(), wire)
        .map_err(|source| EncodeError::Wire { message: route.output.full_name().to_owned(), source })?;
    match &route.response_body {
        None => encoder.message(&mut json, &message)?,
        Some(field) if field.supports_presence() && !message.has_field(field) => {
            json.extend_from_slice(b"null");
        }
        Some(field) => encoder.field(&mut json, field, &message.get_field(field))?,
    }
    let etag = route.response_etag.as_ref().and_then(|field| entity_tag(message.get_field(field).as_str()?));
    Ok(Body { json, etag })
}

/// `"tag"`, unless the tag is empty or holds what an entity tag cannot.
fn entity_tag(tag: &str) -> Option<HeaderValue> {
    let is_opaque = |byte: u8| byte == 0x21 || (0x23..=0x7e).contains(&byte);
    (!tag.is_empty() && tag.bytes().all(is_opaque))
        .then(|| HeaderValue::try_from(format!("\"{tag}\"")).ok())?
}
