//! The chaos test, for as long and as often as one likes.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::process::{cargo, run as run_command};

/// What the test prints before the line that tells about a run.
const MARK: &str = "chaos: ";

/// How the test is run.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct Chaos {
    /// How long things go wrong in each run
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// How many runs, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u32,
    /// Seed of the first run's blows; each following run has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs it, with one line for each run; stops at the first that fails, with all that it wrote.
pub(crate) fn run(chaos: Chaos) -> Result<()> {
    let test = ["test", "--package", "agentrouter", "--test", "chaos"];
    run_command(cargo().args(test).arg("--no-run"))?;
    for (number, seed) in (1..=chaos.runs).zip(chaos.seed..) {
        let mut command = cargo();
        command.args(test).args(["--quiet", "--", "--nocapture"]);
        command.env("AGENTROUTER_CHAOS_SECONDS", chaos.seconds.to_string());
        command.env("AGENTROUTER_CHAOS_SEED", seed.to_string());
        let (written, passed) = told(&mut command)?;
        let line = written.lines().find_map(|line| line.strip_prefix(MARK));
        ensure!(passed, "{written}\nrun {number} failed; repeat its blows with --seed {seed}");
        println!("{number}/{} {}", chaos.runs, line.context("the test told nothing")?);
    }
    Ok(())
}

/// Runs the test with its standard error passed through; what it printed, and whether it passed.
fn told(command: &mut Command) -> Result<(String, bool)> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let stdout = BufReader::new(child.stdout.take().context("cargo test has no standard output")?);
    let lines = stdout.lines().collect::<std::io::Result<Vec<_>>>()?;
    Ok((lines.join("\n"), child.wait()?.success()))
}
