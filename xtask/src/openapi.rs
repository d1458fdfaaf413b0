//! The OpenAPI document in the repository, for those who read the contract, or make clients, without a server.
//!
//! It is a file so that a change of the contract is seen where it is made; a test compares it with what is served.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::process::{capture_bytes, cargo};

const DOCUMENT: &str = "docs/openapi.json";

/// Fails where the file is behind the protos.
pub(crate) fn check() -> Result<()> {
    let kept = fs::read(DOCUMENT).with_context(|| format!("cannot read {DOCUMENT}"))?;
    ensure!(kept == current()?, "{DOCUMENT} is behind the protos: run `cargo xtask openapi --write`");
    println!("{DOCUMENT} is the document of the protos");
    Ok(())
}

/// Writes the file.
pub(crate) fn write() -> Result<()> {
    fs::write(DOCUMENT, current()?)?;
    println!("wrote {DOCUMENT}");
    Ok(())
}

/// What the program says of itself.
fn current() -> Result<Vec<u8>> {
    capture_bytes(cargo().args(["run", "--quiet", "--package", "agentrouter", "--", "openapi"]))
}
