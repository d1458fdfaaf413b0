//! The codec by itself, both ways, with reflection as its judge.

use std::sync::LazyLock;

use agentrouter_gateway::{ProtoJson, ReadOptions, WriteOptions};
use prost_reflect::DynamicMessage;
use serde::de::IgnoredAny;

use crate::world::POOL;

static CODEC: LazyLock<ProtoJson> = LazyLock::new(|| ProtoJson::new(&POOL));

/// Messages that have fields of every kind between them.
const MESSAGES: [&str; 4] = [
    "gateway.test.v1.Everything",
    "gateway.test.v1.UpdateBookRequest",
    "google.protobuf.Value",
    "google.protobuf.Any",
];

/// The first byte chooses the message and whether text or bytes follow.
pub(crate) fn run(data: &[u8]) {
    let Some((&[choice], data)) = data.split_first_chunk() else { return };
    let message = MESSAGES[usize::from(choice >> 1) % MESSAGES.len()];
    let rest = choice & 0x40 != 0;
    let ignore_unknown = choice & 0x80 != 0;
    if choice & 1 == 0 {
        text(message, data, ReadOptions { ignore_unknown }, WriteOptions { rest });
    } else {
        bytes(message, data, WriteOptions { rest });
    }
}

/// Text that is read is JSON, and can be written and read again.
fn text(message: &str, text: &[u8], read: ReadOptions, write: WriteOptions) {
    let Ok(wire) = CODEC.to_wire(message, text, read) else { return };
    let judged = serde_json::from_slice::<IgnoredAny>(text);
    assert!(judged.is_ok(), "{judged:?}: {}", String::from_utf8_lossy(text));
    decoded(message, &wire);
    let written = CODEC.to_json(message, &wire, write);
    let written = written.unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(text)));
    again(message, &written, write);
}

/// What is written of bytes is text that can be read. Bytes that others replace are not looked at, so reflection may refuse
/// what is written.
fn bytes(message: &str, wire: &[u8], write: WriteOptions) {
    let Ok(written) = CODEC.to_json(message, wire, write) else { return };
    let shown = String::from_utf8_lossy(&written);
    // The enum that is null has numbers that no text can say.
    if shown.contains("\"nothing\":null") {
        return;
    }
    // What has no form of its own is written all the same, for whoever looks at an answer: the content of an `Any` that
    // is not of its type, and, in REST, paths of masks that have no camel case.
    let is_for_eyes = shown.contains("\"@type\":") || (write.rest && shown.contains("mask\":\""));
    if !is_for_eyes || CODEC.to_wire(message, &written, ReadOptions::default()).is_ok() {
        again(message, &written, write);
    }
}

/// Reads what was written, and writes it once more.
fn again(message: &str, written: &[u8], write: WriteOptions) {
    let shown = String::from_utf8_lossy(written);
    let judged = serde_json::from_slice::<IgnoredAny>(written);
    assert!(judged.is_ok(), "{judged:?}: {shown}");
    let wire = CODEC.to_wire(message, written, ReadOptions::default());
    let wire = wire.unwrap_or_else(|error| panic!("{error}: {shown}"));
    let twice = CODEC.to_json(message, &wire, write).unwrap_or_else(|error| panic!("{error}: {shown}"));
    assert_eq!(String::from_utf8_lossy(&twice), shown);
}

/// Reflection reads it, too.
fn decoded(message: &str, wire: &[u8]) {
    let descriptor = POOL.get_message_by_name(message).expect("a known message");
    let judged = DynamicMessage::decode(descriptor, wire);
    assert!(judged.is_ok(), "{judged:?}: {wire:?}");
}
