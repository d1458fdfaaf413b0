//! Prints figures of the management plane. `README.md` says what is measured and how.

#![expect(clippy::print_stdout, reason = "printing is what this program is for")]

mod bars;
mod batch;
mod bench;
mod burst;
mod bystander;
mod claims;
mod codec;
mod comeback;
mod convergence;
mod crud;
mod death;
mod envelope;
mod fanout;
mod fleet;
mod herd;
mod idle;
mod liaison;
mod load;
mod noisy;
mod peer;
mod postgres;
mod race;
mod reconcile;
mod report;
mod rest;
mod restart;
mod retry;
mod revocation;
mod rivals;
mod server;
mod snapshot;
mod start;
mod stats;
mod worker;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};
use xtask::postgres::{Cluster, Durability};

use crate::bench::Bench;
use crate::peer::Peer;
use crate::report::Report;

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The only engine to measure on.
    #[arg(long, global = true, value_enum)]
    engine: Option<EngineArg>,
    /// A PostgreSQL server to make databases on, instead of a throw-away cluster. It is not restarted.
    #[arg(long, global = true)]
    postgres_url: Option<String>,
    /// Small sizes: shows that everything runs, not how fast.
    #[arg(long, global = true)]
    quick: bool,
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
    #[command(flatten)]
    One(Measure),
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
    /// What `rivals` measures of ours.
    #[command(hide = true)]
    Rival(rivals::Serve),
    /// What `liaison` measures the memory of.
    #[command(hide = true)]
    Workers {
        /// The server.
        base_url: String,
        /// A file with a token per worker, a line each.
        tokens: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
enum Measure {
    /// 17: start to ready, idle memory, size.
    Start,
    /// CPU time of a REST call.
    Rest,
    /// The gateway beside a handler by hand and beside other transcoders.
    Rivals,
    /// Messages between JSON and the wire.
    Codec,
    /// 15: sealing and opening secrets.
    Envelope,
    /// 1: claims and completions, one event a call.
    Claims,
    /// 2: claims and completions in batches.
    Batch,
    /// 3: many workers claim one event.
    Race,
    /// 4: one trigger to 10,000 workspaces.
    Fanout,
    /// 5: from a trigger to workers that have applied it.
    Convergence,
    /// From a trigger to real workers that have applied it, and what they cost.
    Liaison,
    /// 6: what idle workers cost.
    Idle,
    /// 7: many triggers in a second.
    Burst,
    /// 8: workers die with claims.
    Death,
    /// 9: PostgreSQL restarts under load.
    Restart,
    /// 10: claims beside a held snapshot.
    Snapshot,
    /// 11: all workers come back at once.
    Herd,
    /// All watchers come back after a restart.
    Comeback,
    /// 12: a tenant beside a noisy one.
    Noisy,
    /// 13: reconciling what is converged.
    Reconcile,
    /// 14: checking and revoking credentials.
    Revocation,
    /// 16: projects, made and listed.
    Crud,
}

impl Measure {
    /// Those that have nothing to do with the engine.
    const ONCE: [Self; 5] = [Self::Start, Self::Rest, Self::Rivals, Self::Codec, Self::Envelope];
    /// Those of an engine, in the order of their numbers.
    const EACH: [Self; 17] = [
        Self::Claims,
        Self::Batch,
        Self::Race,
        Self::Fanout,
        Self::Convergence,
        Self::Liaison,
        Self::Idle,
        Self::Burst,
        Self::Death,
        Self::Restart,
        Self::Snapshot,
        Self::Herd,
        Self::Comeback,
        Self::Noisy,
        Self::Reconcile,
        Self::Revocation,
        Self::Crud,
    ];

    async fn once(self, report: &Report, quick: bool) -> Result<()> {
        match self {
            Self::Start => start::run(report, quick).await,
            Self::Rest => rest::run(report, quick).await,
            Self::Rivals => rivals::run(report, quick).await,
            Self::Codec => codec::run(report, quick),
            Self::Envelope => envelope::run(report, quick),
            _ => Ok(()),
        }
    }

    async fn on(self, bench: &Bench<'_>) -> Result<()> {
        match self {
            Self::Start | Self::Rest | Self::Rivals | Self::Codec | Self::Envelope => Ok(()),
            Self::Claims => claims::run(bench).await,
            Self::Batch => batch::run(bench).await,
            Self::Race => race::run(bench).await,
            Self::Fanout => fanout::run(bench).await,
            Self::Convergence => convergence::run(bench).await,
            Self::Liaison => liaison::run(bench).await,
            Self::Idle => idle::run(bench).await,
            Self::Burst => burst::run(bench).await,
            Self::Death => death::run(bench).await,
            Self::Restart => restart::run(bench).await,
            Self::Snapshot => snapshot::run(bench).await,
            Self::Herd => herd::run(bench).await,
            Self::Comeback => comeback::run(bench).await,
            Self::Noisy => noisy::run(bench).await,
            Self::Reconcile => reconcile::run(bench).await,
            Self::Revocation => revocation::run(bench).await,
            Self::Crud => crud::run(bench).await,
        }
    }

    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    let chosen = match &cli.command {
        Command::Peer { peer, port, database } => return peer.serve(*port, database).await,
        Command::Rival(serve) => return serve.run().await,
        Command::Workers { base_url, tokens } => return liaison::work(base_url, tokens).await,
        Command::One(measure) => Some(*measure),
        Command::All => None,
    };
    let is_chosen = |measure: &Measure| chosen.is_none_or(|chosen| chosen == *measure);
    let report = Report::new(cli.quick);
    for measure in Measure::ONCE.into_iter().filter(is_chosen) {
        if let Err(error) = measure.once(&report, cli.quick).await {
            report.failure(&measure.name(), "", &error);
        }
    }
    let measures: Vec<_> = Measure::EACH.into_iter().filter(is_chosen).collect();
    let mut benches = Vec::new();
    // Gone when it is dropped, so it stays to the end.
    let mut cluster = None;
    if !measures.is_empty() && cli.engine != Some(EngineArg::Postgres) {
        benches.push(Bench::sqlite(&report, cli.quick)?);
    }
    if !measures.is_empty() && cli.engine != Some(EngineArg::Sqlite) {
        let is_own = cli.postgres_url.is_none();
        let url = match cli.postgres_url {
            Some(url) => url,
            None => cluster.insert(Cluster::start(Durability::Commits)?).url(),
        };
        benches.push(Bench::postgres(&report, cli.quick, url, is_own)?);
    }
    for measure in measures {
        for bench in &benches {
            let started = Instant::now();
            // What one measure cannot do must not hide the others.
            if let Err(error) = measure.on(bench).await {
                report.failure(&measure.name(), bench.name(), &error);
            }
            bench.line(&measure.name(), format_args!("took {:.0} s", started.elapsed().as_secs_f64()));
        }
    }
    report.summary();
    Ok(())
}
