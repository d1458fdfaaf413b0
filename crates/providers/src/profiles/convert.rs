//! The wire's MCP profiles and ours, in both directions.

use std::collections::HashSet;

use agentrouter_api::configurator::McpProfileServer;
use agentrouter_api::providers as pb;
use agentrouter_delivery::SYSTEM_USER;
use agentrouter_kernel::check::DISPLAY_NAME_MAX;
use agentrouter_kernel::id::{self, NameOrId};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::convert::{etag, mask_paths, timestamp};

use super::{Change, NewProfile, Profile};

const NAME_MAX: usize = 255;
const SERVERS_MAX: usize = 1000;
const TOOLS_MAX: usize = 1000;

/// The profile that a path names.
///
/// # Errors
/// INVALID_ARGUMENT where the customer or the profile is not named.
pub(super) fn name(customer: &str, profile: &str) -> Result<NameOrId<id::McpProfile>, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", customer);
    let name = violations.name("mcp_profile_id", profile);
    violations.finish()?;
    Ok(name)
}

pub(super) fn new_profile(request: pb::CreateMcpProfileRequest) -> Result<NewProfile, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    violations.slug("mcp_profile_id", &request.mcp_profile_id);
    violations.require(!request.user_id.is_empty(), "user_id", "is required");
    violations.require(request.user_id != SYSTEM_USER, "user_id", "must be a user");
    violations.text("user_id", &request.user_id, NAME_MAX);
    violations.require(!request.key_id.is_empty(), "key_id", "is required");
    violations.text("key_id", &request.key_id, NAME_MAX);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    let servers = servers(&mut violations, request.servers);
    violations.finish()?;
    Ok(NewProfile {
        slug: request.mcp_profile_id,
        user_id: request.user_id,
        key_id: request.key_id,
        display_name: request.display_name,
        servers,
    })
}

const MUTABLE: &[&str] = &["display_name", "servers"];
const IGNORED: &[&str] = &[
    "id",
    "customer_id",
    "mcp_profile_id",
    "user_id",
    "key_id",
    "created_at",
    "updated_at",
    "etag",
    "update_mask",
];

/// The profile that an update names, and what it does to it.
pub(super) fn change(
    request: pb::UpdateMcpProfileRequest,
) -> Result<(NameOrId<id::McpProfile>, Change), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let name = violations.name("mcp_profile_id", &request.mcp_profile_id);
    let mask = UpdateMask::new(mask_paths(request.update_mask), MUTABLE, IGNORED, &mut violations);
    let given = (!request.servers.is_empty()).then_some(request.servers);
    let change = Change {
        display_name: mask.pick("display_name", request.display_name),
        servers: mask.pick("servers", given).map(|given| servers(&mut violations, given)),
    };
    if let Some(display_name) = &change.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    violations.finish()?;
    Ok((name, change))
}

/// The allowed servers, ordered by id.
fn servers(violations: &mut Violations, entries: Vec<pb::McpProfileEntry>) -> Vec<McpProfileServer> {
    violations.require(entries.len() <= SERVERS_MAX, "servers", "must have at most 1000 entries");
    let mut seen = HashSet::new();
    for (index, entry) in entries.iter().take(SERVERS_MAX).enumerate() {
        let field = format!("servers[{index}].server_id");
        violations.require(!entry.server_id.is_empty(), &field, "is required");
        violations.require(seen.insert(entry.server_id.as_str()), &field, "is listed twice");
        violations.text(&field, &entry.server_id, NAME_MAX);
        check_tools(violations, &format!("servers[{index}].tools"), &entry.tools);
    }
    let mut servers: Vec<_> = entries
        .into_iter()
        .map(|entry| McpProfileServer { server_id: entry.server_id, tools: entry.tools })
        .collect();
    servers.sort_by(|one, other| one.server_id.cmp(&other.server_id));
    servers
}

fn check_tools(violations: &mut Violations, field: &str, tools: &[String]) {
    violations.require(tools.len() <= TOOLS_MAX, field, "must have at most 1000 entries");
    let mut seen = HashSet::new();
    for (index, tool) in tools.iter().take(TOOLS_MAX).enumerate() {
        let field = format!("{field}[{index}]");
        violations.require(!tool.is_empty(), &field, "must not be empty");
        violations.require(seen.insert(tool), &field, "is listed twice");
        violations.text(&field, tool, NAME_MAX);
    }
}

pub(super) fn profile(profile: Profile, customer_slug: &str) -> pb::McpProfile {
    let servers = profile.servers.into_iter();
    pb::McpProfile {
        id: profile.id.to_string(),
        customer_id: customer_slug.to_owned(),
        mcp_profile_id: profile.slug,
        user_id: profile.user_id,
        key_id: profile.key_id,
        display_name: profile.display_name,
        servers: servers
            .map(|server| pb::McpProfileEntry { server_id: server.server_id, tools: server.tools })
            .collect(),
        created_at: Some(timestamp(profile.created_at)),
        updated_at: Some(timestamp(profile.updated_at)),
        etag: etag(profile.revision),
    }
}
