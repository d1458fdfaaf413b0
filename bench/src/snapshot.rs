//! Measure 10: the rate of claims while another session holds an old snapshot.

use std::time::Duration;

use agentrouter_storage::{Engine, Tx, query};
use anyhow::Result;

use crate::bars;
use crate::bench::{self, Bench};
use crate::load::Load;
use crate::stats::Rates;

const STEP: Duration = Duration::from_secs(1);

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    if bench.engine == Engine::Sqlite {
        return Ok(());
    }
    let (quiet, held) = bench.size((10, 60), (3, 5));
    let site = bench.site().await?;
    let mut load = Load::start(&site, bench.size(2_000, 200)).await?;
    load.rate(Duration::from_secs(bench.size(5, 1))).await?;
    let mut before = Vec::new();
    for _ in 0..quiet {
        before.push(load.rate(STEP).await?);
    }
    let db = bench::open(&site.target).await?;
    let mut reader = db.begin().await?;
    query("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ").execute(&mut reader).await?;
    look(&mut reader).await?;
    let (mut early, mut late) = (Vec::new(), Vec::new());
    for second in 0..held {
        let rates = if second < held / 2 { &mut early } else { &mut late };
        rates.push(load.rate(STEP).await?);
        // An idle transaction would be ended.
        look(&mut reader).await?;
    }
    drop(reader);
    db.close().await;
    load.stop(&site).await?;
    let (before, early, late) = (Rates::new(before), Rates::new(early), Rates::new(late));
    bench.line(
        "snapshot",
        format_args!(
            "at full speed: {before} events/s over {quiet} s before, {early} in the first {} s of a \
                 snapshot held for {held} s, {late} in the rest",
            held / 2
        ),
    );
    bench.judge(&bars::SNAPSHOT, late.median() / before.median());
    site.close_and_count(bench, "snapshot").await
}

async fn look(reader: &mut Tx) -> Result<()> {
    query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM customers").value::<i64>(reader).await?;
    Ok(())
}
