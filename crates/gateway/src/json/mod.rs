//! ProtoJSON between text and messages: the codec of this crate.
//!
//! [`crate::request`] takes text in and gives wire bytes out, [`Encoder`] the
//! other way round; nothing else knows how a message is held in between. A
//! codec without the dynamic message replaces these and leaves the rest alone.

mod decode;
mod decode_wkt;
mod encode;

pub(crate) use decode::{field, message, value_from_text};
pub(crate) use encode::{EncodeError, Encoder, string};

/// Deepest nesting of messages and map entries in a request: what `prost`
/// decodes. Beyond it the backend would answer with an error of its own fault.
const MAX_DEPTH: u32 = 100;

/// The full message name in a type URL: what follows the last slash.
fn type_name(type_url: &str) -> Option<&str> {
    type_url.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty())
}
