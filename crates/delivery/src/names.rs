//! The stored names of enum values: the proto's, without their prefix, in lower case.

use agentrouter_api::configurator::{ConfigType, EventStatus, EventType};

/// The stored name of a type of configuration, such as `providers`.
pub fn config_type_name(config_type: ConfigType) -> String {
    config_type.as_str_name().trim_start_matches("CONFIG_TYPE_").to_lowercase()
}

/// Reads a stored name.
pub fn config_type_from_name(name: &str) -> Option<ConfigType> {
    ConfigType::from_str_name(&format!("CONFIG_TYPE_{}", name.to_uppercase()))
}

/// The stored name of an event type, such as `updated`.
pub fn event_type_name(event_type: EventType) -> String {
    event_type.as_str_name().trim_start_matches("EVENT_TYPE_").to_lowercase()
}

pub(crate) fn event_type_from_name(name: &str) -> Option<EventType> {
    EventType::from_str_name(&format!("EVENT_TYPE_{}", name.to_uppercase()))
}

/// The stored name of an event status, such as `pending`.
pub fn status_name(status: EventStatus) -> String {
    status.as_str_name().trim_start_matches("EVENT_STATUS_").to_lowercase()
}

/// Reads the stored name of an event status, such as `pending`.
pub fn status_from_name(name: &str) -> Option<EventStatus> {
    EventStatus::from_str_name(&format!("EVENT_STATUS_{}", name.to_uppercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_back() {
        for value in 0..=8 {
            let config_type = ConfigType::try_from(value).unwrap();
            assert_eq!(config_type_from_name(&config_type_name(config_type)), Some(config_type));
        }
        assert_eq!(config_type_name(ConfigType::McpCatalog), "mcp_catalog");
        assert_eq!(
            event_type_from_name(&event_type_name(EventType::UpgradeCancel)),
            Some(EventType::UpgradeCancel)
        );
        assert_eq!(status_from_name("pending"), Some(EventStatus::Pending));
        assert_eq!(config_type_from_name("nope"), None);
    }
}
