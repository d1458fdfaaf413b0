//! What those who claim and report are to be told, by the rows before and after.

use agentrouter_delivery::claim::Claim;
use agentrouter_delivery::state::State;
use agentrouter_kernel::id::{Event, Id};
use agentrouter_kernel::{Fault, Timestamp};
use uuid::Uuid;

use crate::rows::{EventRow, Rows};

/// What a report is to be answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expected {
    /// It ends the claim.
    Ends,
    /// It says again what ended the claim.
    Repeats,
    /// Something else ended the claim.
    Differs,
    /// It cannot tell which claim it means.
    No,
    /// The claim is over.
    Stale,
}

/// A claim that was answered with yes must have been free, or the worker's own.
pub(crate) fn held(rows: &Rows, after: &Rows, event: Id<Event>, worker: &str, claim: &Claim, now: Timestamp) {
    let row = &after.events[&event];
    assert!(row.is_held(now), "{row:?}");
    let stored = (row.claim_token, row.attempt, row.worker_id.as_str(), row.due_at);
    assert_eq!(stored, (Some(claim.token), claim.attempt, worker, Some(claim.lease_expires_at)));
    let before = rows.events.get(&event);
    if let Some(before) = before.filter(|before| before.is_held(now)) {
        assert!(!worker.is_empty() && before.worker_id == worker, "{before:?} was taken away");
        assert_eq!((before.claim_token, before.attempt), (row.claim_token, row.attempt), "renewed");
        return;
    }
    assert!(!rows.events.values().any(|other| other.claim_token == Some(claim.token)), "a token comes twice");
    let others = rows.at(row.place(), State::Acknowledged).filter(|other| other.is_held(now));
    assert_eq!(others.map(|other| other.id).next(), None, "another one of the slot is in flight");
    let was_free = before.is_none_or(|before| match before.state() {
        State::Pending | State::Acknowledged => true,
        State::Failed => before.due_at.is_some_and(|due| due <= now),
        _ => false,
    });
    assert!(was_free, "{before:?}");
    assert_eq!(row.attempt, 1 + before.map_or(0, |before| before.attempt));
}

/// A claim that was answered with no must be held by another worker, or not be free.
pub(crate) fn refused(after: &Rows, event: Id<Event>, worker: &str, holder: &str, now: Timestamp) {
    let row = &after.events[&event];
    if row.is_held(now) {
        assert_eq!(holder, row.worker_id);
        assert!(worker.is_empty() || holder != worker, "{row:?} is the worker's own");
        return;
    }
    assert_eq!(holder, "");
    let is_blocked = after.at(row.place(), State::Acknowledged).next().is_some();
    assert!(row.state() != State::Pending || is_blocked, "{row:?} was free");
}

/// What the rows before a report make of it.
pub(crate) fn expected(
    row: &EventRow,
    token: Option<Uuid>,
    worker: &str,
    outcome: &str,
    now: Timestamp,
) -> Expected {
    let is_bare = token.is_none() && worker.is_empty();
    let is_same_claim = match token {
        Some(token) => row.claim_token == Some(token),
        // All workers of a workspace share its credential here.
        None => is_bare || row.worker_id == worker,
    };
    match (is_same_claim, row.outcome.as_str()) {
        (true, _) if row.is_held(now) => Expected::Ends,
        (true, ended) if ended == outcome => Expected::Repeats,
        (true, ended) if !ended.is_empty() && !is_bare => Expected::Differs,
        _ if is_bare => Expected::No,
        _ => Expected::Stale,
    }
}

pub(crate) fn expected_answer(expected: Expected) -> Result<bool, &'static str> {
    match expected {
        Expected::Ends | Expected::Repeats => Ok(true),
        Expected::No => Ok(false),
        Expected::Differs => Err("EVENT_ALREADY_COMPLETED"),
        Expected::Stale => Err("STALE_CLAIM"),
    }
}

pub(crate) fn told(answer: Result<bool, Fault>) -> Result<bool, &'static str> {
    answer.map_err(|fault| fault.reason())
}
