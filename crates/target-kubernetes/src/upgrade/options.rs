//! What a worker installs, and from where.

use std::time::Duration;

/// How the data plane is upgraded.
#[derive(Debug, Clone)]
pub struct UpgradeOptions {
    /// The image with the program `helm`.
    pub image: String,
    /// Helm's name of the data plane.
    pub release: String,
    /// The chart, where an upgrade names none, such as `oci://registry.example.com/charts/agent-router`.
    pub chart: String,
    /// Where charts may come from; nothing else is ever installed.
    pub registries: Vec<Registry>,
    /// The service account of the jobs, which may do what the chart needs; not the worker's.
    pub service_account: String,
    /// How long Helm waits for the new release to come up, before it goes back.
    pub timeout: Duration,
}

/// A place that charts may come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// The host, and the path that charts are under, such as `registry.example.com/charts`.
    pub prefix: String,
    /// The names of the logins that it asks for; none where it is public.
    pub credentials: Vec<String>,
}
