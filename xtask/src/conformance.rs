//! Suites of others, which what we build has to pass as a whole.

use std::process::Command;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use clap::Subcommand;

use crate::process::{cargo, run as run_command};
use crate::tools::Tool;

/// The crate with the server under test, its configuration and the list of cases that may fail.
const SERVER: &str = "agentrouter-gateway-conformance";
const FOLDER: &str = "crates/gateway-conformance";

/// A suite.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Suite {
    /// Connect, gRPC and gRPC-Web as the Connect project understands them
    Connect {
        /// Arguments for the runner, such as `--run 'Timeouts/**'` or `--trace`
        #[arg(last = true)]
        args: Vec<String>,
    },
}

/// Runs a suite.
pub(crate) fn run(suite: &Suite) -> Result<()> {
    match suite {
        Suite::Connect { args } => connect(args),
    }
}

/// Runs the Connect project's suite with everything that the gateway speaks. A case that fails and is not listed is an
/// error, and so is one that is listed and passes.
pub(crate) fn connect(args: &[String]) -> Result<()> {
    let runner = Tool::ConnectConformance.path()?;
    run_command(cargo().args(["build", "--locked", "--package", SERVER]))?;
    let metadata = MetadataCommand::new().no_deps().exec().context("cargo metadata")?;
    let server = metadata.target_directory.join("debug").join(SERVER);
    run_command(
        Command::new(runner)
            .args(["--mode", "server"])
            .args(["--conf", &format!("{FOLDER}/conformance.yaml")])
            .args(["--known-failing", &format!("@{FOLDER}/known-failing.txt")])
            .args(args)
            .arg("--")
            .arg(server),
    )
}
