//! What an event went through, as far as it remembers.

use agentrouter_api::configurator::{ConfigurationEvent, EventStatus, EventType};
use agentrouter_kernel::Timestamp;
use agentrouter_liaison::Slot;
use serde::{Serialize, Serializer};

use crate::text::{Line, Span, Tone, width};
use crate::times::{clock, time};

/// An event came into a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    #[serde(serialize_with = "as_text")]
    pub(super) time: Timestamp,
    pub(super) event_id: String,
    workspace_id: String,
    #[serde(flatten)]
    slot: Slot,
    event_type: &'static str,
    version: i64,
    #[serde(serialize_with = "status_name")]
    pub(super) status: EventStatus,
    pub(super) attempt: i32,
    worker_id: String,
    error_message: String,
    superseded_by: String,
    stuck: bool,
}

impl Change {
    /// Whether no attempt follows.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck
    }

    /// A line for people.
    pub(super) fn line(&self) -> Line {
        let (state, tone) = match self.status {
            EventStatus::Failed if self.stuck => ("stuck".to_owned(), Tone::Bad),
            EventStatus::Failed => ("failed".to_owned(), Tone::Bad),
            EventStatus::Applied => ("applied".to_owned(), Tone::Good),
            EventStatus::Acknowledged => ("acknowledged".to_owned(), Tone::Busy),
            EventStatus::Pending => ("pending".to_owned(), Tone::Normal),
            EventStatus::Superseded => ("superseded".to_owned(), Tone::Faint),
            EventStatus::Unspecified => ("unknown".to_owned(), Tone::Normal),
        };
        let column = |text: String, columns: usize| {
            let missing = columns.saturating_sub(width(&text));
            text + &" ".repeat(missing + 1)
        };
        let mut line = Line::new(Span::new(column(clock(self.time), 24), Tone::Faint))
            .and(column(self.workspace_id.clone(), 16))
            .and(column(self.slot.to_string(), 20))
            .and(column(format!("v{}", self.version), 4))
            .and(Span::new(column(state, 12), tone));
        if self.attempt > 0 {
            line.push(format!("attempt {} ", self.attempt));
        }
        if !self.worker_id.is_empty() {
            line.push(format!("by {} ", self.worker_id));
        }
        if !self.superseded_by.is_empty() {
            line.push(format!("by {} ", self.superseded_by));
        }
        if !self.error_message.is_empty() {
            line.push(Span::new(format!("{} ", self.error_message), tone));
        }
        line.and(Span::new(&self.event_id, Tone::Faint))
    }
}

