//! Events that come by a watch, and what a worker does where it does not work.

use std::sync::Arc;

use agentrouter_liaison::{DirTarget, Report, WorkerConfig};
use tonic::Status;

use crate::plane::{Plane, configuration};
use crate::running::{Running, config};

fn dir(folder: &tempfile::TempDir) -> Arc<DirTarget> {
    Arc::new(DirTarget::open(folder.path().join("slots")).expect("a folder"))
}

async fn watched() -> Plane {
    let plane = Plane::start().await;
    plane.change(|state| state.watches = true);
    plane
}

#[tokio::test]
async fn events_come_by_the_watch_without_a_poll() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), dir(&folder));
    plane.until(|state| state.completion(&first).is_some()).await;
    let second = plane.publish("ann", 2);
    let state = plane.until(|state| state.completion(&second).is_some()).await;
    assert_eq!((state.calls("poll"), state.calls("watch"), state.calls("claim")), (0, 1, 2));
    let reports = worker.stop().await;
    assert_eq!((reports.first(), reports.last()), (Some(&Report::Connected), Some(&Report::Stopped)));
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), dir(&folder));
    plane.until(|state| state.completion(&first).is_some()).await;
    plane.change(|state| state.cuts += 1);
    let second = plane.publish("bob", 1);
    let state = plane.until(|state| state.completion(&second).is_some()).await;
    assert_eq!(state.cursors, ["", "1"]);
    assert_eq!((state.calls("poll"), state.calls("claim")), (0, 2));
    worker.stop().await;
}

#[tokio::test]
async fn a_server_that_was_away_is_watched_on() {
    let mut plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), dir(&folder));
    plane.until(|state| state.completion(&first).is_some()).await;
    plane.kill();
    worker.until(|report| matches!(report, Report::Unreachable { .. })).await;
    let second = plane.publish("ann", 2);
    plane.resume().await;
    let state = plane.until(|state| state.completion(&second).is_some()).await;
    assert_eq!(state.cursors.last().map(String::as_str), Some("1"));
    worker.stop().await;
}

#[tokio::test]
async fn a_cursor_that_is_too_old_is_dropped_and_everything_listed() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), dir(&folder));
    plane.until(|state| state.completion(&first).is_some()).await;
    let second = plane.change(|state| {
        state.oldest_cursor = 100;
        state.cuts += 1;
        state.publish(configuration("bob", 1))
    });
    let state = plane.until(|state| state.completion(&second).is_some()).await;
    assert_eq!(state.cursors, ["", "1", ""]);
    let reports = worker.stop().await;
    assert!(!reports.iter().any(|report| matches!(report, Report::Refused { .. })), "{reports:?}");
}

#[tokio::test]
async fn watches_that_are_cut_again_and_again_are_given_up_for_polls() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let worker = Running::start(config(&plane), dir(&folder));
    for watch in 1..=3 {
        plane.until(|state| state.calls("watch") == watch).await;
        plane.change(|state| state.cuts += 1);
    }
    plane.until(|state| state.calls("poll") > 0).await;
    let event = plane.publish("ann", 1);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.calls("watch"), 3);
    worker.stop().await;
}

#[tokio::test]
async fn a_watch_that_is_held_back_is_given_up_for_polls() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.change(|state| {
        state.holds_back = true;
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), dir(&folder));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.calls("watch"), 1);
    worker.stop().await;
}

#[tokio::test]
async fn what_the_watch_does_not_tell_is_found_by_looking() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    // The claim fails once and the event is not offered again; then the completion is refused as stale.
    let event = plane.change(|state| {
        state.before = Arc::new(|state, rpc, call| {
            if (rpc, call) == ("complete", 1) {
                state.events.iter_mut().for_each(|delivery| delivery.claim = None);
            }
            ((rpc, call) == ("claim", 1)).then(|| Status::permission_denied("not now"))
        });
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), dir(&folder));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!((state.calls("watch"), state.calls("claim"), state.calls("poll")), (1, 3, 0));
    worker.until(|report| matches!(report, Report::Stale { .. })).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_may_be_told_not_to_watch() {
    let plane = watched().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.publish("ann", 1);
    let worker = Running::start(WorkerConfig { watch: false, ..config(&plane) }, dir(&folder));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.calls("watch"), 0);
    worker.stop().await;
}
