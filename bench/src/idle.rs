//! Measure 6: what workers cost that have nothing to do.

use std::time::Duration;

use anyhow::Result;

use crate::bars;
use crate::bench::{self, Bench};
use crate::fleet::Fleet;
use crate::server::{Process, free_port};
use crate::stats::{digits, figure};
use crate::worker::{Mode, Swarm};

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    for mode in Mode::ALL {
        if let Err(error) = idle(bench, mode).await {
            bench.report.failure("idle", bench.name(), &error.context(format!("workers {}", mode.name())));
        }
    }
    Ok(())
}

async fn idle(bench: &Bench<'_>, mode: Mode) -> Result<()> {
    let workers = bench.size(10_000, 100);
    let window = Duration::from_secs(bench.size(10, 3));
    let target = bench.database().await?;
    let client = reqwest::Client::new();
    let folder = tempfile::tempdir()?;
    // A process of its own, so that the workers are not counted.
    let server = Process::over(&target, folder.path(), free_port()?)?;
    server.ready(&client, "/readyz").await?;
    let db = bench::open(&target).await?;
    let tokens = Fleet::new(&db, "idle", workers).await?.tokens(&db).await?;
    let before = server.resident_kib()?;
    let mut swarm = Swarm::start(server.address(), &tokens, mode).await?;
    // Until all are connected, and have asked once.
    let settled = Duration::from_secs(bench.size(10, 6));
    quiet(&mut swarm, settled).await?;

    let (ticks, statements) = (server.cpu_ticks()?, server.statements(&client).await);
    quiet(&mut swarm, window).await?;
    let (ticks, after) = (server.cpu_ticks()? - ticks, server.resident_kib()?);
    let statements = server.statements(&client).await.zip(statements).map(|(after, before)| after - before);
    drop(swarm);

    let seconds = window.as_secs_f64();
    let cpu = figure(ticks) / seconds;
    let memory = figure(after.saturating_sub(before)) / figure(workers);
    let per_second = statements.map(|statements| statements / seconds);
    let queries = per_second.map_or_else(|| "unknown".to_owned(), digits);
    bench.line(
        "idle",
        format_args!(
            "{workers} workers {} over {} s: {cpu:.1} % of one core, {queries} statements/s, {memory:.1} \
                 KiB of memory each ({after} KiB in all)",
            mode.name(),
            window.as_secs()
        ),
    );
    match mode {
        Mode::Poll(_) => bench.judge(&bars::IDLE_POLL, cpu),
        Mode::LongPoll => {}
        Mode::Watch => {
            bench.judge(&bars::IDLE_WATCH, cpu);
            if let Some(per_second) = per_second {
                bench.judge(&bars::IDLE_QUERIES, per_second);
            }
            bench.judge(&bars::IDLE_MEMORY, memory);
        }
    }
    drop(server);
    db.close().await;
    bench.drop_database(&target).await
}

/// Waits, unless a worker ends or gets an event.
async fn quiet(swarm: &mut Swarm, length: Duration) -> Result<()> {
    let until = tokio::time::Instant::now() + length;
    let outcome = swarm.next(until).await;
    if tokio::time::Instant::now() >= until {
        return Ok(());
    }
    outcome.and_then(|applied| anyhow::bail!("an idle worker got version {}", applied.version))
}
