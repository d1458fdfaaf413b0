//! What a worker remembers over a restart.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_liaison::{Report, Target, Token, Worker, WorkerConfig};

use crate::plane::{PATIENCE, Plane, configuration};
use crate::running::{Gated, Running, config};

fn open() -> Arc<dyn Target> {
    let target = Gated::new();
    target.open.send_replace(true);
    target
}

/// Waits until a cursor is written. It is, along with what was applied, a second after that.
async fn until_kept(folder: &Path, cursor: &str) {
    let kept = async {
        loop {
            let kept = fs::read(folder.join("liaison.json")).unwrap_or_default();
            if serde_json::from_slice(&kept).is_ok_and(|kept: serde_json::Value| kept["cursor"] == cursor) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, kept).await.expect("the cursor is kept");
}

#[tokio::test]
async fn a_restarted_worker_goes_on_from_its_cursor_and_knows_what_it_applied() {
    let plane = Plane::start().await;
    plane.change(|state| (state.watches, state.syncs) = (true, true));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = || WorkerConfig { state_dir: Some(folder.path().join("state")), ..config(&plane) };
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(), open());
    let state = plane.until(|state| state.completion(&first).is_some() && !state.sweeps.is_empty()).await;
    assert_eq!(state.cursors, [""]);
    // After a heartbeat that follows the event: only then nothing before the cursor waits any more.
    until_kept(&folder.path().join("state"), "1").await;
    worker.stop().await;

    let second = plane.change(|state| {
        state.sweeps.clear();
        state.publish(configuration("bob", 1))
    });
    let worker = Running::start(config(), open());
    let state = plane.until(|state| state.completion(&second).is_some() && !state.sweeps.is_empty()).await;
    assert_eq!(state.cursors, ["", "1"]);
    let sweep = state.sweeps.first().expect("one");
    assert!(sweep.full_sync && !sweep.is_complete);
    assert!(sweep.observed.contains(&("ann".to_owned(), 1)), "{sweep:?}");
    worker.stop().await;
}

#[tokio::test]
async fn what_was_offered_and_not_claimed_is_offered_again_after_a_restart() {
    let plane = Plane::start().await;
    plane.change(|state| state.watches = true);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = || WorkerConfig {
        concurrency: 1,
        state_dir: Some(folder.path().join("state")),
        stop_grace: Duration::ZERO,
        ..config(&plane)
    };
    let target = Gated::new();
    let (_, second) = plane
        .change(|state| (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 1))));
    let worker = Running::start(config(), Arc::clone(&target) as Arc<dyn Target>);
    target.until_started(1).await;
    worker.stop().await;
    let worker = Running::start(config(), open());
    plane.until(|state| state.completion(&second).is_some()).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_damaged_state_is_passed_over() {
    let plane = Plane::start().await;
    plane.change(|state| state.watches = true);
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("liaison.json"), "{\"format\":1,\"cursor\":").expect("a file");
    let event = plane.publish("ann", 1);
    let config = WorkerConfig { state_dir: Some(folder.path().to_owned()), ..config(&plane) };
    let worker = Running::start(config, open());
    plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(worker.stop().await.last(), Some(&Report::Stopped));
    let kept = fs::read_to_string(folder.path().join("liaison.json")).expect("it was written");
    let kept: serde_json::Value = serde_json::from_str(&kept).expect("it is whole again");
    assert_eq!(kept["format"], 1);
}

#[tokio::test]
async fn a_folder_that_cannot_be_used_is_a_wrong_setting() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    fs::write(&path, "").expect("a file");
    let config = WorkerConfig {
        state_dir: Some(path),
        ..WorkerConfig::new("http://127.0.0.1:8080", Token::new("token"))
    };
    let fault = Worker::new(config, open()).map(|_| ()).expect_err("it is a file");
    assert!(fault.violations().iter().any(|violation| violation.field == "state_dir"), "{fault:?}");
}
