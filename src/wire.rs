//! The composition root: stores, services, protocols, one router.

use std::sync::Arc;

use agentrouter_api::audit::audit_service_server::AuditServiceServer;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorServiceServer;
use agentrouter_api::providers::mcp_profiles_service_server::McpProfilesServiceServer;
use agentrouter_api::providers::mcp_servers_service_server::McpServersServiceServer;
use agentrouter_api::providers::providers_service_server::ProvidersServiceServer;
use agentrouter_api::tenancy::projects_service_server::ProjectsServiceServer;
use agentrouter_api::tenancy::tenancy_service_server::TenancyServiceServer;
use agentrouter_api::workspaces::webhooks_service_server::WebhooksServiceServer;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesServiceServer;
use agentrouter_api::{DESCRIPTOR_POOL, FILE_DESCRIPTOR_SET};
use agentrouter_audit::Audit;
use agentrouter_configurator::{Configurator, FULL_SYNCS_PER_SECOND, Presence};
use agentrouter_gateway::{DeadlineLayer, Options, ProtocolOptions, Protocols, Transcoder};
use agentrouter_identity::{Authenticator, Issuers, KeyUsage, SigningKeys};
use agentrouter_projects::Projects;
use agentrouter_providers::{McpProfiles, McpServers, Providers};
use agentrouter_rpc::{Deps, EnforceLayer, ObserveLayer, Policies};
use agentrouter_tenancy::Tenancy;
use agentrouter_webhooks::{TargetPolicy, Webhooks};
use agentrouter_workspaces::{StatusWatch, Workspaces};
use anyhow::{Context, Result, anyhow};
use axum::Router;
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Layer;

use crate::http;

/// Everything that a running server holds on to.
pub(crate) struct Wired {
    pub(crate) router: Router,
    pub(crate) presence: Arc<Presence>,
    pub(crate) status_watch: Arc<StatusWatch>,
    pub(crate) key_usage: KeyUsage,
    pub(crate) health: HealthReporter,
    pub(crate) authenticator: Arc<Authenticator>,
}

/// Builds the services and puts them behind one router.
///
/// # Errors
/// Where a method has no access policy, or an annotation is faulty.
pub(crate) async fn wire(
    deps: &Deps,
    issuers: Issuers,
    webhooks: TargetPolicy,
    full_syncs_per_second: Option<u32>,
    shutdown: &CancellationToken,
) -> Result<Wired> {
    let keys = SigningKeys::load_or_create(&deps.db, &deps.keyring).await.context("token signing keys")?;
    let keys = Arc::new(keys);
    let (authenticator, key_usage) = Authenticator::new(deps.db.clone(), keys.clone());
    let authenticator = Arc::new(authenticator.with_issuers(issuers));
    let presence = Arc::new(Presence::default());
    let (health, health_service) = tonic_health::server::health_reporter();

    // Each version of reflection tells of itself, and here of the other one, too.
    let reflection = |other| {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(other)
    };
    let configurator = Configurator::new(deps.clone(), Arc::clone(&presence), shutdown.clone())
        .with_full_syncs_per_second(full_syncs_per_second.unwrap_or(FULL_SYNCS_PER_SECOND));
    let workspaces = Workspaces::new(deps.clone(), keys.clone());
    let status_watch = workspaces.status_watch();
    let mut services = Routes::builder();
    services
        .add_service(health_service)
        .add_service(reflection(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET).build_v1()?)
        .add_service(reflection(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET).build_v1alpha()?)
        .add_service(TenancyServiceServer::new(Tenancy::new(deps.clone())))
        .add_service(ProjectsServiceServer::new(Projects::new(deps.clone())))
        .add_service(ProvidersServiceServer::new(Providers::new(deps.clone())))
        .add_service(McpServersServiceServer::new(McpServers::new(deps.clone())))
        .add_service(McpProfilesServiceServer::new(McpProfiles::new(deps.clone())))
        .add_service(WorkspacesServiceServer::new(workspaces))
        .add_service(WebhooksServiceServer::new(Webhooks::new(deps.clone(), webhooks)))
        .add_service(AuditServiceServer::new(Audit::new(deps.clone())))
        .add_service(ConfiguratorServiceServer::new(configurator));
    agentrouter_identity::add_services(&mut services, deps, &authenticator);

    let policies = Policies::load(&DESCRIPTOR_POOL).map_err(|problem| anyhow!(problem))?;
    let observe = ObserveLayer::new(&policies, deps.db.telemetry().clone());
    let enforce = EnforceLayer::new(policies, Arc::clone(&authenticator) as _, deps.db.clone());
    let grpc = observe.layer(DeadlineLayer.layer(enforce.layer(services.routes())));
    // People paste curl lines without a content type, and every call needs a bearer token anyway.
    let options = Options { form_type_is_json: true, ..Options::default() };
    let rest = Transcoder::with_options(&DESCRIPTOR_POOL, grpc, options).context("REST routes")?;
    let protocols = Protocols::new(&callable()?, rest, ProtocolOptions::default());
    let router = http::routes(deps.db.clone(), keys, shutdown.clone())
        .fallback_service(protocols)
        .layer(axum::middleware::from_fn_with_state(deps.db.telemetry().clone(), http::observe));
    Ok(Wired { router, presence, status_watch, key_usage, health, authenticator })
}

/// The descriptors of everything that can be called: ours, and the services that came with a library.
fn callable() -> Result<DescriptorPool> {
    let mut pool = DESCRIPTOR_POOL.clone();
    for set in [
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ] {
        pool.decode_file_descriptor_set(set).context("the descriptors of a library")?;
    }
    Ok(pool)
}
