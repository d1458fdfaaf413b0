//! Prints figures of the management plane. `README.md` says what is measured and how.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod claims;
mod fanout;
mod fleet;
mod rest;
mod server;
mod start;
mod stats;

use std::path::PathBuf;

use agentrouter_storage::Target;
use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// An empty PostgreSQL database to measure on, beside SQLite.
    #[arg(long, global = true)]
    postgres_url: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything.
    All,
    /// Start to ready, and idle memory.
    Start,
    /// Claims and completions per second.
    Claims,
    /// One trigger to 10,000 workspaces.
    Fanout,
    /// CPU time of a REST call.
    Rest,
    /// The hand-written handler that `rest` compares with.
    #[command(hide = true)]
    Peer {
        /// The SQLite file to read.
        database: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Command::Peer { database } = &cli.command {
        return rest::peer(database).await;
    }
    let all = matches!(cli.command, Command::All);
    if all || matches!(cli.command, Command::Start) {
        start::run().await?;
    }
    if all || matches!(cli.command, Command::Rest) {
        rest::run().await?;
    }
    let folder = tempfile::tempdir()?;
    let mut targets = vec![Target::Sqlite(folder.path().join("bench.db"))];
    targets.extend(cli.postgres_url.map(Target::Postgres));
    for target in targets {
        if all || matches!(cli.command, Command::Claims) {
            claims::run(&target).await?;
        }
        if all || matches!(cli.command, Command::Fanout) {
            fanout::run(&target).await?;
        }
    }
    Ok(())
}
