//! `tare liaison`: the worker beside a data plane.

mod kubernetes;
mod reports;
mod settings;

use std::sync::Arc;

use agentrouter_liaison::{DirTarget, Target, Worker, WorkerConfig};
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;
use crate::signals::Signals;
use crate::{Output, block_on};
use settings::{TargetSpec, read_token};

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Brings what changes in the management plane to a data plane, until it is stopped.
    ///
    /// The token of the workspace is read from the environment variable AGENTROUTER_API_KEY, or from the file that
    /// --token-file names. Use a workspace token (`IssueWorkspaceToken`): other credentials see no secrets, and may
    /// reach the events of other data planes.
    Run(Run),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Where configurations go: `dir:<folder>` keeps one JSON file per slot in a folder of its own,
    /// `kubernetes:<namespace>` makes them the objects that Agent Router reads.
    #[arg(long, value_name = "TARGET")]
    target: TargetSpec,
    /// Where the management plane is: `http://host:port` or `https://host:port`.
    #[arg(long, env = "AGENTROUTER_BASE_URL", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    base_url: String,
    /// A file with the token, instead of AGENTROUTER_API_KEY.
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
    /// The name of this worker in claims, unlike that of any other [default: the host's name and random characters]
    #[arg(long, value_name = "ID")]
    worker_id: Option<String>,
    #[command(flatten)]
    kubernetes: kubernetes::Kubernetes,
}

/// Runs a command of the group.
pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    let Command::Run(run) = command;
    let token = read_token(run.token_file.as_deref())?;
    let mut config = WorkerConfig::new(run.base_url, token);
    if let Some(worker_id) = run.worker_id {
        config.worker_id = worker_id;
    }
    block_on(async move {
        let target = open(&run.target, run.kubernetes).await?;
        let signals = Signals::listen()?;
        let worker = Worker::new(config, target).map_err(Failure::usage)?.on_report(reports::printer(output));
        tracing::info!(worker_id = worker.id(), target = %run.target, "the worker starts");
        let stop = CancellationToken::new();
        signals.watch(stop.clone(), worker.run(stop)).await;
        Ok(())
    })
}

async fn open(target: &TargetSpec, kubernetes: kubernetes::Kubernetes) -> Result<Arc<dyn Target>, Failure> {
    match target {
        TargetSpec::Dir(folder) => Ok(Arc::new(DirTarget::open(folder).map_err(Failure::other)?)),
        TargetSpec::Kubernetes(namespace) => Ok(Arc::new(kubernetes.open(namespace).await?)),
    }
}
