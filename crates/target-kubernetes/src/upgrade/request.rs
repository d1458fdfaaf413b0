//! An upgrade as it will be run: checked, since its words become arguments of a program.

use std::collections::BTreeMap;
use std::fmt;

use agentrouter_api::configurator::RegistryCredential;
use agentrouter_liaison::{Rejected, Upgrade};
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::options::{Registry, UpgradeOptions};
use crate::object::hex;

const SCHEME: &str = "oci://";
const VALUES_FILE: &str = "values.json";
/// As Helm reads logins, in the form that Docker writes them.
const LOGIN_FILE: &str = "config.json";
const KEPT_LOGIN: &str = "agentrouter-registry-login";
const LENGTH_MAX: usize = 512;

/// What goes into a secret.
type Files = BTreeMap<String, ByteString>;

pub(super) struct Request {
    /// With the scheme.
    pub(super) chart: String,
    pub(super) version: String,
    registry: Registry,
    values: Value,
    credentials: Vec<RegistryCredential>,
    persist: bool,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("chart", &self.chart)
            .field("version", &self.version)
            .field("credentials", &self.credentials.len())
            .finish_non_exhaustive()
    }
}

impl Request {
    /// # Errors
    /// Permanent, where this data plane will never run it.
    pub(super) fn new(upgrade: &Upgrade, options: &UpgradeOptions) -> Result<Self, Rejected> {
        let version = upgrade.target_version.clone();
        let in_version = |c: char| c.is_ascii_alphanumeric() || ".+-_".contains(c);
        if version.is_empty()
            || version.len() > LENGTH_MAX
            || version.starts_with('-')
            || !version.chars().all(in_version)
        {
            return Err(Rejected::permanent("the version is none of a chart"));
        }
        let chart = chart(upgrade, options)?;
        let of_chart = |registry: &&Registry| {
            let prefix = registry.prefix.trim_end_matches('/');
            chart.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))
        };
        let Some(registry) = options.registries.iter().find(of_chart) else {
            return Err(Rejected::permanent("this worker does not install charts from there"));
        };
        if !upgrade.values.is_object() && !upgrade.values.is_null() {
            return Err(Rejected::permanent("the values are no object"));
        }
        Ok(Self {
            chart: format!("{SCHEME}{chart}"),
            version,
            registry: registry.clone(),
            values: upgrade.values.clone(),
            credentials: upgrade.credentials.clone(),
            persist: upgrade.persist_credentials,
        })
    }

    /// The logins that are asked for and not there.
    pub(super) fn missing_logins(&self) -> Vec<String> {
        let given = |slot: &&String| !self.credentials.iter().any(|given| given.slot == **slot);
        self.registry.credentials.iter().filter(given).cloned().collect()
    }

    /// The logins as a file; none where none were given.
    pub(super) fn login(&self) -> Option<Files> {
        if self.credentials.is_empty() {
            return None;
        }
        let host = self.registry.prefix.split('/').next().unwrap_or_default();
        let logins = self.credentials.iter().map(|login| {
            let registry = if login.registry.is_empty() { host } else { &login.registry };
            let auth = STANDARD.encode(format!("{}:{}", login.username, login.password));
            (registry.to_owned(), json!({ "auth": auth }))
        });
        let file = json!({ "auths": logins.collect::<BTreeMap<_, _>>() });
        Some(BTreeMap::from([(LOGIN_FILE.to_owned(), ByteString(file.to_string().into_bytes()))]))
    }

    pub(super) fn keeps_login(&self) -> bool {
        self.persist && !self.credentials.is_empty()
    }

    /// The secret with the login for later upgrades.
    pub(super) fn kept_login_name(&self, instance: &str) -> String {
        let hash =
            digest::digest(&digest::SHA256, format!("{instance}\n{}", self.registry.prefix).as_bytes());
        format!("{KEPT_LOGIN}-{}", hex(hash.as_ref().get(..8).unwrap_or_default()))
    }

    pub(super) fn values(&self) -> Result<Files, Rejected> {
        let values = if self.values.is_null() { json!({}) } else { self.values.clone() };
        let text = serde_json::to_vec(&values)
            .map_err(|error| Rejected::permanent(format!("the values cannot be written: {error}")))?;
        Ok(BTreeMap::from([(VALUES_FILE.to_owned(), ByteString(text))]))
    }
}

/// The chart without its scheme.
fn chart(upgrade: &Upgrade, options: &UpgradeOptions) -> Result<String, Rejected> {
    let named = if upgrade.chart.is_empty() { &options.chart } else { &upgrade.chart };
    let registry = upgrade.registry.trim_start_matches(SCHEME).trim_end_matches('/');
    let chart = match named.strip_prefix(SCHEME) {
        Some(chart) => chart.to_owned(),
        None if registry.is_empty() || named.contains("://") => {
            return Err(Rejected::permanent("only charts of OCI registries are installed: oci://…"));
        }
        None => format!("{registry}/{named}"),
    };
    let in_chart = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
    let whole = !chart.split('/').any(|part| part.is_empty() || part.starts_with('.'));
    if chart.len() > LENGTH_MAX || !whole || !chart.chars().all(in_chart) {
        return Err(Rejected::permanent("the name of the chart is none"));
    }
    Ok(chart)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options() -> UpgradeOptions {
        UpgradeOptions {
            image: "helm".to_owned(),
            release: "gateway".to_owned(),
            chart: "oci://registry.example/charts/gateway".to_owned(),
            registries: vec![Registry {
                prefix: "registry.example/charts".to_owned(),
                credentials: vec!["chart".to_owned()],
            }],
            service_account: "upgrader".to_owned(),
            timeout: Duration::from_mins(5),
        }
    }

    fn request(chart: &str, registry: &str, version: &str) -> Result<Request, Rejected> {
        let upgrade = Upgrade {
            event_id: "evt_1".to_owned(),
            target_version: version.to_owned(),
            chart: chart.to_owned(),
            registry: registry.to_owned(),
            values: Value::Null,
            credentials: Vec::new(),
            persist_credentials: false,
        };
        Request::new(&upgrade, &options())
    }

    #[test]
    fn charts_of_allowed_registries() {
        let wanted = "oci://registry.example/charts/gateway";
        for (chart, registry) in [
            ("", ""),
            (wanted, ""),
            ("gateway", "oci://registry.example/charts/"),
            ("charts/gateway", "registry.example"),
        ] {
            let request = request(chart, registry, "1.0.0").expect("an allowed chart");
            assert_eq!(request.chart, wanted);
            assert_eq!(request.missing_logins(), ["chart"]);
        }
    }

    #[test]
    fn nothing_else_is_ever_an_argument() {
        let good = "oci://registry.example/charts/gateway";
        for (chart, registry, version) in [
            ("oci://registry.example.evil/charts/gateway", "", "1"),
            ("oci://registry.example/chartsevil/gateway", "", "1"),
            ("oci://registry.example/charts", "", "1"),
            ("oci://registry.example/charts/../other", "", "1"),
            ("oci://registry.example/charts//x", "", "1"),
            ("oci://registry.example/charts/x --post-renderer=y", "", "1"),
            ("https://registry.example/charts/gateway", "", "1"),
            ("gateway", "", "1"),
            ("--debug", "", "1"),
            (good, "", ""),
            (good, "", "--set=x"),
            (good, "", "1 2"),
        ] {
            let rejected = request(chart, registry, version).expect_err(chart);
            assert!(rejected.is_permanent());
        }
    }
}
