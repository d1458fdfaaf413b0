//! Measure 5: from a trigger to workers that have applied it.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;

use crate::bars;
use crate::batch;
use crate::bench::{Bench, Site};
use crate::fleet::Fleet;
use crate::stats::Millis;
use crate::worker::{Mode, Swarm};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    for mode in Mode::ALL {
        if let Err(error) = alone(bench, mode).await {
            bench.report.failure(
                "convergence",
                bench.name(),
                &error.context(format!("one worker {}", mode.name())),
            );
        }
    }
    for mode in Mode::ALL {
        if let Err(error) = together(bench, mode).await {
            bench.report.failure(
                "convergence",
                bench.name(),
                &error.context(format!("a fleet {}", mode.name())),
            );
        }
    }
    batches(bench).await
}

/// One workspace, one worker.
async fn alone(bench: &Bench<'_>, mode: Mode) -> Result<()> {
    // A poll takes seconds by itself.
    let triggers = if matches!(mode, Mode::Poll(_)) { bench.size(3, 1) } else { bench.size(300, 10) };
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "alone", 1).await?;
    let mut swarm = started(&site, &fleet, mode).await?;
    let (mut received, mut completed) = (Vec::new(), Vec::new());
    for _ in 0..triggers {
        fleet.change(site.db()).await?;
        let started = Instant::now();
        fleet.trigger(&site.api).await?;
        for applied in swarm.take(1, PATIENCE).await? {
            received.push(applied.received - started);
            completed.push(applied.completed - started);
        }
    }
    drop(swarm);
    let received = Millis::new(received);
    bench.line(
        "convergence",
        format_args!(
            "one worker {}, from the call of TriggerUpdate: has the event {received}; has completed it {}",
            mode.name(),
            Millis::new(completed)
        ),
    );
    if !matches!(mode, Mode::Poll(_)) {
        bench.judge(&bars::TRIGGER_P50, received.p50());
        bench.judge(&bars::TRIGGER_P99, received.p99());
    }
    site.close(bench).await
}

/// All workspaces of a customer, a worker each.
async fn together(bench: &Bench<'_>, mode: Mode) -> Result<()> {
    let workspaces = bench.size(10_000, 100);
    let triggers = if matches!(mode, Mode::Poll(_)) { 1 } else { bench.size(3, 2) };
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "together", workspaces).await?;
    let mut swarm = started(&site, &fleet, mode).await?;
    let (mut completed, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..triggers {
        fleet.change(site.db()).await?;
        let started = Instant::now();
        fleet.trigger(&site.api).await?;
        let applied = swarm.take(workspaces, PATIENCE).await?;
        ends.extend(applied.iter().map(|applied| applied.completed - started).max());
        completed.extend(applied.iter().map(|applied| applied.completed - started));
    }
    let retries = swarm.retries();
    drop(swarm);
    let (completed, ends) = (Millis::new(completed), Millis::new(ends));
    bench.line(
        "convergence",
        format_args!(
            "{workspaces} workers {}, {triggers} triggers, from the call to the completion: {completed}; \
                 all of them: {ends}; {retries} calls tried again",
            mode.name()
        ),
    );
    if !matches!(mode, Mode::Poll(_)) {
        bench.judge(&bars::CONVERGED, completed.p99());
    }
    site.close(bench).await
}

/// Workers that have applied a first version, and so are connected.
async fn started(site: &Site, fleet: &Fleet, mode: Mode) -> Result<Swarm> {
    let tokens = fleet.tokens(site.db()).await?;
    fleet.trigger(&site.api).await?;
    let mut swarm = Swarm::start(site.running.address, &tokens, mode).await?;
    swarm.take(tokens.len(), PATIENCE).await?;
    // The last ones are still on their way to the next poll.
    tokio::time::sleep(Duration::from_millis(500)).await;
    swarm.retries();
    Ok(swarm)
}

/// The same events, taken in batches by workers that serve many workspaces each.
async fn batches(bench: &Bench<'_>) -> Result<()> {
    let workspaces = bench.size(10_000, 200);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "batches", workspaces).await?;
    let key = fleet.admin_key(&site.api).await?;
    let mut ends = Vec::new();
    for _ in 0..bench.size(5, 2) {
        fleet.change(site.db()).await?;
        let started = Instant::now();
        let events = fleet.trigger(&site.api).await?.event_ids;
        let batches = events.chunks(100).map(<[_]>::to_vec).collect();
        batch::through_grpc(&site, &key, batches).await?;
        ends.push(started.elapsed());
    }
    bench.line(
        "convergence",
        format_args!(
            "{workspaces} workspaces served by 8 workers in batches of 100, told of their events by the \
                 trigger: all of them {}",
            Millis::new(ends)
        ),
    );
    site.close(bench).await
}
