//! The program that the runner asks: it reads requests and writes answers, each with its length in front.

use std::io::{Read, Write};
use std::path::Path;

use agentrouter_gateway::{CodecError, ProtoJson, ReadOptions, WriteOptions, descriptor_pool};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

/// Of `conformance.WireFormat`.
const PROTOBUF: i32 = 1;
const JSON: i32 = 2;
/// Of `conformance.TestCategory`.
const JSON_IGNORE_UNKNOWN: i32 = 3;

/// Answers until there are no requests any more.
pub(crate) fn run(descriptors: &Path) {
    let pool = descriptor_pool(&std::fs::read(descriptors).unwrap()).expect("the suite's protos are a pool");
    let testee = Testee {
        codec: ProtoJson::new(&pool),
        request: pool.get_message_by_name("conformance.ConformanceRequest").unwrap(),
        response: pool.get_message_by_name("conformance.ConformanceResponse").unwrap(),
        pool,
    };
    let (mut stdin, mut stdout) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut length = [0; 4];
    while stdin.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_le_bytes(length) as usize];
        stdin.read_exact(&mut request).unwrap();
        let answer = testee.answer(&request);
        stdout.write_all(&u32::try_from(answer.len()).unwrap().to_le_bytes()).unwrap();
        stdout.write_all(&answer).unwrap();
        stdout.flush().unwrap();
    }
}

struct Testee {
    pool: DescriptorPool,
    codec: ProtoJson,
    request: MessageDescriptor,
    response: MessageDescriptor,
}

impl Testee {
    fn answer(&self, request: &[u8]) -> Vec<u8> {
        let request = DynamicMessage::decode(self.request.clone(), request).unwrap();
        let (field, value) = self.convert(&request);
        let mut response = DynamicMessage::new(self.response.clone());
        response.set_field_by_name(field, value);
        response.encode_to_vec()
    }

    /// The field of the answer, and its value.
    fn convert(&self, request: &DynamicMessage) -> (&'static str, Value) {
        let number = |name| request.get_field_by_name(name).unwrap().as_enum_number().unwrap();
        let message = request.get_field_by_name("message_type").unwrap().as_str().unwrap().to_owned();
        let output = number("requested_output_format");
        let skipped = |why: &str| ("skipped", Value::String(why.to_owned()));
        if message == "conformance.FailureSet" {
            // The list of failures that are known, which is empty.
            return ("protobuf_payload", Value::Bytes(Vec::new().into()));
        }
        if self.pool.get_message_by_name(&message).is_none() {
            return skipped("the message is not known");
        }
        let wire = if request.has_field_by_name("protobuf_payload") {
            request.get_field_by_name("protobuf_payload").unwrap().as_bytes().unwrap().to_vec()
        } else if request.has_field_by_name("json_payload") {
            let text = request.get_field_by_name("json_payload").unwrap().as_str().unwrap().to_owned();
            let options = ReadOptions { ignore_unknown: number("test_category") == JSON_IGNORE_UNKNOWN };
            match self.codec.to_wire(&message, text.as_bytes(), options) {
                Ok(wire) => wire,
                Err(error) => return ("parse_error", Value::String(error.to_string())),
            }
        } else {
            return skipped("only binary and JSON are read");
        };
        match output {
            // What came as binary goes by way of JSON, so that these cases, too, are about this codec.
            PROTOBUF if request.has_field_by_name("protobuf_payload") => {
                match self.by_way_of_json(&message, &wire) {
                    Ok(wire) => ("protobuf_payload", Value::Bytes(wire.into())),
                    Err(error) => ("parse_error", Value::String(error.to_string())),
                }
            }
            PROTOBUF => ("protobuf_payload", Value::Bytes(wire.into())),
            JSON => match self.codec.to_json(&message, &wire, WriteOptions::default()) {
                Ok(text) => ("json_payload", Value::String(String::from_utf8(text).unwrap())),
                Err(error @ CodecError::Wire(_)) if error.to_string().contains("the bytes are no") => {
                    ("parse_error", Value::String(error.to_string()))
                }
                Err(error) => ("serialize_error", Value::String(error.to_string())),
            },
            _ => skipped("only binary and JSON are written"),
        }
    }

    /// JSON cannot say what a message has beside its fields; then the bytes are passed on, as a gateway does.
    fn by_way_of_json(&self, message: &str, wire: &[u8]) -> Result<Vec<u8>, CodecError> {
        let desc = self.pool.get_message_by_name(message).unwrap();
        if DynamicMessage::decode(desc, wire).is_ok_and(|message| has_unknown(&message)) {
            return Ok(wire.to_vec());
        }
        let text = self.codec.to_json(message, wire, WriteOptions::default())?;
        self.codec.to_wire(message, &text, ReadOptions::default())
    }
}

/// Whether there is anything in a message that its descriptor does not have, such as the members of a message set.
fn has_unknown(message: &DynamicMessage) -> bool {
    let inside = |value: &Value| match value {
        Value::Message(message) => has_unknown(message),
        Value::List(values) => values.iter().filter_map(Value::as_message).any(has_unknown),
        Value::Map(values) => values.values().filter_map(Value::as_message).any(has_unknown),
        _ => false,
    };
    message.unknown_fields().next().is_some() || message.fields().any(|(_, value)| inside(value))
}
