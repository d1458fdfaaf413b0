//! Giving back, retrying, batches, and every change of an event against the table of states, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[expect(dead_code, reason = "each test file uses its part")]
mod common;

use std::collections::{BTreeMap, BTreeSet};

use agentrouter_delivery::claim::{Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{Completion, Outcome};
use agentrouter_delivery::state::{self, State};
use agentrouter_delivery::{batch, poll, redrive, retire_workspace, settle_workspace};
use agentrouter_kernel::FaultKind;
use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{Fleet, applied, failed};

on_both_engines!(
    a_release_uses_no_attempt,
    a_release_gives_way_to_a_newer_version,
    every_failure_is_told_and_a_retry_starts_anew,
    what_has_not_failed_cannot_be_retried,
    a_data_plane_that_went_back_says_so,
    batches_answer_as_single_calls_do,
    racing_batches_hand_each_event_out_once,
    every_change_is_in_the_table,
);

// Behaviour 11: an event given back is pending at once, and its next claim is attempt 1 again
async fn a_release_uses_no_attempt(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "stops").await;
    let release =
        async |worker: &str| redrive::release(fleet.db(), &fleet.reach(0), event, claim.token, worker).await;
    assert_eq!(release("somebody").await.unwrap_err().reason(), "STALE_CLAIM");
    release("stops").await.unwrap();
    assert_eq!(release("").await.unwrap_err().kind(), FaultKind::Aborted);
    assert_eq!(fleet.pending(0).await[0].id, event);
    assert_eq!(fleet.complete(0, event, &claim, applied()).await.unwrap_err().reason(), "STALE_CLAIM");
    assert_eq!(fleet.hold(0, event, "next").await.attempt, 1);
    let foreign = Reach { customer: fleet.test.customer("other").await, ..fleet.reach(0) };
    let refused = redrive::release(fleet.db(), &foreign, event, claim.token, "").await.unwrap_err();
    assert_eq!(refused.reason(), "EVENT_NOT_FOUND");
}

async fn a_release_gives_way_to_a_newer_version(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let old = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, old, "stops").await;
    fleet.change(2).await;
    let new = fleet.trigger().await.events[0];
    assert!(fleet.pending(0).await.is_empty());
    redrive::release(fleet.db(), &fleet.reach(0), old, claim.token, "stops").await.unwrap();
    assert_eq!(fleet.event(old).await.superseded_by, Some(new));
    assert_eq!(fleet.pending(0).await[0].id, new);
}

// Behaviour 26: after five failures the event is stuck with all five messages, other slots go on, and a retry frees it
// Behaviour 27: a worker that dies on it uses an attempt, and is one of the five
async fn every_failure_is_told_and_a_retry_starts_anew(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    for attempt in 1..=5 {
        let claim = fleet.hold(0, event, &format!("worker-{attempt}")).await;
        if attempt == 3 {
            fleet.advance(31);
            fleet.pending(0).await;
            continue;
        }
        let outcome = Outcome::Failed { message: format!("no {attempt}"), permanent: false, running: None };
        fleet.complete(0, event, &claim, outcome).await.unwrap();
        fleet.advance(300);
    }
    let row = fleet.event(event).await;
    assert_eq!(State::of(&row), Some(State::Stuck));
    let failures = row.to_proto().unwrap().failures;
    let told: Vec<_> = failures
        .iter()
        .map(|failure| (failure.attempt, failure.worker_id.as_str(), failure.message.as_str()))
        .collect();
    assert_eq!(
        told,
        [
            (1, "worker-1", "no 1"),
            (2, "worker-2", "no 2"),
            (3, "worker-3", "the worker stopped answering"),
            (4, "worker-4", "no 4"),
            (5, "worker-5", "no 5"),
        ]
    );
    // Other slots of the workspace go on.
    fleet.give_byok("ada", "key").await;
    assert_eq!(fleet.converge(0).await, 1);
    let mut tx = fleet.db().begin().await.unwrap();
    let row = redrive::retry(&mut tx, fleet.customer, event).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!((State::of(&row), row.attempt, row.failures.as_str()), (Some(State::Pending), 0, ""));
    assert_eq!(fleet.hold(0, event, "worker").await.attempt, 1);
}

async fn what_has_not_failed_cannot_be_retried(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let retry = async |event| {
        let mut tx = fleet.db().begin().await.unwrap();
        let retried = redrive::retry(&mut tx, fleet.customer, event).await;
        tx.commit_unaudited("test").await.unwrap();
        retried.map_err(|fault| fault.reason())
    };
    assert_eq!(retry(event).await.unwrap_err(), "EVENT_NOT_FAILED");
    let claim = fleet.hold(0, event, "worker").await;
    assert_eq!(retry(event).await.unwrap_err(), "EVENT_NOT_FAILED");
    fleet.complete(0, event, &claim, failed(true)).await.unwrap();
    retry(event).await.unwrap();
    let claim = fleet.hold(0, event, "worker").await;
    fleet.complete(0, event, &claim, failed(true)).await.unwrap();
    fleet.change(2).await;
    let newer = fleet.trigger().await.events[0];
    fleet.pending(0).await;
    assert_eq!(retry(event).await.unwrap_err(), "EVENT_NOT_FAILED");
    fleet.converge(0).await;
    assert_eq!(retry(newer).await.unwrap_err(), "EVENT_NOT_FAILED");
}

