//! Every RPC: who may call it, and a request that succeeds for them. Written by hand from the rules, not from the
//! policies in the protos, so that neither can change without the other.
//!
//! `$name` in a request stands for a row of the tenant in question; which rows there are is up to [`super::tenant::Tenant`].
//! The rows of the table are in an order in which all of them succeed, one after the other.

/// The least role that may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Role {
    /// Any credential of a person or program.
    Any,
    Viewer,
    Admin,
    Operator,
}

/// Who may call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Keys and sessions of at least this role.
    Role(Role),
    /// These, and workspace tokens.
    RoleOrWorkspace(Role),
    /// Workspace tokens only.
    Workspace,
    /// Keys and sessions of at least this role, and members of the project.
    RoleOrMember(Role),
    /// Keys and sessions of at least this role, and admins of the project.
    RoleOrProjectAdmin(Role),
}

/// One RPC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rpc {
    pub(crate) name: &'static str,
    pub(crate) access: Access,
    pub(crate) request: &'static str,
    /// Whether this version serves it. What it does not serve answers UNIMPLEMENTED to those who may call.
    pub(crate) is_served: bool,
}

const ANY: Access = Access::Role(Role::Any);
const VIEWER: Access = Access::Role(Role::Viewer);
const ADMIN: Access = Access::Role(Role::Admin);
const OPERATOR: Access = Access::Role(Role::Operator);
const MEMBER: Access = Access::RoleOrMember(Role::Viewer);
const PROJECT_ADMIN: Access = Access::RoleOrProjectAdmin(Role::Admin);
const WORKSPACE: Access = Access::Workspace;
const WORKER: Access = Access::RoleOrWorkspace(Role::Admin);

const fn served(name: &'static str, access: Access, request: &'static str) -> Rpc {
    Rpc { name, access, request, is_served: true }
}

const fn later(name: &'static str, access: Access, request: &'static str) -> Rpc {
    Rpc { name, access, request, is_served: false }
}

