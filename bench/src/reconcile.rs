//! Measure 13: reconciling a workspace that has all it should have.

use std::time::Instant;

use agentrouter_api::configurator as pb;
use anyhow::{Context, Result};

use crate::bars;
use crate::bench::Bench;
use crate::fleet::{Fleet, UNAUDITED};
use crate::stats::{Millis, figure};
use crate::worker::Lines;

use agentrouter_storage::{Engine, query};

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let (workspaces, slots, calls) = bench.size((10_000, 200, 500), (50, 20, 20));
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "reconcile", workspaces).await?;
    fleet.converged_slots(site.db(), slots).await?;
    // The workers of some; the others only fill the tables.
    let some = Fleet {
        workspaces: fleet.workspaces.iter().step_by((workspaces / calls).max(1)).copied().collect(),
        ..fleet.clone()
    };
    let tokens = some.tokens(site.db()).await?;
    if bench.engine == Engine::Postgres {
        // As autovacuum would have done long ago.
        let mut tx = site.db().begin().await?;
        query("ANALYZE").execute(&mut tx).await?;
        tx.commit_unaudited(UNAUDITED).await?;
    }
    let lines = Lines::open(site.running.address, 1).await?;
    let (mut took, mut full, mut replayed) = (Vec::new(), Vec::new(), 0_i64);
    for token in &tokens {
        let mut client = lines.client(0, token)?;
        let started = Instant::now();
        let answer = client.reconcile_workspace(pb::ReconcileWorkspaceRequest::default()).await;
        took.push(started.elapsed());
        replayed += i64::from(answer.context("ReconcileWorkspace")?.into_inner().replayed_total);
        let started = Instant::now();
        let answer = client.full_sync_workspace(pb::FullSyncWorkspaceRequest::default()).await;
        full.push(started.elapsed());
        replayed += i64::from(answer.context("FullSyncWorkspace")?.into_inner().replayed_total);
    }
    let took = Millis::new(took);
    bench.line(
        "reconcile",
        format_args!(
            "{workspaces} workspaces with {slots} slots each, all converged: ReconcileWorkspace {took}; \
                 FullSyncWorkspace {}; {replayed} replays",
            Millis::new(full)
        ),
    );
    bench.judge(&bars::RECONCILE, took.p99());
    bench.judge(&bars::RECONCILE_REPLAYS, figure(replayed));
    drop(lines);
    site.close(bench).await
}
