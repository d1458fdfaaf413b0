//! Transactions that overlap and would not see each other: what a workspace is offered, what becomes of an attempt,
//! and whether the workspace is in service at all.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[expect(dead_code, reason = "each test file uses its part")]
mod common;

use agentrouter_delivery::{lay_out_workspace, poll, retire_workspace, settle_due};
use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Tx, query};
use agentrouter_testkit::{TestDb, on_both_engines, until_awaited};
use common::{Fleet, failed};

on_both_engines!(
    a_failure_waits_for_a_version_that_is_being_laid_out,
    of_two_failures_the_newer_one_is_tried_again,
    one_workspace_does_not_keep_others_from_being_settled,
    a_workspace_out_of_service_is_offered_nothing,
);

async fn open(fleet: &Fleet) -> Vec<Id<Event>> {
    query("SELECT id AS value FROM liaison_configuration_events WHERE is_open = TRUE ORDER BY version")
        .values(fleet.db())
        .await
        .unwrap()
}

/// A transaction that has laid out what there is for a workspace, and is not committed.
async fn laying_out(fleet: &Fleet, workspace: usize) -> Tx {
    let mut tx = fleet.db().begin().await.unwrap();
    lay_out_workspace(&mut tx, fleet.customer, fleet.workspaces[workspace]).await.unwrap();
    tx
}

// Behaviour 14: a failure and a newer version that come at the same time leave the newer version to be applied, and
// nothing that is stuck.
async fn a_failure_waits_for_a_version_that_is_being_laid_out(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    for permanent in [false, true] {
        fleet.change(if permanent { 3 } else { 1 }).await;
        let first = fleet.trigger().await.events[0];
        let claim = fleet.hold(0, first, "worker").await;
        fleet.change(if permanent { 4 } else { 2 }).await;
        let second = fleet.trigger().await.events[0];
        let mut tx = laying_out(&fleet, 0).await;
        let completing = fleet.complete(0, first, &claim, failed(permanent));
        let committing = async {
            until_awaited(&mut tx, 1).await;
            tx.commit_unaudited("test").await.unwrap();
        };
        let (completed, ()) = tokio::join!(completing, committing);
        assert!(completed.unwrap());
        let row = fleet.event(first).await;
        assert_eq!((row.status.as_str(), row.stuck, row.superseded_by), ("failed", false, Some(second)));
        assert_eq!(open(&fleet).await, [second]);
        assert_eq!(fleet.converge(0).await, 1);
    }
}

// Behaviour 14: what is left of two attempts is the newer one, whichever is due first.
async fn of_two_failures_the_newer_one_is_tried_again(db: TestDb) {
    // Servers of an earlier version could leave both open.
    const FAIL: &str = "UPDATE liaison_configuration_events SET status = 'failed', is_open = TRUE, superseded_by = NULL, \
             due_at = :now + $2 WHERE id = $1";
    let fleet = Fleet::new(db, 1).await;
    for (round, second_due) in [(1, 0), (2, 1_000_000)] {
        let mut events = Vec::new();
        for weight in 1..=2 {
            fleet.change(10 * round + weight).await;
            events.push(fleet.trigger().await.events[0]);
            fleet.pending(0).await;
        }
        let mut tx = fleet.db().begin().await.unwrap();
        for (event, due) in events.iter().zip([0, second_due]) {
            query(FAIL).bind(*event).bind(due).execute(&mut tx).await.unwrap();
        }
        tx.commit_unaudited("test").await.unwrap();
        settle_due(fleet.db(), 10).await.unwrap();
        assert_eq!(fleet.event(events[0]).await.superseded_by, Some(events[1]));
        fleet.advance(2);
        assert_eq!(fleet.pending(0).await.iter().map(|row| row.id).collect::<Vec<_>>(), [events[1]]);
        fleet.converge(0).await;
    }
}

// Behaviour 7: leases that ran out are settled, whatever is wrong with another workspace.
async fn one_workspace_does_not_keep_others_from_being_settled(db: TestDb) {
    const BREAK: &str = "DELETE FROM workspace_sync WHERE workspace_id = $1";
    let fleet = Fleet::new(db, 3).await;
    fleet.change(1).await;
    let events = fleet.trigger().await.events;
    for (workspace, event) in events.iter().enumerate() {
        fleet.hold(workspace, *event, "dead").await;
    }
    let mut tx = fleet.db().begin().await.unwrap();
    query(BREAK).bind(fleet.workspaces[1]).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    fleet.advance(31);
    assert_eq!(settle_due(fleet.db(), 10).await.unwrap(), 2);
    for (event, status) in events.iter().zip(["pending", "acknowledged", "pending"]) {
        assert_eq!(fleet.event(*event).await.status, status);
    }
}

// What is archived is offered nothing, whoever was at it.
async fn a_workspace_out_of_service_is_offered_nothing(db: TestDb) {
    const ARCHIVE: &str = "UPDATE workspaces SET deleted_at = :now WHERE id = $1";
    let fleet = Fleet::new(db, 2).await;
    fleet.change(1).await;
    fleet.trigger().await;
    // Of the first one events are being laid out when it goes; of the second one that begins when it is gone.
    let archive = async |workspace: usize| {
        let mut tx = fleet.db().begin().await.unwrap();
        query(ARCHIVE).bind(fleet.workspaces[workspace]).execute(&mut tx).await.unwrap();
        retire_workspace(&mut tx, fleet.customer, fleet.workspaces[workspace]).await.unwrap();
        tx
    };
    let mut laying_out = laying_out(&fleet, 0).await;
    let committing = async {
        until_awaited(&mut laying_out, 1).await;
        laying_out.commit_unaudited("test").await.unwrap();
    };
    let archiving = async { archive(0).await.commit_unaudited("test").await.unwrap() };
    tokio::join!(archiving, committing);
    assert_eq!(open(&fleet).await, []);

    let mut archiving = archive(1).await;
    let laying_out = async {
        let mut tx = fleet.db().begin().await.unwrap();
        lay_out_workspace(&mut tx, fleet.customer, fleet.workspaces[1]).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    };
    let committing = async {
        until_awaited(&mut archiving, 1).await;
        archiving.commit_unaudited("test").await.unwrap();
    };
    tokio::join!(laying_out, committing);
    assert_eq!(open(&fleet).await, []);
    assert!(poll::pending_of_customer(fleet.db(), fleet.customer, 10).await.unwrap().is_empty());
}
