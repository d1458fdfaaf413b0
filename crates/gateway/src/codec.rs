//! The codec by itself: ProtoJSON for the messages of a descriptor pool.

use prost_reflect::DescriptorPool;
use thiserror::Error;

use crate::failure::Violations;
use crate::json::{Decoder, Encoder, JsonOutput, MessageId, Tables, Unknown};
use crate::scalar::Masks;

/// [ProtoJSON](https://protobuf.dev/programming-guides/json/) between text and
/// the wire, for every message of a descriptor pool, without generated code and
/// without a message object in between.
#[derive(Debug)]
pub struct ProtoJson {
    tables: Tables,
}

/// How text is read.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOptions {
    /// Pass over members that the message does not have, and over enum names
    /// that the enum does not have. Off, they are errors.
    pub ignore_unknown: bool,
}

/// How text is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct WriteOptions {
    /// Names as in the proto file, and fields without presence even where they
    /// have their default, as the REST form has it. Off, names are lowerCamelCase
    /// and defaults are left out.
    pub rest: bool,
}

/// Why there is no conversion.
#[derive(Debug, Error)]
pub enum CodecError {
    /// The pool has no message of that name.
    #[error("the pool has no message `{0}`")]
    NoMessage(String),
    /// The text is no message: what is wrong, and where.
    #[error("{0}")]
    Text(String),
    /// The bytes are no message, or one that has no JSON form.
    #[error("{0}")]
    Wire(String),
}

impl ProtoJson {
    /// Reads the descriptors of a pool, once.
    pub fn new(pool: &DescriptorPool) -> Self {
        Self { tables: Tables::new(pool) }
    }

    /// The wire form of a JSON text.
    ///
    /// # Errors
    /// Where the text is no JSON, or no such message.
    pub fn to_wire(&self, message: &str, text: &[u8], options: ReadOptions) -> Result<Vec<u8>, CodecError> {
        let id = self.find(message)?;
        let text = std::str::from_utf8(text).map_err(|error| {
            CodecError::Text(format!("the text is not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        let unknown = if options.ignore_unknown { Unknown::Ignored } else { Unknown::Refused };
        let (mut out, mut violations) = (Vec::with_capacity(text.len()), Violations::default());
        Decoder { tables: &self.tables, unknown, masks: Masks::Json }.message(
            &mut out,
            id,
            text,
            &mut violations,
        );
        match violations.message() {
            None => Ok(out),
            Some(message) => Err(CodecError::Text(message)),
        }
    }

    /// The JSON text of a message on the wire.
    ///
    /// # Errors
    /// Where the bytes are no such message, or hold what JSON cannot say.
    pub fn to_json(&self, message: &str, wire: &[u8], options: WriteOptions) -> Result<Vec<u8>, CodecError> {
        let id = self.find(message)?;
        let style = if options.rest { JsonOutput::REST } else { JsonOutput::PROTO };
        let mut out = Vec::with_capacity(wire.len() * 2);
        let encoder = Encoder { tables: [&self.tables, &self.tables], style, selection: None };
        encoder.message(&mut out, id, wire).map_err(|error| CodecError::Wire(error.to_string()))?;
        Ok(out)
    }

    fn find(&self, message: &str) -> Result<MessageId, CodecError> {
        self.tables.find(message).ok_or_else(|| CodecError::NoMessage(message.to_owned()))
    }
}
