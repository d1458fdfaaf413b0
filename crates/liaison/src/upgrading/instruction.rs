//! What an instruction says, read from its event.

use agentrouter_api::configurator::{ConfigurationEvent, EventType};
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::target::Rejected;
use crate::upgrade::Upgrade;

/// An instruction.
#[derive(Debug)]
pub(super) struct Instruction {
    pub(super) kind: EventType,
    /// The upgrade it is about.
    pub(super) upgrade: Upgrade,
}

impl Instruction {
    /// Reads an event.
    ///
    /// # Errors
    /// Permanent where it is none that is understood here.
    pub(super) fn read(event: &ConfigurationEvent) -> Result<Self, Rejected> {
        let kind = event.event_type();
        let empty = Struct::default();
        let metadata = event.metadata.as_ref().unwrap_or(&empty);
        let id = match kind {
            EventType::Upgrade => event.id.clone(),
            EventType::UpgradeCancel | EventType::UpgradeRollback => text(metadata, "upgrade_event_id"),
            _ => {
                return Err(Rejected::permanent(format!(
                    "this worker (version {}) does not know instruction {}",
                    env!("CARGO_PKG_VERSION"),
                    event.event_type
                )));
            }
        };
        if id.is_empty() {
            return Err(Rejected::permanent("the instruction does not say which upgrade it is about"));
        }
        let values = match metadata.fields.get("values").map(|values| &values.kind) {
            Some(Some(Kind::StructValue(values))) => object(values),
            _ => serde_json::Value::Object(serde_json::Map::new()),
        };
        let upgrade = Upgrade {
            event_id: id,
            target_version: text(metadata, "target_version"),
            chart: text(metadata, "chart"),
            registry: text(metadata, "registry"),
            values,
            credentials: Vec::new(),
            persist_credentials: false,
        };
        Ok(Self { kind, upgrade })
    }
}

fn text(metadata: &Struct, name: &str) -> String {
    match metadata.fields.get(name).map(|value| &value.kind) {
        Some(Some(Kind::StringValue(text))) => text.clone(),
        _ => String::new(),
    }
}

fn object(fields: &Struct) -> serde_json::Value {
    let members = fields.fields.iter().map(|(key, value)| (key.clone(), json(value)));
    serde_json::Value::Object(members.collect())
}

/// A value as JSON. The server bounds how deep they are nested.
fn json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::NumberValue(number)) => whole(*number).map_or_else(|| (*number).into(), Into::into),
        Some(Kind::ListValue(list)) => list.values.iter().map(json).collect(),
        Some(Kind::StructValue(fields)) => object(fields),
    }
}

/// A number that was whole before it became one of 64 bits with a point: `replicas: 2` is not `2.0` to charts.
fn whole(number: f64) -> Option<i64> {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and within the range that is exact")]
    (number.fract() == 0.0 && number.abs() <= EXACT).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(event_type: EventType, fields: &[(&str, Kind)]) -> ConfigurationEvent {
        let fields = fields.iter().map(|(key, kind)| ((*key).to_owned(), kind.clone().into())).collect();
        ConfigurationEvent {
            id: "evt_2".to_owned(),
            event_type: event_type.into(),
            metadata: Some(Struct { fields }),
            ..Default::default()
        }
    }

    fn string(value: &str) -> Kind {
        Kind::StringValue(value.to_owned())
    }

    #[test]
    fn instructions_name_their_upgrade_and_keep_their_values() {
        let values = Struct {
            fields: [
                ("replicas".to_owned(), Kind::NumberValue(2.0).into()),
                ("share".to_owned(), Kind::NumberValue(0.5).into()),
            ]
            .into(),
        };
        let fields = [
            ("target_version", string("2.0.0")),
            ("chart", string("oci://r/c")),
            ("values", Kind::StructValue(values)),
            ("upgrade_event_id", string("evt_1")),
        ];
        let read = Instruction::read(&event(EventType::Upgrade, &fields)).expect("it is understood");
        assert_eq!(
            (read.upgrade.event_id.as_str(), read.upgrade.target_version.as_str()),
            ("evt_2", "2.0.0")
        );
        assert_eq!(read.upgrade.values.to_string(), json!({"replicas": 2, "share": 0.5}).to_string());
        let read = Instruction::read(&event(EventType::UpgradeCancel, &fields)).expect("it is understood");
        assert_eq!((read.kind, read.upgrade.event_id.as_str()), (EventType::UpgradeCancel, "evt_1"));
    }

    #[test]
    fn what_is_not_understood_is_refused_for_good() {
        for event in [event(EventType::Updated, &[]), event(EventType::UpgradeRollback, &[])] {
            let rejected = Instruction::read(&event).expect_err("it is not understood");
            assert!(rejected.is_permanent());
        }
    }
}
