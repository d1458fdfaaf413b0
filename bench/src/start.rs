//! Start to ready, and idle memory.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::server::{Process, free_port};
use crate::stats::Millis;

const RUNS: usize = 10;

pub(crate) async fn run() -> Result<()> {
    let client = reqwest::Client::new();
    let (mut starts, mut resident) = (Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let folder = tempfile::tempdir()?;
        let started = Instant::now();
        let process = Process::agentrouter(folder.path(), free_port()?)?;
        process.ready(&client, "/readyz").await?;
        starts.push(started.elapsed());
        tokio::time::sleep(Duration::from_secs(2)).await;
        resident.push(process.resident_kib()?);
    }
    resident.sort_unstable();
    println!("start: to ready on an empty SQLite database: {}", Millis::new(starts));
    println!("start: resident memory when idle: {} KiB", resident.get(RUNS / 2).copied().unwrap_or_default());
    Ok(())
}
