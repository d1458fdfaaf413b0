//! The reader and the writer beside the reflection of `prost-reflect`, which serves here as oracle only.

use std::sync::LazyLock;

use fastrand::Rng;
use proptest::prelude::*;
use prost::Message as _;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, SerializeOptions, Value,
};

use super::{Decoder, Defaults, EncodeError, Encoder, JsonOutput, Place, Scope, Selection, Tables, Unknown};
use crate::failure::Violations;
use crate::scalar::Masks;
use crate::wkt::WellKnown;

const EVERYTHING: &str = "gateway.test.v1.Everything";
const NESTED: &str = "gateway.test.v1.Nested";

/// The messages of the crate's tests.
static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/proto");
    let annotations = concat!(env!("CARGO_MANIFEST_DIR"), "/../../proto");
    let files = protox::compile(["gateway_test.proto"], [root, annotations]).expect("the protos compile");
    DescriptorPool::from_file_descriptor_set(files).expect("they are a pool")
});
static TABLES: LazyLock<Tables> = LazyLock::new(|| Tables::new(&POOL));

fn everything() -> MessageDescriptor {
    POOL.get_message_by_name(EVERYTHING).expect("a known message")
}

fn encode(wire: &[u8], style: JsonOutput) -> Result<Vec<u8>, EncodeError> {
    let id = TABLES.find(EVERYTHING).expect("a known message");
    let mut out = Vec::new();
    Encoder { tables: [&TABLES, &TABLES], style, selection: None }.message(&mut out, id, wire).map(|()| out)
}

/// The wire form of a text; none where something is wrong with it.
fn decode(text: &str) -> Option<Vec<u8>> {
    let id = TABLES.find(EVERYTHING).expect("a known message");
    let (mut out, mut violations) = (Vec::new(), Violations::default());
    Decoder { tables: &TABLES, unknown: Unknown::Refused, masks: Masks::Json }.message(
        &mut out,
        id,
        text,
        &mut violations,
    );
    (violations.len() == 0).then_some(out)
}

/// Makes a message out of a seed: each field absent, default, extreme or arbitrary.
struct Maker(Rng);

impl Maker {
    fn message(&mut self, desc: &MessageDescriptor, depth: u32) -> DynamicMessage {
        let mut message = DynamicMessage::new(desc.clone());
        match WellKnown::of(desc) {
            Some(WellKnown::Any) => {
                let inside = desc.parent_pool().get_message_by_name(NESTED).expect("a known message");
                let inside = self.message(&inside, depth + 1).encode_to_vec();
                message.set_field_by_number(1, Value::String(format!("example.com/{NESTED}")));
                message.set_field_by_number(2, Value::Bytes(inside.into()));
                return message;
            }
            Some(WellKnown::Timestamp) => {
                let seconds = self.0.i64(-62_000_000_000..253_000_000_000);
                message.set_field_by_number(1, Value::I64(seconds));
                message.set_field_by_number(2, Value::I32(self.nanos()));
                return message;
            }
            // Merged lengths of different signs would be none.
            Some(WellKnown::Duration) => {
                message.set_field_by_number(1, Value::I64(self.0.i64(0..300_000)));
                message.set_field_by_number(2, Value::I32(self.nanos()));
                return message;
            }
            Some(WellKnown::FieldMask) => {
                let paths = ["display_name", "a.b_c", "plain"];
                let paths = paths.iter().take(self.0.usize(..4));
                let paths = paths.map(|path| Value::String((*path).to_owned())).collect();
                message.set_field_by_number(1, Value::List(paths));
                return message;
            }
            _ => {}
        }
        let is_value = WellKnown::of(desc) == Some(WellKnown::Value);
        for field in desc.fields() {
            if self.0.u64(..3) == 0 || (depth > 3 && matches!(field.kind(), Kind::Message(_))) {
                continue;
            }
            let value = self.field(&field, depth);
            message.set_field(&field, value);
        }
        if is_value && message.fields().next().is_none() {
            message.set_field_by_number(4, Value::Bool(true));
        }
        message
    }

    fn nanos(&mut self) -> i32 {
        [0, 1, 500_000_000, 123_456_789, 120_000][self.0.usize(..5)]
    }

