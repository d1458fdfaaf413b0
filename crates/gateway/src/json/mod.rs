//! ProtoJSON between text and the wire, by [`Tables`] that are made once from
//! the descriptors and without a message object in between: [`Decoder`] reads
//! text, [`Encoder`] writes it.

mod check;
mod lexer;
mod map;
#[cfg(test)]
mod oracle;
mod output;
pub(crate) mod put;
mod read;
mod read_map;
mod read_wkt;
mod selection;
mod table;
mod text;
mod wire;
mod write;
mod write_wkt;

pub(crate) use check::check;
pub(crate) use lexer::position;
pub(crate) use output::pretty;
pub use output::{Defaults, JsonOutput, Names};
pub(crate) use read::{Decoder, Unknown};
pub(crate) use selection::{Place, Scope, Selection};
pub(crate) use table::{EnumId, FieldTable, MessageId, MessageTable, Shape, Tables, Type};
pub(crate) use text::string;
pub(crate) use wire::{Raw, find, inside, wire_fields};
pub(crate) use write::{EncodeError, Encoder, last_text};

/// Deepest nesting of messages and map entries in a request: what `prost`
/// decodes. Beyond it the backend would answer with an error of its own fault.
const MAX_DEPTH: u32 = 100;

/// The full message name in a type URL: what follows the last slash.
fn type_name(type_url: &str) -> Option<&str> {
    type_url.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty())
}
