//! The project's own tasks, run as `cargo xtask <task>`: everything that cargo alone cannot do.
//!
//! Owns the versions of the tools, the throw-away PostgreSQL of the tests and the stages of CI. It depends on no
//! crate of ours and knows nothing of the product, so that it still runs when the product does not build.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program speaks to its terminal"
)]

mod behaviours;
mod chaos;
mod checklist;
mod ci;
mod cited;
mod conformance;
mod deny;
mod fuzz;
mod layers;
mod lengths;
mod migrations;
mod openapi;
mod paths;
mod proto;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{postgres, process, tools};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The project's own tasks", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show which tests prove which promised behaviour; fail where one has none
    Behaviours,
    /// Kill servers, workers and the database at random, and see that everything converges
    Chaos(chaos::Chaos),
    /// Show which tests decide the points of the gateway's checklist; fail where one has none
    Checklist {
        /// Write it into the crate's README
        #[arg(long)]
        write: bool,
    },
    /// Run every stage of CI, or only those named
    Ci {
        /// Stages to run, in the order of a full run
        #[arg(value_parser = ci::stage_names())]
        stages: Vec<String>,
    },
    /// Run a conformance suite of others
    Conformance {
        #[command(subcommand)]
        suite: conformance::Suite,
    },
    /// Check bans, licences and sources of the dependencies
    Deny,
    /// Look for inputs that break the gateway, guided by coverage
    Fuzz(fuzz::Fuzz),
    /// Check which crate depends on which
    Layers,
    /// List the Rust files that have grown long
    Lengths,
    /// Check that both engines have the same migrations and that none was edited
    Migrations {
        /// Record new migrations in the lock file
        #[arg(long)]
        write: bool,
    },
    /// Check that docs/openapi.json is the document of the protos
    Openapi {
        /// Write it
        #[arg(long)]
        write: bool,
    },
    /// Check that no tracked file names a folder of somebody's machine
    Paths,
    /// Check format, lint and compatibility of the protos
    Proto {
        /// Format the protos and record the current contract as the one to stay compatible with
        #[arg(long)]
        write: bool,
        /// With --write: record it even where it breaks clients
        #[arg(long, requires = "write")]
        accept_breaking: bool,
    },
    /// Run all tests against a throw-away PostgreSQL
    Test {
        /// Arguments for `cargo test`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Install the tools that the other tasks use
    Tools,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    std::env::set_current_dir(process::workspace_root()?)?;
    match task {
        Task::Behaviours => behaviours::check(),
        Task::Chaos(chaos) => chaos::run(chaos),
        Task::Checklist { write: false } => checklist::check(),
        Task::Checklist { write: true } => checklist::write(),
        Task::Ci { stages } => ci::run(&stages),
        Task::Conformance { suite } => conformance::run(&suite),
        Task::Deny => deny::check(),
        Task::Fuzz(fuzz) => fuzz::run(&fuzz),
        Task::Layers => layers::check(),
        Task::Lengths => lengths::check(),
        Task::Migrations { write: false } => migrations::check(),
        Task::Migrations { write: true } => migrations::write(),
        Task::Openapi { write: false } => openapi::check(),
        Task::Openapi { write: true } => openapi::write(),
        Task::Paths => paths::check(),
        Task::Proto { write: false, .. } => proto::check(),
        Task::Proto { write: true, accept_breaking } => proto::write(accept_breaking),
        Task::Test { args } => test::run(&args),
        Task::Tools => tools::install_all(),
    }
}
