//! The wire's messages and the model, in both directions.

use std::ops::Deref;

use agentrouter_api::providers as pb;
use agentrouter_envelope::Secret;
use agentrouter_kernel::check::DISPLAY_NAME_MAX;
use agentrouter_kernel::id::{self, NameOrId};
use agentrouter_kernel::{Fault, UpdateMask, Violations};
use agentrouter_rpc::convert::{etag, mask_paths, timestamp};
use zeroize::Zeroize;

use crate::model::{
    Change, DEFAULT_WEIGHT, KeyChange, McpServer, NewProvider, Provider, Schema, Settings, check_api_key,
    check_models, check_priority, check_weight,
};

/// A request that holds an API key. The key is wiped with it, whichever way the call ends.
pub(crate) struct Wiped<M: HoldsApiKey>(pub(crate) M);

/// A request message with an API key in it.
pub(crate) trait HoldsApiKey {
    /// Overwrites the key.
    fn wipe(&mut self);
}

impl HoldsApiKey for pb::CreateProviderRequest {
    fn wipe(&mut self) {
        self.api_key.zeroize();
    }
}

impl HoldsApiKey for pb::UpdateProviderRequest {
    fn wipe(&mut self) {
        self.api_key.zeroize();
    }
}

impl<M: HoldsApiKey> Deref for Wiped<M> {
    type Target = M;

    fn deref(&self) -> &M {
        &self.0
    }
}

impl<M: HoldsApiKey> Drop for Wiped<M> {
    fn drop(&mut self) {
        self.0.wipe();
    }
}

/// The provider that a path names.
///
/// # Errors
/// INVALID_ARGUMENT where the customer or the provider is not named.
pub(crate) fn provider_name(customer: &str, provider: &str) -> Result<NameOrId<id::Provider>, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", customer);
    let name = violations.name("provider_id", provider);
    violations.finish()?;
    Ok(name)
}

/// Checks that a path names a customer and an MCP server.
pub(crate) fn check_mcp_server_name(customer: &str, server: &str) -> Result<(), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", customer);
    violations.require(!server.is_empty(), "mcp_server_id", "is required");
    violations.finish()
}

pub(crate) fn new_provider(request: &pb::CreateProviderRequest) -> Result<NewProvider, Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    violations.slug("provider_id", &request.provider_id);
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    let schema = schema(&mut violations, request.schema);
    violations.http_url("base_url", &request.base_url);
    check_models(&mut violations, &request.models);
    check_priority(&mut violations, request.priority);
    let weight = request.weight.unwrap_or(DEFAULT_WEIGHT);
    check_weight(&mut violations, weight);
    violations.labels("labels", &request.labels);
    check_api_key(&mut violations, &request.api_key);
    violations.finish()?;
    Ok(NewProvider {
        slug: request.provider_id.clone(),
        settings: Settings {
            display_name: request.display_name.clone(),
            schema,
            base_url: request.base_url.clone(),
            models: request.models.clone(),
            priority: request.priority,
            weight,
            labels: request.labels.clone(),
        },
        enabled: request.enabled.unwrap_or(true),
        api_key: (!request.api_key.is_empty()).then(|| Secret::new(&*request.api_key)),
    })
}

const MUTABLE: &[&str] =
    &["display_name", "schema", "base_url", "models", "priority", "weight", "labels", API_KEY];
const IGNORED: &[&str] = &[
    "id",
    "customer_id",
    "provider_id",
    "enabled",
    "has_api_key",
    "created_at",
    "updated_at",
    "etag",
    "update_mask",
];
const API_KEY: &str = "api_key";

/// The provider that an update names, and what it does to it.
pub(crate) fn change(request: &pb::UpdateProviderRequest) -> Result<(NameOrId<id::Provider>, Change), Fault> {
    let mut violations = Violations::new();
    violations.name::<id::Customer>("customer_id", &request.customer_id);
    let name = violations.name("provider_id", &request.provider_id);
    let paths = mask_paths(request.update_mask.clone());
    let mask = UpdateMask::new(paths.clone(), MUTABLE, IGNORED, &mut violations);
    let change = Change {
        display_name: mask.pick("display_name", request.display_name.clone()),
        schema: mask.pick("schema", request.schema).map(|value| schema(&mut violations, value)),
        base_url: mask.pick("base_url", request.base_url.clone()),
        models: mask.pick("models", (!request.models.is_empty()).then(|| request.models.clone())),
        priority: mask.pick("priority", request.priority),
        weight: mask.pick("weight", request.weight.map(Some)).map(|weight| weight.unwrap_or(DEFAULT_WEIGHT)),
        labels: mask.pick("labels", (!request.labels.is_empty()).then(|| request.labels.clone())),
        api_key: key_change(&mut violations, &mask, paths.as_deref(), request.api_key.as_deref()),
    };
    if let Some(display_name) = &change.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(base_url) = &change.base_url {
        violations.http_url("base_url", base_url);
    }
    if let Some(models) = &change.models {
        check_models(&mut violations, models);
    }
    if let Some(priority) = change.priority {
        check_priority(&mut violations, priority);
    }
    if let Some(weight) = change.weight {
        check_weight(&mut violations, weight);
    }
    if let Some(labels) = &change.labels {
        violations.labels("labels", labels);
    }
    violations.finish()?;
    Ok((name, change))
}

