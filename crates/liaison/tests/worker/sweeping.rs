//! Looking for drift.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::{Configuration, ObservedSlot};
use agentrouter_liaison::{Applied, DirTarget, Rejected, Target, WorkerConfig};
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::plane::{Plane, Sweep, configuration};
use crate::running::{Gated, Running, config};

fn sweeping(plane: &Plane, interval: Duration) -> WorkerConfig {
    plane.change(|state| (state.syncs, state.watches) = (true, true));
    WorkerConfig { sweep_interval: interval, full_sync_every: 3, ..config(plane) }
}

#[tokio::test]
async fn everything_is_checked_at_the_start_and_every_third_sweep() {
    let plane = Plane::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let target = DirTarget::open(folder.path()).expect("a folder");
    let event = plane.publish("ann", 1);
    let worker = Running::start(sweeping(&plane, Duration::from_millis(100)), Arc::new(target));
    let told = [("ann".to_owned(), 1)];
    let tells = |sweep: &Sweep| sweep.observed == told;
    let state = plane.until(|state| state.sweeps.len() >= 8 && state.sweeps.last().is_some_and(tells)).await;
    assert!(state.completion(&event).is_some());
    let kinds: Vec<_> = state.sweeps.iter().take(8).map(|sweep| sweep.full_sync).collect();
    // The start's full sync, and for a target that tells all it runs a look at global slots, too.
    assert_eq!(kinds, [true, false, false, false, true, false, false, true]);
    assert!(state.sweeps.iter().all(|sweep| sweep.is_complete));
    worker.stop().await;
}

#[tokio::test]
async fn a_target_that_cannot_tell_leaves_it_to_the_server() {
    let plane = Plane::start().await;
    let target = Gated::new();
    target.open.send_replace(true);
    let worker = Running::start(sweeping(&plane, Duration::from_millis(50)), target);
    let state = plane.until(|state| state.sweeps.len() >= 3).await;
    assert!(state.sweeps.iter().all(|sweep| !sweep.is_complete && sweep.observed.is_empty()));
    worker.stop().await;
}

#[tokio::test]
async fn a_full_sync_that_is_sent_away_comes_back_as_told_and_holds_nothing_up() {
    let plane = Plane::start().await;
    let target = Gated::new();
    target.open.send_replace(true);
    let asked = Duration::from_millis(600);
    let config = sweeping(&plane, Duration::ZERO);
    let event = plane.change(|state| {
        state.before = Arc::new(move |_, rpc, call| {
            (rpc == "full_sync" && call <= 2).then(|| {
                let mut details = ErrorDetails::new();
                details.set_retry_info(Some(asked));
                Status::with_error_details(Code::ResourceExhausted, "too many at once", details)
            })
        });
        state.publish(configuration("ann", 1))
    });
    let started = Instant::now();
    let worker = Running::start(config, target);
    let state = plane.until(|state| state.completion(&event).is_some()).await;
    assert!(state.sweeps.is_empty(), "the delivery does not wait for the sync");
    plane.until(|state| state.sweeps.len() == 1).await;
    assert!(started.elapsed() >= asked * 2, "{:?}", started.elapsed());
    worker.stop().await;
}

/// A data plane that does not say what it runs.
#[derive(Debug, Default)]
struct Mute(tokio::sync::watch::Sender<u32>);

#[async_trait::async_trait]
impl Target for Mute {
    async fn apply(&self, _: &Configuration) -> Result<Applied, Rejected> {
        Err(Rejected::permanent("it only listens"))
    }

    async fn observed(&self) -> Result<Option<Vec<ObservedSlot>>, Rejected> {
        let mut asked = 0;
        self.0.send_modify(|count| {
            *count += 1;
            asked = *count;
        });
        if asked > 1 {
            std::future::pending::<()>().await;
        }
        Ok(Some(Vec::new()))
    }
}

#[tokio::test]
async fn a_data_plane_that_does_not_answer_holds_up_no_stop() {
    let plane = Plane::start().await;
    let target = Arc::new(Mute::default());
    let worker = Running::start(sweeping(&plane, Duration::ZERO), Arc::clone(&target) as Arc<dyn Target>);
    // It is asked once for the full sync, and for the sweep after it.
    let mut asked = target.0.subscribe();
    asked.wait_for(|asked| *asked == 2).await.expect("the target lives");
    worker.stop().await;
    assert_eq!(plane.state().sweeps.len(), 1);
}
