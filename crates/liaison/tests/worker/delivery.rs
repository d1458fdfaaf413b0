//! What becomes of an event.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_liaison::{DirTarget, Rejected, Report};
use tokio::time::Instant;

use crate::plane::{Claim, Plane, configuration};
use crate::running::{Gated, Refusing, Running, config};

fn dir() -> (tempfile::TempDir, DirTarget) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = DirTarget::open(folder.path()).expect("a folder");
    (folder, target)
}

fn versions(target: &DirTarget) -> Vec<(String, i64)> {
    let observed = target.observed().expect("the folder lists");
    observed.into_iter().map(|slot| (slot.user_id, slot.version)).collect()
}

#[tokio::test]
async fn changes_arrive_and_are_reported_as_they_were_written() {
    let plane = Plane::start().await;
    let (_folder, target) = dir();
    let first = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), Arc::new(target.clone()));
    plane.until(|state| state.completion(&first).is_some()).await;

    let second = plane.publish("ann", 2);
    let state = plane.until(|state| state.completion(&second).is_some()).await;
    assert_eq!(versions(&target), [("ann".to_owned(), 2)]);
    let expected = pb::CompleteEventRequest {
        event_id: second.clone(),
        success: true,
        claim_token: format!("claim-{second}-1"),
        worker_id: "worker-1".to_owned(),
        applied_version: 2,
        applied_checksum: "sum-2".to_owned(),
        ..Default::default()
    };
    assert_eq!(state.completion(&second), Some(&expected));

    let gone = pb::Configuration { deleted: true, payload: None, ..configuration("ann", 3) };
    let third = plane.change(|state| state.publish(gone));
    plane.until(|state| state.completion(&third).is_some()).await;
    assert_eq!(versions(&target), []);

    let reports = worker.stop().await;
    assert_eq!(reports.first(), Some(&Report::Connected));
    assert_eq!(reports.last(), Some(&Report::Stopped));
    let applied: Vec<_> = reports
        .iter()
        .filter_map(|report| match report {
            Report::Applied { event_id, slot, version, deleted, latency: Some(latency), .. } => {
                assert!(*latency < Duration::from_mins(1), "{latency:?}");
                Some((event_id.as_str(), slot.to_string(), *version, *deleted))
            }
            _ => None,
        })
        .collect();
    let slot = || "proxy_url/ann".to_owned();
    let expected = [(&*first, slot(), 1, false), (&*second, slot(), 2, false), (&*third, slot(), 3, true)];
    assert_eq!(applied, expected);
}

#[tokio::test]
async fn newer_content_than_announced_is_reported_as_such() {
    let plane = Plane::start().await;
    let (_folder, target) = dir();
    let event = plane.change(|state| {
        let event = state.publish(configuration("ann", 4));
        state.configurations = vec![configuration("ann", 6)];
        event
    });
    let worker = Running::start(config(&plane), Arc::new(target.clone()));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert_eq!((completion.applied_version, completion.applied_checksum.as_str()), (6, "sum-6"));
    assert_eq!(versions(&target), [("ann".to_owned(), 6)]);
    worker.stop().await;
}

#[tokio::test]
async fn an_event_that_another_worker_holds_is_left_to_it() {
    let plane = Plane::start().await;
    let (_folder, target) = dir();
    let (held, free) = plane.change(|state| {
        // The other worker claims between our poll and our claim.
        state.before = Arc::new(|state, rpc, call| {
            if (rpc, call) == ("claim", 1) {
                let lease = Duration::from_mins(1);
                let (worker_id, token) = ("worker-2".to_owned(), "theirs".to_owned());
                let claim = Claim { worker_id, token, lease, ends: Instant::now() + lease };
                state.events.iter_mut().take(1).for_each(|delivery| delivery.claim = Some(claim.clone()));
            }
            None
        });
        (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 1)))
    });
    let config = agentrouter_liaison::WorkerConfig { concurrency: 1, ..config(&plane) };
    let worker = Running::start(config, Arc::new(target.clone()));
    plane.until(|state| state.completion(&free).is_some()).await;
    let reports = worker.stop().await;

    let lost = reports.iter().find_map(|report| match report {
        Report::NotClaimed { event_id, holder, .. } => Some((event_id.as_str(), holder.as_str())),
        _ => None,
    });
    assert_eq!(lost, Some((held.as_str(), "worker-2")));
    let state = plane.state();
    assert_eq!(state.completion(&held), None);
    assert_eq!(state.calls("complete"), 1);
    assert_eq!(versions(&target), [("bob".to_owned(), 1)]);
}

#[tokio::test]
async fn an_event_that_is_gone_is_passed_over() {
    let plane = Plane::start().await;
    let (_folder, target) = dir();
    let (gone, next) = plane.change(|state| {
        state.before = Arc::new(|_, rpc, call| {
            ((rpc, call) == ("claim", 1)).then(|| tonic::Status::not_found("no such event"))
        });
        (state.publish(configuration("ann", 1)), state.publish(configuration("bob", 1)))
    });
    let config = agentrouter_liaison::WorkerConfig { concurrency: 1, ..config(&plane) };
    let worker = Running::start(config, Arc::new(target.clone()));
    plane.until(|state| state.completion(&next).is_some()).await;
    let reports = worker.stop().await;
    let passed = |report: &Report| matches!(report, Report::NotClaimed { event_id, holder, .. } if *event_id == gone && holder.is_empty());
    assert!(reports.iter().any(passed), "{reports:?}");
}

