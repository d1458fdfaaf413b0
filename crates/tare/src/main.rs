//! `tare`, the client program of AgentRouter: the command line, and nothing else. What a command does belongs to the
//! library it calls; here are its settings, its output and its exit code.

mod commands;
mod exit;
mod log;
mod signals;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

use crate::exit::Failure;

/// The client of AgentRouter, the management plane for fleets of AI gateways.
#[derive(Debug, Parser)]
#[command(name = "tare", version, after_help = exit::HELP, propagate_version = true)]
struct Cli {
    /// What to print on standard output.
    #[arg(long, global = true, value_enum, default_value_t = Output::Human)]
    output: Output,
    /// What to log to standard error, such as `debug` or `agentrouter_liaison=debug`.
    #[arg(long, global = true, env = "AGENTROUTER_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
    #[command(subcommand)]
    command: Command,
}

/// The shape of standard output. Standard error is for people either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// Nothing but the log on standard error.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The worker beside a data plane.
    #[command(subcommand)]
    Liaison(commands::liaison::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran = log::init(&cli.log).and_then(|()| match cli.command {
        Command::Liaison(command) => commands::liaison::run(command, cli.output),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs a command's future to its end.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::other(anyhow::Error::new(error).context("cannot start")))?;
    runtime.block_on(future)
}
