//! MCP servers: a backend each, and one endpoint in front of all.

use std::collections::BTreeSet;

use agentrouter_api::configurator::{ConfigType, McpCatalogPayload, McpServerConfig};

use crate::endpoint::{self, backend_ref};
use crate::name::name;
use crate::render::{Rejection, Renderer, Slot};
use crate::resource::Resource;
use crate::spec::{ForwardHeader, MCPRouteSpec, McpBackend};

/// The most servers that an `MCPRoute` takes.
const SERVERS_MAX: usize = 256;
/// The longest path.
const PATH_MAX: usize = 1024;

/// The resources of all servers, and the servers that have none.
pub(crate) fn render(payload: &McpCatalogPayload, to: &Renderer<'_>) -> (Vec<Resource>, Vec<Rejection>) {
    let mut resources = Vec::new();
    let mut rejected = Vec::new();
    let mut backends = Vec::new();
    let mut seen = BTreeSet::new();
    for server in &payload.servers {
        let outcome = if !seen.insert(&server.id) {
            Err("another server has the same id")
        } else if backends.len() == SERVERS_MAX {
            Err("there are more than 256 servers")
        } else {
            backend(server, to)
        };
        match outcome {
            Ok((more, backend)) => {
                resources.extend(more);
                backends.push(backend);
            }
            Err(reason) => rejected.push(Rejection {
                config_type: ConfigType::McpCatalog,
                resource: server.id.clone(),
                reason: reason.to_owned(),
            }),
        }
    }
    if !backends.is_empty() {
        let route = MCPRouteSpec {
            parent_refs: vec![to.parent()],
            path: to.options.mcp_path.clone(),
            backend_refs: backends,
        };
        resources.push(to.resource(Slot::McpCatalog, "mcp", route));
    }
    (resources, rejected)
}

fn backend(server: &McpServerConfig, to: &Renderer<'_>) -> Result<(Vec<Resource>, McpBackend), &'static str> {
    let endpoint = endpoint::parse(&server.url)?;
    if !endpoint.query.is_empty() {
        return Err("its URL has a query, which cannot be sent on");
    }
    if endpoint.path.len() > PATH_MAX {
        return Err("the path of its URL is too long");
    }
    let name = name("mcp", &server.id);
    let mut resources = vec![to.resource(Slot::McpCatalog, &name, endpoint.backend())];
    if let Some(tls) = endpoint.tls(&name) {
        resources.push(to.resource(Slot::McpCatalog, &name, tls));
    }
    let path = if endpoint.path.is_empty() { "/".to_owned() } else { endpoint.path.clone() };
    // A header for each server: the client's login to one is nothing that another may see.
    let forward_headers = if server.requires_auth {
        vec![ForwardHeader { name: format!("x-{name}-authorization"), backend_header: "Authorization" }]
    } else {
        Vec::new()
    };
    Ok((resources, McpBackend { backend: backend_ref(&name), path, forward_headers }))
}
