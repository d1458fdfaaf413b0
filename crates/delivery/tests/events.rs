//! The rules of versions and events, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[expect(dead_code, reason = "each test file uses its part")]
mod common;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::claim::{self, Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{self, Completion, MESSAGE_MAX, Outcome};
use agentrouter_delivery::{
    Audience, Slot, offer_to_lagging, poll, retire_customer, retire_workspace, trigger,
};
use agentrouter_kernel::FaultKind;
use agentrouter_storage::scope;
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{Fleet, applied, failed};

on_both_engines!(
    a_change_reaches_every_workspace_once,
    unchanged_content_reaches_only_those_behind,
    a_new_workspace_gets_every_live_slot,
    versions_overtake_what_waits,
    an_event_nobody_saw_has_a_history,
    an_older_version_in_flight_finishes_first,
    one_workspace_only,
    racing_workers_have_one_winner,
    the_holder_claims_again_and_others_do_not,
    a_lease_that_ran_out_fences_its_holder,
    completions_decide_once,
    bare_completions_need_the_claiming_credential,
    failures_come_back_until_they_are_stuck,
    permanent_failures_are_stuck_at_once,
    dying_workers_use_attempts,
    other_tenants_see_nothing,
    late_and_lying_reports_move_nothing_back,
    a_retired_workspace_has_nothing_open,
    a_customer_that_comes_back_is_offered_what_it_missed,
    events_are_as_old_as_their_version,
);

async fn a_change_reaches_every_workspace_once(db: TestDb) {
    let fleet = Fleet::new(db, 3).await;
    fleet.change(1).await;
    let triggered = fleet.trigger().await;
    assert!(triggered.updated);
    assert_eq!((triggered.configuration.version, triggered.events.len()), (1, 3));
    for workspace in 0..3 {
        let pending = fleet.pending(workspace).await;
        assert_eq!(pending.iter().map(|event| event.id).collect::<Vec<_>>(), [triggered.events[workspace]]);
        assert_eq!((pending[0].version, pending[0].config_type.as_str()), (1, "providers"));
        assert_eq!(fleet.converge(workspace).await, 1);
        assert_eq!(fleet.applied_version(workspace).await, 1);
        assert!(fleet.pending(workspace).await.is_empty());
    }
}

// Behaviour 18: an unchanged trigger makes no version and no event for those that have it.
async fn unchanged_content_reaches_only_those_behind(db: TestDb) {
    let fleet = Fleet::new(db, 3).await;
    fleet.change(1).await;
    fleet.trigger().await;
    fleet.converge(0).await;
    // Workspace 1 has an open event, workspace 2 was not even laid out: both get the version anyway.
    fleet.pending(1).await;
    let again = fleet.trigger().await;
    assert!(!again.updated);
    assert_eq!(again.events, []);
    let event = fleet.pending(1).await[0].id;
    let claim = fleet.hold(1, event, "worker").await;
    fleet.complete(1, event, &claim, failed(true)).await.unwrap();
    assert_eq!(fleet.trigger().await.events, [], "a stuck slot is freed by new content only");
    fleet.converge(2).await;
    fleet.change(2).await;
    assert_eq!(fleet.trigger().await.configuration.version, 2);
}

async fn a_new_workspace_gets_every_live_slot(db: TestDb) {
    let mut fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    fleet.trigger().await;
    let mut tx = fleet.db().begin().await.unwrap();
    let catalog = Slot::global(fleet.customer, ConfigType::McpCatalog);
    let only = scope::workspace(&mut tx, fleet.customer, "ws-0").await.unwrap();
    // Offered to one workspace only; a workspace that comes later gets it all the same.
    trigger(&mut tx, &catalog, EventType::Created, &Audience::Only(only)).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    let late = fleet.test.workspace(fleet.customer, "late").await;
    fleet.workspaces.push(late);
    let mut types: Vec<_> = fleet.pending(1).await.into_iter().map(|event| event.config_type).collect();
    types.sort();
    assert_eq!(types, ["mcp_catalog", "providers"]);
    assert_eq!(fleet.pending(0).await.len(), 2);
}

// Behaviour 13: a newer version takes the place of the pending one.
// Behaviour 14: the superseded event names its successor and cannot be claimed.
async fn versions_overtake_what_waits(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let first = fleet.trigger().await.events[0];
    assert_eq!(fleet.pending(0).await[0].id, first);
    fleet.change(2).await;
    let second = fleet.trigger().await.events[0];
    let pending = fleet.pending(0).await;
    assert_eq!(pending.iter().map(|event| (event.id, event.version)).collect::<Vec<_>>(), [(second, 2)]);
    let old = fleet.event(first).await;
    assert_eq!((old.status.as_str(), old.superseded_by), ("superseded", Some(second)));
    assert_eq!(fleet.claim(0, first, "worker").await, Claimed::Refused { holder: String::new() });
}

// Behaviour 14: a version overtaken before anybody looked is superseded, with the id that the trigger gave.
async fn an_event_nobody_saw_has_a_history(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    let mut events = Vec::new();
    for weight in 1..=5 {
        fleet.change(weight).await;
        events.push(fleet.trigger().await.events[0]);
    }
    // Five versions, one delivery.
    assert_eq!(fleet.pending(0).await.iter().map(|event| event.id).collect::<Vec<_>>(), [events[4]]);
    let skipped = fleet.event(events[1]).await;
    assert_eq!(
        (skipped.version, skipped.status.as_str(), skipped.superseded_by),
        (2, "superseded", Some(events[4]))
    );
    assert_eq!(fleet.claim(0, events[0], "worker").await, Claimed::Refused { holder: String::new() });
}

// Behaviour 13: the newer version waits while the older one is in flight.
// Behaviour 15: the older one completes and counts as applied, the newer one stays pending.
async fn an_older_version_in_flight_finishes_first(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let first = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, first, "worker").await;
    fleet.change(2).await;
    let second = fleet.trigger().await.events[0];
    assert!(fleet.pending(0).await.is_empty(), "one in flight per slot");
    assert_eq!(fleet.claim(0, second, "other").await, Claimed::Refused { holder: String::new() });
    assert!(fleet.complete(0, first, &claim, applied()).await.unwrap());
    assert_eq!(fleet.applied_version(0).await, 1);
    assert_eq!(fleet.converge(0).await, 1);
    assert_eq!(fleet.applied_version(0).await, 2);
    // An in-flight older version whose lease runs out gives way to the newer one that waits.
    fleet.change(3).await;
    let third = fleet.trigger().await.events[0];
    fleet.hold(0, third, "worker").await;
    fleet.change(4).await;
    let fourth = fleet.trigger().await.events[0];
    fleet.pending(0).await;
    fleet.advance(31);
    assert_eq!(fleet.pending(0).await[0].id, fourth);
    assert_eq!(fleet.event(third).await.superseded_by, Some(fourth));
}

