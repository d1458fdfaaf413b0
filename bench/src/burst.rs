//! Measure 7: many triggers of one slot in a second become few deliveries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::Fleet;
use crate::server::{self, KEY};
use crate::stats::{digits, figure};
use crate::worker::{Mode, Swarm};

const TRIGGERS_AT_ONCE: usize = 4;
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let (triggers, workspaces) = bench.size((1_000, 1_000), (30, 50));
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "burst", workspaces).await?;
    let tokens = fleet.tokens(site.db()).await?;
    fleet.trigger(&site.api).await?;
    let mut swarm = Swarm::start(site.running.address, &tokens, Mode::LongPoll).await?;
    swarm.take(workspaces, PATIENCE).await?;

    let started = Instant::now();
    let last = burst(&site, &fleet, triggers).await?;
    let took = started.elapsed().as_secs_f64();
    let (mut deliveries, mut applied, mut left) =
        (vec![0_usize; workspaces], vec![0_i64; workspaces], workspaces);
    let deadline = Instant::now() + PATIENCE;
    while left > 0 {
        let next = swarm.next(deadline).await.with_context(|| format!("{left} workspaces are behind"))?;
        *deliveries.get_mut(next.worker).context("a worker")? += 1;
        let version = applied.get_mut(next.worker).context("a worker")?;
        *version = next.version.max(*version);
        left -= usize::from(next.version == last);
    }
    let converged = started.elapsed().as_secs_f64() - took;
    drop(swarm);
    deliveries.sort_unstable();
    let at = |percent: usize| {
        deliveries.get((workspaces * percent / 100).min(workspaces - 1)).copied().unwrap_or_default()
    };
    let sum: usize = deliveries.iter().sum();
    bench.line(
        "burst",
        format_args!(
            "{triggers} triggers in {took:.2} s ({}/s) made {} versions for {workspaces} long-polling \
                 workspaces; {} deliveries a second; per workspace p50 {}, p99 {}, max {}; all at the last \
                 version {converged:.2} s after the last trigger",
            digits(figure(triggers) / took),
            last - 1,
            digits(figure(sum) / (took + converged)),
            at(50),
            at(99),
            at(100)
        ),
    );
    // A burst that takes longer than a second is several.
    bench.judge(&bars::BURST, figure(at(100)) / took.max(1.0));
    site.close(bench).await
}

/// Triggers changed content again and again; returns the last version.
async fn burst(site: &Site, fleet: &Fleet, triggers: usize) -> Result<i64> {
    let left = Arc::new(AtomicUsize::new(triggers));
    let mut tasks = JoinSet::new();
    for _ in 0..TRIGGERS_AT_ONCE {
        let (db, fleet, left) = (site.db().clone(), fleet.clone(), Arc::clone(&left));
        let api = server::api(site.running.address, KEY).await?;
        tasks.spawn(async move {
            let mut last = 0;
            while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            {
                fleet.change(&db).await?;
                let answer = fleet.trigger(&api).await?;
                last = answer.configuration.context("a configuration")?.version.max(last);
            }
            anyhow::Ok(last)
        });
    }
    let lasts: Result<Vec<i64>> = tasks.join_all().await.into_iter().collect();
    lasts?.into_iter().max().context("a trigger")
}
