//! What a configuration or an event is about.

use std::fmt;

use agentrouter_api::configurator::{ConfigType, Configuration, ConfigurationEvent, ObservedSlot};
use serde::{Serialize, Serializer};

use crate::dir::encode;

/// A slot of the customer: what is configured, for whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Slot {
    /// The type by its number on the wire: a newer server may have types that this worker does not know.
    #[serde(serialize_with = "type_name")]
    pub config_type: i32,
    /// The user; `system` for global slots.
    pub user_id: String,
    /// The key; empty for global and per-user slots.
    pub key_id: String,
}

impl Slot {
    /// The type, where this worker knows it.
    pub fn kind(&self) -> Option<ConfigType> {
        ConfigType::try_from(self.config_type).ok().filter(|kind| *kind != ConfigType::Unspecified)
    }
}

impl From<&ConfigurationEvent> for Slot {
    fn from(event: &ConfigurationEvent) -> Self {
        Self { config_type: event.config_type, user_id: event.user_id.clone(), key_id: event.key_id.clone() }
    }
}

impl From<&Configuration> for Slot {
    fn from(configuration: &Configuration) -> Self {
        Self {
            config_type: configuration.config_type,
            user_id: configuration.user_id.clone(),
            key_id: configuration.key_id.clone(),
        }
    }
}

impl From<&ObservedSlot> for Slot {
    fn from(slot: &ObservedSlot) -> Self {
        Self { config_type: slot.config_type, user_id: slot.user_id.clone(), key_id: slot.key_id.clone() }
    }
}

impl fmt::Display for Slot {
    /// `providers/system` or `byok/id_01K9/key`, encoded like file names: ids come from others, and this is read on
    /// terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            Some(kind) => f.write_str(&short_name(kind))?,
            None => write!(f, "type-{}", self.config_type)?,
        }
        write!(f, "/{}", encode(&self.user_id))?;
        if !self.key_id.is_empty() {
            write!(f, "/{}", encode(&self.key_id))?;
        }
        Ok(())
    }
}

/// `CONFIG_TYPE_USER_KEYS` as `user_keys`.
pub(crate) fn short_name(kind: ConfigType) -> String {
    kind.as_str_name().trim_start_matches("CONFIG_TYPE_").to_ascii_lowercase()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn type_name<S: Serializer>(number: &i32, serializer: S) -> Result<S::Ok, S::Error> {
    match ConfigType::try_from(*number) {
        Ok(kind) => serializer.serialize_str(kind.as_str_name()),
        Err(_) => serializer.serialize_i32(*number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(config_type: i32, user_id: &str, key_id: &str) -> Slot {
        Slot { config_type, user_id: user_id.to_owned(), key_id: key_id.to_owned() }
    }

    #[test]
    fn shows_ids_without_their_power_over_terminals() {
        let cases = [
            (slot(1, "system", ""), "providers/system"),
            (slot(6, "id_1", "sk/\u{1b}[2J"), "byok/id_1/sk%2F%1B%5B2J"),
            (slot(99, "u", ""), "type-99/u"),
            (slot(0, "u", ""), "type-0/u"),
        ];
        for (slot, text) in cases {
            assert_eq!(slot.to_string(), text);
        }
    }

    #[test]
    fn types_are_written_by_name() {
        let json = |slot: &Slot| serde_json::to_value(slot).expect("a slot is JSON");
        assert_eq!(json(&slot(5, "u", ""))["config_type"], "CONFIG_TYPE_USER_KEYS");
        assert_eq!(json(&slot(99, "u", ""))["config_type"], 99);
    }
}