/// Removing a key needs the field's own name in the mask. A client that sends back what it read, under `*` or without
/// a mask, has no key to send, and must not lose the stored one by it.
fn key_change(
    violations: &mut Violations,
    mask: &UpdateMask,
    paths: Option<&[String]>,
    value: Option<&str>,
) -> KeyChange {
    let is_named = paths.is_some_and(|paths| paths.iter().any(|path| path == API_KEY));
    match mask.pick(API_KEY, value.map(Some)) {
        Some(None | Some("")) if is_named => KeyChange::Remove,
        None | Some(None) => KeyChange::Keep,
        Some(Some("")) => {
            violations.add(API_KEY, "must not be empty; to remove the key, name `api_key` in update_mask");
            KeyChange::Keep
        }
        Some(Some(value)) => {
            check_api_key(violations, value);
            KeyChange::Set(Secret::new(value))
        }
    }
}

/// A known schema; a violation for any other, with one in its place.
fn schema(violations: &mut Violations, value: i32) -> Schema {
    match pb::ProviderSchema::try_from(value) {
        Ok(pb::ProviderSchema::Openai) => return Schema::OpenAi,
        Ok(pb::ProviderSchema::Anthropic) => return Schema::Anthropic,
        Ok(pb::ProviderSchema::AzureOpenai) => return Schema::AzureOpenAi,
        Ok(pb::ProviderSchema::AwsBedrock) => return Schema::AwsBedrock,
        Ok(pb::ProviderSchema::GcpVertexAi) => return Schema::GcpVertexAi,
        Ok(pb::ProviderSchema::Cohere) => return Schema::Cohere,
        Ok(pb::ProviderSchema::Unspecified) => violations.add("schema", "is required"),
        Err(_) => violations.add("schema", format!("{value} is not a known schema")),
    }
    Schema::OpenAi
}

fn schema_to_wire(schema: Schema) -> pb::ProviderSchema {
    match schema {
        Schema::OpenAi => pb::ProviderSchema::Openai,
        Schema::Anthropic => pb::ProviderSchema::Anthropic,
        Schema::AzureOpenAi => pb::ProviderSchema::AzureOpenai,
        Schema::AwsBedrock => pb::ProviderSchema::AwsBedrock,
        Schema::GcpVertexAi => pb::ProviderSchema::GcpVertexAi,
        Schema::Cohere => pb::ProviderSchema::Cohere,
    }
}

pub(crate) fn provider(provider: Provider, customer_slug: &str) -> pb::Provider {
    let settings = provider.settings;
    pb::Provider {
        id: provider.id.to_string(),
        customer_id: customer_slug.to_owned(),
        provider_id: provider.slug,
        display_name: settings.display_name,
        schema: schema_to_wire(settings.schema).into(),
        base_url: settings.base_url,
        models: settings.models,
        priority: settings.priority,
        weight: settings.weight,
        enabled: provider.enabled,
        has_api_key: provider.has_api_key,
        labels: settings.labels,
        created_at: Some(timestamp(provider.created_at)),
        updated_at: Some(timestamp(provider.updated_at)),
        etag: etag(provider.revision),
    }
}

pub(crate) fn mcp_server(server: McpServer, customer_slug: &str) -> pb::McpServer {
    pb::McpServer {
        id: server.id,
        customer_id: customer_slug.to_owned(),
        url: server.url,
        name: server.name,
        description: server.description,
        icon_url: server.icon_url,
        categories: server.categories,
        authentication: server.authentication,
        requires_auth: server.requires_auth,
        enabled: server.enabled,
        created_at: Some(timestamp(server.created_at)),
        updated_at: Some(timestamp(server.updated_at)),
        etag: etag(server.revision),
    }
}
