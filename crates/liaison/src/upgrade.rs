//! Upgrades of the data plane itself, for targets that can do them.

use std::fmt;

use agentrouter_api::configurator::RegistryCredential;
use async_trait::async_trait;

use crate::target::Rejected;

/// An upgrade as the management plane asks for it.
#[derive(Clone)]
pub struct Upgrade {
    /// The event that started it: it names the upgrade in every later call.
    pub event_id: String,
    /// The release to run.
    pub target_version: String,
    /// The chart to install, such as `oci://registry.example.com/charts/agent-router`; empty for the installed one.
    pub chart: String,
    /// The registry it comes from; empty where the chart names it.
    pub registry: String,
    /// Values of the chart, a JSON object.
    pub values: serde_json::Value,
    /// Logins to the registries that [`UpgradeState::NeedsCredentials`] asked for.
    pub credentials: Vec<RegistryCredential>,
    /// Whether the target may keep the credentials for later.
    pub persist_credentials: bool,
}

impl fmt::Debug for Upgrade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgrade")
            .field("event_id", &self.event_id)
            .field("target_version", &self.target_version)
            .field("chart", &self.chart)
            .field("registry", &self.registry)
            .field("credentials", &self.credentials.len())
            .finish_non_exhaustive()
    }
}

/// Where an upgrade stands in the data plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpgradeState {
    /// The data plane knows nothing of it.
    Unknown,
    /// It waits for logins, named by slot.
    NeedsCredentials(Vec<String>),
    /// It is under way.
    Running {
        /// A sentence for people.
        message: String,
    },
    /// The new release runs.
    Completed {
        /// The release.
        running_version: String,
    },
    /// The new release did not come up; the old one runs.
    Failed {
        /// Why.
        message: String,
        /// The release that runs.
        running_version: String,
        /// The release that does not.
        failed_version: String,
    },
    /// It was cancelled; the old release runs.
    Cancelled {
        /// The release that runs.
        running_version: String,
    },
    /// It was completed and undone.
    RolledBack {
        /// The release that runs.
        running_version: String,
    },
}

/// Upgrades the data plane. Every call may be repeated, after a restart of the worker, too: what was begun is told
/// by the data plane, not by the worker's memory.
#[async_trait]
pub trait Upgrader: Send + Sync {
    /// Begins an upgrade, or gives one that waits for credentials what it needs. One that is known and does not wait
    /// is left as it is.
    ///
    /// # Errors
    /// [`Rejected`]; permanent where this data plane will never run it, such as a registry it does not allow.
    async fn start(&self, upgrade: &Upgrade) -> Result<(), Rejected>;

    /// Where an upgrade stands.
    ///
    /// # Errors
    /// [`Rejected`] where that cannot be told just now.
    async fn state(&self, event_id: &str) -> Result<UpgradeState, Rejected>;

    /// Asks a running upgrade to return to the release before it. Without effect where it has ended.
    ///
    /// # Errors
    /// [`Rejected`] where that cannot be asked just now.
    async fn cancel(&self, event_id: &str) -> Result<(), Rejected>;

    /// Begins to return from a completed upgrade to the release before it.
    ///
    /// # Errors
    /// [`Rejected`]; permanent where there is nothing to return to.
    async fn rollback(&self, event_id: &str) -> Result<(), Rejected>;
}
