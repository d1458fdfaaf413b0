//! The decoder's part for well-known types that are JSON objects or arrays.

use prost::Message as _;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};
use serde::de::value::MapDeserializer;
use serde::de::{DeserializeSeed as _, Error, MapAccess, SeqAccess};

use super::decode::{Parsed, Seed, Shape};
use super::type_name;
use crate::failure::Problem;
use crate::scalar;
use crate::wkt::WellKnown;

impl Seed<'_> {
    pub(super) fn struct_value<'de, A: MapAccess<'de>>(
        self,
        desc: &MessageDescriptor,
        depth: u32,
        object: A,
    ) -> Result<Value, A::Error> {
        match desc.get_field(1).map(|field| field.kind()) {
            Some(Kind::Message(entry)) => {
                let fields = self.map(&entry, depth + 1, object)?;
                Ok(scalar::message(desc, [(1, fields)]))
            }
            _ => Err(A::Error::custom("a Struct without fields")),
        }
    }

    pub(super) fn list_value<'de, A: SeqAccess<'de>>(
        self,
        desc: &MessageDescriptor,
        depth: u32,
        array: A,
    ) -> Result<Value, A::Error> {
        let Some(values) = desc.get_field(1) else {
            return Err(A::Error::custom("a ListValue without values"));
        };
        let kind = values.kind();
        let seed = Seed { shape: Shape::List(&kind), context: self.context, depth };
        let values = seed.elements(&kind, depth + 1, array)?;
        Ok(scalar::message(desc, [(1, Value::List(values))]))
    }

    /// `{"@type": url, ...}`. The type may stand anywhere, so the members are
    /// kept until it is known.
    pub(super) fn any<'de, A: MapAccess<'de>>(
        self,
        desc: &MessageDescriptor,
        mut object: A,
    ) -> Result<Parsed, A::Error> {
        let mut type_url = None;
        let mut members: Vec<(String, serde_json::Value)> = Vec::new();
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value::<serde_json::Value>()?;
            match (name.as_str(), value) {
                ("@type", serde_json::Value::String(url)) if type_url.is_none() => type_url = Some(url),
                ("@type", _) => self.context.report_at("@type", Problem::InvalidValue, "must be one string"),
                (_, value) => members.push((name, value)),
            }
        }
        let Some(type_url) = type_url else {
            if !members.is_empty() {
                self.context.report_at("@type", Problem::InvalidValue, "is missing");
            }
            return Ok(Value::Message(DynamicMessage::new(desc.clone())).into());
        };
        let Some(inner) = type_name(&type_url).and_then(|name| desc.parent_pool().get_message_by_name(name))
        else {
            self.context.report_at("@type", Problem::InvalidValue, "names an unknown message type");
            return Ok(Parsed::default());
        };

        let packed = match WellKnown::of(&inner) {
            None => {
                let seed = Seed { depth: self.depth + 1, ..self };
                let members = MapDeserializer::<_, serde_json::Error>::new(members.into_iter());
                seed.object(&inner, members).map(|(message, _)| Some(message)).map_err(A::Error::custom)?
            }
            Some(_) => self.packed_well_known(&inner, members).map_err(A::Error::custom)?,
        };
        let Some(packed) = packed else { return Ok(Parsed::default()) };
        let value = Value::Bytes(packed.encode_to_vec().into());
        Ok(scalar::message(desc, [(1, Value::String(type_url)), (2, value)]).into())
    }

    /// A well-known type inside an `Any` is its JSON form in the member `value`.
    fn packed_well_known(
        self,
        desc: &MessageDescriptor,
        members: Vec<(String, serde_json::Value)>,
    ) -> Result<Option<DynamicMessage>, serde_json::Error> {
        let kind = Kind::Message(desc.clone());
        let mut packed = None;
        for (name, value) in members {
            let first = self.context.len();
            if name == "value" && packed.is_none() {
                let seed = Seed { shape: Shape::Single(&kind), context: self.context, depth: self.depth + 1 };
                let parsed = seed.deserialize(value)?;
                if parsed.is_null {
                    self.context.report(Problem::InvalidValue, "must not be null");
                }
                if let Some(Value::Message(message)) = parsed.value {
                    packed = Some(message);
                }
                self.context.prefix(first, "value");
            } else {
                let description = format!("is not a member of a packed `{}`", desc.full_name());
                self.context.report_at(&name, Problem::UnknownField, description);
            }
        }
        if packed.is_none() {
            self.context.report_at("value", Problem::InvalidValue, scalar::expected(&kind));
        }
        Ok(packed)
    }
}
