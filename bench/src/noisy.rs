//! Measure 12: a tenant beside one that triggers its 10,000 workspaces every second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::bystander::Bystander;
use crate::fleet::Fleet;
use crate::server::{self, KEY};
use crate::worker::{Client, claim_and_complete};

/// Workers of the noisy tenant.
const WORKERS: usize = 32;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let (workspaces, seconds) = bench.size((10_000, 15), (100, 3));
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "bystander", 1).await?;
    let tokens = fleet.tokens(site.db()).await?;
    let mut bystander = Bystander::start(site.db(), site.running.address, &fleet, &tokens).await?;
    let (quiet, ()) = bystander.until(tokio::time::sleep(Duration::from_secs(seconds))).await?;

    let noisy = Fleet::new(site.db(), "noisy", workspaces).await?;
    let (loud, made) = bystander.until(noise(&site, &noisy, seconds)).await?;
    let (triggered, completed) = made?;
    bench.line(
        "noisy",
        format_args!(
            "a trigger to one long-polling worker, applied: quiet {quiet}; beside a tenant that made \
                 {triggered} triggers to {workspaces} workspaces in {seconds} s, of which {WORKERS} workers \
                 completed {completed} events: {loud}"
        ),
    );
    bench.judge(&bars::NOISY, loud.p99() / quiet.p99());
    drop(bystander);
    site.close(bench).await
}

/// A trigger every second, and workers that never get to the end of it. Returns the triggers, and the events completed.
async fn noise(site: &Site, fleet: &Fleet, seconds: u64) -> Result<(usize, usize)> {
    let key = fleet.admin_key(&site.api).await?;
    let (sender, receiver) = mpsc::unbounded_channel::<(usize, String)>();
    let receiver = Arc::new(Mutex::new(receiver));
    // Events of earlier rounds are superseded, and not worth a call.
    let current = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for index in 0..WORKERS {
        let mut client = Client::new(server::api(site.running.address, &key).await?);
        let (receiver, current) = (Arc::clone(&receiver), Arc::clone(&current));
        workers.spawn(async move {
            let (worker_id, mut completed) = (format!("worker-{index}"), 0_usize);
            loop {
                let next = receiver.lock().await.recv().await;
                let Some((round, event)) = next else { return anyhow::Ok(completed) };
                if round == current.load(Ordering::Relaxed) {
                    completed += usize::from(claim_and_complete(&mut client, &event, &worker_id).await?);
                }
            }
        });
    }
    let api = server::api(site.running.address, KEY).await?;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let mut rounds = 0;
    for _ in 0..seconds {
        ticks.tick().await;
        fleet.change(site.db()).await?;
        let events = fleet.trigger(&api).await?.event_ids;
        rounds += 1;
        current.store(rounds, Ordering::Relaxed);
        for event in events {
            sender.send((rounds, event)).ok().context("no worker is left")?;
        }
    }
    ticks.tick().await;
    current.store(0, Ordering::Relaxed);
    drop(sender);
    let completed: Result<Vec<usize>> = workers.join_all().await.into_iter().collect();
    Ok((rounds, completed?.into_iter().sum()))
}
