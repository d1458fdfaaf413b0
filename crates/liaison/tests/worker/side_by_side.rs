//! Several slots at once, and what of it is shared.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator::{Configuration, ResourceResult};
use agentrouter_liaison::{Applied, Rejected, RejectedResource, Report, Target, WorkerConfig};
use async_trait::async_trait;
use tokio::sync::watch;
use tonic::Status;

use crate::plane::{Plane, configuration};
use crate::running::{Gated, Running, config};

/// How many applies may run at once.
const PLACES: u32 = 4;

/// Notes how many applies run at once, in all and of one slot. None ends before as many run as may.
#[derive(Debug, Default)]
struct Counting {
    running: Mutex<BTreeMap<String, u32>>,
    most: Mutex<(u32, u32)>,
    were_all_taken: watch::Sender<bool>,
}

#[async_trait]
impl Target for Counting {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            *running.entry(configuration.user_id.clone()).or_default() += 1;
            let mut most = self.most.lock().unwrap_or_else(PoisonError::into_inner);
            most.0 = most.0.max(running.values().sum());
            most.1 = most.1.max(running.values().copied().max().unwrap_or_default());
            if most.0 >= PLACES {
                self.were_all_taken.send_replace(true);
            }
        }
        let mut were_all_taken = self.were_all_taken.subscribe();
        were_all_taken.wait_for(|were| *were).await.expect("the target lives");
        // One too many would come meanwhile.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.entry(configuration.user_id.clone()).and_modify(|count| *count -= 1);
        Ok(Applied { version: configuration.version, ..Applied::default() })
    }
}

#[tokio::test]
async fn slots_are_applied_side_by_side_and_each_by_one_call_at_a_time() {
    for watches in [true, false] {
        let plane = Plane::start().await;
        let target = Arc::new(Counting::default());
        plane.change(|state| {
            state.watches = watches;
            for version in 1..=3 {
                for user in 0..10 {
                    state.publish(configuration(&format!("user-{user}"), version));
                }
            }
        });
        let config = WorkerConfig { concurrency: PLACES as usize, ..config(&plane) };
        let worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
        plane.until(|state| state.events.iter().all(|delivery| delivery.completion.is_some())).await;
        let most = *target.most.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(most, (PLACES, 1));
        worker.stop().await;
    }
}

#[tokio::test]
async fn events_that_arrive_together_reach_the_target_together() {
    let plane = Plane::start().await;
    let target = Gated::new();
    plane.change(|state| {
        state.watches = true;
        for version in 1..=16 {
            state.publish(configuration(&format!("user-{version}"), version));
        }
    });
    let worker = Running::start(config(&plane), Arc::clone(&target) as Arc<dyn Target>);
    // None ends before all have begun.
    for version in 1..=16 {
        target.until_started(version).await;
    }
    target.open.send_replace(true);
    plane.until(|state| state.events.iter().all(|delivery| delivery.completion.is_some())).await;
    worker.stop().await;
}

#[tokio::test]
async fn one_call_renews_all_claims() {
    let plane = Plane::start().await;
    let target = Gated::new();
    plane.change(|state| {
        state.watches = true;
        for version in 1..=8 {
            state.publish(configuration(&format!("user-{version}"), version));
        }
    });
    let lease = Duration::from_secs(3);
    let worker =
        Running::start(WorkerConfig { lease, ..config(&plane) }, Arc::clone(&target) as Arc<dyn Target>);
    let state = plane.until(|state| state.events.iter().all(|delivery| delivery.renewals >= 4)).await;
    let renewals = state.looks.iter().filter(|look| look.held.len() == 8).count();
    assert!(renewals >= 4 && state.looks.len() <= renewals + 2, "{renewals} of {}", state.looks.len());
    assert!(state.looks.iter().all(|look| look.limit == 1));
    target.open.send_replace(true);
    let state = plane.until(|state| state.events.iter().all(|delivery| delivery.completion.is_some())).await;
    assert!(state.events.iter().all(|delivery| delivery.event.attempt == 1));
    worker.stop().await;
}

