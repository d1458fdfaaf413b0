//! What a workspace runs, against what it should run. Pure: rows and a time in, a picture out.

use agentrouter_api::configurator::{ConfigType, EventStatus};
use agentrouter_delivery::signal::ONLINE_WITHIN;
use agentrouter_delivery::{config_type_from_name, event_id, is_outstanding, status_from_name};
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::StorageError;

use crate::store::{InstructionRow, SlotRow};

/// What a workspace runs, and what is in the way of what it should run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Status {
    /// Whether its worker called lately.
    pub(crate) online: bool,
    /// Whether it runs the newest version of every slot, tombstones included.
    pub(crate) converged: bool,
    /// Its live slots.
    pub(crate) slots: Vec<Slot>,
    /// What is on its way.
    pub(crate) events: Counts,
}

/// Where a workspace stands with one slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) user_id: String,
    pub(crate) config_type: ConfigType,
    pub(crate) key_id: String,
    pub(crate) desired_version: i64,
    pub(crate) applied_version: i64,
    pub(crate) applied_at: Option<Timestamp>,
    pub(crate) failed_version: i64,
    pub(crate) newest_event: Option<NewestEvent>,
}

/// The newest event of a slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NewestEvent {
    pub(crate) id: Id<Event>,
    pub(crate) status: EventStatus,
    pub(crate) stuck: bool,
    pub(crate) error_message: String,
}

/// Open events by what they wait for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// They wait for the worker, laid out or not.
    pub(crate) pending: i32,
    /// The worker holds them.
    pub(crate) in_flight: i32,
    /// Their attempts are used up.
    pub(crate) stuck: i32,
}

/// Computes a status. The rows of a slot stand together, the one with its newest event last.
///
/// # Errors
/// `Corrupt` where a stored name is unknown.
pub(crate) fn status(
    number: i64,
    last_seen_at: Option<Timestamp>,
    slots: &[SlotRow],
    instructions: &[InstructionRow],
    now: Timestamp,
) -> Result<Status, StorageError> {
    let mut status = Status {
        online: last_seen_at.is_some_and(|seen| now.since(seen) <= ONLINE_WITHIN),
        converged: true,
        slots: Vec::new(),
        events: Counts::default(),
    };
    for instruction in instructions {
        let stands = stand(&instruction.status, instruction.stuck, instruction.due_at, now)?;
        status.events.count(stands);
    }
    for rows in slots.chunk_by(|row, next| row.id == next.id) {
        let Some(slot) = rows.first() else { continue };
        let newest_event = newest_event(number, slot, rows, now, &mut status.events)?;
        let applied_version = slot.applied_version.unwrap_or_default();
        // What never ran here need not be deleted.
        let is_settled = slot.deleted && applied_version == 0;
        status.converged &= is_settled || applied_version == slot.version;
        if !slot.deleted {
            status.slots.push(Slot {
                user_id: slot.user_id.clone(),
                config_type: config_type_from_name(&slot.config_type)
                    .ok_or_else(|| StorageError::Corrupt(format!("config type {:?}", slot.config_type)))?,
                key_id: slot.key_id.clone(),
                desired_version: slot.version,
                applied_version,
                applied_at: slot.applied_at,
                // The row keeps it; it is news only until that version or a newer one runs.
                failed_version: slot
                    .failed_version
                    .filter(|failed| *failed > applied_version)
                    .unwrap_or_default(),
                newest_event,
            });
        }
    }
    Ok(status)
}

/// The newest event of a slot: one that is still to be laid out, an open one, or the one that was applied. A closed
/// one that was not applied always has a newer one behind it.
fn newest_event(
    number: i64,
    slot: &SlotRow,
    rows: &[SlotRow],
    now: Timestamp,
    counts: &mut Counts,
) -> Result<Option<NewestEvent>, StorageError> {
    let next = event_id::derive(slot.updated_at, number, slot.position);
    let has_row = slot.applied_event_id == Some(next) || rows.iter().any(|row| row.event_id == Some(next));
    let waits = !has_row && is_outstanding(slot.broadcast_position, slot.deleted, slot.laid_out);
    let mut newest = slot.applied_event_id.map(|id| NewestEvent::new(id, EventStatus::Applied));
    for (index, row) in rows.iter().enumerate() {
        let (Some(id), Some(name)) = (row.event_id, &row.status) else { continue };
        let stuck = row.stuck.unwrap_or_default();
        let stands = stand(name, stuck, row.due_at, now)?;
        let is_newest = !waits && index + 1 == rows.len();
        // An older one counts as long as the worker holds it; otherwise the newer one takes its place.
        if is_newest || stands == Stands::InFlight {
            counts.count(stands);
        }
        let error_message = row.error_message.clone().unwrap_or_default();
        newest = Some(NewestEvent { stuck, error_message, ..NewestEvent::new(id, stands.status()) });
    }
    if waits {
        counts.pending += 1;
        newest = Some(NewestEvent::new(next, EventStatus::Pending));
    }
    Ok(newest)
}

impl NewestEvent {
    fn new(id: Id<Event>, status: EventStatus) -> Self {
        Self { id, status, stuck: false, error_message: String::new() }
    }
}

/// What an open event waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Pending,
    InFlight,
    Retrying,
    Stuck,
}

impl Stands {
    fn status(self) -> EventStatus {
        match self {
            Self::Pending => EventStatus::Pending,
            Self::InFlight => EventStatus::Acknowledged,
            Self::Retrying | Self::Stuck => EventStatus::Failed,
        }
    }
}

impl Counts {
    fn count(&mut self, stands: Stands) {
        match stands {
            Stands::Pending | Stands::Retrying => self.pending += 1,
            Stands::InFlight => self.in_flight += 1,
            Stands::Stuck => self.stuck += 1,
        }
    }
}

fn stand(
    status: &str,
    stuck: bool,
    due_at: Option<Timestamp>,
    now: Timestamp,
) -> Result<Stands, StorageError> {
    match status_from_name(status) {
        Some(EventStatus::Pending) => Ok(Stands::Pending),
        // A lease that ran out holds nothing, whether or not the row says so yet.
        Some(EventStatus::Acknowledged) if due_at.is_some_and(|ends| ends <= now) => Ok(Stands::Pending),
        Some(EventStatus::Acknowledged) => Ok(Stands::InFlight),
        Some(EventStatus::Failed) if stuck => Ok(Stands::Stuck),
        Some(EventStatus::Failed) => Ok(Stands::Retrying),
        _ => Err(StorageError::Corrupt(format!("an open event is {status:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_worker_is_online_for_two_minutes_after_its_last_call() {
        let seen = Timestamp::from_secs(1_790_000_000);
        let online = |last_seen_at, now| status(1, last_seen_at, &[], &[], now).unwrap().online;
        assert!(online(Some(seen), seen));
        assert!(online(Some(seen), seen.plus(ONLINE_WITHIN)));
        assert!(!online(Some(seen), seen.plus(ONLINE_WITHIN).plus(Duration::from_micros(1))));
        // Its clock is the database's, too, but another replica may be a moment ahead.
        assert!(online(Some(seen), seen.minus(Duration::from_secs(1))));
        assert!(!online(None, seen));
    }

    #[test]
    fn a_name_that_nobody_wrote_is_corrupt() {
        let now = Timestamp::from_secs(0);
        let instruction = InstructionRow { status: "applied".to_owned(), stuck: false, due_at: None };
        assert!(matches!(status(1, None, &[], &[instruction], now), Err(StorageError::Corrupt(_))));
    }
}
