//! Names: short where nothing else has them, full where something has.

use std::collections::{BTreeSet, HashMap};

use prost_reflect::{Kind, MessageDescriptor, MethodDescriptor, ServiceDescriptor};

use super::endpoint::Endpoint;

/// The short names that lead to more than one thing.
#[derive(Debug)]
pub(super) struct Names {
    ambiguous: BTreeSet<String>,
}

impl Names {
    pub(super) fn new(endpoints: &[Endpoint]) -> Self {
        let mut all = All::default();
        for endpoint in endpoints {
            let (method, service) = (&endpoint.rpc, endpoint.rpc.parent_service());
            all.add(format!("rpc {}", method.name()), method.full_name());
            all.add(format!("service {}", service.name()), service.full_name());
            all.message(&method.input());
            all.message(&method.output());
        }
        let ambiguous = all.by_short.into_iter().filter(|(_, full)| full.len() > 1);
        Self { ambiguous: ambiguous.map(|(short, _)| short).collect() }
    }

    pub(super) fn tag(&self, service: &ServiceDescriptor) -> String {
        let is_ambiguous = self.ambiguous.contains(&format!("service {}", service.name()));
        if is_ambiguous { service.full_name() } else { service.name() }.to_owned()
    }

    /// The rpc's name; its service before it where another has the same, and a number behind it for the routes
    /// that an rpc has beyond its first.
    pub(super) fn operation(&self, endpoint: &Endpoint) -> String {
        let method: &MethodDescriptor = &endpoint.rpc;
        let name = if self.ambiguous.contains(&format!("rpc {}", method.name())) {
            format!("{}_{}", self.tag(method.parent_service()), method.name())
        } else {
            method.name().to_owned()
        };
        if endpoint.binding == 0 { name } else { format!("{name}_{}", endpoint.binding + 1) }
    }

    /// The name of a message's or enum's schema.
    pub(super) fn schema(&self, full_name: &str, package: &str) -> String {
        let short = short(full_name, package);
        if self.ambiguous.contains(&format!("type {short}")) { full_name } else { short }.to_owned()
    }
}

/// The name without its package; of a nested type with the types around it.
fn short<'n>(full_name: &'n str, package: &str) -> &'n str {
    full_name.strip_prefix(package).map_or(full_name, |name| name.trim_start_matches('.'))
}

#[derive(Default)]
struct All {
    by_short: HashMap<String, BTreeSet<String>>,
    seen: BTreeSet<String>,
}

impl All {
    fn add(&mut self, short: String, full: &str) {
        self.by_short.entry(short).or_default().insert(full.to_owned());
    }

    fn message(&mut self, message: &MessageDescriptor) {
        if !self.seen.insert(message.full_name().to_owned()) {
            return;
        }
        let name = short(message.full_name(), message.package_name());
        self.add(format!("type {name}"), message.full_name());
        for field in message.fields() {
            match field.kind() {
                Kind::Message(message) => self.message(&message),
                Kind::Enum(desc) => {
                    let name = short(desc.full_name(), desc.package_name());
                    self.add(format!("type {name}"), desc.full_name());
                }
                _ => {}
            }
        }
    }
}
