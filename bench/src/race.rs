//! Measure 3: 64 workers claim one event, again and again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agentrouter_api::configurator as pb;
use anyhow::{Context, Result};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::bars;
use crate::bench::Bench;
use crate::fleet::Fleet;
use crate::stats::{Millis, figure};
use crate::worker::Lines;

const RACERS: usize = 64;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let rounds = bench.size(1_000, 20);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "race", rounds).await?;
    let key = fleet.admin_key(&site.api).await?;
    let events: Arc<[String]> = fleet.events(site.db(), &site.api).await?.into();
    let lines = Lines::open(site.running.address, RACERS).await?;
    let start = Arc::new(Barrier::new(RACERS));
    let mut racers = JoinSet::new();
    for racer in 0..RACERS {
        let mut client = lines.client(racer, &key)?;
        let (events, start) = (Arc::clone(&events), Arc::clone(&start));
        racers.spawn(async move {
            let mut answers = Vec::with_capacity(events.len());
            for event in events.iter() {
                start.wait().await;
                let started = Instant::now();
                let claim = pb::AcknowledgeEventRequest {
                    event_id: event.clone(),
                    worker_id: format!("racer-{racer}"),
                    lease: None,
                };
                let answer = client.acknowledge_event(claim).await;
                // Whoever fails still has to meet the others, so errors wait for the end.
                answers.push((answer, started.elapsed()));
            }
            answers
        });
    }
    let (mut wins, mut took, mut slowest) =
        (vec![0_usize; rounds], Vec::new(), vec![Duration::default(); rounds]);
    for answers in racers.join_all().await {
        for (round, (answer, elapsed)) in answers.into_iter().enumerate() {
            let won = usize::from(answer?.into_inner().success);
            *wins.get_mut(round).context("a round")? += won;
            let slowest = slowest.get_mut(round).context("a round")?;
            *slowest = elapsed.max(*slowest);
            took.push(elapsed);
        }
    }
    let doubles = wins.iter().filter(|wins| **wins > 1).count();
    let unclaimed = wins.iter().filter(|wins| **wins == 0).count();
    let slowest = Millis::new(slowest);
    bench.line(
        "race",
        format_args!(
            "{rounds} rounds of {RACERS} workers: {doubles} double claims, {unclaimed} rounds without a \
                 winner"
        ),
    );
    bench.line("race", format_args!("a claim: {}", Millis::new(took)));
    bench.line("race", format_args!("a round, until the last one knows: {slowest}"));
    bench.judge(&bars::RACE_DOUBLE, figure(doubles + unclaimed));
    bench.judge(&bars::RACE, slowest.p99());
    drop(lines);
    site.close(bench).await
}