#[tokio::test]
async fn what_was_claimed_and_not_begun_is_given_back() {
    let plane = Plane::start().await;
    let event = plane.change(|state| {
        state.before = Arc::new(|_, rpc, _| (rpc == "fetch").then(|| Status::unavailable("not now")));
        state.publish(configuration("ann", 1))
    });
    let worker = Running::start(config(&plane), Gated::new());
    plane.until(|state| state.calls("fetch") > 0).await;
    let reports = worker.stop().await;
    let state = plane.state();
    assert_eq!(state.released, std::slice::from_ref(&event));
    let delivery = state.delivery(&event);
    assert_eq!(
        (delivery.event.attempt, delivery.claim.is_none(), delivery.completion.is_none()),
        (0, true, true)
    );
    assert!(reports.iter().any(|report| matches!(report, Report::Released { .. })), "{reports:?}");
}

#[tokio::test]
async fn an_apply_that_does_not_end_holds_a_stop_up_for_a_while_only() {
    let plane = Plane::start().await;
    let target = Gated::new();
    let event = plane.publish("ann", 1);
    let config = WorkerConfig { stop_grace: Duration::from_millis(100), ..config(&plane) };
    let worker = Running::start(config, Arc::clone(&target) as Arc<dyn Target>);
    target.until_started(1).await;
    assert_eq!(worker.stop().await.last(), Some(&Report::Stopped));
    assert_eq!(plane.state().completion(&event), None);
}

/// Takes a slot in part.
#[derive(Debug)]
struct Partly;

#[async_trait]
impl Target for Partly {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let result = |resource: &str, reason: &str| ResourceResult {
            resource: resource.to_owned(),
            applied: reason.is_empty(),
            reason: reason.to_owned(),
        };
        Ok(Applied {
            version: configuration.version,
            checksum: configuration.checksum.clone(),
            resources: vec![result("openai", ""), result("broken", "no such schema")],
        })
    }
}

#[tokio::test]
async fn a_slot_that_is_applied_in_part_is_reported_as_such() {
    let plane = Plane::start().await;
    let event = plane.publish("ann", 1);
    let worker = Running::start(config(&plane), Arc::new(Partly));
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    let completion = state.completion(&event).expect("it completed");
    assert!(completion.success && completion.error_message.is_empty());
    let resources: Vec<_> =
        completion.resources.iter().map(|result| (result.resource.as_str(), result.applied)).collect();
    assert_eq!(resources, [("broken", false), ("openai", true)]);
    let report = worker.until(|report| matches!(report, Report::Applied { .. })).await;
    let Report::Applied { rejected, .. } = report else { unreachable!() };
    let expected = RejectedResource { resource: "broken".to_owned(), reason: "no such schema".to_owned() };
    assert_eq!(rejected, [expected]);
    worker.stop().await;
}

#[tokio::test]
async fn many_workers_share_a_connection() {
    let plane = Plane::start().await;
    plane.change(|state| state.watches = true);
    let endpoint = tonic::transport::Endpoint::from_shared(plane.base_url()).expect("an address");
    let channel = endpoint.connect_lazy();
    let target = Gated::new();
    target.open.send_replace(true);
    let workers: Vec<_> = (0..100)
        .map(|number| {
            let config = WorkerConfig { worker_id: format!("worker-{number}"), ..config(&plane) };
            let target = Arc::clone(&target) as Arc<dyn Target>;
            Running::start_with(config, target, |worker| worker.with_channel(channel.clone()))
        })
        .collect();
    plane.until(|state| state.calls("watch") == 100).await;
    let event = plane.publish("ann", 1);
    plane.until(|state| state.completion(&event).is_some()).await;
    assert_eq!(*target.started.borrow(), [1], "only one of them applies it");
    for worker in workers {
        assert_eq!(worker.stop().await.last(), Some(&Report::Stopped));
    }
}