// Behaviour 25: after an automatic rollback the slot tells the version that failed and the one that runs
// Behaviour 24: the version that was rolled back is not offered by a sweep until there is a newer one
async fn a_data_plane_that_went_back_says_so(db: TestDb) {
    use agentrouter_delivery::drift::{self, Report, Scope};
    let fleet = Fleet::new(db, 1).await;
    for weight in 1..=2 {
        fleet.change(weight).await;
        fleet.trigger().await;
        fleet.converge(0).await;
    }
    fleet.change(3).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "worker").await;
    let outcome =
        Outcome::Failed { message: "5xx after the change".into(), permanent: true, running: Some(2) };
    fleet.complete(0, event, &claim, outcome).await.unwrap();
    let failed_version: Option<i64> =
        query("SELECT failed_version AS value FROM workspace_slots").value(fleet.db()).await.unwrap();
    assert_eq!((fleet.applied_version(0).await, failed_version), (2, Some(3)));
    for report in [Report::default(), Report { slots: Vec::new(), is_complete: true }] {
        fleet.advance(1_000);
        let healed = drift::heal(fleet.db(), fleet.customer, fleet.workspaces[0], Scope::All, &report).await;
        assert_eq!(healed.unwrap().total(), 0);
    }
    fleet.change(4).await;
    fleet.trigger().await;
    assert_eq!(fleet.converge(0).await, 1);
    assert_eq!(fleet.applied_version(0).await, 4);
}

fn report(event: Id<Event>, claimed: &Claimed, outcome: Outcome) -> Completion {
    let token = match claimed {
        Claimed::Held(claim) => Some(claim.token),
        Claimed::Refused { .. } => Some(uuid::Uuid::nil()),
    };
    Completion { event, outcome, token, worker: String::new(), resources: Vec::new() }
}

// Behaviour 12: a batch of claims and one of completions, with a result for each event
async fn batches_answer_as_single_calls_do(db: TestDb) {
    let fleet = Fleet::new(db, 4).await;
    fleet.change(1).await;
    let events = fleet.trigger().await.events;
    let reach = Reach { customer: fleet.customer, workspace: None, credential: "key".into() };
    // One is held by another worker, one does not exist, one is named twice, and two were never laid out.
    fleet.hold(3, events[3], "other").await;
    let nowhere = Id::<Event>::new(agentrouter_kernel::Timestamp::from_secs(1));
    let named = [events[0], events[1], nowhere, events[3], events[1], events[2]];
    let claimed = batch::acknowledge(fleet.db(), &reach, &named, "worker", LEASE_DEFAULT).await.unwrap();
    let reasons: Vec<_> = claimed
        .iter()
        .map(|result| match result {
            Ok(Claimed::Held(claim)) => format!("held {}", claim.attempt),
            Ok(Claimed::Refused { holder }) => format!("refused {holder}"),
            Err(fault) => fault.reason().to_owned(),
        })
        .collect();
    assert_eq!(reasons, ["held 1", "held 1", "EVENT_NOT_FOUND", "refused other", "held 1", "held 1"]);
    let held = |index: usize| claimed[index].as_ref().unwrap();
    let outcome = |success: bool| if success { applied() } else { failed(false) };
    let reports = [
        report(events[0], held(0), outcome(true)),
        report(events[1], held(1), outcome(false)),
        report(nowhere, held(0), outcome(true)),
        report(events[3], held(3), outcome(true)),
        report(events[0], held(0), outcome(false)),
        report(events[2], held(5), outcome(true)),
    ];
    let done = batch::complete(fleet.db(), &reach, &reports).await.unwrap();
    let reasons: Vec<_> = done
        .iter()
        .map(|result| result.as_ref().map_or_else(|fault| fault.reason().to_owned(), ToString::to_string))
        .collect();
    assert_eq!(
        reasons,
        ["true", "true", "EVENT_NOT_FOUND", "STALE_CLAIM", "EVENT_ALREADY_COMPLETED", "true"]
    );
    for (index, status, version) in
        [(0, "applied", 1), (1, "failed", 0), (2, "applied", 1), (3, "acknowledged", 0)]
    {
        assert_eq!(fleet.event(events[index]).await.status, status);
        assert_eq!(fleet.applied_version(index).await, version, "{index}");
    }
    let again = batch::complete(fleet.db(), &reach, &reports[..1]).await.unwrap();
    assert!(*again[0].as_ref().unwrap(), "a repeat is no error");
}

