//! What runs, and what would run with more.

use std::collections::BTreeMap;

use agentrouter_api::configurator::{ConfigType, Configuration, ResourceResult};
use agentrouter_liaison::{Applied, Slot};
use agentrouter_manifests::{
    GatewayOptions, Options, Rejection, Rendered, Resource, Routes, Snapshot, render, to_file,
};

use crate::options::{AgentRouterOptions, Mode};

/// The configurations that become resources, by slot.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    slots: BTreeMap<Slot, Configuration>,
}

/// A state as `aigw` gets it.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its file.
    pub(crate) text: String,
    /// What the file means to it: texts that differ in notes for people are the same.
    meaning: String,
    /// How many resources there are.
    pub(crate) resources: usize,
    /// Whether any model is routed.
    pub(crate) routes: bool,
    rejected: Vec<Rejection>,
    /// What it was rendered from.
    snapshot: Snapshot,
}

impl State {
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// What is held of the slot of a configuration, where that is newer.
    pub(crate) fn newer(&self, configuration: &Configuration) -> Option<&Configuration> {
        let held = self.slots.get(&Slot::from(configuration))?;
        (held.id == configuration.id && held.version > configuration.version).then_some(held)
    }

    pub(crate) fn put(&mut self, configuration: &Configuration) {
        let slot = Slot::from(configuration);
        if configuration.deleted {
            self.slots.remove(&slot);
        } else {
            self.slots.insert(slot, configuration.clone());
        }
    }

    /// Plans for this state. Of what cannot be rendered, what the plan before has is kept, for as long as this worker
    /// lives.
    pub(crate) fn plan(
        &self,
        before: Option<&Plan>,
        options: &AgentRouterOptions,
    ) -> Result<Plan, serde_json::Error> {
        let mut snapshot: Snapshot = self.slots.values().collect();
        let host_envoy = (options.mode == Mode::Run).then(|| options.envoy_version.clone());
        let gateway = GatewayOptions::Own {
            name: "agentrouter".to_owned(),
            port: options.ports.data,
            drain: options.drain,
            host_envoy,
        };
        let to = Options { gateway, routes: Routes::Few, ..Options::default() };
        let Rendered { mut resources, rejected: mut refused } = render(&snapshot, &to);
        let mut rejected = refused.clone();
        // What is kept of one may be in the way of another, which then is kept as well. None is kept twice.
        while before.is_some_and(|before| keep(&mut snapshot, &before.snapshot, &refused)) {
            Rendered { resources, rejected: refused } = render(&snapshot, &to);
            for new in &refused {
                let same =
                    |old: &Rejection| (old.config_type, &old.resource) == (new.config_type, &new.resource);
                if !rejected.iter().any(same) {
                    rejected.push(new.clone());
                }
            }
        }
        let text = to_file(&resources)?;
        for resource in &mut resources {
            resource.metadata_mut().annotations.clear();
        }
        let routes = resources.iter().any(|resource| matches!(resource, Resource::AIGatewayRoute(_)));
        let meaning = to_file(&resources)?;
        Ok(Plan { text, meaning, resources: resources.len(), routes, rejected, snapshot })
    }
}

/// Puts what was served before in the place of what was rejected. Whether there was any.
fn keep(snapshot: &mut Snapshot, before: &Snapshot, rejected: &[Rejection]) -> bool {
    let is_rejected = |config_type: ConfigType, id: &str| {
        rejected.iter().any(|rejection| rejection.config_type == config_type && rejection.resource == id)
    };
    let mut kept = false;
    if let (Some(now), Some(before)) = (&mut snapshot.providers, &before.providers) {
        for provider in &mut now.providers {
            let old = before.providers.iter().find(|old| old.provider_id == provider.provider_id);
            if let Some(old) = old.filter(|old| is_rejected(ConfigType::Providers, &old.provider_id)) {
                kept |= provider != old;
                provider.clone_from(old);
            }
        }
    }
    if let (Some(now), Some(before)) = (&mut snapshot.mcp_catalog, &before.mcp_catalog) {
        for server in &mut now.servers {
            let old = before.servers.iter().find(|old| old.id == server.id);
            if let Some(old) = old.filter(|old| is_rejected(ConfigType::McpCatalog, &old.id)) {
                kept |= server != old;
                server.clone_from(old);
            }
        }
    }
    kept
}

impl Plan {
    pub(crate) fn means(&self, other: &Self) -> bool {
        self.meaning == other.meaning
    }

    /// What to tell of a configuration that runs with this.
    pub(crate) fn applied(&self, configuration: &Configuration) -> Applied {
        let config_type = configuration.config_type();
        let rejected = self.rejected.iter().filter(|rejection| rejection.config_type == config_type);
        let mut resources: Vec<ResourceResult> = rejected.cloned().map(ResourceResult::from).collect();
        if !resources.is_empty() {
            let refused = |name: &String| resources.iter().any(|result| result.resource == *name);
            let runs: Vec<String> =
                names(config_type, configuration).into_iter().filter(|name| !refused(name)).collect();
            let runs = runs.into_iter().map(|resource| ResourceResult {
                resource,
                applied: true,
                reason: String::new(),
            });
            resources.extend(runs);
        }
        Applied { version: configuration.version, checksum: configuration.checksum.clone(), resources }
    }
}

/// The resources of a configuration by their ids.
fn names(config_type: ConfigType, configuration: &Configuration) -> Vec<String> {
    let snapshot: Snapshot = std::iter::once(configuration).collect();
    match config_type {
        ConfigType::Providers => {
            let providers = snapshot.providers.unwrap_or_default().providers;
            providers.into_iter().map(|provider| provider.provider_id).collect()
        }
        ConfigType::McpCatalog => {
            let servers = snapshot.mcp_catalog.unwrap_or_default().servers;
            servers.into_iter().map(|server| server.id).collect()
        }
        _ => Vec::new(),
    }
}
