//! Providers: a backend each, and routes from models to those that serve them.

use std::collections::{BTreeMap, BTreeSet};

use agentrouter_api::configurator::{ConfigType, ProviderConfig, ProvidersPayload};

use crate::endpoint::{self, Endpoint, backend_ref};
use crate::name::{name, name_of_all};
use crate::render::{Rejection, Renderer, Routes, Slot};
use crate::resource::{Resource, SecretText};
use crate::spec::{
    AI_GROUP, AIGatewayRouteSpec, AIServiceBackendSpec, BackOff, BackendKey, BackendSecurityPolicySpec,
    BackendTrafficPolicySpec, GATEWAY_GROUP, HeaderMatch, HeaderMutation, KeyRef, PerRetry, Reference, Retry,
    RetryOn, RouteBackend, RouteMatch, RouteRule, Schema, SecretRef, Timeouts,
};

/// The header that Agent Router puts a request's model into.
const MODEL_HEADER: &str = "x-ai-eg-model";
/// The most rules that an `AIGatewayRoute` takes.
const RULES_MAX: usize = 15;
/// The longest value that a header is compared with.
const MODEL_MAX: usize = 4096;
/// The version of Azure's API, where a provider's URL names none.
const AZURE_API_VERSION: &str = "2024-10-21";

/// The resources of all providers, and the providers that have none.
pub(crate) fn render(payload: &ProvidersPayload, to: &Renderer<'_>) -> (Vec<Resource>, Vec<Rejection>) {
    let mut rejected = Vec::new();
    let mut served: Vec<Served<'_>> = Vec::new();
    // Those that are tried first have the first word where two cannot be served together.
    let mut providers: Vec<&ProviderConfig> = payload.providers.iter().collect();
    providers.sort_by_key(|provider| (provider.priority, &provider.provider_id));
    for provider in providers {
        match serve(provider, &served, to) {
            Ok(one) => served.push(one),
            Err(reason) => rejected.push(Rejection {
                config_type: ConfigType::Providers,
                resource: provider.provider_id.clone(),
                reason,
            }),
        }
    }
    served.sort_by_key(|served| &served.provider.provider_id);
    rejected.sort_by(|a, b| a.resource.cmp(&b.resource));
    let routes = routes(&served.iter().map(|served| served.provider).collect::<Vec<_>>(), to);
    (served.into_iter().flat_map(|served| served.resources).chain(routes).collect(), rejected)
}

/// A provider that is rendered.
struct Served<'a> {
    provider: &'a ProviderConfig,
    has_name: bool,
    resources: Vec<Resource>,
}

fn serve<'a>(
    provider: &'a ProviderConfig,
    others: &[Served<'_>],
    to: &Renderer<'_>,
) -> Result<Served<'a>, String> {
    if others.iter().any(|other| other.provider.provider_id == provider.provider_id) {
        return Err("another provider has the same id".to_owned());
    }
    check_models(&provider.models)?;
    let endpoint = endpoint::parse(&provider.base_url)?;
    check_apart(provider, &endpoint, others)?;
    let resources = backend(provider, &endpoint, to)?;
    Ok(Served { provider, has_name: endpoint.has_name(), resources })
}

