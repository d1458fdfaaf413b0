//! The parts of a configuration that are accepted or rejected by themselves, and the last good state of them.

use std::collections::BTreeSet;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, Configuration, McpCatalogPayload, ProvidersPayload};
use agentrouter_manifests::{Options, Resource, Snapshot, render};

/// The type of a slot by the label of what it became; none for what belongs to no slot.
pub(crate) fn type_of_label(label: &str) -> Option<ConfigType> {
    ConfigType::from_str_name(&format!("CONFIG_TYPE_{}", label.to_ascii_uppercase()))
}

/// The ids of a configuration's parts.
pub(crate) fn parts(configuration: &Configuration) -> Vec<&str> {
    match &configuration.payload {
        Some(Payload::Providers(payload)) => {
            payload.providers.iter().map(|provider| provider.provider_id.as_str()).collect()
        }
        Some(Payload::McpCatalog(payload)) => {
            payload.servers.iter().map(|server| server.id.as_str()).collect()
        }
        _ => Vec::new(),
    }
}

/// Replaces a part by what it was in `good`, or takes it out where it was not there.
pub(crate) fn revert(configuration: &mut Configuration, part: &str, good: Option<&Configuration>) {
    match (&mut configuration.payload, good.and_then(|good| good.payload.as_ref())) {
        (Some(Payload::Providers(payload)), good) => {
            let good = match good {
                Some(Payload::Providers(good)) => {
                    good.providers.iter().find(|it| it.provider_id == part).cloned()
                }
                _ => None,
            };
            replace(&mut payload.providers, |it| it.provider_id == part, good);
        }
        (Some(Payload::McpCatalog(payload)), good) => {
            let good = match good {
                Some(Payload::McpCatalog(good)) => good.servers.iter().find(|it| it.id == part).cloned(),
                _ => None,
            };
            replace(&mut payload.servers, |it| it.id == part, good);
        }
        _ => {}
    }
}

fn replace<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool, by: Option<T>) {
    let at = all.iter().position(&is_it);
    all.retain(|one| !is_it(one));
    if let (Some(at), Some(by)) = (at, by) {
        all.insert(at.min(all.len()), by);
    }
}

/// The part whose object this is, where it is no other part's: found by rendering each part alone.
pub(crate) fn owner<'a>(
    configuration: &'a Configuration,
    kind: &str,
    name: &str,
    options: &Options,
) -> Option<&'a str> {
    let parts: BTreeSet<&str> = parts(configuration).into_iter().collect();
    let mut owners = parts.into_iter().filter(|part| {
        let mut alone = configuration.clone();
        retain(&mut alone, part);
        let snapshot: Snapshot = std::iter::once(&alone).collect();
        let label = configuration.config_type().as_str_name();
        render(&snapshot, options).resources.iter().any(|resource| {
            resource.kind() == kind && resource.metadata().name == name && slot_type(resource) == Some(label)
        })
    });
    match (owners.next(), owners.next()) {
        (Some(owner), None) => Some(owner),
        _ => None,
    }
}

fn slot_type(resource: &Resource) -> Option<&'static str> {
    let label = resource.metadata().labels.get(agentrouter_manifests::SLOT_LABEL)?;
    type_of_label(label).map(|kind| kind.as_str_name())
}

fn retain(configuration: &mut Configuration, part: &str) {
    match &mut configuration.payload {
        Some(Payload::Providers(ProvidersPayload { providers })) => {
            providers.retain(|provider| provider.provider_id == part);
        }
        Some(Payload::McpCatalog(McpCatalogPayload { servers })) => {
            servers.retain(|server| server.id == part);
        }
        _ => {}
    }
}
