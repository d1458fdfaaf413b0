//! Prints figures of the management plane. `README.md` says what is measured and how.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod claims;
mod fanout;
mod fleet;
mod peer;
mod rest;
mod server;
mod start;
mod stats;

use std::path::PathBuf;

use agentrouter_storage::Target;
use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use xtask::postgres::{Cluster, Durability};

use crate::peer::Peer;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The only engine to measure claims and fan-out on.
    #[arg(long, global = true, value_enum)]
    engine: Option<EngineArg>,
    /// An empty PostgreSQL database to measure on, instead of one in a throw-away cluster.
    #[arg(long, global = true)]
    postgres_url: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineArg {
    Sqlite,
    Postgres,
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
    /// What `rest` compares with.
    #[command(hide = true)]
    Peer {
        /// How it serves.
        #[arg(value_enum)]
        peer: Peer,
        /// Where it listens, on the loopback interface.
        port: u16,
        /// The SQLite file to read.
        database: PathBuf,
    },
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Command::Peer { peer, port, database } = &cli.command {
        return peer.serve(*port, database).await;
    }
    let all = matches!(cli.command, Command::All);
    if all || matches!(cli.command, Command::Start) {
        start::run().await?;
    }
    if all || matches!(cli.command, Command::Rest) {
        rest::run().await?;
    }
    if !all && !matches!(cli.command, Command::Claims | Command::Fanout) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let mut targets = Vec::new();
    if cli.engine != Some(EngineArg::Postgres) {
        targets.push(Target::Sqlite(folder.path().join("bench.db")));
    }
    // Gone when it is dropped, so it stays to the end.
    let mut cluster = None;
    if cli.engine != Some(EngineArg::Sqlite) {
        let url = match cli.postgres_url {
            Some(url) => url,
            None => cluster.insert(Cluster::start(Durability::Commits)?).url(),
        };
        targets.push(Target::Postgres(url));
    }
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
