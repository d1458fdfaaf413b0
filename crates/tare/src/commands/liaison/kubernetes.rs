//! What `--target kubernetes:<namespace>` needs to know beyond the namespace.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use agentrouter_manifests::{GatewayOptions, Options};
use agentrouter_target_kubernetes::{Access, KubernetesOptions, KubernetesTarget, Registry, UpgradeOptions};

use crate::exit::Failure;

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Options of kubernetes targets")]
pub(super) struct Kubernetes {
    /// A file of contexts; without it, the service account of the pod that this runs in.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of --kubeconfig, instead of its current one.
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// The Gateway of the namespace that routes belong to.
    #[arg(long, value_name = "NAME", default_value = "agentrouter")]
    gateway: String,
    /// Tells the objects of several workers in one namespace apart; replicas of a worker share it.
    #[arg(long, value_name = "NAME", default_value = "default")]
    instance: String,
    /// An image with Helm, for upgrades of the data plane; without it, this worker does not upgrade.
    #[arg(long, value_name = "IMAGE", requires = "helm_registry")]
    helm_image: Option<String>,
    /// Helm's name of the data plane.
    #[arg(long, value_name = "NAME", default_value = "agent-router")]
    helm_release: String,
    /// The chart, where an upgrade names none: `oci://host/path/name`.
    #[arg(long, value_name = "CHART", default_value = "")]
    helm_chart: String,
    /// A place that charts may come from: `host/path`, followed by `=login,...` where it asks for logins.
    #[arg(long, value_name = "PLACE")]
    helm_registry: Vec<Place>,
    /// The service account that Helm runs with.
    #[arg(long, value_name = "NAME", default_value = "agentrouter-upgrade")]
    helm_service_account: String,
    /// How long Helm waits for a release to come up before it goes back, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    helm_timeout: u64,
}

/// A registry as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place(Registry);

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, logins) = text.split_once('=').unwrap_or((text, ""));
        let prefix = prefix.trim_start_matches("oci://").trim_end_matches('/');
        if prefix.is_empty() || prefix.contains("://") {
            return Err("must be host/path of an OCI registry".to_owned());
        }
        let credentials: Vec<String> =
            logins.split(',').filter(|login| !login.is_empty()).map(str::to_owned).collect();
        Ok(Self(Registry { prefix: prefix.to_owned(), credentials }))
    }
}

impl Kubernetes {
    /// Where charts may come from: who names a place for Helm means it.
    pub(super) fn registries(&self) -> impl Iterator<Item = String> {
        self.helm_registry.iter().map(|Place(registry)| registry.prefix.clone())
    }

    /// Uses a namespace.
    pub(super) async fn open(&self, namespace: &str) -> Result<KubernetesTarget, Failure> {
        let access = match &self.kubeconfig {
            Some(path) => Access::Kubeconfig { path: path.clone(), context: self.context.clone() },
            None => Access::InCluster,
        };
        let gateway = GatewayOptions::Existing { name: self.gateway.clone(), namespace: None };
        let mut options = KubernetesOptions::new(namespace, Options { gateway, ..Options::default() });
        options.instance.clone_from(&self.instance);
        options.upgrade = self.helm_image.clone().map(|image| UpgradeOptions {
            image,
            release: self.helm_release.clone(),
            chart: self.helm_chart.clone(),
            registries: self.helm_registry.iter().map(|Place(registry)| registry.clone()).collect(),
            service_account: self.helm_service_account.clone(),
            timeout: Duration::from_secs(self.helm_timeout),
        });
        KubernetesTarget::connect(&access, options).await.map_err(Failure::usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        let place = |prefix: &str, logins: &[&str]| {
            let credentials = logins.iter().map(|login| (*login).to_owned()).collect();
            Ok(Place(Registry { prefix: prefix.to_owned(), credentials }))
        };
        assert_eq!("registry.example/charts".parse(), place("registry.example/charts", &[]));
        assert_eq!(
            "oci://registry.example/=chart,images".parse(),
            place("registry.example", &["chart", "images"])
        );
        for wrong in ["", "=chart", "https://registry.example"] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
