//! Webhooks and deliveries, and the rules their fields keep.

use std::collections::BTreeMap;

use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::{FromRow, Row, StorageError, row};

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EventType {
    /// The worker of a workspace stopped calling.
    WorkspaceOffline,
    /// It called again.
    WorkspaceOnline,
    /// The attempts to deliver a slot to a workspace are used up.
    SlotStuck,
    /// The workspace runs that version, or a newer one, after all.
    SlotRecovered,
    /// An upgrade of a workspace ended, one way or another.
    UpgradeFinished,
    /// Somebody asked for it. No webhook needs to take it.
    Test,
}

impl EventType {
    /// What a webhook may choose from.
    pub(crate) const CHOICES: [Self; 5] = [
        Self::WorkspaceOffline,
        Self::WorkspaceOnline,
        Self::SlotStuck,
        Self::SlotRecovered,
        Self::UpgradeFinished,
    ];

    /// The name in messages and in the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::WorkspaceOffline => "workspace.offline",
            Self::WorkspaceOnline => "workspace.online",
            Self::SlotStuck => "slot.stuck",
            Self::SlotRecovered => "slot.recovered",
            Self::UpgradeFinished => "upgrade.finished",
            Self::Test => "webhook.test",
        }
    }

    /// Reads a name that a webhook may choose.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::CHOICES.into_iter().find(|choice| choice.as_str() == name)
    }
}

/// Why a webhook gets no messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disabled {
    /// Somebody said so.
    Requested,
    /// Its receiver answered 410.
    Gone,
}

impl Disabled {
    /// The stored name; enabled webhooks have the empty text.
    pub(crate) const fn name(disabled: Option<Self>) -> &'static str {
        match disabled {
            None => "",
            Some(Self::Requested) => "requested",
            Some(Self::Gone) => "gone",
        }
    }

    fn from_name(name: &str) -> Result<Option<Self>, StorageError> {
        match name {
            "" => Ok(None),
            "requested" => Ok(Some(Self::Requested)),
            "gone" => Ok(Some(Self::Gone)),
            other => Err(StorageError::Corrupt(format!("a webhook is disabled for {other:?}"))),
        }
    }
}

/// A stored webhook, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Webhook {
    /// Row id.
    pub(crate) id: Id<id::Webhook>,
    /// What people set.
    pub(crate) settings: Settings,
    /// Why it gets no messages; none while it gets them.
    pub(crate) disabled: Option<Disabled>,
    /// Until when messages are signed with the secret before this one, too.
    pub(crate) previous_secret_expires_at: Option<Timestamp>,
    /// Grows with every write.
    pub(crate) revision: i64,
    /// When it was created.
    pub(crate) created_at: Timestamp,
    /// When it last changed.
    pub(crate) updated_at: Timestamp,
}

/// What people set. The fields are valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Name for people.
    pub(crate) display_name: String,
    /// Where messages go.
    pub(crate) url: String,
    /// The types it takes, all where empty.
    pub(crate) event_types: Vec<EventType>,
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
}

impl FromRow for Webhook {
    fn from_row(row: &Row) -> Result<Self, StorageError> {
        Ok(Self {
            id: row.get("id")?,
            settings: Settings {
                display_name: row.get("display_name")?,
                url: row.get("url")?,
                event_types: event_types_from_text(&row.get::<String>("event_types")?)?,
                labels: row.get("labels")?,
            },
            disabled: Disabled::from_name(&row.get::<String>("disabled_reason")?)?,
            previous_secret_expires_at: row.get("previous_secret_expires_at")?,
            revision: row.get("revision")?,
            created_at: row.get("created_at")?,
            updated_at: row.get("updated_at")?,
        })
    }
}

/// Types as they are stored: their names, separated by blanks.
pub(crate) fn event_types_to_text(types: &[EventType]) -> String {
    types.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" ")
}

pub(crate) fn event_types_from_text(text: &str) -> Result<Vec<EventType>, StorageError> {
    let parse = |name| {
        EventType::parse(name).ok_or_else(|| StorageError::Corrupt(format!("a webhook takes {name:?}")))
    };
    text.split_ascii_whitespace().map(parse).collect()
}

/// What an update does. Absent fields stay as they are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) display_name: Option<String>,
    pub(crate) url: Option<String>,
    pub(crate) event_types: Option<Vec<EventType>>,
    pub(crate) labels: Option<BTreeMap<String, String>>,
    pub(crate) enabled: Option<bool>,
}

impl Change {
    /// The webhook as it is after the change; its revision and times are the store's.
    pub(crate) fn apply(self, before: &Webhook) -> Webhook {
        let old = before.settings.clone();
        Webhook {
            settings: Settings {
                display_name: self.display_name.unwrap_or(old.display_name),
                url: self.url.unwrap_or(old.url),
                event_types: self.event_types.unwrap_or(old.event_types),
                labels: self.labels.unwrap_or(old.labels),
            },
            disabled: match self.enabled {
                Some(true) => None,
                // Disabling what is disabled already does not change why.
                Some(false) => before.disabled.or(Some(Disabled::Requested)),
                None => before.disabled,
            },
            ..before.clone()
        }
    }
}

/// Where the delivery of a message to a webhook stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It waits, or is being sent.
    Pending,
    /// The receiver took it.
    Delivered,
    /// Every attempt failed.
    Failed,
    /// The webhook was disabled before.
    Cancelled,
}

impl State {
    /// The stored name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Failed, Self::Cancelled]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}

row! {
    /// A stored delivery, without its message.
    #[derive(Debug, Clone)]
    pub(crate) struct Delivery {
        /// Row id.
        pub(crate) id: Id<id::WebhookDelivery>,
        /// The webhook.
        pub(crate) webhook_id: Id<id::Webhook>,
        /// The message.
        pub(crate) message_id: Id<id::WebhookMessage>,
        /// Type of the message.
        pub(crate) event_type: String,
        /// Stored name of the state.
        pub(crate) state: String,
        /// Attempts made.
        pub(crate) attempts: i64,
        /// What the receiver answered last; 0 for nothing.
        pub(crate) last_status: i64,
        /// Why the last attempt failed.
        pub(crate) last_error: String,
        /// When the message came to be.
        pub(crate) created_at: Timestamp,
        /// When it was last sent.
        pub(crate) last_attempt_at: Option<Timestamp>,
        /// While it is pending: when it is sent next, or counts as not sent.
        pub(crate) due_at: Option<Timestamp>,
        /// When it ended.
        pub(crate) ended_at: Option<Timestamp>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_names_are_read_back() {
        let types = EventType::CHOICES.to_vec();
        assert_eq!(event_types_from_text(&event_types_to_text(&types)).unwrap(), types);
        assert_eq!(event_types_from_text("").unwrap(), []);
        assert!(event_types_from_text("webhook.test").is_err(), "nobody can choose it");
        for disabled in [None, Some(Disabled::Requested), Some(Disabled::Gone)] {
            assert_eq!(Disabled::from_name(Disabled::name(disabled)).unwrap(), disabled);
        }
        assert!(Disabled::from_name("bored").is_err());
        assert_eq!(State::from_name("cancelled"), Some(State::Cancelled));
        assert_eq!(State::from_name("lost"), None);
    }
}
