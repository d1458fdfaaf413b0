//! `tare`, the client program of AgentRouter: the command line, and nothing else. What a command does belongs to the
//! server or to the library it calls; here are its settings, its output and its exit code.
//!
//! It is a library only so that tests can run the views against a server of theirs: [`show`].

mod client;
mod commands;
mod credential;
mod exit;
mod json;
mod log;
mod pause;
mod refusal;
mod screen;
mod signals;
mod slot;
mod table;
mod text;
mod times;
mod tls;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use crate::exit::Failure;
use crate::screen::Screen;

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
    /// For people. The worker has nothing to say there but its log on standard error.
    Human,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The worker beside a data plane.
    #[command(subcommand)]
    Liaison(commands::liaison::Command),
    #[command(flatten)]
    View(Box<commands::View>),
}

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran = log::init(&cli.log).and_then(|()| match cli.command {
        Command::Liaison(command) => commands::liaison::run(command, cli.output),
        Command::View(view) => block_on(view.run(cli.output, &mut Screen::stdout())),
    });
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Runs one of the commands that look at a management plane, with its output to wherever the caller wants it. The
/// arguments are those behind the program's name.
///
/// # Errors
/// What the program would print before it exits with [`Failure::code`].
pub async fn show(
    arguments: impl IntoIterator<Item = impl Into<OsString>>,
    out: impl Write + Send + 'static,
) -> Result<(), Failure> {
    let arguments = arguments.into_iter().map(Into::into);
    let cli = Cli::try_parse_from(std::iter::once(OsString::from("tare")).chain(arguments))
        .map_err(Failure::usage)?;
    match cli.command {
        Command::View(view) => view.run(cli.output, &mut Screen::plain(out)).await,
        Command::Liaison(_) => Err(Failure::usage(anyhow::anyhow!("not a view"))),
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
