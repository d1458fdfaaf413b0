//! Measure 2: claims and completions in batches of 100, beside the same two updates as raw SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentrouter_kernel::id::{Event, Id};
use agentrouter_storage::{Db, Sql, Value, query};
use anyhow::{Context, Result, ensure};
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::{Fleet, UNAUDITED};
use crate::postgres::Meter;
use crate::server;
use crate::stats::{Millis, Rates, figure};
use crate::worker::{self, Client};

const RUNS: usize = 5;
/// Few, as more only wait for the same two cores.
const WORKERS: usize = 8;
const BATCH: usize = 100;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let events = bench.size(10_000, 400);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "batch", events).await?;
    let key = fleet.admin_key(&site.api).await?;
    let (mut grpc, mut by_hand, mut pairs) = (Vec::new(), Vec::new(), Vec::new());
    let mut cost = None;
    for run in 0..2 * RUNS {
        let ids = fleet.events(site.db(), &site.api).await?;
        let batches = ids.chunks(BATCH).map(<[_]>::to_vec).collect();
        let meter = Meter::start(site.db()).await?;
        let started = Instant::now();
        if run % 2 == 0 {
            pairs.extend(through_grpc(&site, &key, batches).await?);
            grpc.push(figure(events) / started.elapsed().as_secs_f64());
            cost = meter.stop(site.db()).await?;
        } else {
            raw(site.db(), batches).await?;
            by_hand.push(figure(events) / started.elapsed().as_secs_f64());
        }
    }
    let (grpc, by_hand) = (Rates::new(grpc), Rates::new(by_hand));
    let ratio = grpc.median() / by_hand.median();
    bench.line(
        "batch",
        format_args!(
            "{events} events in batches of {BATCH}, {RUNS} runs, {WORKERS} in flight: events/s through \
                 gRPC {grpc}; raw SQL {by_hand}; ratio {ratio:.2}"
        ),
    );
    bench.line("batch", format_args!("the two calls of a batch: {}", Millis::new(pairs)));
    if let Some(cost) = cost {
        bench.line("batch", format_args!("through gRPC, last run: {}", cost.per_event(events)));
    }
    bench.judge(&bars::BATCH, grpc.median());
    site.close_and_count(bench, "batch").await
}

/// Takes the batches of a list with some workers. Returns how long each batch took.
pub(crate) async fn through_grpc(site: &Site, key: &str, batches: Vec<Vec<String>>) -> Result<Vec<Duration>> {
    let batches = Arc::new(Mutex::new(batches));
    let mut workers = JoinSet::new();
    for index in 0..WORKERS {
        let mut client = Client::new(server::api(site.running.address, key).await?);
        let batches = Arc::clone(&batches);
        workers.spawn(async move {
            let (worker_id, mut took) = (format!("worker-{index}"), Vec::new());
            loop {
                let next = batches.lock().await.pop();
                let Some(events) = next else { return anyhow::Ok(took) };
                let started = Instant::now();
                worker::batch(&mut client, &events, &worker_id).await?;
                took.push(started.elapsed());
            }
        });
    }
    let took: Result<Vec<_>> = workers.join_all().await.into_iter().collect();
    Ok(took?.concat())
}

/// Two durable updates for each batch, by the keys of its rows.
async fn raw(db: &Db, batches: Vec<Vec<String>>) -> Result<()> {
    const CLAIM: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET status = 'acknowledged', attempt = attempt + 1, worker_id = $2, \
             due_at = :now + 30000000, acknowledged_at = :now WHERE id IN (SELECT unhex(value) FROM json_each($1)) \
             AND CASE status WHEN 'pending' THEN TRUE ELSE FALSE END",
        postgres: "UPDATE liaison_configuration_events SET status = 'acknowledged', attempt = attempt + 1, worker_id = $2, \
             due_at = :now + 30000000, acknowledged_at = :now WHERE id = ANY($1) \
             AND CASE status WHEN 'pending' THEN TRUE ELSE FALSE END",
    };
    const COMPLETE: Sql = Sql::Each {
        sqlite: "UPDATE liaison_configuration_events SET status = 'applied', outcome = 'applied', is_open = FALSE, due_at = NULL, \
             completed_at = :now WHERE id IN (SELECT unhex(value) FROM json_each($1)) AND worker_id = $2 \
             AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND due_at > :now",
        postgres: "UPDATE liaison_configuration_events SET status = 'applied', outcome = 'applied', is_open = FALSE, due_at = NULL, \
             completed_at = :now WHERE id = ANY($1) AND worker_id = $2 \
             AND CASE status WHEN 'acknowledged' THEN TRUE ELSE FALSE END AND due_at > :now",
    };
    let batches = Arc::new(Mutex::new(batches));
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let (batches, db) = (Arc::clone(&batches), db.clone());
        workers.spawn(async move {
            loop {
                let next = batches.lock().await.pop();
                let Some(events) = next else { return anyhow::Ok(()) };
                let ids: Option<Vec<_>> =
                    events.iter().map(|event| Id::<Event>::parse(event).map(Id::uuid)).collect();
                let ids = ids.context("an id of an event")?;
                for statement in [CLAIM, COMPLETE] {
                    let mut tx = db.begin().await?;
                    let touched = query(statement)
                        .bind(Value::Uuids(ids.clone()))
                        .bind(format!("worker-{worker}"))
                        .execute(&mut tx)
                        .await?;
                    ensure!(touched == u64::try_from(ids.len())?, "{touched} rows of {}", ids.len());
                    tx.commit_unaudited(UNAUDITED).await?;
                }
            }
        });
    }
    workers.join_all().await.into_iter().collect()
}