/// Everything an event went through, the oldest first. Attempts are remembered where they failed; of claims only the
/// last one is; that it waits again after one is said by its state alone.
pub(super) fn of(event: &ConfigurationEvent) -> Vec<Change> {
    let at = |stored: Option<&prost_types::Timestamp>| stored.map(time);
    let created = at(event.created_at.as_ref()).unwrap_or(Timestamp::from_micros(0));
    let blank = Change {
        time: created,
        event_id: event.id.clone(),
        workspace_id: event.workspace_id.clone(),
        slot: Slot::from(event),
        event_type: EventType::try_from(event.event_type).unwrap_or_default().as_str_name(),
        version: event.version,
        status: EventStatus::Pending,
        attempt: 0,
        worker_id: String::new(),
        error_message: String::new(),
        superseded_by: String::new(),
        stuck: false,
    };
    let mut changes = vec![blank.clone()];
    for failure in &event.failures {
        changes.push(Change {
            time: at(failure.failed_at.as_ref()).unwrap_or(created),
            status: EventStatus::Failed,
            attempt: failure.attempt,
            worker_id: failure.worker_id.clone(),
            error_message: failure.message.clone(),
            ..blank.clone()
        });
    }
    let claimed = at(event.acknowledged_at.as_ref()).map(|time| Change {
        time,
        status: EventStatus::Acknowledged,
        attempt: event.attempt,
        worker_id: event.worker_id.clone(),
        ..blank.clone()
    });
    let ended = at(event.completed_at.as_ref());
    let status = event.status();
    if let Some(claimed) = claimed
        && matches!(status, EventStatus::Acknowledged | EventStatus::Applied | EventStatus::Failed)
    {
        let later = changes.iter().take_while(|change| change.time <= claimed.time).count();
        changes.insert(later, claimed);
    }
    match status {
        EventStatus::Applied => changes.push(Change {
            time: ended.unwrap_or(created),
            status,
            attempt: event.attempt,
            worker_id: event.worker_id.clone(),
            ..blank
        }),
        EventStatus::Superseded => changes.push(Change {
            time: ended.unwrap_or(created),
            status,
            superseded_by: event.superseded_by.clone(),
            ..blank
        }),
        EventStatus::Failed => match changes.last_mut() {
            // The last attempt is the one that the state is about, and tells more of it.
            Some(last) if last.status == status && last.attempt == event.attempt => {
                last.error_message.clone_from(&event.error_message);
                last.stuck = event.stuck;
            }
            _ => changes.push(Change {
                time: ended.unwrap_or(created),
                status,
                attempt: event.attempt,
                worker_id: event.worker_id.clone(),
                error_message: event.error_message.clone(),
                stuck: event.stuck,
                ..blank
            }),
        },
        EventStatus::Pending if changes.len() > 1 || event.acknowledged_at.is_some() => {
            let since = changes.last().map_or(created, |last| last.time);
            let due = at(event.not_before.as_ref()).filter(|due| *due > since);
            let claimed = at(event.acknowledged_at.as_ref()).unwrap_or(since);
            changes.push(Change { time: due.unwrap_or(since.max(claimed)), attempt: event.attempt, ..blank });
        }
        EventStatus::Pending | EventStatus::Acknowledged | EventStatus::Unspecified => {}
    }
    changes
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the shape that serde calls")]
fn status_name<S: Serializer>(status: &EventStatus, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(status.as_str_name())
}

/// The state of a change in a word, for tests.
#[cfg(test)]
pub(super) fn word(change: &Change) -> String {
    format!("{} {}", crate::slot::short(change.status.as_str_name(), "EVENT_STATUS_"), change.attempt)
}

#[cfg(test)]
pub(super) mod tests {
    use agentrouter_api::configurator::{ConfigType, FailedAttempt};

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "as messages have it")]
    pub(in super::super) fn at(seconds: i64) -> Option<prost_types::Timestamp> {
        Some(prost_types::Timestamp { seconds: 1_769_846_400 + seconds, nanos: 0 })
    }

    pub(in super::super) fn event(id: &str) -> ConfigurationEvent {
        ConfigurationEvent {
            id: id.to_owned(),
            workspace_id: "edge-eu".to_owned(),
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            event_type: EventType::Updated.into(),
            version: 4,
            status: EventStatus::Pending.into(),
            created_at: at(0),
            ..Default::default()
        }
    }

    fn failure(attempt: i32, seconds: i64) -> FailedAttempt {
        FailedAttempt {
            attempt,
            worker_id: "one".to_owned(),
            message: "no\u{1b}[2J answer".to_owned(),
            failed_at: at(seconds),
        }
    }

    fn words(event: &ConfigurationEvent) -> Vec<String> {
        of(event).iter().map(word).collect()
    }

    #[test]
    fn every_state_is_told_as_far_as_it_is_remembered() {
        let fresh = event("evt_1");
        assert_eq!(words(&fresh), ["pending 0"]);
        let held = ConfigurationEvent {
            status: EventStatus::Acknowledged.into(),
            attempt: 1,
            acknowledged_at: at(1),
            ..fresh.clone()
        };
        assert_eq!(words(&held), ["pending 0", "acknowledged 1"]);
        let applied = ConfigurationEvent {
            status: EventStatus::Applied.into(),
            attempt: 2,
            failures: vec![failure(1, 1)],
            acknowledged_at: at(4),
            completed_at: at(5),
            ..fresh.clone()
        };
        assert_eq!(words(&applied), ["pending 0", "failed 1", "acknowledged 2", "applied 2"]);
        let stuck = ConfigurationEvent {
            status: EventStatus::Failed.into(),
            attempt: 1,
            stuck: true,
            error_message: "no answer".to_owned(),
            failures: vec![failure(1, 2)],
            acknowledged_at: at(1),
            completed_at: at(2),
            ..fresh.clone()
        };
        assert_eq!(words(&stuck), ["pending 0", "acknowledged 1", "failed 1"]);
        assert!(of(&stuck).last().is_some_and(|last| last.stuck && last.error_message == "no answer"));
        let again = ConfigurationEvent {
            status: EventStatus::Pending.into(),
            attempt: 1,
            failures: vec![failure(1, 2)],
            acknowledged_at: at(1),
            not_before: at(4),
            ..fresh.clone()
        };
        assert_eq!(words(&again), ["pending 0", "failed 1", "pending 1"]);
        let superseded = ConfigurationEvent {
            status: EventStatus::Superseded.into(),
            superseded_by: "evt_2".to_owned(),
            completed_at: at(3),
            ..fresh
        };
        assert_eq!(words(&superseded), ["pending 0", "superseded 0"]);
    }

    #[test]
    fn lines_for_people_and_programs() {
        let stuck = ConfigurationEvent {
            status: EventStatus::Failed.into(),
            attempt: 1,
            stuck: true,
            worker_id: "one".to_owned(),
            error_message: "no\nsuch model".to_owned(),
            completed_at: at(2),
            ..event("evt_1")
        };
        let last = of(&stuck).pop().expect("a change");
        assert_eq!(
            last.line().to_string(),
            "2026-01-31T08:00:02.000Z edge-eu          providers/system     v4   stuck        \
             attempt 1 by one no such model evt_1"
        );
        let json = serde_json::to_value(&last).expect("JSON");
        assert_eq!(json["status"], "EVENT_STATUS_FAILED");
        assert_eq!(json["config_type"], "CONFIG_TYPE_PROVIDERS");
        assert_eq!(json["time"], "2026-01-31T08:00:02.000000Z");
        assert_eq!(json["stuck"], true);
    }
}
