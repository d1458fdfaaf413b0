//! Stopping.

use std::sync::Arc;

use agentrouter_liaison::{Report, Target};
use tonic::Status;

use crate::plane::{Plane, configuration};
use crate::running::{Gated, Running, config};

#[tokio::test]
async fn a_stop_finishes_the_running_apply_and_claims_nothing_more() {
    let plane = Plane::start().await;
    let target = Gated::new();
    let (running, waiting) = plane
        .change(|state| (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 2))));
    let config = agentrouter_liaison::WorkerConfig { concurrency: 1, ..config(&plane) };
    let mut worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
    target.until_started(1).await;
    worker.stop.cancel();
    tokio::task::yield_now().await;
    assert!(!worker.is_over());
    assert_eq!(plane.state().completion(&running), None);

    target.open.send_replace(true);
    worker.ended().await;
    let state = plane.state();
    assert_eq!(state.completion(&running).map(|completion| completion.success), Some(true));
    assert!(state.delivery(&waiting).claim.is_none());
    assert_eq!(state.calls("claim"), 1);
    let reports = worker.reports();
    assert!(
        matches!(reports.as_slice(), [Report::Connected, Report::Applied { .. }, Report::Stopped]),
        "{reports:?}"
    );
}

#[tokio::test]
async fn a_stop_ends_a_waiting_poll_at_once() {
    let plane = Plane::start().await;
    let worker = Running::start(config(&plane), Gated::new());
    // The second poll is the one that waits.
    plane.until(|state| state.calls("poll") == 2).await;
    assert_eq!(worker.stop().await, [Report::Connected, Report::Stopped]);
}

#[tokio::test]
async fn a_stop_ends_a_pause_at_once() {
    let plane = Plane::start().await;
    plane.change(|state| state.token = "another-token");
    let config = agentrouter_liaison::WorkerConfig {
        refused_pause: std::time::Duration::from_mins(10),
        ..config(&plane)
    };
    let worker = Running::start(config, Gated::new());
    worker.until(|report| matches!(report, Report::Refused { .. })).await;
    assert_eq!(worker.stop().await.last(), Some(&Report::Stopped));
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_server_that_is_gone() {
    let plane = Plane::start().await;
    let target = Gated::new();
    target.open.send_replace(true);
    plane.change(|state| {
        state.before = Arc::new(|_, rpc, _| (rpc == "complete").then(|| Status::unavailable("going down")));
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), target);
    worker.until(|report| matches!(report, Report::Unreachable { .. })).await;
    let reports = worker.stop().await;
    assert_eq!(reports.last(), Some(&Report::Stopped));
    assert!(!reports.iter().any(|report| matches!(report, Report::Applied { .. })), "{reports:?}");
}

#[tokio::test]
async fn a_worker_that_was_told_to_stop_before_it_ran_does_nothing() {
    let plane = Plane::start().await;
    plane.publish("ann", 1);
    let worker = Running::start(config(&plane), Gated::new());
    // The task has not been polled yet: the test's runtime has one thread.
    assert_eq!(worker.stop().await, [Report::Stopped]);
    assert_eq!(plane.state().calls("poll"), 0);
}
