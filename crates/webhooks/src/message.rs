//! Messages as receivers get them.

use agentrouter_kernel::{Fault, Timestamp};
use serde::Serialize;
use serde_json::Value;

use crate::model::EventType;

/// The body of a message, in the order in which Standard Webhooks shows it.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    timestamp: String,
    data: &'a Value,
}

/// The text that is stored, signed and sent, always the same. `happened_at` is when the fact was found.
pub(crate) fn body(kind: EventType, happened_at: Timestamp, data: &Value) -> Result<String, Fault> {
    let body = Body { kind: kind.as_str(), timestamp: happened_at.to_string(), data };
    serde_json::to_string(&body).map_err(Fault::internal)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_body_has_a_type_a_time_and_data() {
        let body = body(EventType::SlotStuck, Timestamp::from_secs(0), &json!({"a": 1})).unwrap();
        assert_eq!(body, r#"{"type":"slot.stuck","timestamp":"1970-01-01T00:00:00.000000Z","data":{"a":1}}"#);
    }
}
