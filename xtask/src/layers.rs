//! Which crate may depend on which.
//!
//! Kept by a check, since a wrong dependency compiles as well as a right one: the services stay apart from each other,
//! and the crates that others build on stay small.

use anyhow::{Context, Result, ensure};
use cargo_metadata::{DependencyKind, MetadataCommand, Package};

/// Crates of ours a crate may depend on, and what is left to it beyond that.
#[derive(Clone, Copy, Debug)]
enum Allowed {
    /// These only.
    Only(&'static [&'static str]),
    /// Any: it puts the others together.
    Any,
}

/// A crate that only tests may use.
const TESTS_ONLY: &str = "testkit";

/// What a service stands on. Another service is missing on purpose: the one that needs it declares a trait, and the
/// program hands it over.
const SERVICE: Allowed =
    Allowed::Only(&["api", "delivery", "envelope", "kernel", "rpc", "storage", "telemetry"]);

/// Every crate by its short name, the shipped program (the root package) as `agentrouter`.
const RULES: &[(&str, Allowed)] = &[
    ("api", Allowed::Only(&[])),
    ("kernel", Allowed::Only(&[])),
    ("envelope", Allowed::Only(&["kernel"])),
    ("gateway", Allowed::Only(&["api", "kernel"])),
    ("gateway-conformance", Allowed::Only(&["gateway", "listener"])),
    ("gateway-fuzz", Allowed::Only(&["gateway"])),
    // The gateway is for its tests: it stands in front of any service.
    ("gateway-validate", Allowed::Only(&["gateway"])),
    ("prost-reflect-build", Allowed::Only(&[])),
    ("telemetry", Allowed::Only(&[])),
    ("storage", Allowed::Only(&["kernel", "telemetry"])),
    ("delivery", Allowed::Only(&["api", "kernel", "storage", "telemetry"])),
    ("rpc", Allowed::Only(&["api", "envelope", "kernel", "storage", "telemetry"])),
    ("audit", SERVICE),
    ("configurator", SERVICE),
    ("identity", SERVICE),
    ("projects", SERVICE),
    ("providers", SERVICE),
    ("tenancy", SERVICE),
    ("webhooks", SERVICE),
    ("workspaces", SERVICE),
    ("edge", Allowed::Only(&["gateway", "listener", "rpc"])),
    ("listener", Allowed::Only(&[])),
    ("liaison", Allowed::Only(&["api", "kernel"])),
    ("manifests", Allowed::Only(&["api"])),
    ("target-agent-router", Allowed::Only(&["api", "liaison", "manifests"])),
    ("target-kubernetes", Allowed::Only(&["api", "kernel", "liaison", "manifests"])),
    (
        "tare",
        Allowed::Only(&["api", "kernel", "liaison", "manifests", "target-agent-router", "target-kubernetes"]),
    ),
    (TESTS_ONLY, Allowed::Any),
    ("agentrouter", Allowed::Any),
    ("bench", Allowed::Any),
    ("xtask", Allowed::Any),
];

/// One crate of ours depending on another.
#[derive(Debug)]
struct Edge {
    from: String,
    to: String,
    in_tests_only: bool,
}

impl Edge {
    fn fault(&self) -> Option<String> {
        let Self { from, to, in_tests_only } = self;
        let Some((_, allowed)) = RULES.iter().find(|(name, _)| name == from) else {
            return Some(format!("{from}: no rule says what this crate may depend on"));
        };
        if to == TESTS_ONLY {
            return (!in_tests_only).then(|| format!("{from} -> {to}: only a dev-dependency may do that"));
        }
        match allowed {
            Allowed::Any => None,
            Allowed::Only(names) if names.contains(&to.as_str()) => None,
            Allowed::Only([]) => Some(format!("{from} -> {to}: {from} depends on no crate of ours")),
            Allowed::Only(names) => {
                Some(format!("{from} -> {to}: {from} may depend on {}", names.join(", ")))
            }
        }
    }
}

/// Fails with every dependency that goes the wrong way.
pub(crate) fn check() -> Result<()> {
    let metadata = MetadataCommand::new().no_deps().exec().context("cannot read the workspace")?;
    let packages = metadata.workspace_packages();
    let unruled = packages.iter().map(|package| short(&package.name)).filter(|name| !has_rule(name));
    let mut faults: Vec<String> = unruled.map(|name| format!("{name}: no rule in layers.rs")).collect();
    let edges: Vec<Edge> = packages.iter().flat_map(|package| edges(package)).collect();
    faults.extend(edges.iter().filter(|edge| has_rule(&edge.from)).filter_map(Edge::fault));
    ensure!(faults.is_empty(), "dependencies that the layers forbid:\n  {}", faults.join("\n  "));
    println!(
        "{} crates, {} dependencies between them, all in the allowed direction",
        packages.len(),
        edges.len()
    );
    Ok(())
}

fn edges(package: &Package) -> Vec<Edge> {
    let ours = package.dependencies.iter().filter(|dependency| dependency.path.is_some());
    ours.map(|dependency| Edge {
        from: short(&package.name).to_owned(),
        to: short(&dependency.name).to_owned(),
        in_tests_only: dependency.kind == DependencyKind::Development,
    })
    .collect()
}

fn has_rule(name: &str) -> bool {
    RULES.iter().any(|(ruled, _)| *ruled == name)
}

fn short(package: &str) -> &str {
    package.strip_prefix("agentrouter-").unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(from: &str, to: &str, in_tests_only: bool) -> Option<String> {
        Edge { from: from.to_owned(), to: to.to_owned(), in_tests_only }.fault()
    }

    #[test]
    fn layers_point_downwards() {
        for (from, to) in [
            ("agentrouter", "configurator"),
            ("bench", "agentrouter"),
            ("configurator", "envelope"),
            ("tenancy", "storage"),
            ("storage", "kernel"),
            ("rpc", "storage"),
            ("configurator", "delivery"),
            ("rpc", "api"),
            ("tare", "liaison"),
            ("testkit", "identity"),
        ] {
            assert_eq!(fault(from, to, false), None, "{from} -> {to}");
        }
        for (from, to) in [
            ("kernel", "api"),
            ("api", "kernel"),
            ("storage", "rpc"),
            ("rpc", "delivery"),
            ("delivery", "rpc"),
            ("gateway", "tenancy"),
            ("projects", "tenancy"),
            ("tenancy", "agentrouter"),
            ("liaison", "storage"),
            ("liaison", "tare"),
        ] {
            let fault = fault(from, to, false);
            assert!(
                fault.is_some_and(|text| text.starts_with(&format!("{from} -> {to}: "))),
                "{from} -> {to}"
            );
        }
    }

    #[test]
    fn services_stay_apart_in_tests_too() {
        assert!(fault("projects", "tenancy", true).is_some());
    }

    #[test]
    fn the_testkit_is_for_tests() {
        assert_eq!(fault("storage", "testkit", true), None);
        assert!(fault("storage", "testkit", false).is_some());
        assert!(fault("agentrouter", "testkit", false).is_some());
    }

    #[test]
    fn a_crate_without_a_rule_is_a_fault() {
        assert!(fault("newcomer", "kernel", false).is_some_and(|text| text.starts_with("newcomer: ")));
    }

    #[test]
    fn package_names_lose_the_product() {
        assert_eq!(short("agentrouter-kernel"), "kernel");
        assert_eq!(short("agentrouter"), "agentrouter");
        assert_eq!(short("xtask"), "xtask");
    }
}