/// The table.
#[rustfmt::skip]
pub(crate) const RPCS: &[Rpc] = &[
    served("TenancyService/CreateCustomer", OPERATOR, r#"{"customer_id": "new-customer"}"#),
    served("TenancyService/GetCustomer", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("TenancyService/ListCustomers", VIEWER, "{}"),
    served("TenancyService/UpdateCustomer", ADMIN, r#"{"customer_id": "$customer", "display_name": "changed"}"#),

    served("ProjectsService/CreateProject", ADMIN, r#"{"customer_id": "$customer", "project_id": "new-project"}"#),
    served("ProjectsService/GetProject", MEMBER, r#"{"customer_id": "$customer", "project_id": "$project"}"#),
    served("ProjectsService/ListProjects", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("ProjectsService/UpdateProject", PROJECT_ADMIN, r#"{"customer_id": "$customer", "project_id": "$project", "display_name": "changed"}"#),
    served("ProjectsService/AddProjectMember", PROJECT_ADMIN, r#"{"customer_id": "$customer", "project_id": "$project", "identity_id": "$identity", "role": "member"}"#),
    served("ProjectsService/ListProjectMembers", MEMBER, r#"{"customer_id": "$customer", "project_id": "$project"}"#),
    served("ProjectsService/UpdateProjectMember", PROJECT_ADMIN, r#"{"customer_id": "$customer", "project_id": "$project", "identity_id": "$member", "role": "admin"}"#),
    served("ProjectsService/RemoveProjectMember", PROJECT_ADMIN, r#"{"customer_id": "$customer", "project_id": "$project", "identity_id": "$member"}"#),
    served("ProjectsService/ArchiveProject", PROJECT_ADMIN, r#"{"customer_id": "$customer", "project_id": "$project"}"#),
    served("ProjectsService/UndeleteProject", ADMIN, r#"{"customer_id": "$customer", "project_id": "$archived_project"}"#),
    served("ProjectsService/PurgeProject", OPERATOR, r#"{"customer_id": "$customer", "project_id": "$purged_project"}"#),

    served("IdentitiesService/CreateIdentity", ADMIN, r#"{"customer_id": "$customer", "display_name": "new", "email": "new@identity.example"}"#),
    served("IdentitiesService/GetIdentity", VIEWER, r#"{"customer_id": "$customer", "identity_id": "$identity"}"#),
    served("IdentitiesService/ListIdentities", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("IdentitiesService/UpdateIdentity", ADMIN, r#"{"customer_id": "$customer", "identity_id": "$identity", "display_name": "changed"}"#),

    served("ApiKeysService/CreateApiKey", ADMIN, r#"{"customer_id": "$customer", "display_name": "new", "role": "viewer", "identity_id": "$identity"}"#),
    served("ApiKeysService/GetApiKey", VIEWER, r#"{"customer_id": "$customer", "api_key_id": "$api_key"}"#),
    served("ApiKeysService/ListApiKeys", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("ApiKeysService/RotateApiKey", ADMIN, r#"{"customer_id": "$customer", "api_key_id": "$api_key", "overlap": "3600s"}"#),

    served("SessionsService/WhoAmI", Access::RoleOrWorkspace(Role::Any), "{}"),
    served("SessionsService/CreateSession", ANY, r#"{"identity_id": "$identity", "role": "viewer"}"#),
    served("SessionsService/ListSessions", ANY, "{}"),

    served("ConfiguratorService/GetConfiguration", Access::RoleOrWorkspace(Role::Viewer), r#"{"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}]}"#),
    served("ConfiguratorService/ListConfigurations", VIEWER, "{}"),
    served("ConfiguratorService/ListActiveUsers", VIEWER, "{}"),
    served("ConfiguratorService/ListActiveProviders", VIEWER, "{}"),
    served("ConfiguratorService/AcknowledgeEvent", WORKER, r#"{"event_id": "$event", "worker_id": "worker-1"}"#),
    served("ConfiguratorService/CompleteEvent", WORKER, r#"{"event_id": "$event", "worker_id": "worker-1", "success": true}"#),
    served("ConfiguratorService/ReleaseEvent", WORKER, r#"{"event_id": "$held_event", "claim_token": "$claim"}"#),
    served("ConfiguratorService/RetryEvent", ADMIN, r#"{"event_id": "$sibling_event"}"#),
    served("ConfiguratorService/TriggerUpdate", ADMIN, r#"{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS", "workspace_id": "$workspace"}"#),
    served("ConfiguratorService/WatchPendingEvents", WORKER, r#"{"workspace_id": "$workspace"}"#),
    served("ConfiguratorService/ReconcileWorkspace", WORKSPACE, r#"{"observed": [{"user_id": "system", "config_type": "CONFIG_TYPE_MCP_CATALOG", "version": "0"}]}"#),
    served("ConfiguratorService/BatchAcknowledgeEvents", WORKER, r#"{"event_ids": ["$batched_event"], "worker_id": "worker-1"}"#),
    served("ConfiguratorService/BatchCompleteEvents", WORKER, r#"{"completions": [{"event_id": "$batched_event", "worker_id": "worker-1", "success": true}]}"#),
    served("ConfiguratorService/FullSyncWorkspace", WORKSPACE, r#"{"observed": [{"user_id": "somebody", "config_type": "CONFIG_TYPE_MCP_PROFILE", "key_id": "first", "version": "0"}]}"#),
    served("ConfiguratorService/SetDataplaneURL", WORKER, r#"{"workspace_id": "$workspace", "url": "https://gateway.example"}"#),
    served("ConfiguratorService/UpsertMCPCatalogServer", WORKER, r#"{"workspace_id": "$workspace", "id": "new", "url": "https://mcp.example"}"#),
    served("ConfiguratorService/SaveBYOKBackends", WORKER, r#"{"user_id": "$identity", "key_address": "key", "backends": [{"name": "own", "schema": "openai", "base_url": "https://own.example", "credential": {"value": "a key of the own"}}]}"#),
    served("ConfiguratorService/DeleteBYOKBackends", WORKER, r#"{"user_id": "somebody"}"#),
    served("ConfiguratorService/RevokeUserToken", WORKER, r#"{"jti": "token-of-a-gateway"}"#),
    // A poll writes down what was offered to the workspace, so that the reads after it find it so.
    served("ConfiguratorService/ListPendingEvents", WORKER, r#"{"workspace_id": "$workspace"}"#),
    served("ConfiguratorService/ListEvents", VIEWER, r#"{"workspace_id": "$workspace"}"#),
    served("ConfiguratorService/GetEvent", VIEWER, r#"{"event_id": "$event"}"#),
    served("ConfiguratorService/GetRollout", VIEWER, r#"{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}"#),
    served("ConfiguratorService/ListConfigurationVersions", VIEWER, r#"{"configuration_id": "$configuration"}"#),
    served("ConfiguratorService/DiffConfigurations", VIEWER, r#"{"configuration_id": "$configuration", "from_version": "1"}"#),
    served("ConfiguratorService/RollbackConfiguration", ADMIN, r#"{"configuration_id": "$configuration", "version": "1"}"#),
    served("ConfiguratorService/SubmitDataplaneUpgradeCredentials", ADMIN, r#"{"upgrade_event_id": "$upgrade", "credentials": [{"slot": "chart", "registry": "r.example", "username": "u", "password": "the password of the table"}]}"#),
    served("ConfiguratorService/FetchDataplaneUpgradeCredentials", WORKSPACE, r#"{"event_id": "$upgrade"}"#),
    served("ConfiguratorService/AckDataplaneUpgradeCredentials", WORKSPACE, r#"{"event_id": "$upgrade"}"#),
    served("ConfiguratorService/ReportDataplaneUpgrade", WORKER, r#"{"event_id": "$upgrade", "phase": "UPGRADE_PHASE_RUNNING"}"#),
    served("ConfiguratorService/GetDataplaneUpgrade", VIEWER, r#"{"event_id": "$upgrade"}"#),
    served("ConfiguratorService/CancelDataplaneUpgrade", ADMIN, r#"{"upgrade_event_id": "$upgrade"}"#),
    served("ConfiguratorService/RollbackDataplaneUpgrade", ADMIN, r#"{"upgrade_event_id": "$completed_upgrade"}"#),

    served("ProvidersService/CreateProvider", ADMIN, r#"{"customer_id": "$customer", "provider_id": "new-provider", "schema": "PROVIDER_SCHEMA_COHERE", "base_url": "https://new.example"}"#),
    served("ProvidersService/GetProvider", VIEWER, r#"{"customer_id": "$customer", "provider_id": "$provider"}"#),
    served("ProvidersService/ListProviders", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("ProvidersService/UpdateProvider", ADMIN, r#"{"customer_id": "$customer", "provider_id": "$provider", "weight": 7}"#),
    served("ProvidersService/DisableProvider", ADMIN, r#"{"customer_id": "$customer", "provider_id": "$provider"}"#),
    served("ProvidersService/EnableProvider", ADMIN, r#"{"customer_id": "$customer", "provider_id": "$provider"}"#),

    served("McpServersService/GetMcpServer", VIEWER, r#"{"customer_id": "$customer", "mcp_server_id": "$mcp_server"}"#),
    served("McpServersService/ListMcpServers", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("McpServersService/DisableMcpServer", ADMIN, r#"{"customer_id": "$customer", "mcp_server_id": "$mcp_server"}"#),

    served("McpProfilesService/CreateMcpProfile", ADMIN, r#"{"customer_id": "$customer", "mcp_profile_id": "new-profile", "user_id": "$identity", "key_id": "key"}"#),
    served("McpProfilesService/GetMcpProfile", VIEWER, r#"{"customer_id": "$customer", "mcp_profile_id": "$mcp_profile"}"#),
    served("McpProfilesService/ListMcpProfiles", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("McpProfilesService/UpdateMcpProfile", ADMIN, r#"{"customer_id": "$customer", "mcp_profile_id": "$mcp_profile", "display_name": "changed"}"#),

    served("WorkspacesService/CreateWorkspace", ADMIN, r#"{"customer_id": "$customer", "workspace_id": "new-workspace"}"#),
    served("WorkspacesService/GetWorkspace", VIEWER, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("WorkspacesService/ListWorkspaces", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("WorkspacesService/UpdateWorkspace", ADMIN, r#"{"customer_id": "$customer", "workspace_id": "$workspace", "display_name": "changed"}"#),
    served("WorkspacesService/IssueWorkspaceToken", ADMIN, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("WorkspacesService/RenewWorkspaceToken", WORKSPACE, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("WorkspacesService/GetWorkspaceStatus", VIEWER, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("WorkspacesService/ResyncWorkspace", ADMIN, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("WorkspacesService/WatchWorkspaceStatus", VIEWER, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),

    served("WebhooksService/CreateWebhook", ADMIN, r#"{"customer_id": "$customer", "url": "https://new-hook.example", "event_types": ["slot.stuck"]}"#),
    served("WebhooksService/GetWebhook", VIEWER, r#"{"customer_id": "$customer", "webhook_id": "$webhook"}"#),
    served("WebhooksService/ListWebhooks", VIEWER, r#"{"customer_id": "$customer"}"#),
    served("WebhooksService/UpdateWebhook", ADMIN, r#"{"customer_id": "$customer", "webhook_id": "$webhook", "display_name": "changed"}"#),
    served("WebhooksService/RotateWebhookSecret", ADMIN, r#"{"customer_id": "$customer", "webhook_id": "$webhook", "overlap": "3600s"}"#),
    served("WebhooksService/TestWebhook", ADMIN, r#"{"customer_id": "$customer", "webhook_id": "$webhook"}"#),
    served("WebhooksService/ListWebhookDeliveries", VIEWER, r#"{"customer_id": "$customer", "webhook_id": "$webhook"}"#),
    served("WebhooksService/DeleteWebhook", ADMIN, r#"{"customer_id": "$customer", "webhook_id": "$webhook"}"#),

    served("AuditService/ListAuditEntries", VIEWER, r#"{"customer_id": "$customer"}"#),

    // What ends things comes last.
    served("McpProfilesService/DeleteMcpProfile", ADMIN, r#"{"customer_id": "$customer", "mcp_profile_id": "$mcp_profile"}"#),
    served("ProvidersService/DeleteProvider", ADMIN, r#"{"customer_id": "$customer", "provider_id": "$provider"}"#),
    served("SessionsService/RevokeSession", ANY, r#"{"session_id": "$session"}"#),
    served("ApiKeysService/RevokeApiKey", ADMIN, r#"{"customer_id": "$customer", "api_key_id": "$api_key"}"#),
    served("IdentitiesService/DeleteIdentity", ADMIN, r#"{"customer_id": "$customer", "identity_id": "$identity"}"#),
    served("WorkspacesService/ArchiveWorkspace", ADMIN, r#"{"customer_id": "$customer", "workspace_id": "$workspace"}"#),
    served("TenancyService/ArchiveCustomer", ADMIN, r#"{"customer_id": "$customer"}"#),
    served("TenancyService/UndeleteCustomer", OPERATOR, r#"{"customer_id": "$customer"}"#),
    served("TenancyService/PurgeCustomer", OPERATOR, r#"{"customer_id": "$purged_customer"}"#),
];
