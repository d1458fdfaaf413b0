//! Measure 17: start to ready, idle memory, and the size of the program.

use std::path::Path;
use std::time::{Duration, Instant};

use agentrouter_storage::Target;
use anyhow::Result;

use crate::bars;
use crate::bench;
use crate::fleet::Fleet;
use crate::report::Report;
use crate::server::{Process, free_port, program};
use crate::stats::{Millis, Rates, figure};

pub(crate) async fn run(report: &Report, quick: bool) -> Result<()> {
    let (runs, workspaces) = if quick { (2, 100) } else { (5, 10_000) };
    let bytes = std::fs::metadata(program()?)?.len();
    report.line("start", "", format_args!("the program has {:.1} MB", figure(bytes) / 1e6));

    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let folder = tempfile::tempdir()?;
        start(folder.path(), &mut starts, &mut resident).await?;
    }
    let (starts, resident) = (Millis::new(starts), Rates::new(resident));
    report.line(
        "start",
        "SQLite",
        format_args!("to ready on an empty database: {starts}; resident when idle: {resident} MB"),
    );
    report.judge(&bars::START, "SQLite", starts.p50());
    report.judge(&bars::MEMORY, "SQLite", resident.median());

    let folder = tempfile::tempdir()?;
    start(folder.path(), &mut Vec::new(), &mut Vec::new()).await?;
    let db = bench::open(&Target::Sqlite(folder.path().join("agentrouter.db"))).await?;
    Fleet::new(&db, "start", workspaces).await?;
    db.close().await;
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        start(folder.path(), &mut starts, &mut resident).await?;
    }
    report.line(
        "start",
        "SQLite",
        format_args!(
            "to ready with {workspaces} workspaces: {}; resident when idle: {} MB",
            Millis::new(starts),
            Rates::new(resident)
        ),
    );
    Ok(())
}

/// Starts the program over a folder, and looks at it when it has settled.
async fn start(folder: &Path, starts: &mut Vec<Duration>, resident: &mut Vec<f64>) -> Result<()> {
    let client = reqwest::Client::new();
    let started = Instant::now();
    let process = Process::agentrouter(folder, free_port()?)?;
    process.ready(&client, "/readyz").await?;
    starts.push(started.elapsed());
    tokio::time::sleep(Duration::from_secs(2)).await;
    resident.push(figure(process.resident_kib()?) * 1024.0 / 1e6);
    Ok(())
}
