//! Claims and completions per second, beside the same two statements as raw SQL.

use std::sync::Arc;
use std::time::Instant;

use agentrouter::server::Running;
use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Db, Target, query};
use anyhow::{Result, ensure};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::server::{self, KEY, engine};
use crate::stats::Rates;

/// Workspaces, and with them events.
const EVENTS: usize = 4_000;
const RUNS: usize = 5;
const WORKERS: usize = 32;

pub(crate) async fn run(target: &Target) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let running = server::in_process(folder.path(), target).await?;
    let api = server::api(&running, KEY).await?;
    let fleet = Fleet::new(&running.db, "claims", EVENTS).await?;
    let key = fleet.admin_key(&api).await?;
    let (mut grpc, mut by_hand) = (Vec::new(), Vec::new());
    // In turns, so that both see the same disk.
    for run in 0..2 * RUNS {
        fleet.change(&running.db).await?;
        let events = fleet.trigger(&api).await?.event_ids;
        ensure!(events.len() == EVENTS, "{} events", events.len());
        fleet.lay_out(&running.db).await?;
        let started = Instant::now();
        let rates = if run % 2 == 0 {
            through_grpc(&running, &key, events).await?;
            &mut grpc
        } else {
            raw(&running.db, events).await?;
            &mut by_hand
        };
        rates.push(f64::from(u32::try_from(EVENTS)?) / started.elapsed().as_secs_f64());
    }
    let (grpc, by_hand) = (Rates::new(grpc), Rates::new(by_hand));
    println!(
        "claims on {}: claim+complete/s through gRPC, {WORKERS} in flight: {grpc}; raw SQL: {by_hand}; ratio {:.2}",
        engine(target),
        grpc.median() / by_hand.median()
    );
    running.stop().await
}

/// Each worker has a connection of its own, as in life.
async fn through_grpc(running: &Running, key: &str, events: Vec<String>) -> Result<()> {
    let events = Arc::new(Mutex::new(events));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let mut client = ConfiguratorServiceClient::new(server::api(running, key).await?);
        let events = Arc::clone(&events);
        workers.spawn(async move {
            loop {
                let next = events.lock().await.pop();
                let Some(event_id) = next else { return anyhow::Ok(()) };
                let claim = pb::AcknowledgeEventRequest {
                    event_id: event_id.clone(),
                    worker_id: format!("worker-{worker}"),
                    lease: None,
                };
                let claim = client.acknowledge_event(claim).await?.into_inner();
                ensure!(claim.success, "{event_id} is held by {}", claim.holder);
                let done = pb::CompleteEventRequest {
                    event_id,
                    success: true,
                    claim_token: claim.claim_token,
                    ..Default::default()
                };
                ensure!(client.complete_event(done).await?.into_inner().success, "not completed");
            }
        });
    }
    workers.join_all().await.into_iter().collect()
}

/// What a claim and a completion cost at least: two durable updates of the event's row by its key.
async fn raw(db: &Db, events: Vec<String>) -> Result<()> {
    const CLAIM: &str = "UPDATE liaison_configuration_events SET status = 'acknowledged', attempt = attempt + 1, \
         worker_id = $2, due_at = :now + 30000000, acknowledged_at = :now \
         WHERE id = $1 AND CASE status WHEN 'pending' THEN TRUE ELSE FALSE END";
    const COMPLETE: &str = "UPDATE liaison_configuration_events SET status = 'applied', outcome = 'applied', is_open = FALSE, \
         due_at = NULL, completed_at = :now WHERE id = $1 AND worker_id = $2 \
         AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND due_at > :now";
    let events = Arc::new(Mutex::new(events));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (events, db) = (Arc::clone(&events), db.clone());
        workers.spawn(async move {
            loop {
                let next = events.lock().await.pop();
                let Some(event) = next.as_deref().and_then(Id::<Event>::parse) else { return anyhow::Ok(()) };
                for statement in [CLAIM, COMPLETE] {
                    let mut tx = db.begin().await?;
                    let touched = query(statement)
                        .bind(event)
                        .bind(format!("worker-{worker}"))
                        .execute(&mut tx)
                        .await?;
                    ensure!(touched == 1, "{event} was not there");
                    tx.commit_unaudited("nothing of a benchmark is audited").await?;
                }
            }
        });
    }
    workers.join_all().await.into_iter().collect()
}
