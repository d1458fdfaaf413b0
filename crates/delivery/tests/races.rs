//! What happens when several do something about the same slot at once, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[expect(dead_code, reason = "each test file uses its part")]
mod common;

use std::sync::Arc;
use std::time::Duration;

use agentrouter_delivery::claim::{self, Claimed, LEASE_DEFAULT};
use agentrouter_delivery::complete::{Completion, complete_in};
use agentrouter_delivery::{event_id, settle_due, settle_workspace};
use agentrouter_kernel::id::{Event, Id};
use agentrouter_kernel::{Clock, SystemClock, Timestamp};
use agentrouter_storage::{Db, Engine, Limits, query, row};
use agentrouter_testkit::{TestDb, on_both_engines, until_awaited};
use common::{Fleet, applied, failed};

on_both_engines!(
    racing_triggers_leave_no_holes,
    events_keep_their_version_while_others_come,
    a_failure_that_passed_a_newer_version_by_gives_way,
    a_rescue_never_undoes_a_completion,
    clocks_of_replicas_and_workers_do_not_matter,
);

// Behaviour 17: versions of triggers that race grow by one, in the order of their commits.
async fn racing_triggers_leave_no_holes(db: TestDb) {
    let fleet = Arc::new(Fleet::new(db, 2).await);
    let mut racers = tokio::task::JoinSet::new();
    for weight in 1..=24 {
        let fleet = Arc::clone(&fleet);
        racers.spawn(async move {
            fleet.change(weight).await;
            fleet.trigger().await;
        });
    }
    racers.join_all().await;
    let versions: Vec<i64> =
        query("SELECT version AS value FROM liaison_configuration_versions ORDER BY position")
            .values(fleet.db())
            .await
            .unwrap();
    let expected: Vec<i64> = (1..).take(versions.len()).collect();
    assert_eq!(versions, expected);
    for workspace in 0..2 {
        assert_eq!(fleet.converge(workspace).await, 1);
        assert_eq!(fleet.applied_version(workspace).await, *expected.last().unwrap());
    }
}

async fn events_keep_their_version_while_others_come(db: TestDb) {
    row! {
        struct Delivered {
            version: i64,
            event_version: i64,
            superseded_by: Option<Id<Event>>,
            is_open: bool,
        }
    }
    const DELIVERED: &str = "SELECT v.version, e.version AS event_version, e.superseded_by, e.is_open \
         FROM liaison_configuration_events e JOIN liaison_configuration_versions v ON v.position = $2 WHERE e.id = $1";
    let fleet = Arc::new(Fleet::new(db, 2).await);
    let mut racers = tokio::task::JoinSet::new();
    for weight in 1..=40 {
        let fleet = Arc::clone(&fleet);
        racers.spawn(async move {
            fleet.change(weight).await;
            if weight % 4 == 0 {
                fleet.trigger_only("ws-1").await;
            } else {
                fleet.trigger().await;
            }
            for workspace in 0..2 {
                fleet.pending(workspace).await;
            }
        });
    }
    racers.join_all().await;
    let events: Vec<Id<Event>> =
        query("SELECT id AS value FROM liaison_configuration_events").values(fleet.db()).await.unwrap();
    for event in events {
        let (_, position) = event_id::parts(event);
        let delivered: Option<Delivered> =
            query(DELIVERED).bind(event).bind(position).optional(fleet.db()).await.unwrap();
        // Repeats of a version for a workspace that is behind have ids of their own.
        let Some(delivered) = delivered else { continue };
        assert_eq!(delivered.event_version, delivered.version, "{event}");
        assert_eq!(delivered.superseded_by.is_none(), delivered.is_open, "{event}");
    }
    let newest = fleet.trigger().await.configuration.version;
    assert_eq!((fleet.converge(0).await, fleet.converge(1).await), (1, 1));
    assert_eq!((fleet.applied_version(0).await, fleet.applied_version(1).await), (newest, newest));
}

async fn a_failure_that_passed_a_newer_version_by_gives_way(db: TestDb) {
    // What is left where the failure and the newer version do not see each other's transaction.
    const REVIVE: &str = "UPDATE liaison_configuration_events SET is_open = TRUE, due_at = :now + 1000000, superseded_by = NULL \
         WHERE id = $1";
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let first = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, first, "worker").await;
    fleet.complete(0, first, &claim, failed(false)).await.unwrap();
    fleet.change(2).await;
    let second = fleet.trigger().await.events[0];
    for waits in [true, false] {
        let pending = fleet.pending(0).await;
        assert_eq!(pending.iter().map(|event| event.id).collect::<Vec<_>>(), [second]);
        if !waits {
            fleet.converge(0).await;
        }
        let mut tx = fleet.db().begin().await.unwrap();
        query(REVIVE).bind(first).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        fleet.advance(2);
        let pending = fleet.pending(0).await;
        assert_eq!(pending.len(), usize::from(waits), "the failed one does not come back");
        let old = fleet.event(first).await;
        assert_eq!((old.status.as_str(), old.is_open, old.superseded_by), ("failed", false, Some(second)));
    }
}

