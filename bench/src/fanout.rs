//! Measure 4: one trigger to all workspaces of a customer.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::bars;
use crate::bench::Bench;
use crate::fleet::Fleet;
use crate::postgres::Meter;
use crate::stats::{Millis, digits, figure};

const RUNS: usize = 50;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    // The smaller ones show how it grows; the last one is judged.
    let sizes = bench.size([1_000, 3_000, 10_000], [50, 100, 200]);
    let site = bench.site().await?;
    let mut last = None;
    for workspaces in sizes {
        let fleet = Fleet::new(site.db(), &format!("fanout-{workspaces}"), workspaces).await?;
        let (mut triggers, mut layouts, mut wal) = (Vec::new(), Vec::new(), Vec::new());
        for run in 0..RUNS {
            fleet.change(site.db()).await?;
            let meter = Meter::start(site.db()).await?;
            let started = Instant::now();
            let answer = fleet.trigger(&site.api).await?;
            triggers.push(started.elapsed());
            wal.extend(meter.stop(site.db()).await?.map(|cost| cost.wal_bytes));
            ensure!(answer.event_ids.len() == workspaces, "{} events", answer.event_ids.len());
            // The first time there is nothing to supersede; a few more give a median.
            if run % 10 == 0 {
                let started = Instant::now();
                fleet.lay_out(site.db()).await?;
                layouts.push(started.elapsed());
            }
        }
        wal.sort_by(f64::total_cmp);
        let wal = wal
            .get(RUNS / 2)
            .map_or_else(String::new, |bytes| format!("; {} bytes of WAL, median", digits(*bytes)));
        let triggers = Millis::new(triggers);
        bench.line(
            "fanout",
            format_args!(
                "TriggerUpdate to {workspaces} workspaces, with their ids in the answer: {triggers}{wal}"
            ),
        );
        bench.line(
            "fanout",
            format_args!("laying out the events of all {workspaces}: {}", Millis::new(layouts)),
        );
        if let Some((fewer, before)) = last.replace((workspaces, triggers.p50())) {
            let (more, longer) = (figure(workspaces) / figure(fewer), triggers.p50() / before);
            bench.line(
                "fanout",
                format_args!("{more:.1} times the workspaces take {longer:.1} times as long"),
            );
        }
        if Some(&workspaces) == sizes.last() {
            bench.judge(&bars::FANOUT, triggers.p99());
        }
    }
    site.close_and_count(bench, "fanout").await
}
