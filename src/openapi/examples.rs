//! What fields look like. One installation is meant by all of them, so that examples fit together.

use prost_reflect::{FieldDescriptor, Kind};
use serde_json::{Value, json};

/// An example of a field, by its name. `null` leaves the field out of examples.
pub(super) fn example(field: &FieldDescriptor) -> Option<Value> {
    let message = field.parent_message();
    let (message, name) = (message.name(), field.name());
    if let Some(example) = special(message, name) {
        return Some(example);
    }
    match field.kind() {
        _ if field.is_map() => (name == "labels").then(|| json!({"team": "platform"})),
        Kind::String if field.is_list() => list(name),
        Kind::String => text(message, name).map(Value::from),
        Kind::Int32 => (name == "page_size").then(|| json!(50)),
        _ => None,
    }
}

/// What one message shows otherwise than all others.
fn special(message: &str, name: &str) -> Option<Value> {
    Some(match (message, name) {
        // Neither archived nor at their end: what is usual.
        (_, "archived_at" | "revoked_at" | "superseded_by" | "failures" | "doctor_runtime" | "upgrade")
        | (
            "ConfigurationEvent",
            "completed_at" | "not_before" | "resources" | "worker_id" | "acknowledged_at",
        )
        | ("ApiKey", "expires_at" | "identity_id")
        | ("Webhook", "disabled_reason" | "previous_secret_expires_at")
        | ("WebhookDelivery", "last_attempt_at" | "next_attempt_at" | "last_error") => absent(name),
        ("TriggerUpdateRequest" | "DataplaneUpgrade", "metadata") => json!({"target_version": "1.3.0"}),
        ("TriggerUpdateRequest" | "Configuration" | "ConfigurationQuery", "user_id") => json!("system"),
        ("CreateProviderRequest" | "Provider", "schema") => json!("PROVIDER_SCHEMA_OPENAI"),
        ("ReportDataplaneUpgradeRequest", "phase") => json!("UPGRADE_PHASE_RUNNING"),
        ("ConfigurationEvent", "error_message") => json!(""),
        ("CompleteEventRequest", "success") => json!(true),
        ("DiffConfigurationsRequest", "from_version") | ("RollbackConfigurationRequest", "version") => {
            json!("1")
        }
        _ => return None,
    })
}

/// `null` for what can be left out, an empty value for what an answer always writes.
fn absent(name: &str) -> Value {
    match name {
        "superseded_by" | "worker_id" | "identity_id" | "last_error" => json!(""),
        "failures" | "resources" => json!([]),
        "disabled_reason" => json!("WEBHOOK_DISABLED_REASON_UNSPECIFIED"),
        _ => Value::Null,
    }
}

fn list(name: &str) -> Option<Value> {
    Some(match name {
        "models" => json!(["gpt-4o"]),
        "categories" => json!(["search"]),
        "event_ids" => json!([EVENT]),
        "required_credentials" => json!(["chart"]),
        "event_types" => json!(["slot.stuck"]),
        "tools" => json!(["search_issues"]),
        _ => return None,
    })
}

const EVENT: &str = "evt_01K9GQ5T0BE4RJ3W7XZP2M8NQD";
const IDENTITY: &str = "id_01K9GQ5T0BE4RJ3W7XZP2M8NQD";

fn text(message: &str, name: &str) -> Option<&'static str> {
    Some(match (message, name) {
        ("Customer", "id") => "cust_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("Project", "id") => "proj_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("ProjectMember", "id") => "mem_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("Identity", "id")
        | (_, "identity_id")
        | (
            "CreateMcpProfileRequest"
            | "McpProfile"
            | "SaveBYOKBackendsRequest"
            | "DeleteBYOKBackendsRequest",
            "user_id",
        ) => IDENTITY,
        ("Workspace", "id") => "ws_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("Provider", "id") => "prov_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("ApiKey" | "UserKey", "id") | (_, "api_key_id" | "created_by") => "key_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("Configuration", "id") | (_, "configuration_id") => "cfg_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("ConfigurationEvent", "id") | (_, "event_id" | "upgrade_event_id" | "rollback_event_id") => EVENT,
        ("Webhook", "id") | (_, "webhook_id") => "whk_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("WebhookDelivery", "id") => "whd_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("AuditEntry", "id") => "aud_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("AuditEntry", "action") => "customer.create",
        ("AuditEntry", "actor_kind") => "api_key",
        ("Credential", "id") | (_, "credentials_id") => "cred_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("McpProfile", "id") => "mcpp_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("McpServer" | "McpServerConfig" | "UpsertMCPCatalogServerRequest", "id")
        | (_, "mcp_server_id" | "server_id") => "github",
        ("McpServer" | "McpServerConfig" | "UpsertMCPCatalogServerRequest", "url") => {
            "https://mcp.example.com/mcp"
        }
        ("McpServer" | "McpServerConfig" | "UpsertMCPCatalogServerRequest", "name") => "GitHub",
        ("Session", "id") | (_, "session_id" | "jti") => "tok_01K9GQ5T0BE4RJ3W7XZP2M8NQD",
        ("ExternalSubject", "issuer") => "https://login.example.com",
        ("ExternalSubject", "subject") => "248289761001",
        ("ByokBackend", "name") => "mine",
        (_, "base_url") => "https://api.openai.com/v1",
        ("SetDataplaneURLRequest" | "ProxyUrlPayload", "url") => "https://edge-1.example.com",
        ("Webhook" | "CreateWebhookRequest", "url") => "https://hooks.example.com/agentrouter",
        ("AddProjectMemberRequest" | "UpdateProjectMemberRequest" | "ProjectMember", "role") => "member",
        ("CreateApiKeyRequest" | "ApiKey" | "Session" | "CreateSessionRequest", "role") => "viewer",
        ("CreateCustomerRequest" | "Customer", "display_name") => "Acme",
        ("CreateIdentityRequest" | "Identity", "display_name") => "Ada",
        ("CreateApiKeyRequest" | "ApiKey", "display_name") => "deployment",
        ("UpdateCustomerRequest", "display_name") => "Acme Inc.",
        ("RegistryCredential", "slot") => "chart",
        ("RegistryCredential", "registry") => "registry.example.com",
        ("RegistryCredential", "username") => "puller",
        ("RegistryCredential", "password") => "secret",
        ("ReleaseEventRequest" | "Claim" | "HeldEvent" | "AcknowledgeEventResponse", "claim_token") => {
            "01989a3f-5b1c-7d2e-9f40-8a6b7c5d4e3f"
        }
        ("AcknowledgeEventRequest" | "BatchAcknowledgeEventsRequest", "worker_id") => "edge-1-0",
        ("SaveBYOKBackendsRequest", "key_address") | ("CreateMcpProfileRequest" | "McpProfile", "key_id") => {
            "key-1"
        }
        (_, "customer_id") => "acme",
        (_, "project_id") => "assistants",
        (_, "workspace_id") => "edge-1",
        ("ByokBackend", "schema") | (_, "provider_id") => "openai",
        (_, "mcp_profile_id") => "default",
        (_, "email") => "ada@example.com",
        (_, "etag") if !message.ends_with("Request") => "r1",
        _ => return None,
    })
}
