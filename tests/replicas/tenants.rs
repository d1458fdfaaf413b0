//! Tenants that do not get into each other's way, and herds.

use std::time::Duration;

use agentrouter_api::configurator::FullSyncWorkspaceRequest;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_testkit::postgres;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::common::Api;
use crate::common::plane::{
    change, claim, complete, create_customer, create_provider, create_workspace, poll,
};
use crate::common::program::PATIENCE;
use crate::common::scrape::until;
use crate::replicas::{LEASE, Replicas, deliver};

// Behaviour 34: while one tenant fans out to all its workspaces again and again, another one's changes arrive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_tenants_fan_out_does_not_hold_another_up() {
    const FLEET: usize = 30;
    let db = postgres().await;
    let replicas = Replicas::start(&db.target).await;
    let operator = replicas.operator(0);
    for customer in ["big", "small"] {
        create_customer(&operator, customer).await;
    }
    let small = create_workspace(&operator, "small", "edge").await;
    let mut tokens = Vec::new();
    for number in 0..FLEET {
        tokens.push(create_workspace(&operator, "big", &format!("edge-{number}")).await);
    }
    create_provider(&operator, "big").await;
    create_provider(&operator, "small").await;
    apply(&replicas.api(0, &small), Duration::ZERO).await;

    let (stop, mut busy) = (CancellationToken::new(), JoinSet::new());
    let (stopped, writing) = (stop.clone(), replicas.operator(1));
    busy.spawn(async move {
        let mut weight = 1;
        while !stopped.is_cancelled() {
            weight = weight % 1_000 + 1;
            change(&writing, "big", weight).await.unwrap();
        }
    });
    for (number, token) in tokens.iter().enumerate() {
        let (stopped, worker) = (stop.clone(), replicas.api(number % 3, token));
        busy.spawn(async move {
            while !stopped.is_cancelled() {
                apply(&worker, Duration::from_millis(200)).await;
            }
        });
    }
    for turn in 0..6 {
        let weight = i32::try_from(turn).unwrap() + 2;
        deliver(&replicas, turn, "small", &small, weight).await;
    }
    stop.cancel();
    busy.join_all().await;
    // And all of the big one's get its last change.
    change(&operator, "big", 1_001).await.unwrap();
    for (number, token) in tokens.iter().enumerate() {
        let worker = replicas.api(number % 3, token);
        while apply(&worker, Duration::ZERO).await > 0 {}
    }
    replicas.stop().await;
}

/// Applies what waits; how much that was.
async fn apply(worker: &Api, wait: Duration) -> usize {
    let events = poll(worker, wait).await.unwrap();
    for event in &events {
        let held = claim(worker, &event.id, "worker", LEASE).await.unwrap();
        // Another version may have come past it since the poll.
        if held.success {
            assert!(complete(worker, &event.id, &held.claim_token).await.unwrap());
        }
    }
    events.len()
}

// Behaviour 35: when every worker syncs at once, they are let in bit by bit, and who does as told sees no error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_of_full_syncs_is_let_in_bit_by_bit() {
    const HERD: usize = 60;
    let db = postgres().await;
    let replicas = Replicas::with(&db.target, &[("AGENTROUTER_FULL_SYNCS_PER_SECOND", "10")]).await;
    let operator = replicas.operator(0);
    create_customer(&operator, "acme").await;
    let mut herd = JoinSet::new();
    let mut workers = Vec::new();
    for number in 0..HERD {
        let token = create_workspace(&operator, "acme", &format!("edge-{number}")).await;
        let worker = replicas.api(1, &token);
        // It connects now, so that all of the herd come at the same moment.
        poll(&worker, Duration::ZERO).await.unwrap();
        workers.push(worker);
    }
    for worker in workers {
        herd.spawn(async move {
            let mut delays = Vec::new();
            loop {
                match sync(&worker).await {
                    Ok(()) => return delays,
                    Err(status) => {
                        let details = status.get_error_details();
                        let reason = details.error_info().unwrap().reason.clone();
                        assert_eq!(
                            (status.code(), reason.as_str()),
                            (Code::Unavailable, "TOO_MANY_FULL_SYNCS")
                        );
                        let delay = details.retry_info().unwrap().retry_delay.unwrap();
                        assert!(!delay.is_zero() && delay <= Duration::from_secs(90), "{delay:?}");
                        delays.push(delay);
                        tokio::time::sleep(delay).await;
                    }
                }
            }
        });
    }
    let delays = tokio::time::timeout(PATIENCE * 2, herd.join_all()).await.unwrap();
    let first: Vec<_> = delays.iter().filter_map(|delays| delays.first()).collect();
    // Ten a second come in, and on a slow machine the herd takes seconds to arrive.
    assert!(first.len() >= HERD / 4, "many had to come back: {first:?}");
    let (soonest, latest) = (first.iter().min().unwrap(), first.iter().max().unwrap());
    assert!(**latest > 2 * **soonest, "they do not come back all at once: {first:?}");
    let method = "agentrouter.configurator.v1.ConfiguratorService/FullSyncWorkspace";
    let count = |code| format!("rpc_requests_total{{method=\"{method}\",code=\"{code}\"}}");
    let refused: usize = delays.iter().map(Vec::len).sum();
    let refused = f64::from(u32::try_from(refused).unwrap());
    until(&replicas.url(1), "all are counted", |now| {
        now.value(&count("OK")) == f64::from(u32::try_from(HERD).unwrap())
            && now.value(&count("UNAVAILABLE")) == refused
    })
    .await;
    replicas.stop().await;
}

async fn sync(worker: &Api) -> Result<(), Status> {
    let request = FullSyncWorkspaceRequest::default();
    ConfiguratorServiceClient::new(worker.clone()).full_sync_workspace(request).await.map(|_| ())
}
