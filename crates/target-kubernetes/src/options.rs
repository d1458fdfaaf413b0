//! How a namespace is reached and used.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::upgrade::UpgradeOptions;

/// How the API server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By the service account of the pod that the worker runs in.
    InCluster,
    /// By a file of contexts.
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Which of its contexts; the current one where there is none.
        context: Option<String>,
    },
}

/// How a [`KubernetesTarget`](crate::KubernetesTarget) works.
#[derive(Debug, Clone)]
pub struct KubernetesOptions {
    /// The namespace of the data plane.
    pub namespace: String,
    /// Tells several data planes of one namespace apart. A label's value. Replicas of one worker share it.
    pub instance: String,
    /// How configurations become resources.
    pub render: agentrouter_manifests::Options,
    /// How long to wait for another change after one, before all are applied together.
    pub quiet: Duration,
    /// How long to wait at most.
    pub patience: Duration,
    /// Upgrades; none where this worker does not upgrade its data plane.
    pub upgrade: Option<UpgradeOptions>,
}

impl KubernetesOptions {
    /// The defaults.
    pub fn new(namespace: impl Into<String>, render: agentrouter_manifests::Options) -> Self {
        Self {
            namespace: namespace.into(),
            instance: "default".to_owned(),
            render,
            quiet: Duration::from_millis(200),
            patience: Duration::from_secs(2),
            upgrade: None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ConnectError> {
        for (field, value) in [("namespace", &self.namespace), ("instance", &self.instance)] {
            if !is_label(value) {
                return Err(ConnectError(format!(
                    "the {field} must be 1 to 63 lower-case letters, digits and hyphens: {value:?}"
                )));
            }
        }
        Ok(())
    }
}

/// A DNS label, as names of namespaces are.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|byte| inner(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Why a cluster cannot be used, for the person who chose it.
#[derive(Debug)]
pub struct ConnectError(String);

impl ConnectError {
    pub(crate) fn in_cluster(error: impl fmt::Display) -> Self {
        Self(format!("this is no pod with a service account, so name a --kubeconfig: {error}"))
    }

    pub(crate) fn kubeconfig(path: &Path, error: impl fmt::Display) -> Self {
        Self(format!("cannot use {}: {error}", path.display()))
    }

    pub(crate) fn client(error: impl fmt::Display) -> Self {
        Self(format!("cannot make a client for the API server: {error}"))
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConnectError {}