async fn one_workspace_only(db: TestDb) {
    let fleet = Fleet::new(db, 2).await;
    fleet.change(1).await;
    let triggered = fleet.trigger_only("ws-1").await;
    assert_eq!(fleet.pending(1).await[0].id, triggered.events[0]);
    assert_eq!(fleet.converge(1).await, 1);
}

// Behaviour 1: 64 workers race for a thousand events; each event has one winner, and the others learn who.
async fn racing_workers_have_one_winner(db: TestDb) {
    const EVENTS: i64 = 1_000;
    const WORKERS: usize = 64;
    let mut fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    // One event for each of a thousand workspaces, claimed by all workers in the same order.
    for index in 1..EVENTS {
        let workspace = fleet.test.workspace(fleet.customer, &format!("ws-{index}")).await;
        fleet.workspaces.push(workspace);
    }
    let events = fleet.trigger().await.events;
    assert_eq!(events.len(), 1_000);
    let fleet = std::sync::Arc::new(fleet);
    let start = std::sync::Arc::new(tokio::sync::Barrier::new(WORKERS));
    let mut racers = tokio::task::JoinSet::new();
    for worker in 0..WORKERS {
        let (fleet, start, events) =
            (std::sync::Arc::clone(&fleet), std::sync::Arc::clone(&start), events.clone());
        racers.spawn(async move {
            let mut answers = Vec::new();
            start.wait().await;
            for (workspace, event) in events.into_iter().enumerate() {
                answers.push(fleet.claim(workspace, event, &format!("worker-{worker}")).await);
            }
            answers
        });
    }
    let answers = racers.join_all().await;
    for (index, event) in events.into_iter().enumerate() {
        let winners = answers.iter().filter(|answers| matches!(answers[index], Claimed::Held(_))).count();
        assert_eq!(winners, 1, "event {index}");
        let holder = fleet.event(event).await.worker_id;
        let losers = answers
            .iter()
            .filter(|answers| answers[index] == Claimed::Refused { holder: holder.clone() })
            .count();
        assert_eq!(losers, WORKERS - 1, "event {index}");
    }
}

