//! Single calls that come at the same time share transactions, and each is answered as if it had come alone.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[expect(dead_code, reason = "each test file uses its part")]
mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agentrouter_delivery::batch::{self, Ask, Report};
use agentrouter_delivery::claim::{Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{Completion, Outcome};
use agentrouter_delivery::group::Groups;
use agentrouter_delivery::poll;
use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Engine, query};
use agentrouter_testkit::{TestDb, on_both_engines, until_awaited};
use common::Fleet;
use tokio::task::JoinSet;
use uuid::Uuid;

const EVENTS: usize = 40;
const WORKERS: usize = 6;

async fn laid_out(db: TestDb) -> (Fleet, Vec<Id<Event>>, Reach) {
    let fleet = Fleet::new(db, EVENTS).await;
    fleet.change(1).await;
    let events = fleet.trigger().await.events;
    let reach = Reach { customer: fleet.customer, workspace: None, credential: "key".into() };
    poll::pending_of_customer(fleet.db(), fleet.customer, 1).await.unwrap();
    (fleet, events, reach)
}

fn ask(reach: &Reach, event: Id<Event>, worker: &str) -> Ask {
    Ask { reach: reach.clone(), event, worker: worker.to_owned(), lease: LEASE_DEFAULT }
}

fn applied(reach: &Reach, event: Id<Event>, token: Uuid) -> Report {
    let outcome = Outcome::Applied { version: None, checksum: String::new() };
    let completion =
        Completion { event, outcome, token: Some(token), worker: String::new(), resources: Vec::new() };
    Report { reach: reach.clone(), completion }
}

// Behaviour 1: of many single claims in one transaction each event has one winner.
// Behaviour 3: a stale report beside the right one in a transaction is refused, and changes nothing.
async fn calls_at_the_same_time_are_answered_each_for_itself(db: TestDb) {
    let (fleet, events, reach) = laid_out(db).await;
    let groups = Groups::new(fleet.db().clone());
    let mut claims = JoinSet::new();
    for (index, event) in events.iter().enumerate() {
        for worker in 0..WORKERS {
            let (groups, ask) =
                (groups.clone(), ask(&reach, *event, &format!("worker-{}", (worker + index) % WORKERS)));
            claims.spawn(async move {
                let worker = ask.worker.clone();
                (ask.event, worker, groups.acknowledge(ask).await.unwrap())
            });
        }
    }
    let mut held = BTreeMap::new();
    let mut told = Vec::new();
    for (event, worker, claimed) in claims.join_all().await {
        match claimed {
            Claimed::Held(claim) => {
                assert_eq!(claim.attempt, 1);
                assert!(held.insert(event, (worker, claim.token)).is_none(), "two hold {event}");
            }
            Claimed::Refused { holder } => told.push((event, holder)),
        }
    }
    assert_eq!(held.keys().copied().collect::<BTreeSet<_>>(), events.iter().copied().collect());
    assert_eq!(told.len(), EVENTS * (WORKERS - 1));
    assert!(told.iter().all(|(event, holder)| held[event].0 == *holder), "who lost learns the holder");

    let mut reports = JoinSet::new();
    for (event, (_, token)) in held {
        for (is_right, token) in [(false, Uuid::from_u128(7)), (true, token), (true, token)] {
            let (groups, report) = (groups.clone(), applied(&reach, event, token));
            reports.spawn(async move { (is_right, groups.complete(report).await) });
        }
    }
    for (is_right, answer) in reports.join_all().await {
        match answer {
            Ok(done) => assert!(is_right && done),
            Err(fault) => assert_eq!((is_right, fault.reason()), (false, "STALE_CLAIM")),
        }
    }
    for index in 0..EVENTS {
        assert_eq!(fleet.applied_version(index).await, 1);
    }
}

async fn tenants_in_one_transaction_do_not_meet(db: TestDb) {
    let (fleet, events, reach) = laid_out(db).await;
    let stranger = Reach { customer: fleet.test.customer("other").await, ..reach.clone() };
    let elsewhere = Reach { workspace: Some(fleet.workspaces[0]), ..reach.clone() };
    let groups = Arc::new(Groups::new(fleet.db().clone()));
    let mut claims = JoinSet::new();
    for event in events.clone() {
        for (name, reach) in [("stranger", &stranger), ("elsewhere", &elsewhere)] {
            let (groups, ask) = (Arc::clone(&groups), ask(reach, event, name));
            claims.spawn(async move { (ask.event, name, groups.acknowledge(ask).await) });
        }
    }
    for (event, name, answer) in claims.join_all().await {
        if name == "elsewhere" && event == events[0] {
            assert!(matches!(answer, Ok(Claimed::Held(_))));
        } else {
            assert_eq!(answer.unwrap_err().reason(), "EVENT_NOT_FOUND", "{name}");
        }
    }
    // The others are still there for whom they belong to.
    for event in &events[1..] {
        let answer = groups.acknowledge(ask(&reach, *event, "own")).await;
        assert!(matches!(answer, Ok(Claimed::Held(_))));
    }
}

// Behaviour 29: nobody is told of a claim that the store does not have.
async fn a_batch_that_loses_to_another_transaction_tells_of_no_claim(db: TestDb) {
    const TAKE_WORKSPACE: &str = "UPDATE workspace_sync SET offered = offered WHERE workspace_id = $1";
    const TAKE_EVENT: &str = "UPDATE liaison_configuration_events SET offered = offered WHERE id = $1";
    let (fleet, events, reach) = laid_out(db).await;
    // The lease of one runs out, so that it is not simply pending: its claim comes last and takes more locks.
    fleet.hold(1, events[1], "dead").await;
    fleet.advance(31);
    let mut other = fleet.db().begin().await.unwrap();
    query(TAKE_WORKSPACE).bind(fleet.workspaces[1]).execute(&mut other).await.unwrap();
    let asked = [events[0], events[1]];
    let claims = batch::acknowledge(fleet.db(), &reach, &asked, "worker", LEASE_DEFAULT);
    let meeting = async {
        // On SQLite the batch waits to begin, and nothing can be lost.
        until_awaited(&mut other, 1).await;
        // Each has now what the other one wants, and PostgreSQL ends one of them.
        if query(TAKE_EVENT).bind(events[0]).execute(&mut other).await.is_ok() {
            other.commit_unaudited("test").await.unwrap();
        }
    };
    let (claims, ()) = tokio::join!(claims, meeting);
    match claims {
        Ok(claims) => {
            for (event, claim) in asked.into_iter().zip(claims) {
                let Ok(Claimed::Held(claim)) = claim else { panic!("{event}: {claim:?}") };
                assert_eq!(fleet.event(event).await.claim_token, Some(claim.token));
            }
        }
        Err(fault) => {
            assert_eq!((fleet.db().engine(), fault.reason()), (Engine::Postgres, "CONCURRENT_CHANGE"));
            assert_eq!(fleet.event(events[0]).await.claim_token, None);
        }
    }
}

on_both_engines!(
    calls_at_the_same_time_are_answered_each_for_itself,
    tenants_in_one_transaction_do_not_meet,
    a_batch_that_loses_to_another_transaction_tells_of_no_claim,
);
