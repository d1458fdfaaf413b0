//! The protos: their format, their lint, and that no client breaks.
//!
//! `proto/baseline.binpb` is the contract that clients may already rely on. It is kept equal to the protos, so that
//! every addition is protected from the commit that makes it, and a break is an act of its own that a reader of the
//! commit sees. A file, not a commit or tag of this repository: a clone may have neither.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::{capture_bytes, run};
use crate::tools::Tool;

const BASELINE: &str = "proto/baseline.binpb";

/// Fails where format, lint or compatibility is broken, or the baseline is behind the protos.
pub(crate) fn check() -> Result<()> {
    run(buf()?.args(["format", "--diff", "--exit-code"])).context("run `cargo xtask proto --write`")?;
    run(buf()?.arg("lint"))?;
    breaking()?;
    let recorded = fs::read(BASELINE).with_context(|| format!("cannot read {BASELINE}"))?;
    ensure!(
        recorded == image()?,
        "{BASELINE} is behind the protos: run `cargo xtask proto --write` and commit it with them"
    );
    println!("the protos are formatted, keep the rules and break nobody");
    Ok(())
}

/// Formats the protos and makes them the new baseline.
pub(crate) fn write(accept_breaking: bool) -> Result<()> {
    run(buf()?.args(["format", "--write"]))?;
    run(buf()?.arg("lint"))?;
    if !accept_breaking && Path::new(BASELINE).exists() {
        breaking().context("clients would break; where that is meant, add --accept-breaking")?;
    }
    fs::write(BASELINE, image()?)?;
    println!("recorded the contract in {BASELINE}");
    Ok(())
}

fn breaking() -> Result<()> {
    run(buf()?.args(["breaking", "--against", BASELINE]))
}

/// The compiled protos without comments and positions, which change no contract.
fn image() -> Result<Vec<u8>> {
    capture_bytes(buf()?.args(["build", "--exclude-source-info", "--output", "-#format=binpb"]))
}

fn buf() -> Result<Command> {
    Ok(Command::new(Tool::Buf.path()?))
}