// Behaviour 6: the holder asking again within its lease gets the same token and a longer lease.
async fn the_holder_claims_again_and_others_do_not(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let first = fleet.hold(0, event, "worker").await;
    fleet.advance(20);
    let again = fleet.hold(0, event, "worker").await;
    assert_eq!((again.token, again.attempt), (first.token, 1));
    assert!(again.lease_expires_at > first.lease_expires_at);
    assert_eq!(fleet.claim(0, event, "other").await, Claimed::Refused { holder: "worker".into() });
    // An empty worker id never equals the holder.
    fleet.complete(0, event, &again, applied()).await.unwrap();
    fleet.change(2).await;
    let event = fleet.trigger().await.events[0];
    fleet.hold(0, event, "").await;
    assert_eq!(fleet.claim(0, event, "").await, Claimed::Refused { holder: String::new() });
}

// Behaviour 3: a completion with a stale token is ABORTED and changes no row, though the event is claimed again.
// Behaviour 7: an event is claimable again one second after its 30 s lease, and not before.
async fn a_lease_that_ran_out_fences_its_holder(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let before = fleet.db().now().await.unwrap();
    let dead = fleet.hold(0, event, "dead").await;
    let after = fleet.db().now().await.unwrap();
    let held = before.plus(LEASE_DEFAULT)..=after.plus(LEASE_DEFAULT);
    assert!(LEASE_DEFAULT.as_secs() == 30 && held.contains(&dead.lease_expires_at), "{dead:?}");
    // Well before its end, since time also goes by by itself, and more of it on a slow machine.
    fleet.advance(25);
    assert!(fleet.pending(0).await.is_empty());
    fleet.advance(5);
    // Before anybody noticed that the lease is over, it is over.
    let late = fleet.complete(0, event, &dead, applied()).await.unwrap_err();
    assert_eq!((late.kind(), late.reason()), (FaultKind::Aborted, "STALE_CLAIM"));
    assert_eq!(fleet.pending(0).await[0].id, event);
    let alive = fleet.hold(0, event, "alive").await;
    assert_eq!(alive.attempt, 2);
    let before = format!("{:?}", fleet.event(event).await);
    let late = fleet.complete(0, event, &dead, applied()).await.unwrap_err();
    assert_eq!(late.reason(), "STALE_CLAIM");
    assert_eq!(format!("{:?}", fleet.event(event).await), before, "a stale completion changes nothing");
    assert!(fleet.complete(0, event, &alive, applied()).await.unwrap());
}

// Behaviour 5: the same completion again succeeds, a different one is FAILED_PRECONDITION.
async fn completions_decide_once(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "worker").await;
    assert!(fleet.complete(0, event, &claim, applied()).await.unwrap());
    assert!(fleet.complete(0, event, &claim, applied()).await.unwrap(), "a repeat is no error");
    let different = fleet.complete(0, event, &claim, failed(false)).await.unwrap_err();
    assert_eq!(
        (different.kind(), different.reason()),
        (FaultKind::FailedPrecondition, "EVENT_ALREADY_COMPLETED")
    );
    assert_eq!(fleet.event(event).await.status, "applied");
}

// Behaviour 4: a report without token and worker is accepted from the credential of the current claim only.
async fn bare_completions_need_the_claiming_credential(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let bare =
        Completion { event, outcome: applied(), token: None, worker: String::new(), resources: Vec::new() };
    let own = fleet.reach(0);
    let other = Reach { credential: "tok_other".into(), ..own.clone() };
    assert!(!complete::complete(fleet.db(), &own, &bare).await.unwrap(), "nobody holds it");
    fleet.hold(0, event, "worker").await;
    assert!(!complete::complete(fleet.db(), &other, &bare).await.unwrap());
    let by_worker = Completion { worker: "somebody".into(), ..bare.clone() };
    assert_eq!(complete::complete(fleet.db(), &own, &by_worker).await.unwrap_err().reason(), "STALE_CLAIM");
    assert!(complete::complete(fleet.db(), &own, &bare).await.unwrap());
    assert!(complete::complete(fleet.db(), &own, &bare).await.unwrap());
    assert_eq!(fleet.event(event).await.status, "applied");
}

async fn failures_come_back_until_they_are_stuck(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    for (attempt, delay) in [(1, 2), (2, 6), (3, 18), (4, 54), (5, 0)] {
        let claim = fleet.hold(0, event, "worker").await;
        assert_eq!(claim.attempt, attempt);
        let long = Outcome::Failed { message: "x".repeat(5000), permanent: false, running: None };
        assert!(fleet.complete(0, event, &claim, long).await.unwrap());
        let row = fleet.event(event).await;
        assert_eq!(
            (row.status.as_str(), row.error_message.len(), row.stuck),
            ("failed", MESSAGE_MAX, attempt == 5)
        );
        assert!(fleet.pending(0).await.is_empty());
        fleet.advance(delay);
    }
    fleet.advance(10_000);
    assert!(fleet.pending(0).await.is_empty());
    assert_eq!(fleet.claim(0, event, "worker").await, Claimed::Refused { holder: String::new() });
    // New content frees the slot.
    fleet.change(2).await;
    fleet.trigger().await;
    assert_eq!(fleet.converge(0).await, 1);
    assert!(!fleet.event(event).await.stuck);
}

