//! The stages of CI, in order: what is cheap and likely to fail comes first.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::builder::PossibleValuesParser;

use crate::process::{cargo, run as run_command};
use crate::{
    behaviours, checklist, conformance, deny, fuzz, layers, lengths, migrations, paths, proto, test, tools,
};

type Stage = (&'static str, fn() -> Result<()>);

const STAGES: &[Stage] = &[
    ("fmt", || run_command(cargo().args(["fmt", "--all", "--", "--check"]))),
    ("layers", layers::check),
    ("paths", paths::check),
    ("lengths", lengths::check),
    ("behaviours", behaviours::check),
    ("checklist", checklist::check),
    ("migrations", migrations::check),
    ("tools", tools::install_all),
    ("proto", proto::check),
    ("deny", deny::check),
    ("clippy", clippy),
    ("doc", doc),
    ("conformance", || conformance::connect(&[])),
    ("fuzz", fuzz::smoke),
    ("test", || test::run(&["--locked".to_owned(), "--no-fail-fast".to_owned()])),
];

/// The names of all stages, for the command line.
pub(crate) fn stage_names() -> PossibleValuesParser {
    PossibleValuesParser::new(STAGES.iter().map(|(name, _)| *name))
}

/// Runs the named stages, or all; goes on after a failed one, so that one run tells everything.
pub(crate) fn run(named: &[String]) -> Result<()> {
    let mut results = Vec::new();
    for (name, stage) in STAGES {
        if named.is_empty() || named.iter().any(|wanted| wanted == name) {
            println!("\n=== {name} ===");
            let started = Instant::now();
            let result = stage();
            if let Err(error) = &result {
                println!("error: {error:#}");
            }
            results.push((*name, started.elapsed(), result.is_ok()));
        }
    }
    summarize(&results)
}

fn summarize(results: &[(&str, Duration, bool)]) -> Result<()> {
    println!("\n=== summary ===");
    for (name, took, ok) in results {
        println!("{:<6} {name:<12} {:>8.1} s", if *ok { "ok" } else { "FAILED" }, took.as_secs_f64());
    }
    let failed: Vec<&str> = results.iter().filter(|(_, _, ok)| !ok).map(|(name, ..)| *name).collect();
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn clippy() -> Result<()> {
    run_command(cargo().args([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "--deny",
        "warnings",
    ]))
}

fn doc() -> Result<()> {
    run_command(
        cargo().args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "--deny warnings"),
    )
}
