//! The `agentrouter` program.

use std::process::ExitCode;

use agentrouter::cli::{Cli, Command};
use agentrouter::config::{Config, ServeArgs, StoreConfig, environment};
use agentrouter::server::Signals;
use agentrouter::{copy_store, demo, keys, openapi, server, store, telemetry};
use anyhow::Result;
use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the last word of a program to whoever ran it")]
            {
                eprintln!("agentrouter: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<()> {
    match command {
        Command::Serve(args) => serve(&args).await,
        Command::Migrate(args) => {
            telemetry::start("warn")?;
            store::open_database(&StoreConfig::load(&args)?).await.map(|_| ())
        }
        Command::Keys(command) => {
            telemetry::start("warn")?;
            keys::run(command).await
        }
        Command::CopyStore(args) => {
            telemetry::start("warn")?;
            keys::print(&copy_store::run(&args).await?)
        }
        Command::Demo(args) => demo::run(args).await,
        Command::Openapi => keys::print(&openapi::text()),
    }
}

async fn serve(args: &ServeArgs) -> Result<()> {
    let config = Config::load(args, &environment)?;
    telemetry::start_as(&config.log, config.observability.log_format)?;
    let mut signals = Signals::catch()?;
    // What a start leaves half done does not harm the next one.
    let running = tokio::select! {
        running = server::start(config) => running?,
        () = signals.received() => return Ok(()),
    };
    running.until_signalled(&mut signals).await
}
