//! `tare liaison`: the worker beside a data plane.

mod kubernetes;
mod reports;
mod settings;

use std::sync::Arc;

use agentrouter_liaison::{DirTarget, Target, Worker, WorkerConfig};
use agentrouter_target_agent_router::{AgentRouterOptions, AgentRouterTarget};
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
    /// Where configurations go: `dir:<folder>` keeps one JSON file per slot in a folder of its own;
    /// `agent-router:<folder>` runs Agent Router on this machine, with all it needs in that folder;
    /// `kubernetes:<namespace>` makes them the objects that Agent Router reads in a cluster.
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
    /// The program `aigw` of Agent Router, for agent-router.
    #[arg(long, value_name = "FILE", default_value = "aigw")]
    aigw: std::path::PathBuf,
    /// The program `envoy` that Agent Router runs, for agent-router [default: one that aigw downloads]
    #[arg(long, value_name = "FILE")]
    envoy: Option<std::path::PathBuf>,
    #[command(flatten)]
    kubernetes: kubernetes::Kubernetes,
}

/// Runs a command of the group.
pub(crate) fn run(command: Command, output: Output) -> Result<(), Failure> {
    let Command::Run(run) = command;
    let token = read_token(run.token_file.as_deref())?;
    let mut config = WorkerConfig::new(run.base_url.clone(), token);
    if let Some(worker_id) = &run.worker_id {
        config.worker_id.clone_from(worker_id);
    }
    block_on(async move {
        let signals = Signals::listen()?;
        let (target, gateway) = open(&run).await?;
        let worker = Worker::new(config, target).map_err(Failure::usage)?.on_report(reports::printer(output));
        tracing::info!(worker_id = worker.id(), target = %run.target, "the worker starts");
        let stop = CancellationToken::new();
        let work = async {
            worker.run(stop.clone()).await;
            if let Some(gateway) = gateway {
                gateway.stop().await;
            }
        };
        signals.watch(stop.clone(), work).await;
        Ok(())
    })
}

/// The target, and the same once more where it has to be stopped.
async fn open(run: &Run) -> Result<(Arc<dyn Target>, Option<AgentRouterTarget>), Failure> {
    match &run.target {
        TargetSpec::Dir(folder) => Ok((Arc::new(DirTarget::open(folder).map_err(Failure::other)?), None)),
        TargetSpec::AgentRouter(folder) => {
            let mut options = AgentRouterOptions::new(folder, &run.aigw);
            options.envoy.clone_from(&run.envoy);
            let target = AgentRouterTarget::open(options).map_err(Failure::other)?;
            Ok((Arc::new(target.clone()), Some(target)))
        }
        TargetSpec::Kubernetes(namespace) => Ok((Arc::new(run.kubernetes.open(namespace).await?), None)),
    }
}
