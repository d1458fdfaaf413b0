//! Measure 11: all workers come back at once after a restart of the server.

use std::net::SocketAddr;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use anyhow::{Context, Result};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::bars;
use crate::bench::{self, Bench};
use crate::bystander::Bystander;
use crate::fleet::Fleet;
use crate::retry::{asked, is_passing};
use crate::server::{Process, free_port};
use crate::stats::{Millis, figure};
use crate::worker::{Lines, spread};

/// Slots of users that each workspace has.
pub(crate) const SLOTS: usize = 10;
/// Where the server does not say when to come back.
const BACKOFF: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_mins(3);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let workers = bench.size(10_000, 100);
    let target = bench.database().await?;
    let client = reqwest::Client::new();
    let folder = tempfile::tempdir()?;
    let server = Process::over(&target, folder.path(), free_port()?)?;
    server.ready(&client, "/readyz").await?;
    let db = bench::open(&target).await?;
    let fleet = Fleet::new(&db, "herd", workers).await?;
    fleet.converged_slots(&db, SLOTS).await?;
    let tokens = fleet.tokens(&db).await?;
    let alone = Fleet::new(&db, "bystander", 1).await?;
    let alone_tokens = alone.tokens(&db).await?;
    let mut bystander = Bystander::start(&db, server.address(), &alone, &alone_tokens).await?;
    let (quiet, ()) = bystander.until(tokio::time::sleep(Duration::from_secs(bench.size(5, 2)))).await?;
    drop(bystander);
    // Killed, as in a crash.
    drop(server);

    let server = Process::over(&target, folder.path(), free_port()?)?;
    server.ready(&client, "/readyz").await?;
    let mut bystander = Bystander::start(&db, server.address(), &alone, &alone_tokens).await?;
    let (beside, herd) = bystander.until(herd(server.address(), &tokens)).await?;
    let herd = herd?;
    drop(bystander);
    let peak = server.peak_kib()?;
    let served = Millis::new(herd.served);
    bench.line(
        "herd",
        format_args!(
            "{workers} workers connect within a second and ask for a full sync of {SLOTS} slots: served \
                 {served} after the first; {} told to come back later, {} errors that a retry does not \
                 cure{}; at most {} MiB resident",
            herd.later,
            herd.errors,
            herd.example.map(|status| format!(" ({status})")).unwrap_or_default(),
            peak / 1024
        ),
    );
    bench.line(
        "herd",
        format_args!("a bystander's trigger to its completion: quiet {quiet}; beside the herd {beside}"),
    );
    bench.judge(&bars::HERD_DRAINED, served.max() / 1e3);
    bench.judge(&bars::HERD_ERRORS, figure(herd.errors));
    bench.judge(&bars::HERD_BYSTANDER, beside.p99() / quiet.p99());
    drop(server);
    db.close().await;
    bench.drop_database(&target).await
}

#[derive(Debug, Default)]
struct Herd {
    served: Vec<Duration>,
    later: usize,
    errors: usize,
    example: Option<Status>,
}

async fn herd(address: SocketAddr, tokens: &[String]) -> Result<Herd> {
    let lines = Lines::open(address, tokens.len()).await?;
    let started = Instant::now();
    let mut workers = JoinSet::new();
    for (index, token) in tokens.iter().enumerate() {
        let mut client = lines.client(index, token)?;
        workers.spawn(async move {
            tokio::time::sleep_until(started + Duration::from_secs(1).mul_f64(spread(index))).await;
            let mut later = 0_usize;
            loop {
                match client.full_sync_workspace(pb::FullSyncWorkspaceRequest::default()).await {
                    Ok(_) => return (Ok(started.elapsed()), later),
                    Err(status) if is_passing(&status) && started.elapsed() < PATIENCE => {
                        later += 1;
                        tokio::time::sleep(retry_after(&status).mul_f64(1.0 + spread(index + later) / 5.0))
                            .await;
                    }
                    Err(status) => return (Err(status), later),
                }
            }
        });
    }
    let mut herd = Herd::default();
    for (outcome, later) in workers.join_all().await {
        herd.later += later;
        match outcome {
            Ok(served) => herd.served.push(served),
            Err(status) if status.code() == Code::Unimplemented => {
                return Err(status).context("FullSyncWorkspace");
            }
            Err(status) => {
                herd.errors += 1;
                herd.example = Some(status);
            }
        }
    }
    Ok(herd)
}

/// When the server wants to be asked again.
fn retry_after(status: &Status) -> Duration {
    asked(status).unwrap_or(BACKOFF)
}
