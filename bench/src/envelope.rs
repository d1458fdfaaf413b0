//! Measure 15: sealing and opening secrets, on one core.

use std::time::Instant;

use agentrouter_envelope::{Aad, Kek, Keyring};
use anyhow::{Context, Result, ensure};

use crate::bars;
use crate::report::Report;
use crate::stats::{Rates, figure};

const RUNS: usize = 5;
const SECRET: [u8; 1024] = [7; 1024];

pub(crate) fn run(report: &Report, quick: bool) -> Result<()> {
    let secrets: usize = if quick { 500 } else { 50_000 };
    let (old, new) = (|| Kek::new("old", &[1; 32]), || Kek::new("new", &[2; 32]));
    let before = Keyring::new(vec![old()?])?;
    let after = Keyring::new(vec![new()?, old()?])?;
    let aad = || Aad::new("bench").with("customer").with("row");
    let (mut seals, mut opens, mut rewraps) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let rate = |started: Instant| figure(secrets) / started.elapsed().as_secs_f64();
        let started = Instant::now();
        let sealed: Result<Vec<_>, _> = (0..secrets).map(|_| before.seal(&aad(), &SECRET)).collect();
        seals.push(rate(started));
        let sealed = sealed?;
        let started = Instant::now();
        for sealed in &sealed {
            ensure!(before.open(&aad(), sealed)?.expose().len() == SECRET.len(), "another secret");
        }
        opens.push(rate(started));
        let started = Instant::now();
        for sealed in &sealed {
            after.rewrap(sealed, aad)?.context("it is sealed under the old key")?;
        }
        rewraps.push(rate(started));
    }
    let (seals, opens, rewraps) = (Rates::new(seals), Rates::new(opens), Rates::new(rewraps));
    report.line(
        "envelope",
        "",
        format_args!(
            "1 KiB secrets a second on one core, a data key each: seal {seals}, open {opens}, rewrap \
                 under another key {rewraps}"
        ),
    );
    report.judge(&bars::ENVELOPE, "", seals.median().min(opens.median()));
    Ok(())
}
