//! ProtoJSON between text and messages: the codec of this crate.
//!
//! [`crate::request`] takes text in and gives wire bytes out, by way of a
//! dynamic message; [`Encoder`] goes the other way round, from the wire to text
//! by [`Tables`] that are made once. Nothing else knows how a message is held
//! in between.

mod decode;
mod decode_wkt;
mod map;
#[cfg(test)]
mod oracle;
mod table;
mod text;
mod wire;
mod write;

pub(crate) use decode::{field, message, value_from_text};
pub(crate) use table::{MessageId, Tables};
pub(crate) use text::string;
pub(crate) use write::{EncodeError, Encoder, last_text};

/// Deepest nesting of messages and map entries in a request: what `prost`
/// decodes. Beyond it the backend would answer with an error of its own fault.
const MAX_DEPTH: u32 = 100;

/// The full message name in a type URL: what follows the last slash.
fn type_name(type_url: &str) -> Option<&str> {
    type_url.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty())
}
