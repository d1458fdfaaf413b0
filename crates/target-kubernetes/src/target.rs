//! The namespace as a target of the worker.

use std::fmt;
use std::sync::Arc;

use agentrouter_api::configurator::{Configuration, ObservedSlot};
use agentrouter_liaison::{Applied, Rejected, Target, Upgrader};
use async_trait::async_trait;

use crate::batch::Batch;
use crate::cluster::Cluster;
use crate::doctor::KubernetesDoctor;
use crate::options::{Access, ConnectError, KubernetesOptions};
use crate::pass::Passes;
use crate::state::State;
use crate::upgrade::KubernetesUpgrader;

/// A [`Target`] that is a namespace of a Kubernetes cluster.
///
/// Configurations become the objects that Agent Router reads, by server-side apply; what is not in them any more is
/// removed. What was asked for and applied is kept in the namespace, so that a worker that starts, and replicas of
/// it, know the same. Clones share everything.
#[derive(Clone)]
pub struct KubernetesTarget {
    shared: Arc<Shared>,
}

struct Shared {
    passes: Passes,
    batch: Batch,
    upgrader: Option<KubernetesUpgrader>,
}

impl KubernetesTarget {
    /// Uses a namespace. The cluster need not be reachable yet.
    ///
    /// # Errors
    /// [`ConnectError`] where the options or the files they name make no sense.
    pub async fn connect(access: &Access, options: KubernetesOptions) -> Result<Self, ConnectError> {
        options.check()?;
        let cluster = Cluster::connect(access, &options.namespace).await?;
        let state = State::new(cluster.clone(), &options.instance);
        let batch = Batch::new(options.quiet, options.patience);
        let upgrader = options
            .upgrade
            .map(|upgrade| KubernetesUpgrader::new(cluster.clone(), upgrade, &options.instance));
        let render = agentrouter_manifests::Options { namespace: options.namespace, ..options.render };
        let passes = Passes { cluster, state, instance: options.instance, render };
        Ok(Self { shared: Arc::new(Shared { passes, batch, upgrader }) })
    }

    /// What looks after the data plane's doctor job.
    pub fn doctor(&self) -> KubernetesDoctor {
        KubernetesDoctor::new(self.shared.passes.cluster.clone())
    }
}

impl fmt::Debug for KubernetesTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passes = &self.shared.passes;
        f.debug_struct("KubernetesTarget")
            .field("namespace", &passes.cluster.namespace())
            .field("instance", &passes.instance)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Target for KubernetesTarget {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let passes = &self.shared.passes;
        self.shared.batch.apply(configuration, |asked| async move { passes.run(&asked).await }).await
    }

    async fn observed(&self) -> Result<Option<Vec<ObservedSlot>>, Rejected> {
        self.shared.passes.observed().await.map(Some)
    }

    fn upgrader(&self) -> Option<&dyn Upgrader> {
        self.shared.upgrader.as_ref().map(|upgrader| upgrader as &dyn Upgrader)
    }
}