#[tokio::test]
async fn rejections_are_reported_with_their_message() {
    for (rejected, permanent) in
        [(Rejected::permanent("no such model"), true), (Rejected::transient("disk full"), false)]
    {
        let plane = Plane::start().await;
        let event = plane.publish("ann", 1);
        let worker = Running::start(config(&plane), Arc::new(Refusing(rejected.clone())));
        let state = plane.until(|state| state.completion(&event).is_some()).await;
        let completion = state.completion(&event).expect("it completed");
        assert_eq!((completion.success, completion.permanent), (false, permanent));
        assert_eq!(completion.error_message, rejected.message());
        assert_eq!((completion.applied_version, completion.applied_checksum.as_str()), (0, ""));
        let report = worker.until(|report| matches!(report, Report::Failed { .. })).await;
        let Report::Failed { event_id, message, attempt, version, .. } = report else { unreachable!() };
        assert_eq!((event_id, message.as_str(), attempt, version), (event, rejected.message(), 1, 1));
        worker.stop().await;
    }
}

#[tokio::test]
async fn long_messages_are_cut() {
    let plane = Plane::start().await;
    let event = plane.publish("ann", 1);
    let target = Refusing(Rejected::permanent("ü".repeat(100_000)));
    let worker = Running::start(config(&plane), Arc::new(target));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.completion(&event).map(|completion| completion.error_message.len()), Some(4096));
    worker.stop().await;
}

#[tokio::test]
async fn what_cannot_be_applied_fails_for_good_without_asking_the_target() {
    let plane = Plane::start().await;
    let (_folder, target) = dir();
    let event = |config_type: i32, version| pb::ConfigurationEvent {
        workspace_id: "edge".to_owned(),
        user_id: "system".to_owned(),
        config_type,
        version,
        ..Default::default()
    };
    let events = plane.change(|state| {
        [
            (state.announce(event(ConfigType::DataplaneUpgrade.into(), 0)), "does not upgrade data planes"),
            (state.announce(event(99, 1)), "does not know configuration type 99"),
            (state.announce(event(0, 1)), "does not know configuration type 0"),
            (state.announce(event(ConfigType::Providers.into(), 0)), "names no version"),
        ]
    });
    let worker = Running::start(config(&plane), Arc::new(target.clone()));
    for (event, why) in &events {
        let state = plane.until(|state| state.completion(event).is_some()).await;
        let completion = state.completion(event).expect("it completed");
        assert!(!completion.success && completion.permanent, "{completion:?}");
        assert!(completion.error_message.contains(why), "{completion:?}");
    }
    assert_eq!(plane.state().calls("fetch"), 0);
    assert_eq!(versions(&target), []);
    worker.stop().await;
}

#[tokio::test]
async fn content_that_is_missing_old_or_without_its_secrets_is_not_applied() {
    let withheld = || {
        let credential = pb::Credential { id: "cred_1".to_owned(), version: 1, value: String::new() };
        let provider = pb::ProviderConfig {
            provider_id: "openai".to_owned(),
            credential: Some(credential),
            ..Default::default()
        };
        let providers = vec![provider];
        pb::Configuration {
            config_type: ConfigType::Providers.into(),
            payload: Some(Payload::Providers(pb::ProvidersPayload { providers })),
            ..configuration("ann", 1)
        }
    };
    let empty = || pb::Configuration { payload: None, ..configuration("ann", 1) };
    let cases: [(pb::Configuration, Option<Vec<pb::Configuration>>, &str); 4] = [
        (configuration("ann", 2), Some(vec![]), "has no configuration for this slot"),
        (configuration("ann", 2), Some(vec![configuration("ann", 1)]), "answered with version 1, not 2"),
        (empty(), None, "without content"),
        (withheld(), None, "withheld the credential of provider \"openai\""),
    ];
    for (published, held, why) in cases {
        let plane = Plane::start().await;
        let (_folder, target) = dir();
        let event = plane.change(|state| {
            let event = state.publish(published);
            if let Some(held) = held {
                state.configurations = held;
            }
            event
        });
        let worker = Running::start(config(&plane), Arc::new(target.clone()));
        let state = plane.until(|state| state.completion(&event).is_some()).await;
        let completion = state.completion(&event).expect("it completed");
        assert!(!completion.success && !completion.permanent, "{completion:?}");
        assert!(completion.error_message.contains(why), "{completion:?}");
        assert_eq!(versions(&target), []);
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_claim_outlives_its_lease_while_the_apply_runs() {
    let plane = Plane::start().await;
    let target = Gated::new();
    let event = plane.publish("ann", 1);
    let lease = Duration::from_secs(3);
    let started = Instant::now();
    let worker = Running::start(
        agentrouter_liaison::WorkerConfig { lease, ..config(&plane) },
        Arc::clone(&target) as Arc<dyn agentrouter_liaison::Target>,
    );
    // Every third of the lease; without renewals the claim would be over by the fourth.
    let state = plane.until(|state| state.delivery(&event).renewals >= 4).await;
    assert!(started.elapsed() > lease);
    assert_eq!(state.completion(&event), None);
    target.open.send_replace(true);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(state.completion(&event).map(|completion| completion.success), Some(true));
    assert_eq!((state.calls("claim"), state.delivery(&event).event.attempt), (1, 1));
    worker.stop().await;
}