async fn permanent_failures_are_stuck_at_once(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "worker").await;
    fleet.complete(0, event, &claim, failed(true)).await.unwrap();
    let row = fleet.event(event).await;
    assert_eq!((row.status.as_str(), row.stuck, row.attempt), ("failed", true, 1));
}

// Behaviour 27: a worker that dies on an event uses an attempt, and after five the slot is stuck.
async fn dying_workers_use_attempts(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    for attempt in 1..=5 {
        assert_eq!(fleet.hold(0, event, "dying").await.attempt, attempt);
        fleet.advance(31);
    }
    assert!(fleet.pending(0).await.is_empty());
    let row = fleet.event(event).await;
    assert_eq!((row.status.as_str(), row.stuck), ("failed", true));
}

async fn other_tenants_see_nothing(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    let other = fleet.test.customer("other").await;
    let foreign = fleet.test.workspace(other, "ws-0").await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    assert!(poll::pending_of_workspace(fleet.db(), other, foreign, 100).await.unwrap().is_empty());
    assert!(
        poll::pending_of_workspace(fleet.db(), other, fleet.workspaces[0], 100).await.unwrap().is_empty()
    );
    assert!(poll::pending_of_customer(fleet.db(), other, 100).await.unwrap().is_empty());
    let reach = Reach { customer: other, workspace: None, credential: "key".into() };
    for laid_out in [false, true] {
        let refused =
            claim::acknowledge(fleet.db(), &reach, event, "worker", LEASE_DEFAULT).await.unwrap_err();
        assert_eq!(refused.reason(), "EVENT_NOT_FOUND", "laid out: {laid_out}");
        fleet.pending(0).await;
    }
    let completion =
        Completion { event, outcome: applied(), token: None, worker: String::new(), resources: Vec::new() };
    assert_eq!(
        complete::complete(fleet.db(), &reach, &completion).await.unwrap_err().reason(),
        "EVENT_NOT_FOUND"
    );
    assert_eq!(fleet.pending(0).await.len(), 1);
}

// Behaviour 16: neither an older version nor one that does not exist becomes the applied one.
async fn late_and_lying_reports_move_nothing_back(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    for (weight, version, expected) in [(1, None, 1), (2, None, 2), (3, Some(1), 2), (4, Some(99), 4)] {
        fleet.change(weight).await;
        let event = fleet.trigger().await.events[0];
        let claim = fleet.hold(0, event, "worker").await;
        let outcome = Outcome::Applied { version, checksum: String::new() };
        assert!(fleet.complete(0, event, &claim, outcome).await.unwrap());
        assert_eq!(fleet.applied_version(0).await, expected, "version {weight} reported as {version:?}");
    }
}

async fn a_retired_workspace_has_nothing_open(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "worker").await;
    let mut tx = fleet.db().begin().await.unwrap();
    retire_workspace(&mut tx, fleet.customer, fleet.workspaces[0]).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(fleet.event(event).await.status, "superseded");
    assert_eq!(fleet.complete(0, event, &claim, applied()).await.unwrap_err().reason(), "STALE_CLAIM");
    assert!(fleet.pending(0).await.is_empty());
}

async fn a_customer_that_comes_back_is_offered_what_it_missed(db: TestDb) {
    let fleet = Fleet::new(db, 2).await;
    fleet.change(1).await;
    fleet.trigger().await;
    fleet.converge(0).await;
    fleet.pending(1).await;
    let mut tx = fleet.db().begin().await.unwrap();
    retire_customer(&mut tx, fleet.customer).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert!(fleet.pending(1).await.is_empty());
    for expected in [1, 0] {
        let mut tx = fleet.db().begin().await.unwrap();
        assert_eq!(offer_to_lagging(&mut tx, fleet.customer).await.unwrap(), expected);
        tx.commit_unaudited("test").await.unwrap();
    }
    assert_eq!((fleet.converge(0).await, fleet.converge(1).await), (0, 1));
}

async fn events_are_as_old_as_their_version(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let triggered = fleet.trigger().await;
    fleet.advance(60);
    assert_eq!(fleet.pending(0).await[0].created_at, triggered.configuration.updated_at);
}
