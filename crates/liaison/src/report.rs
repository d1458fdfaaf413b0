//! What a worker tells whoever runs it.

use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::slot::Slot;

/// Something that happened to a worker. As JSON, `type` names the variant in snake case, slots are flat, and lengths
/// of time are milliseconds in members whose names end in `_ms`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Report {
    /// The server answered, for the first time or again.
    Connected,
    /// The target took a version, and the server has recorded it.
    Applied {
        /// The event.
        event_id: String,
        /// The slot.
        #[serde(flatten)]
        slot: Slot,
        /// The version the target holds now; it may be newer than the event's.
        version: i64,
        /// Whether it is a tombstone.
        deleted: bool,
        /// From the event's creation by the server's clock to now by this machine's.
        #[serde(rename = "latency_ms", serialize_with = "millis_of_some")]
        latency: Option<Duration>,
        /// The resources of the slot that the target does not run, where it took the rest.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        rejected: Vec<RejectedResource>,
    },
    /// A version was not applied, and the server has recorded why.
    Failed {
        /// The event.
        event_id: String,
        /// The slot.
        #[serde(flatten)]
        slot: Slot,
        /// The event's version.
        version: i64,
        /// Which attempt it was.
        attempt: i32,
        /// Why.
        message: String,
        /// Whether the server was told not to try again.
        permanent: bool,
    },
    /// Another worker was faster, or the event is no more.
    NotClaimed {
        /// The event.
        event_id: String,
        /// The slot.
        #[serde(flatten)]
        slot: Slot,
        /// Who holds it; empty where nobody does.
        holder: String,
    },
    /// The claim ended before the result arrived. The server offers the slot again if it needs to.
    Stale {
        /// The event.
        event_id: String,
        /// The slot.
        #[serde(flatten)]
        slot: Slot,
        /// What the server said.
        message: String,
    },
    /// An event was given back untried, because the worker stops.
    Released {
        /// The event.
        event_id: String,
        /// The slot.
        #[serde(flatten)]
        slot: Slot,
    },
    /// A sweep found that the data plane runs something else than it should; events for it follow.
    Drifted {
        /// Whether it was a full sync.
        full_sync: bool,
        /// How many slots are delivered again.
        replayed: i32,
    },
    /// The token was exchanged for a new one, or read anew.
    TokenRenewed,
    /// An upgrade of the data plane reached a phase, and the server knows.
    Upgrade {
        /// The event that started it.
        event_id: String,
        /// The phase, such as `UPGRADE_PHASE_RUNNING`.
        phase: &'static str,
        /// A sentence for people; may be empty.
        message: String,
    },
    /// The server cannot be reached or is in trouble; the worker tries again by itself.
    Unreachable {
        /// The gRPC code.
        code: &'static str,
        /// Why.
        message: String,
        /// When it tries again.
        #[serde(rename = "retry_in_ms", serialize_with = "millis")]
        retry_in: Duration,
    },
    /// The server refuses to serve this worker: somebody has to see to the token or the settings.
    Refused {
        /// The gRPC code.
        code: &'static str,
        /// The server's stable reason; empty where it gave none.
        reason: String,
        /// Why.
        message: String,
        /// When the worker tries again.
        #[serde(rename = "retry_in_ms", serialize_with = "millis")]
        retry_in: Duration,
    },
    /// The worker has stopped as it was told to.
    Stopped,
}

/// A part of a slot that a target does not run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectedResource {
    /// Its name, such as a provider's id.
    pub resource: String,
    /// Why.
    pub reason: String,
}

fn millis<S: Serializer>(length: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    // Microseconds are as fine as the server's times are.
    let micros = u32::try_from(length.as_micros()).map_or_else(|_| length.as_secs_f64() * 1e6, f64::from);
    serializer.serialize_f64(micros / 1e3)
}

#[expect(clippy::ref_option, reason = "the shape that serde calls")]
fn millis_of_some<S: Serializer>(length: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match length {
        Some(length) => millis(length, serializer),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_flat() {
        let slot = Slot { config_type: 1, user_id: "system".to_owned(), key_id: String::new() };
        let applied = Report::Applied {
            event_id: "evt_1".to_owned(),
            slot,
            version: 3,
            deleted: false,
            latency: Some(Duration::from_micros(12_345)),
            rejected: Vec::new(),
        };
        let expected = json!({
            "type": "applied", "event_id": "evt_1", "config_type": "CONFIG_TYPE_PROVIDERS", "user_id": "system",
            "key_id": "", "version": 3, "deleted": false, "latency_ms": 12.345,
        });
        assert_eq!(serde_json::to_value(applied).expect("a report is JSON"), expected);
        let unreachable = Report::Unreachable {
            code: "UNAVAILABLE",
            message: "connection refused".to_owned(),
            retry_in: Duration::from_hours(2),
        };
        let expected = json!({
            "type": "unreachable", "code": "UNAVAILABLE", "message": "connection refused", "retry_in_ms": 7_200_000.0,
        });
        assert_eq!(serde_json::to_value(unreachable).expect("a report is JSON"), expected);
        assert_eq!(
            serde_json::to_value(Report::Stopped).expect("a report is JSON"),
            json!({ "type": "stopped" })
        );
    }
}