/// On SQLite nothing can come in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_laid_out_is_what_was_read() {
    const HOLD: &str = "UPDATE liaison_configuration_events SET position = position WHERE id = $1";
    let fleet = Arc::new(Fleet::new(agentrouter_testkit::postgres().await, 1).await);
    let mut events = Vec::new();
    for weight in 1..=2 {
        fleet.change(weight).await;
        events.push(fleet.trigger().await.events[0]);
        if weight == 1 {
            fleet.pending(0).await;
        }
    }
    // Laying out the second version waits for the event of the first, after it has read what there is.
    let mut tx = fleet.db().begin().await.unwrap();
    query(HOLD).bind(events[0]).execute(&mut tx).await.unwrap();
    let mut polls = tokio::task::JoinSet::new();
    let polling = Arc::clone(&fleet);
    polls.spawn(async move { polling.pending(0).await });
    until_awaited(&mut tx, 1).await;
    fleet.change(3).await;
    events.push(fleet.trigger().await.events[0]);
    tx.commit_unaudited("test").await.unwrap();
    let laid_out = polls.join_next().await.unwrap().unwrap();
    assert_eq!(laid_out.iter().map(|row| (row.id, row.version)).collect::<Vec<_>>(), [(events[1], 2)]);
    let next = fleet.pending(0).await;
    assert_eq!(next.iter().map(|row| (row.id, row.version)).collect::<Vec<_>>(), [(events[2], 3)]);
    assert_eq!(fleet.event(events[1]).await.superseded_by, Some(events[2]));
}

/// A second process on the same database, whose settling finds every lease over.
async fn late_replica(fleet: &Fleet) -> Db {
    let replica = fleet.test.reopen().await;
    replica.advance_clock(Duration::from_secs(31));
    replica
}

// Behaviour 9: a rescue that has seen the lease run out changes nothing where the claim was completed or renewed since.
async fn a_rescue_never_undoes_a_completion(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    let replica = late_replica(&fleet).await;
    for (weight, is_completed) in [(1, true), (2, false)] {
        fleet.change(weight).await;
        let event = fleet.trigger().await.events[0];
        let claim = fleet.hold(0, event, "worker").await;
        // The end of the claim is decided, but not committed, when the other process looks for leases that ran out.
        let mut tx = fleet.db().begin().await.unwrap();
        let reach = fleet.reach(0);
        if is_completed {
            let completion = Completion {
                event,
                outcome: applied(),
                token: Some(claim.token),
                worker: String::new(),
                resources: Vec::new(),
            };
            assert!(complete_in(&mut tx, &reach, &completion).await.unwrap());
        } else {
            let longer = Some(Duration::from_mins(10));
            claim::renew(&mut tx, &reach, event, claim.token, "worker", longer).await.unwrap().unwrap();
        }
        let (other, workspace) = (replica.clone(), fleet.workspaces[0]);
        let mut rescues = tokio::task::JoinSet::new();
        rescues.spawn(async move {
            let mut tx = other.begin().await.unwrap();
            let settled = settle_workspace(&mut tx, workspace).await.unwrap();
            tx.commit_unaudited("test").await.unwrap();
            settled
        });
        until_awaited(&mut tx, 1).await;
        tx.commit_unaudited("test").await.unwrap();
        assert_eq!(rescues.join_next().await.unwrap().unwrap(), 0);
        let row = fleet.event(event).await;
        assert_eq!(
            (row.status.as_str(), row.attempt),
            if is_completed { ("applied", 1) } else { ("acknowledged", 1) }
        );
    }
}

#[derive(Debug)]
struct Skewed(i64);

impl Clock for Skewed {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(SystemClock.now().as_micros() + self.0 * 3_600_000_000)
    }
}

// Behaviour 10: replicas whose clocks are an hour off give leases by the database's clock, and settle by it.
async fn clocks_of_replicas_and_workers_do_not_matter(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    if fleet.db().engine() == Engine::Sqlite {
        // One process has the database for itself, and its clock is the database's: what workers say does not count.
        let before = fleet.db().now().await.unwrap();
        fleet.change(1).await;
        let event = fleet.trigger().await.events[0];
        let claim = fleet.hold(0, event, "worker").await;
        assert!(claim.lease_expires_at >= before.plus(LEASE_DEFAULT));
        return;
    }
    for (weight, hours) in [(1, -1), (2, 1)] {
        let limits = Limits { max_connections: 2, ..Limits::default() };
        let skewed = Db::open(&fleet.test.target, limits, Arc::new(Skewed(hours))).await.unwrap();
        fleet.change(weight).await;
        let event = fleet.trigger().await.events[0];
        let before = fleet.db().now().await.unwrap();
        let claimed =
            claim::acknowledge(&skewed, &fleet.reach(0), event, "worker", LEASE_DEFAULT).await.unwrap();
        let after = fleet.db().now().await.unwrap();
        let Claimed::Held(claim) = claimed else { panic!("{claimed:?}") };
        let lease = before.plus(LEASE_DEFAULT)..=after.plus(LEASE_DEFAULT);
        assert!(lease.contains(&claim.lease_expires_at), "{hours} h: {:?}", claim.lease_expires_at);
        assert_eq!(settle_due(&skewed, 100).await.unwrap(), 0);
        assert!(fleet.complete(0, event, &claim, applied()).await.unwrap());
    }
}
