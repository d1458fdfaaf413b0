//! Servers that go away, refuse, or answer nonsense.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_liaison::{Applied, DirTarget, Rejected, Report, Target, WorkerConfig};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::plane::{Plane, State, TOKEN, configuration, stale_claim};
use crate::running::{Gated, Running, config};

fn dir(folder: &tempfile::TempDir) -> DirTarget {
    DirTarget::open(folder.path()).expect("a folder")
}

fn versions(target: &DirTarget) -> Vec<(String, i64)> {
    let observed = target.observed().expect("the folder lists");
    observed.into_iter().map(|slot| (slot.user_id, slot.version)).collect()
}

/// Fails the first calls of an rpc.
fn first(rpc: &'static str, calls: u32, status: Status) -> impl Fn(&mut State, &str, u32) -> Option<Status> {
    move |_, called, call| (called == rpc && call <= calls).then(|| status.clone())
}

#[tokio::test]
async fn a_server_that_dies_and_comes_back_is_served_on() {
    let mut plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = dir(&folder);
    let event = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), Arc::new(target.clone()));
    plane.until(|state| state.completion(&event).is_some()).await;

    plane.kill();
    let report = worker.until(|report| matches!(report, Report::Unreachable { .. })).await;
    assert!(matches!(&report, Report::Unreachable { message, .. } if !message.is_empty()), "{report:?}");
    let event = plane.publish("ann", 2);
    plane.resume().await;
    plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(versions(&target), [("ann".to_owned(), 2)]);

    let reports = worker.stop().await;
    let connected = reports.iter().filter(|report| matches!(report, Report::Connected)).count();
    assert_eq!(connected, 2, "{reports:?}");
}

#[tokio::test]
async fn a_worker_that_starts_before_its_server_finds_it() {
    let mut plane = Plane::start().await;
    plane.kill();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    let report = worker.until(|report| matches!(report, Report::Unreachable { .. })).await;
    let Report::Unreachable { code, message, .. } = report else { unreachable!() };
    assert_eq!(code, "UNAVAILABLE");
    assert!(message.contains("refused"), "{message}");
    let event = plane.publish("ann", 1);
    plane.resume().await;
    plane.until(|state| state.completion(&event).is_some()).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_restarted_worker_goes_on_from_its_folder() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    plane.until(|state| state.completion(&event).is_some()).await;
    worker.stop().await;

    let event = plane.publish("ann", 2);
    let target = dir(&folder);
    assert_eq!(versions(&target), [("ann".to_owned(), 1)]);
    let config = WorkerConfig { worker_id: "worker-2".to_owned(), ..config(&plane) };
    let worker = Running::start(config, Arc::new(target.clone()));
    plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(versions(&target), [("ann".to_owned(), 2)]);
    worker.stop().await;
}

#[tokio::test]
async fn a_stale_completion_is_told_and_the_work_goes_on() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (late, next) = plane.change(|state| {
        state.before = Arc::new(first("complete", 1, stale_claim()));
        (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 1)))
    });
    let config = WorkerConfig { concurrency: 1, ..config(&plane) };
    let worker = Running::start(config, Arc::new(dir(&folder)));
    plane.until(|state| state.completion(&next).is_some()).await;
    let report = worker.until(|report| matches!(report, Report::Stale { .. })).await;
    let Report::Stale { event_id, message, .. } = report else { unreachable!() };
    assert_eq!((event_id, message.as_str()), (late.clone(), "the claim is not current any more"));
    let state = plane.state();
    assert_eq!(state.completion(&late), None);
    assert_eq!(state.calls("complete"), 2);
    let reports = worker.stop().await;
    let applied = |report: &Report| matches!(report, Report::Applied { event_id, .. } if *event_id == late);
    assert!(!reports.iter().any(applied), "what was not recorded is not applied: {reports:?}");
}

