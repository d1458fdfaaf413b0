//! Measure 1: claims and completions per second, one event a call, beside the same two statements as raw SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Db, query};
use anyhow::{Result, ensure};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::{Fleet, UNAUDITED};
use crate::postgres::Meter;
use crate::server;
use crate::stats::{Millis, Rates, figure};
use crate::worker::{Client, claim_and_complete};

const RUNS: usize = 5;
const WORKERS: usize = 32;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let events = bench.size(10_000, 200);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "claims", events).await?;
    let key = fleet.admin_key(&site.api).await?;
    let (mut grpc, mut by_hand, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    let mut costs = Vec::new();
    // In turns, so that both see the same disk.
    for run in 0..2 * RUNS {
        let ids = fleet.events(site.db(), &site.api).await?;
        ensure!(ids.len() == events, "{} events", ids.len());
        let meter = Meter::start(site.db()).await?;
        let started = Instant::now();
        let rates = if run % 2 == 0 {
            pairs.extend(through_grpc(&site, &key, ids).await?);
            &mut grpc
        } else {
            raw(site.db(), ids).await?;
            &mut by_hand
        };
        rates.push(figure(events) / started.elapsed().as_secs_f64());
        costs.extend(meter.stop(site.db()).await?.map(|cost| (run % 2 == 0, cost)));
    }
    let (grpc, by_hand) = (Rates::new(grpc), Rates::new(by_hand));
    let ratio = grpc.median() / by_hand.median();
    bench.line(
        "claims",
        format_args!(
            "{events} events, {RUNS} runs, {WORKERS} in flight: claim+complete/s through gRPC {grpc}; raw \
                 SQL {by_hand}; ratio {ratio:.2}"
        ),
    );
    bench.line("claims", format_args!("the two calls of an event: {}", Millis::new(pairs)));
    for (title, is_grpc) in [("through gRPC", true), ("raw SQL", false)] {
        if let Some((_, cost)) = costs.iter().rev().find(|(kind, _)| *kind == is_grpc) {
            bench.line("claims", format_args!("{title}, last run: {}", cost.per_event(events)));
        }
    }
    bench.judge(&bars::CLAIMS, grpc.median());
    bench.judge(&bars::CLAIMS_RATIO, ratio);
    site.close_and_count(bench, "claims").await
}

/// Each worker has a connection of its own, as in life. Returns how long each event took.
async fn through_grpc(site: &Site, key: &str, events: Vec<String>) -> Result<Vec<Duration>> {
    let events = Arc::new(Mutex::new(events));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let mut client = Client::new(server::api(site.running.address, key).await?);
        let events = Arc::clone(&events);
        workers.spawn(async move {
            let (worker_id, mut took) = (format!("worker-{worker}"), Vec::new());
            loop {
                let next = events.lock().await.pop();
                let Some(event) = next else { return anyhow::Ok(took) };
                let started = Instant::now();
                ensure!(claim_and_complete(&mut client, &event, &worker_id).await?, "{event} was not free");
                took.push(started.elapsed());
            }
        });
    }
    let took: Result<Vec<_>> = workers.join_all().await.into_iter().collect();
    Ok(took?.concat())
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
                    tx.commit_unaudited(UNAUDITED).await?;
                }
            }
        });
    }
    workers.join_all().await.into_iter().collect()
}
