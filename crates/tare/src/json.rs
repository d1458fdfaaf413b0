//! Messages of the API as JSON, in the spelling of its REST side: proto field names, no field left out.

use agentrouter_api::DESCRIPTOR_POOL;
use anyhow::Context;
use prost::Message;
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::exit::Failure;

/// A message of this full name as JSON.
pub(crate) fn of(name: &str, message: &impl Message) -> Result<Value, Failure> {
    render(name, message).map_err(Failure::other)
}

fn render(name: &str, message: &impl Message) -> anyhow::Result<Value> {
    let descriptor = DESCRIPTOR_POOL.get_message_by_name(name).context("the API has no such message")?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}