    fn field(&mut self, field: &FieldDescriptor, depth: u32) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else { unreachable!("maps have entries") };
            let (key, value) = (entry.map_entry_key_field(), entry.map_entry_value_field());
            let entries = (0..self.0.u64(..4)).map(|_| {
                let key: MapKey = self.value(&key.kind(), depth).into_map_key().expect("a key");
                (key, self.value(&value.kind(), depth))
            });
            Value::Map(entries.collect())
        } else if field.is_list() {
            Value::List((0..self.0.u64(..4)).map(|_| self.value(&field.kind(), depth)).collect())
        } else {
            self.value(&field.kind(), depth)
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any bits will do")]
    fn value(&mut self, kind: &Kind, depth: u32) -> Value {
        let bits = match self.0.u64(..4) {
            0 => 0,
            1 => u64::MAX,
            2 => self.0.u64(..200),
            _ => self.0.u64(..),
        };
        let finite = |value: f64| if value.is_finite() { value } else { 2.0 };
        match kind {
            Kind::Double => Value::F64(finite(f64::from_bits(bits))),
            // Eighths, since the oracle widens: what is no sum of a few powers of two would look another number.
            Kind::Float => Value::F32(f32::from(bits as i16) / 8.0),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Value::I32(bits as i32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => Value::I64(bits.cast_signed()),
            Kind::Uint32 | Kind::Fixed32 => Value::U32(bits as u32),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(bits),
            Kind::Bool => Value::Bool(bits & 1 == 1),
            Kind::String => {
                let texts = ["", "plain", "\"quoted\"\\", "é\u{1}\n\u{7f}", "日本\u{2028}語", "\u{1f600}"];
                Value::String(texts[self.0.usize(..6)].to_owned())
            }
            Kind::Bytes => Value::Bytes((0..self.0.u64(..6)).map(|_| bits as u8).collect::<Vec<_>>().into()),
            // It has one value, whatever its number.
            Kind::Enum(desc) if desc.full_name() == "google.protobuf.NullValue" => Value::EnumNumber(0),
            Kind::Enum(_) => Value::EnumNumber((bits % 3) as i32),
            Kind::Message(desc) => Value::Message(self.message(desc, depth + 1)),
        }
    }
}

fn oracle(message: &DynamicMessage, style: JsonOutput) -> serde_json::Value {
    let options = SerializeOptions::new()
        .skip_default_fields(style == JsonOutput::PROTO)
        .use_proto_field_name(style == JsonOutput::REST)
        .stringify_64_bit_integers(true);
    message.serialize_with_options(serde_json::value::Serializer, &options).expect("it has a JSON form")
}

fn written(wire: &[u8], style: JsonOutput) -> serde_json::Value {
    let out = encode(wire, style).expect("it has a JSON form");
    serde_json::from_slice(&out).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
}

/// Numbers as numbers, whether written with a fraction or without.
fn plain(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value as Json;
    match value {
        Json::Number(number) => number.as_f64().map_or(Json::Number(number), Json::from),
        Json::Array(values) => values.into_iter().map(plain).collect(),
        Json::Object(members) => members.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        other => other,
    }
}

/// What paths without a `*` leave of a JSON text. Of the messages here one field is a map of messages.
fn filtered(json: &serde_json::Value, paths: &[&str]) -> serde_json::Value {
    let members = json.as_object().expect("an object").iter().filter_map(|(name, value)| {
        if paths.contains(&name.as_str()) {
            return Some((name.clone(), value.clone()));
        }
        let below = paths.iter().filter_map(|path| path.strip_prefix(name)?.strip_prefix('.'));
        let below: Vec<_> = below.collect();
        let inside = |value: &serde_json::Value| filtered(value, &below);
        let part = match value {
            _ if below.is_empty() => return None,
            serde_json::Value::Array(values) => values.iter().map(inside).collect(),
            serde_json::Value::Object(entries) if name == "by_number" => {
                entries.iter().map(|(key, value)| (key.clone(), inside(value))).collect()
            }
            value => inside(value),
        };
        Some((name.clone(), part))
    });
    members.collect()
}

/// Paths into the message of the tests.
const PATHS: [&str; 16] = [
    "s",
    "numbers",
    "opt",
    "labels",
    "choice_a",
    "ts",
    "any",
    "structure",
    "msg",
    "msg.name",
    "msg.child.page_size",
    "msg.child.child.tags",
    "msgs.tags",
    "msgs.child.name",
    "by_number.page_size",
    "by_number.child.child",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_writer_agrees_with_reflection(seed: u64) {
        let message = Maker(Rng::with_seed(seed)).message(&everything(), 0);
        for style in [JsonOutput::REST, JsonOutput::PROTO] {
            prop_assert_eq!(plain(written(&message.encode_to_vec(), style)), plain(oracle(&message, style)));
        }
    }

    /// What is written is read as what it was, whoever wrote it and whichever names it has.
    #[test]
    fn the_reader_agrees_with_reflection(seed: u64) {
        let message = Maker(Rng::with_seed(seed)).message(&everything(), 0);
        for style in [JsonOutput::REST, JsonOutput::PROTO] {
            let ours = encode(&message.encode_to_vec(), style).expect("it has a JSON form");
            let theirs = oracle(&message, style).to_string().into_bytes();
            for text in [ours, theirs] {
                let text = String::from_utf8(text).expect("it is text");
                let wire = decode(&text).unwrap_or_else(|| panic!("it is refused: {text}"));
                let read = DynamicMessage::decode(everything(), wire.as_slice()).expect("it decodes");
                prop_assert_eq!(oracle(&read, style), oracle(&message, style), "{}", text);
            }
        }
    }

    /// Text that is damaged is refused, or read as reflection reads it; never a panic.
    #[test]
    fn damaged_text_is_survived(seed: u64, at: usize, with in "[\\[\\]{}:,\"\\\\a-cn0-9.eE+ -]{0,3}", cut in 0_usize..4) {
        let message = Maker(Rng::with_seed(seed)).message(&everything(), 0);
        let mut text = oracle(&message, JsonOutput::PROTO).to_string();
        let start = text.floor_char_boundary(at % (text.len() + 1));
        let end = text.ceil_char_boundary((start + cut).min(text.len()));
        text.replace_range(start..end, &with);
        if let Some(wire) = decode(&text) {
            let read = DynamicMessage::decode(everything(), wire.as_slice()).expect("it decodes");
            let mut deserializer = serde_json::Deserializer::from_str(&text);
            // It is stricter, for one, about quoted exponents.
            if let Ok(theirs) = DynamicMessage::deserialize(everything(), &mut deserializer) {
                prop_assert_eq!(oracle(&read, JsonOutput::PROTO), oracle(&theirs, JsonOutput::PROTO), "{}", text);
            }
        }
    }

    /// Fields that come in pieces, twice and out of order are merged as a decoder does.
    #[test]
    fn messages_one_after_the_other_are_merged(one: u64, other: u64) {
        let mut wire = Vec::new();
        for seed in [one, other] {
            wire.extend(Maker(Rng::with_seed(seed)).message(&everything(), 0).encode_to_vec());
        }
        let merged = DynamicMessage::decode(everything(), wire.as_slice()).expect("it decodes");
        for style in [JsonOutput::REST, JsonOutput::PROTO] {
            prop_assert_eq!(plain(written(&wire, style)), plain(oracle(&merged, style)));
        }
    }

    /// A5 #71: a part on the wire, and as text with its defaults, is what its paths leave of the whole.
    #[test]
    fn parts_are_what_paths_leave(seed: u64, paths in proptest::sample::subsequence(&PATHS[..], 1..6)) {
        let id = TABLES.find(EVERYTHING).expect("a known message");
        let mut selection = Selection::default();
        for path in &paths {
            let scope = Scope { message: Some(id), is_many: false };
            match Place::resolve(&TABLES, scope, path) {
                Some(Place::Field(places)) => selection.add(&places),
                other => panic!("{path}: {other:?}"),
            }
        }
        let wire = Maker(Rng::with_seed(seed)).message(&everything(), 0).encode_to_vec();

        let short = JsonOutput { defaults: Defaults::Never, ..JsonOutput::REST };
        let mut pruned = Vec::new();
        selection.prune(&TABLES, id, &wire, &mut pruned).expect("it is a message");
        prop_assert_eq!(written(&pruned, short), filtered(&written(&wire, short), &paths));

        let mut text = Vec::new();
        let encoder = Encoder { tables: [&TABLES, &TABLES], style: JsonOutput::REST, selection: Some(&selection) };
        encoder.message(&mut text, id, &wire).expect("it has a JSON form");
        let text: serde_json::Value = serde_json::from_slice(&text).expect("it is JSON");
        prop_assert_eq!(text, filtered(&written(&wire, JsonOutput::REST), &paths));
    }

    /// Bytes that are no message are an error or a message as lenient readers see it, never a panic.
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..200), seed: u64, at: u16) {
        let mut damaged = Maker(Rng::with_seed(seed)).message(&everything(), 0).encode_to_vec();
        let length = damaged.len().max(1);
        if let Some(byte) = damaged.get_mut(usize::from(at) % length) {
            *byte ^= at.to_le_bytes()[1] | 1;
        }
        for wire in [&bytes, &damaged] {
            if let Ok(out) = encode(wire, JsonOutput::REST) {
                let parsed = serde_json::from_slice::<serde_json::Value>(&out);
                prop_assert!(parsed.is_ok(), "{}", String::from_utf8_lossy(&out));
            }
        }
    }
}
