//! Messages between JSON and the wire.

use std::sync::Arc;

use tonic::Status;

use crate::error::ErrorRenderer;
use crate::failure::{Failure, Violations};
use crate::json::{Decoder, Encoder, JsonOutput, MessageId, Tables, Unknown};
use crate::scalar::Masks;

/// The JSON of protobuf as Connect has it: names in lower camel case, defaults left out. It is read as strictly as that of
/// REST.
#[derive(Debug, Clone)]
pub(super) struct JsonCodec {
    pub(super) tables: Arc<Tables>,
    pub(super) errors: ErrorRenderer,
}

impl JsonCodec {
    /// Appends the wire form of a request. What is wrong with the text is the client's fault.
    pub(super) fn to_wire(&self, input: MessageId, text: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        let text =
            std::str::from_utf8(text).map_err(|_| Status::invalid_argument("the message is not UTF-8"))?;
        let mut violations = Violations::default();
        let decoder = Decoder { tables: &self.tables, unknown: Unknown::Refused, masks: Masks::Either };
        decoder.message(out, input, text, &mut violations);
        violations.into_result().map_err(|failure| self.errors.status(failure))
    }

    /// Appends the JSON form of an answer. What is wrong with the message is the backend's fault.
    pub(super) fn to_json(&self, output: MessageId, wire: &[u8], out: &mut Vec<u8>) -> Result<(), Status> {
        let written = self.encoder().message(out, output, wire);
        written.map_err(|error| self.errors.status(Failure::broken_backend(error)))
    }

    /// The JSON form of a message of any known type.
    pub(super) fn known(&self, name: &str, wire: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let encoder = self.encoder();
        let (tables, id) = encoder.tables.iter().find_map(|tables| Some((*tables, tables.find(name)?)))?;
        Encoder { tables: [tables, tables], ..encoder }.message(&mut out, id, wire).ok()?;
        Some(out)
    }

    fn encoder(&self) -> Encoder<'_> {
        let tables = [&*self.tables, self.errors.encoder().tables[1]];
        Encoder { tables, style: JsonOutput::PROTO, selection: None }
    }
}
