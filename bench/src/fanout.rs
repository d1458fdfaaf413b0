//! One trigger to 10,000 workspaces.

use std::time::Instant;

use agentrouter_storage::Target;
use anyhow::{Result, ensure};

use crate::fleet::Fleet;
use crate::server::{self, KEY, engine};
use crate::stats::Millis;

const WORKSPACES: usize = 10_000;
const RUNS: usize = 50;

pub(crate) async fn run(target: &Target) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let running = server::in_process(folder.path(), target).await?;
    let api = server::api(&running, KEY).await?;
    let fleet = Fleet::new(&running.db, "fanout", WORKSPACES).await?;
    let (mut triggers, mut layouts) = (Vec::new(), Vec::new());
    for run in 0..RUNS {
        fleet.change(&running.db).await?;
        let started = Instant::now();
        let answer = fleet.trigger(&api).await?;
        triggers.push(started.elapsed());
        ensure!(answer.event_ids.len() == WORKSPACES, "{} events", answer.event_ids.len());
        // The first time there is nothing to supersede; a few more give a median.
        if run % 10 == 0 {
            let started = Instant::now();
            fleet.lay_out(&running.db).await?;
            layouts.push(started.elapsed());
        }
    }
    let engine = engine(target);
    println!("fanout on {engine}: TriggerUpdate to {WORKSPACES} workspaces: {}", Millis::new(triggers));
    println!("fanout on {engine}: laying out the events of all of them: {}", Millis::new(layouts));
    running.stop().await
}