async fn racing_batches_hand_each_event_out_once(db: TestDb) {
    const WORKERS: usize = 8;
    let fleet = std::sync::Arc::new(Fleet::new(db, 60).await);
    fleet.change(1).await;
    let events = fleet.trigger().await.events;
    poll::pending_of_customer(fleet.db(), fleet.customer, 1).await.unwrap();
    let mut racers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (fleet, mut events) = (std::sync::Arc::clone(&fleet), events.clone());
        // Each in an order of its own.
        events.rotate_left(worker * 7);
        if worker % 2 == 1 {
            events.reverse();
        }
        racers.spawn(async move {
            let reach = Reach { customer: fleet.customer, workspace: None, credential: "key".into() };
            let worker = format!("worker-{worker}");
            let claimed =
                batch::acknowledge(fleet.db(), &reach, &events, &worker, LEASE_DEFAULT).await.unwrap();
            let mine: Vec<_> = events
                .iter()
                .zip(&claimed)
                .filter(|(_, claimed)| matches!(claimed, Ok(Claimed::Held(_))))
                .map(|(event, claimed)| report(*event, claimed.as_ref().unwrap(), applied()))
                .collect();
            let done = batch::complete(fleet.db(), &reach, &mine).await.unwrap();
            assert!(done.iter().all(|done| *done.as_ref().unwrap()));
            mine.into_iter().map(|report| report.event).collect::<Vec<_>>()
        });
    }
    let taken: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(taken.len(), 60);
    assert_eq!(taken.into_iter().collect::<BTreeSet<_>>(), events.into_iter().collect());
}

/// The state of every event there is.
async fn states(fleet: &Fleet) -> BTreeMap<Id<Event>, State> {
    let ids: Vec<Id<Event>> =
        query("SELECT id AS value FROM liaison_configuration_events").values(fleet.db()).await.unwrap();
    let mut states = BTreeMap::new();
    for id in ids {
        let row = fleet.event(id).await;
        states.insert(id, State::of(&row).unwrap_or_else(|| panic!("contradictory: {row:?}")));
    }
    states
}

async fn every_change_is_in_the_table(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    let mut before = BTreeMap::new();
    let mut seen = BTreeSet::new();
    // A fixed walk, so that a failure can be run again: a generator of the simplest kind picks what happens.
    let mut random: u32 = 7;
    let mut next = |below: u32| {
        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (random >> 16) % below
    };
    let mut held: Option<(Id<Event>, agentrouter_delivery::claim::Claim)> = None;
    let mut weight = 0;
    for step in 0..260 {
        match next(9) {
            0 | 1 => {
                weight += 1;
                fleet.change(weight).await;
                fleet.trigger().await;
            }
            2 | 3 => {
                if let Some(event) = fleet.pending(0).await.first()
                    && let Claimed::Held(claim) = fleet.claim(0, event.id, "worker").await
                {
                    held = Some((event.id, claim));
                }
            }
            4 | 5 => {
                if let Some((event, claim)) = held.take() {
                    let outcome =
                        [applied(), failed(false), failed(false), failed(true)][next(4) as usize].clone();
                    let _ = fleet.complete(0, event, &claim, outcome).await;
                }
            }
            6 => {
                if let Some((event, claim)) = held.take() {
                    let _ = redrive::release(fleet.db(), &fleet.reach(0), event, claim.token, "").await;
                }
            }
            7 => {
                let ids: Vec<_> = before.keys().copied().collect();
                if !ids.is_empty() {
                    let mut tx = fleet.db().begin().await.unwrap();
                    if redrive::retry(
                        &mut tx,
                        fleet.customer,
                        ids[next(u32::try_from(ids.len()).unwrap()) as usize],
                    )
                    .await
                    .is_ok()
                    {
                        tx.commit_unaudited("test").await.unwrap();
                    }
                }
            }
            _ => {
                fleet.advance(31);
                let mut tx = fleet.db().begin().await.unwrap();
                settle_workspace(&mut tx, fleet.workspaces[0]).await.unwrap();
                tx.commit_unaudited("test").await.unwrap();
            }
        }
        fleet.pending(0).await;
        let after = states(&fleet).await;
        for (event, to) in &after {
            let from = before.get(event).copied().unwrap_or(State::Pending);
            // One step may do two things: what is due becomes pending, and is overtaken then.
            let is_known = state::is_allowed(from, *to)
                || state::TRANSITIONS.iter().any(|row| row.from == from && state::is_allowed(row.to, *to));
            assert!(is_known, "step {step}: {event} went from {from:?} to {to:?}");
            seen.insert(*to);
        }
        let waiting = after.values().filter(|state| **state == State::Pending).count();
        let in_flight = after.values().filter(|state| **state == State::Acknowledged).count();
        assert!(waiting <= 1 && in_flight <= 1, "step {step}: {waiting} pending, {in_flight} in flight");
        before = after;
    }
    assert_eq!(seen.len(), 7, "the walk has seen {seen:?}");
    let mut tx = fleet.db().begin().await.unwrap();
    retire_workspace(&mut tx, fleet.customer, fleet.workspaces[0]).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert!(states(&fleet).await.values().all(|state| state.is_final()));
}
