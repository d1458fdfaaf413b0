//! Which releases a worker may install: what its own configuration allows, and nothing else.

use crate::target::Rejected;

/// The charts and registries that upgrades may come from. The default allows nothing, so that no upgrade runs until
/// whoever runs the worker has said where releases may come from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpgradePolicy {
    /// Charts, such as `oci://registry.example.com/charts/gateway`, at any version. One that ends with `/` allows
    /// everything below it.
    pub charts: Vec<String>,
    /// Registries, such as `registry.example.com` or `registry.example.com/team`, with everything below them.
    pub registries: Vec<String>,
}

impl UpgradePolicy {
    /// Whether an upgrade may run. An empty chart is the installed one, and an empty registry the one of the chart:
    /// those were chosen by whoever installed the data plane.
    pub(crate) fn check(&self, chart: &str, registry: &str) -> Result<(), Rejected> {
        if self.charts.is_empty() && self.registries.is_empty() {
            return Err(Rejected::permanent(
                "this worker allows no upgrades: its configuration names no chart and no registry they may come from",
            ));
        }
        if !chart.is_empty() && !self.allows_chart(chart) {
            return Err(Rejected::permanent(format!("this worker does not allow the chart {chart:?}")));
        }
        let comes_with_chart = !chart.is_empty() && is_below(bare(chart), bare(registry));
        if !registry.is_empty() && !comes_with_chart && !self.allows_registry(registry) {
            return Err(Rejected::permanent(format!("this worker does not allow the registry {registry:?}")));
        }
        Ok(())
    }

    fn allows_chart(&self, chart: &str) -> bool {
        let path = bare(chart);
        // Whoever resolves it may take these for something else than they look like.
        if path.contains("//") || path.contains('%') || path.split('/').any(|part| part == "..") {
            return false;
        }
        let named = self.charts.iter().any(|allowed| match allowed.strip_suffix('/') {
            Some(folder) => chart.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/')),
            None => chart == allowed || without_version(chart) == allowed,
        });
        // A chart without an address is one of the machine, and no registry's.
        named || (chart.starts_with("oci://") && self.allows_registry(chart))
    }

    fn allows_registry(&self, registry: &str) -> bool {
        let registry = bare(registry);
        !registry.split('/').any(|part| part == "..")
            && self.registries.iter().any(|allowed| is_below(registry, bare(allowed)))
    }
}

/// An address without its scheme.
fn bare(address: &str) -> &str {
    let address =
        address.strip_prefix("oci://").or_else(|| address.strip_prefix("https://")).unwrap_or(address);
    address.strip_suffix('/').unwrap_or(address)
}

/// Whether an address is another one, or in it. Host names have no case.
fn is_below(address: &str, base: &str) -> bool {
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let (base_host, base_path) = base.split_once('/').unwrap_or((base, ""));
    let inside = path.strip_prefix(base_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    !base_host.is_empty() && host.eq_ignore_ascii_case(base_host) && (base_path.is_empty() || inside)
}

/// A chart without its tag or digest.
fn without_version(chart: &str) -> &str {
    let chart = chart.split_once('@').map_or(chart, |(chart, _)| chart);
    let name_at = chart.rfind('/').map_or(0, |at| at + 1);
    match chart.get(name_at..).and_then(|name| name.find(':')) {
        Some(colon) => chart.get(..name_at + colon).unwrap_or(chart),
        None => chart,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(charts: &[&str], registries: &[&str]) -> UpgradePolicy {
        let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect();
        UpgradePolicy { charts: owned(charts), registries: owned(registries) }
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        let rejected = UpgradePolicy::default().check("", "").expect_err("nothing is allowed");
        assert!(rejected.is_permanent() && rejected.message().contains("names no chart and no registry"));
    }

    #[test]
    fn only_what_is_named_may_run() {
        let policy = policy(&["oci://r.example/charts/gateway", "stable/"], &["R2.example/team"]);
        for (chart, registry) in [
            ("", ""),
            ("oci://r.example/charts/gateway", ""),
            ("oci://r.example/charts/gateway:2.0.0", "r.example"),
            ("oci://r.example/charts/gateway@sha256:00", ""),
            ("stable/gateway", ""),
            ("oci://r2.example/team/gateway", ""),
            ("", "r2.example/team"),
            ("", "oci://r2.example/team/"),
        ] {
            assert_eq!(policy.check(chart, registry), Ok(()), "{chart} {registry}");
        }
        for (chart, registry) in [
            ("oci://r.example/charts/other", ""),
            ("oci://r.example/charts/gateway2", ""),
            ("oci://r.example:5000/charts/gateway", ""),
            ("stable", ""),
            ("stable/../secret", ""),
            ("oci://r2.example/team/../other/gateway", ""),
            ("oci://r2.example/teams/gateway", ""),
            ("oci://r2.example.evil/team/gateway", ""),
            ("https://r2.example/team/gateway.tgz", ""),
            ("stable//etc/gateway", ""),
            ("", "r3.example"),
            ("stable/gateway", "r3.example"),
        ] {
            let rejected = policy.check(chart, registry).expect_err(chart);
            assert!(rejected.is_permanent() && rejected.message().contains("does not allow"), "{rejected}");
        }
    }
}
