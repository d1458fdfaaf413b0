//! The targets, and what each of them needs to know beyond its name.

use std::path::PathBuf;
use std::sync::Arc;

use agentrouter_liaison::{DirTarget, Doctor, Target};
use agentrouter_target_agent_router::{AgentRouterOptions, AgentRouterTarget};

use super::kubernetes::Kubernetes;
use super::settings::TargetSpec;
use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Targets {
    /// The program `aigw` of Agent Router, for agent-router.
    #[arg(long, value_name = "FILE", default_value = "aigw")]
    aigw: PathBuf,
    /// The program `envoy` that Agent Router runs, for agent-router [default: one that aigw downloads]
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    #[command(flatten)]
    kubernetes: Kubernetes,
}

/// A target that is ready to be applied to.
pub(super) struct Opened {
    pub(super) target: Arc<dyn Target>,
    /// The same once more where it has to be stopped.
    pub(super) gateway: Option<AgentRouterTarget>,
    /// Where there may be a doctor job beside it.
    pub(super) doctor: Option<Arc<dyn Doctor>>,
}

impl Opened {
    fn new(target: impl Target + 'static) -> Self {
        Self { target: Arc::new(target), gateway: None, doctor: None }
    }
}

impl Targets {
    /// The registries that a target is told of, and that the worker so allows, too.
    pub(super) fn registries(&self) -> impl Iterator<Item = String> {
        self.kubernetes.registries()
    }

    /// Opens a target.
    pub(super) async fn open(self, spec: &TargetSpec) -> Result<Opened, Failure> {
        match spec {
            TargetSpec::Dir(folder) => Ok(Opened::new(DirTarget::open(folder).map_err(Failure::other)?)),
            TargetSpec::AgentRouter(folder) => {
                let mut options = AgentRouterOptions::new(folder, &self.aigw);
                options.envoy = self.envoy;
                let target = AgentRouterTarget::open(options).map_err(Failure::other)?;
                Ok(Opened { gateway: Some(target.clone()), ..Opened::new(target) })
            }
            TargetSpec::Kubernetes(namespace) => {
                let target = self.kubernetes.open(namespace).await?;
                Ok(Opened { doctor: Some(Arc::new(target.doctor())), ..Opened::new(target) })
            }
        }
    }
}