#[tokio::test]
async fn lost_answers_are_asked_for_again_and_count_once() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.change(|state| {
        // Claims, fetches and completions are carried out, and the answers get lost twice.
        state.after = Arc::new(|_, rpc, call| {
            (rpc != "poll" && call <= 2).then(|| Status::unavailable("the connection broke"))
        });
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    worker.until(|report| matches!(report, Report::Applied { .. })).await;
    let state = plane.state();
    assert_eq!((state.calls("claim"), state.calls("fetch"), state.calls("complete")), (3, 3, 3));
    assert_eq!(state.delivery(&event).event.attempt, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_fetch_that_keeps_failing_is_a_failed_attempt() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.change(|state| {
        state.before = Arc::new(first("fetch", u32::MAX, Status::failed_precondition("no key")));
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert_eq!(
        (completion.success, completion.permanent, completion.error_message.as_str()),
        (false, false, "cannot fetch the configuration: FAILED_PRECONDITION: no key")
    );
    worker.stop().await;
}

#[tokio::test]
async fn a_refused_token_is_told_and_tried_slowly() {
    let plane = Plane::start().await;
    plane.change(|state| state.token = "another-token");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let event = plane.publish("ann", 1);
    let config = config(&plane);
    let (pause, started) = (config.refused_pause, Instant::now());
    let worker = Running::start(config, Arc::new(dir(&folder)));
    let report = worker.until(|report| matches!(report, Report::Refused { .. })).await;
    let Report::Refused { code, message, retry_in, .. } = report else { unreachable!() };
    assert_eq!((code, message.as_str()), ("UNAUTHENTICATED", "the token is not valid"));
    assert!(retry_in >= pause);
    plane.until(|state| state.calls("watch") == 4).await;
    assert!(started.elapsed() >= pause * 3, "{:?}", started.elapsed());

    // Somebody puts it right.
    plane.change(|state| state.token = TOKEN);
    plane.until(|state| state.completion(&event).is_some()).await;
    let calls = plane.state().calls("watch") + plane.state().calls("poll");
    assert!(calls <= 8, "{calls} calls");
    worker.stop().await;
}

#[tokio::test]
async fn a_token_that_is_refused_half_way_stops_the_work_without_spinning() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    plane.change(|state| {
        state.before = Arc::new(first("fetch", u32::MAX, Status::permission_denied("not for you")));
        state.publish(configuration("ann", 1));
        state.publish(configuration("bob", 1))
    });
    let config = WorkerConfig { concurrency: 1, ..config(&plane) };
    let worker = Running::start(config, Arc::new(dir(&folder)));
    let report = worker.until(|report| matches!(report, Report::Refused { .. })).await;
    assert!(matches!(&report, Report::Refused { code: "PERMISSION_DENIED", .. }), "{report:?}");
    let state = plane.state();
    assert_eq!((state.calls("claim"), state.calls("fetch"), state.calls("complete")), (1, 1, 0));
    worker.stop().await;
}

#[tokio::test]
async fn the_server_says_when_to_come_back() {
    let plane = Plane::start().await;
    let asked = Duration::from_millis(300);
    plane.change(|state| {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(asked));
        let status = Status::with_error_details(Code::Unavailable, "the server is starting", details);
        state.before = Arc::new(first("poll", 2, status));
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let started = Instant::now();
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    worker.until(|report| matches!(report, Report::Connected)).await;
    assert!(started.elapsed() >= asked * 2, "{:?}", started.elapsed());
    let reports = worker.stop().await;
    let pauses: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Unreachable { message, retry_in, .. } if message == "the server is starting" => {
                Some(*retry_in)
            }
            _ => None,
        })
        .collect();
    assert_eq!(pauses.len(), 2, "{reports:?}");
    assert!(pauses.iter().all(|pause| *pause > asked), "{pauses:?}");
}

#[tokio::test]
async fn a_server_that_does_not_wait_is_not_hammered() {
    let plane = Plane::start().await;
    plane.change(|state| state.ignores_wait = true);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pause = Duration::from_millis(100);
    let config = WorkerConfig { backoff_min: pause, ..config(&plane) };
    let started = Instant::now();
    let worker = Running::start(config, Arc::new(dir(&folder)));
    // The first poll does not ask to wait, so the second follows at once.
    plane.until(|state| state.calls("poll") >= 6).await;
    assert!(started.elapsed() >= pause * 4, "{:?}", started.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn an_event_that_is_offered_but_never_given_is_not_hammered() {
    let plane = Plane::start().await;
    plane.change(|state| {
        state.before = Arc::new(first("claim", u32::MAX, Status::not_found("no such event")));
        state.publish(configuration("ann", 1))
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pause = Duration::from_millis(100);
    let config = WorkerConfig { backoff_min: pause, ..config(&plane) };
    let started = Instant::now();
    let worker = Running::start(config, Arc::new(dir(&folder)));
    plane.until(|state| state.calls("claim") >= 5).await;
    assert!(started.elapsed() >= pause * 4, "{:?}", started.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn events_of_several_workspaces_are_not_taken_from_their_workers() {
    let plane = Plane::start().await;
    plane.change(|state| {
        state.publish(configuration("ann", 1));
        let event = pb::ConfigurationEvent { workspace_id: "other".to_owned(), ..Default::default() };
        state.announce(event)
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let worker = Running::start(config(&plane), Arc::new(dir(&folder)));
    let report = worker.until(|report| matches!(report, Report::Refused { .. })).await;
    let Report::Refused { message, .. } = report else { unreachable!() };
    assert_eq!(message, "the token reaches the workspaces \"edge\" and \"other\"; use a workspace token");
    assert_eq!(plane.state().calls("claim"), 0);
    worker.stop().await;
}

/// A target that takes a part.
#[derive(Debug)]
struct Partial;

#[async_trait::async_trait]
impl Target for Partial {
    async fn apply(&self, configuration: &pb::Configuration) -> Result<Applied, Rejected> {
        let reason = "\u{1b}[31mbroken".to_owned();
        let rejected = pb::ResourceResult { resource: "a\u{1}b".to_owned(), applied: false, reason };
        let (version, checksum) = (configuration.version, configuration.checksum.clone());
        Ok(Applied { version, checksum, resources: vec![rejected] })
    }
}

#[tokio::test]
async fn a_result_that_is_refused_is_told_with_less_and_not_without_end() {
    for refused in 0..=3 {
        let plane = Plane::start().await;
        let refusal = Status::invalid_argument("resources[0].resource: is wrong");
        let (event, next) = plane.change(|state| {
            state.before = Arc::new(first("complete", refused, refusal));
            (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 1)))
        });
        let config = WorkerConfig { concurrency: 1, ..config(&plane) };
        let worker = Running::start(config, Arc::new(Partial));
        let state = plane.until(|state| state.completion(&next).is_some()).await;
        assert_eq!(state.calls("complete"), if refused == 3 { 4 } else { refused + 2 });
        let told = state.completion(&event).map(|told| (told.success, told.permanent, told.resources.len()));
        match refused {
            0 => assert_eq!(told, Some((true, false, 1))),
            1 => assert_eq!(told, Some((true, false, 0))),
            2 => assert_eq!(told, Some((false, true, 0))),
            _ => assert_eq!(told, None),
        }
        let resources = state.completion(&next).map(|told| told.resources.clone()).unwrap_or_default();
        assert_eq!(resources.first().map(|told| told.resource.as_str()), Some("a?b"));
        worker.stop().await;
    }
}

#[tokio::test]
async fn cursors_that_are_refused_again_and_again_are_not_asked_for_in_a_loop() {
    let plane = Plane::start().await;
    plane.change(|state| (state.watches, state.oldest_cursor) = (true, u64::MAX));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = WorkerConfig { backoff_min: Duration::from_millis(100), ..config(&plane) };
    let started = Instant::now();
    let worker = Running::start(config, Arc::new(dir(&folder)));
    plane.until(|state| state.calls("watch") >= 4).await;
    // There is a pause before each but the first.
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    worker.stop().await;
}

#[tokio::test]
async fn a_poll_whose_events_find_no_place_is_followed_by_another() {
    let plane = Plane::start().await;
    let target = Gated::new();
    plane.publish("ann", 1);
    let config = WorkerConfig { concurrency: 1, ..config(&plane) };
    let worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
    target.until_started(1).await;
    plane.publish("bob", 2);
    plane.until(|state| state.calls("poll") == 2).await;
    // An instruction needs no place.
    let cancel = plane.change(|state| {
        state.announce(pb::ConfigurationEvent {
            workspace_id: "edge".to_owned(),
            config_type: pb::ConfigType::DataplaneUpgrade.into(),
            event_type: pb::EventType::UpgradeCancel.into(),
            ..Default::default()
        })
    });
    let state = plane.until(|state| state.completion(&cancel).is_some()).await;
    assert!(state.calls("poll") <= 8, "{}", state.calls("poll"));
    target.open.send_replace(true);
    worker.stop().await;
}
