//! Messages between JSON and the wire.

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};
use tonic::Status;

use crate::error::ErrorRenderer;
use crate::failure::{Failure, Violations};
use crate::json;

/// The JSON of protobuf as Connect has it: names in lower camel case, defaults left out.
#[derive(Debug, Clone)]
pub(super) struct JsonCodec {
    pub(super) pool: DescriptorPool,
    pub(super) errors: ErrorRenderer,
}

impl JsonCodec {
    /// Appends the wire form of a request. What is wrong with the text is the client's fault.
    pub(super) fn to_wire(
        &self,
        input: &MessageDescriptor,
        text: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        let text =
            std::str::from_utf8(text).map_err(|_| Status::invalid_argument("the message is not UTF-8"))?;
        let mut violations = Violations::default();
        let decoded = json::message(input, text, &mut violations);
        violations.into_result().map_err(|failure| self.errors.status(failure))?;
        match decoded.value {
            Some(Value::Message(message)) => {
                message.encode(out).map_err(|error| Status::internal(error.to_string()))
            }
            _ => Err(Status::invalid_argument("the message is no JSON object")),
        }
    }

    /// Appends the JSON form of an answer. What is wrong with the message is the backend's fault.
    pub(super) fn to_json(
        &self,
        output: &MessageDescriptor,
        wire: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Status> {
        write(output, wire, out).map_err(|error| self.errors.status(Failure::broken_backend(error)))
    }

    /// The JSON form of a message of any known type.
    pub(super) fn known(&self, name: &str, wire: &[u8]) -> Option<Vec<u8>> {
        let message = self.pool.get_message_by_name(name)?;
        let mut out = Vec::new();
        write(&message, wire, &mut out).ok()?;
        Some(out)
    }
}

fn write(
    message: &MessageDescriptor,
    wire: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let message = DynamicMessage::decode(message.clone(), wire)?;
    serde_json::to_writer(out, &message)?;
    Ok(())
}