/// Of backends that are reached by address Agent Router knows in a route only the first: a request that fails over
/// would go to the second with the first one's key. Those never share a model.
fn check_apart(provider: &ProviderConfig, endpoint: &Endpoint, others: &[Served<'_>]) -> Result<(), String> {
    let shares =
        |other: &&Served<'_>| other.provider.models.iter().any(|model| provider.models.contains(model));
    let by_address = |other: &&Served<'_>| !other.has_name || !endpoint.has_name();
    match others.iter().filter(shares).find(by_address) {
        None => Ok(()),
        Some(other) => Err(format!(
            "it serves a model that {} serves, too, and one of the two has an IP address in its base URL: Agent \
             Router would send the key of the one to the other; use host names",
            other.provider.provider_id
        )),
    }
}

fn backend(
    provider: &ProviderConfig,
    endpoint: &Endpoint,
    to: &Renderer<'_>,
) -> Result<Vec<Resource>, String> {
    let key = provider.credential.as_ref().map(|credential| credential.value.as_str());
    if key.is_some_and(|key| key.is_empty() || key.chars().any(char::is_control)) {
        return Err("its API key cannot be sent in a header".to_owned());
    }
    let (schema, header) = schema(provider, endpoint, key.is_some())?;

    let name = name("provider", &provider.provider_id);
    let mut resources = vec![to.resource(Slot::Providers, &name, endpoint.backend())];
    if let Some(tls) = endpoint.tls(&name) {
        resources.push(to.resource(Slot::Providers, &name, tls));
    }
    // The client's own key is for the gateway, and no provider's business.
    let own = key.map(|_| header.name);
    let remove = KEY_HEADERS.into_iter().filter(|name| Some(*name) != own).collect();
    let header_mutation = HeaderMutation { remove };
    let service = AIServiceBackendSpec { schema, backend_ref: backend_ref(&name), header_mutation };
    resources.push(to.resource(Slot::Providers, &name, service));
    if let Some(key) = key {
        resources.push(to.secret(Slot::Providers, &name, "apiKey", SecretText::new(key)));
        let target = Reference { group: AI_GROUP, kind: "AIServiceBackend", name: name.clone() };
        let secret_ref = KeyRef { secret_ref: SecretRef { name: name.clone() } };
        let policy = BackendSecurityPolicySpec { target_refs: vec![target], key: (header.key)(secret_ref) };
        resources.push(to.resource(Slot::Providers, &name, policy));
    }
    Ok(resources)
}

fn check_models(models: &[String]) -> Result<(), String> {
    if models.is_empty() {
        return Err("it serves no models".to_owned());
    }
    let fit = |model: &String| {
        (1..=MODEL_MAX).contains(&model.len())
            && !model.chars().any(char::is_control)
            && model.trim() == model
    };
    if models.iter().all(fit) {
        Ok(())
    } else {
        Err("the name of a model cannot be sent in a header".to_owned())
    }
}

/// The headers that keys are sent in.
const KEY_HEADERS: [&str; 3] = ["authorization", "x-api-key", "api-key"];

/// A header that a key goes into.
struct KeyHeader {
    name: &'static str,
    key: fn(KeyRef) -> BackendKey,
}

const BEARER: KeyHeader = KeyHeader { name: "authorization", key: |api_key| BackendKey::APIKey { api_key } };
const X_API_KEY: KeyHeader = KeyHeader {
    name: "x-api-key",
    key: |anthropic_api_key| BackendKey::AnthropicAPIKey { anthropic_api_key },
};
const AZURE_KEY: KeyHeader =
    KeyHeader { name: "api-key", key: |azure_api_key| BackendKey::AzureAPIKey { azure_api_key } };

/// The API that a provider speaks, and the header that its key goes into.
fn schema(
    provider: &ProviderConfig,
    endpoint: &Endpoint,
    has_key: bool,
) -> Result<(Schema, KeyHeader), String> {
    let prefix = Some(endpoint.path.clone()).filter(|path| !path.is_empty());
    let version =
        endpoint.query.iter().find(|(name, _)| name == "api-version").map(|(_, value)| value.clone());
    let azure = provider.schema == "azure_openai";
    if endpoint.query.iter().any(|(name, _)| !azure || name != "api-version") {
        return Err("its base URL has a query, which cannot be sent on".to_owned());
    }
    let of = |name, prefix| Schema { name, version: None, prefix };
    match provider.schema.as_str() {
        "openai" => Ok((of("OpenAI", prefix), BEARER)),
        // The base URL of Anthropic's own clients ends before the version, that of the gateway after it.
        "anthropic" => {
            let prefix = prefix.map(|path| if path.ends_with("/v1") { path } else { path + "/v1" });
            Ok((of("Anthropic", prefix), X_API_KEY))
        }
        "azure_openai" if prefix.is_none() => {
            let version = version.unwrap_or_else(|| AZURE_API_VERSION.to_owned());
            Ok((Schema { name: "AzureOpenAI", version: Some(version), prefix: None }, AZURE_KEY))
        }
        "azure_openai" => Err("the base URL of an Azure resource has no path".to_owned()),
        "cohere" => match prefix {
            // Cohere's API for clients of OpenAI: what chat requests can be sent to.
            Some(path) if path.contains("/compatibility/") => Ok((of("OpenAI", Some(path)), BEARER)),
            Some(_) => Err("the base URL of Cohere has no path but that of its compatibility API".to_owned()),
            None => Ok((of("Cohere", None), BEARER)),
        },
        "aws_bedrock" if prefix.is_some() => Err("the base URL of Bedrock has no path".to_owned()),
        "aws_bedrock" if has_key => Ok((of("AWSBedrock", None), BEARER)),
        "aws_bedrock" => Err("Bedrock needs an API key".to_owned()),
        "gcp_vertex_ai" => {
            Err("Vertex AI needs a project, a region and a service account, which a provider does not have"
                .to_owned())
        }
        _ => Err("its schema is not known to this version".to_owned()),
    }
}

/// A rule for each model.
fn routes(providers: &[&ProviderConfig], to: &Renderer<'_>) -> Vec<Resource> {
    let mut by_model: BTreeMap<&str, Vec<&ProviderConfig>> = BTreeMap::new();
    for provider in providers {
        for model in provider.models.iter().collect::<BTreeSet<_>>() {
            by_model.entry(model).or_default().push(provider);
        }
    }
    let mut groups: BTreeMap<String, Vec<RouteRule>> = BTreeMap::new();
    for (model, mut serving) in by_model {
        serving.sort_by_key(|provider| (provider.priority, &provider.provider_id));
        let group = match to.options.routes {
            Routes::Few => "models".to_owned(),
            Routes::Steady => {
                let mut ids: Vec<&str> =
                    serving.iter().map(|provider| provider.provider_id.as_str()).collect();
                ids.sort_unstable();
                name_of_all("models", &ids)
            }
        };
        groups.entry(group).or_default().push(rule(model, &serving, to));
    }
    let mut resources = Vec::new();
    for (name, rules) in groups {
        for (number, rules) in rules.chunks(RULES_MAX).enumerate() {
            let name = if number == 0 { name.clone() } else { format!("{name}--{number}") };
            let route = AIGatewayRouteSpec { parent_refs: vec![to.parent()], rules: rules.to_vec() };
            resources.push(to.resource(Slot::Providers, &name, route));
            resources.push(to.resource(Slot::Providers, &name, fail_over(&name)));
        }
    }
    resources
}

fn rule(model: &str, serving: &[&ProviderConfig], to: &Renderer<'_>) -> RouteRule {
    // Envoy wants priorities without gaps.
    let ranks: Vec<i32> =
        serving.iter().map(|provider| provider.priority).collect::<BTreeSet<_>>().into_iter().collect();
    let rank =
        |priority: i32| u32::try_from(ranks.partition_point(|rank| *rank < priority)).unwrap_or(u32::MAX);
    let header = HeaderMatch { r#type: "Exact", name: MODEL_HEADER, value: model.to_owned() };
    RouteRule {
        matches: vec![RouteMatch { headers: vec![header] }],
        backend_refs: serving
            .iter()
            .map(|provider| RouteBackend {
                name: name("provider", &provider.provider_id),
                priority: rank(provider.priority),
                weight: provider.weight.max(1),
            })
            .collect(),
        timeouts: Timeouts { request: format!("{}s", to.options.request_timeout.as_secs()) },
    }
}

/// Lets the next priority have its try. Agent Router makes an `HTTPRoute` of the same name from its own.
fn fail_over(route: &str) -> BackendTrafficPolicySpec {
    let target = Reference { group: GATEWAY_GROUP, kind: "HTTPRoute", name: route.to_owned() };
    BackendTrafficPolicySpec {
        target_refs: vec![target],
        retry: Retry {
            num_retries: 3,
            num_attempts_per_priority: 1,
            retry_on: RetryOn {
                http_status_codes: vec![429, 500, 502, 503, 504],
                triggers: vec!["connect-failure", "refused-stream", "reset", "retriable-status-codes"],
            },
            per_retry: PerRetry { back_off: BackOff { base_interval: "100ms", max_interval: "2s" } },
        },
    }
}
