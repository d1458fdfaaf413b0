//! Measure 9: PostgreSQL restarts, or loses its connections, under load.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use agentrouter_storage::{Engine, query};
use anyhow::{Context, Result, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use crate::bars;
use crate::bench::{self, Bench, Site};
use crate::load::Load;
use crate::stats::{Rates, digits, figure};

/// How often the rate is read after the blow.
const STEP: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy)]
enum Blow {
    /// Every backend is ended at once.
    Backends,
    /// The server is stopped as if it had crashed, and started.
    Restart,
}

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    if bench.engine == Engine::Sqlite {
        return Ok(());
    }
    strike(bench, Blow::Backends).await?;
    if bench.is_own_cluster {
        strike(bench, Blow::Restart).await?;
    } else {
        bench.line("restart", "the server is not ours, so it is not restarted");
    }
    Ok(())
}

async fn strike(bench: &Bench<'_>, blow: Blow) -> Result<()> {
    let site = bench.site().await?;
    let mut load = Load::start(&site, bench.size(2_000, 200)).await?;
    load.rate(Duration::from_secs(bench.size(3, 1))).await?;
    let mut before = Vec::new();
    for _ in 0..bench.size(16, 4) {
        before.push(load.rate(STEP).await?);
    }
    let before = Rates::new(before);
    let struck = Instant::now();
    blow.strike(&site).await.context("the blow")?;
    let down = struck.elapsed().as_secs_f64();
    let (mut recovered, mut after, mut first) = (None, Vec::new(), Vec::new());
    for _ in 0..bench.size(30, 8) {
        let rate = load.rate(STEP).await?;
        if recovered.is_none() && rate >= 0.99 * before.median() {
            recovered = Some(struck.elapsed().as_secs_f64());
        }
        if first.len() < 8 {
            first.push(digits(rate));
        }
        // What the workers do while the server is away is no rate.
        if recovered.is_some() {
            after.push(rate);
        }
    }
    let after = Rates::new(after);
    let (behind, completed, retries) = load.stop(&site).await?;
    let name = match blow {
        Blow::Backends => "all backends ended",
        Blow::Restart => "the server crashed and started",
    };
    let back = recovered.map_or_else(|| "never".to_owned(), |seconds| format!("after {} s", digits(seconds)));
    bench.line(
        "restart",
        format_args!(
            "{name} (took {down:.1} s): {before} events/s before, 99 % of it {back}, {after} from then on \
                 (the first 4 s: {}); {completed} events, {retries} calls repeated, {behind} workspaces left \
                 behind",
            first.join(", ")
        ),
    );
    bench.judge(&bars::RESTART, recovered.unwrap_or(f64::INFINITY));
    bench.judge(&bars::RESTART_LOST, figure(behind));
    site.close(bench).await
}

impl Blow {
    async fn strike(self, site: &Site) -> Result<()> {
        const TERMINATE: &str = "SELECT CAST(COUNT(pg_terminate_backend(pid)) AS BIGINT) AS value FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()";
        // The server's own connections are about to go.
        let db = bench::open(&site.target).await?;
        match self {
            Self::Backends => {
                let ended = query(TERMINATE).value::<i64>(&db).await?.unwrap_or_default();
                ensure!(ended > 0, "there was no backend to end");
            }
            Self::Restart => {
                let data: Option<String> =
                    query("SELECT current_setting('data_directory') AS value").value(&db).await?;
                crash(Path::new(&data.context("a data directory")?)).await?;
            }
        }
        db.close().await;
        Ok(())
    }
}

/// Stops a cluster without mercy and starts it.
async fn crash(data: &Path) -> Result<()> {
    let pg_ctl = xtask::postgres::binaries()?.join("pg_ctl");
    // The server refuses to run as root; its folder says as whom it runs.
    let (owner, own) = (std::fs::metadata(data)?, std::fs::metadata("/proc/self")?);
    let mut command = if owner.uid() == own.uid() {
        Command::new(pg_ctl)
    } else {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &owner.uid().to_string(),
            "--regid",
            &owner.gid().to_string(),
            "--clear-groups",
        ]);
        command.arg(pg_ctl);
        command
    };
    command.args(["restart", "-s", "-w", "-m", "immediate", "-D"]).arg(data);
    // To a file, since the server keeps what it starts with open, and nobody would read a pipe.
    let log = data.with_file_name("server.log");
    command.arg("-l").arg(&log).stdin(Stdio::null());
    // The server is started with the arguments it had, and its folder may have been a relative one.
    command.current_dir(data.parent().context("a folder around the data")?);
    let status = command.stdout(Stdio::null()).status().await?;
    ensure!(status.success(), "pg_ctl restart: {status}");
    Ok(())
}
