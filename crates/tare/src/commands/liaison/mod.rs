//! `tare liaison`: the worker beside a data plane.

mod kubernetes;
mod options;
mod reports;
mod settings;
mod targets;

use std::time::Duration;

use agentrouter_liaison::{Token, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::signals::Signals;
use crate::tls::TlsArgs;
use crate::{Output, block_on, credential};
use options::Options;
use settings::TargetSpec;
use targets::Targets;

/// How long probes that are being answered hold up the end.
const ANSWERING: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Brings what changes in the management plane to a data plane, until it is stopped.
    ///
    /// The token of the workspace is read from the environment variable AGENTROUTER_API_KEY, or from the file that
    /// --token-file names. Use a workspace token (`IssueWorkspaceToken`): other credentials see no secrets, and may
    /// reach the events of other data planes.
    Run(Box<Run>),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Where configurations go: `dir:<folder>` keeps one JSON file per slot in a folder of its own;
    /// `agent-router:<folder>` runs Agent Router on this machine, with all it needs in that folder;
    /// `kubernetes:<namespace>` makes them the objects that Agent Router reads.
    #[arg(long, value_name = "TARGET")]
    target: TargetSpec,
    /// Where the management plane is: `http://host:port` or `https://host:port`.
    #[arg(long, env = "AGENTROUTER_BASE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    base_url: String,
    #[command(flatten)]
    tls: TlsArgs,
    /// A file with the token, instead of AGENTROUTER_API_KEY.
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// The name of this worker in claims, unlike that of any other [default: the host's name and random characters]
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    #[command(flatten)]
    options: Options,
    #[command(flatten)]
    targets: Targets,
}

/// Runs a command of the group.
pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    let Command::Run(run) = command;
    let run = *run;
    let token = Token::new(credential::TOKEN.read(run.token_file.as_deref())?.as_str());
    let mut config = WorkerConfig::new(run.base_url, token);
    config.tls = run.tls.client();
    config.token_file = run.token_file;
    run.options.apply(&mut config);
    config.upgrades.registries.extend(run.targets.registries());
    if let Some(worker_id) = run.worker_id {
        config.worker_id = worker_id;
    }
    block_on(async move {
        let signals = Signals::listen()?;
        let opened = run.targets.open(&run.target).await?;
        let worker = Worker::new(config, opened.target).map_err(Failure::usage)?;
        let mut worker = worker.on_report(reports::printer(output));
        if let Some(doctor) = opened.doctor {
            worker = worker.with_doctor(doctor);
        }
        // Probes are answered until the worker has stopped, not only until it was asked to.
        let over = CancellationToken::new();
        let serving = match run.options.listen {
            Some(address) => Some(options::serve(address, worker.monitor(), over.clone()).await?),
            None => None,
        };
        tracing::info!(worker_id = worker.id(), target = %run.target, "the worker starts");
        let stop = CancellationToken::new();
        let work = async {
            worker.run(stop.clone()).await;
            if let Some(gateway) = opened.gateway {
                gateway.stop().await;
            }
        };
        signals.watch(stop.clone(), work).await;
        over.cancel();
        if let Some(mut serving) = serving {
            // A client that never ends its request must not keep the program.
            let answered = async { while serving.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(ANSWERING, answered).await;
        }
        Ok(())
    })
}
