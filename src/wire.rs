//! The composition root: stores, services, protocols, one router.

use std::sync::Arc;

use agentrouter_api::audit::audit_service_rpcs;
use agentrouter_api::audit::audit_service_server::AuditServiceServer;
use agentrouter_api::configurator::configurator_service_rpcs;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorServiceServer;
use agentrouter_api::providers::mcp_profiles_service_server::McpProfilesServiceServer;
use agentrouter_api::providers::mcp_servers_service_server::McpServersServiceServer;
use agentrouter_api::providers::providers_service_server::ProvidersServiceServer;
use agentrouter_api::providers::{
    mcp_profiles_service_rpcs, mcp_servers_service_rpcs, providers_service_rpcs,
};
use agentrouter_api::tenancy::projects_service_server::ProjectsServiceServer;
use agentrouter_api::tenancy::tenancy_service_server::TenancyServiceServer;
use agentrouter_api::tenancy::{projects_service_rpcs, tenancy_service_rpcs};
use agentrouter_api::workspaces::webhooks_service_server::WebhooksServiceServer;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesServiceServer;
use agentrouter_api::workspaces::{webhooks_service_rpcs, workspaces_service_rpcs};
use agentrouter_api::{DESCRIPTOR_POOL, FILE_DESCRIPTOR_SET, UnaryRpcs};
use agentrouter_audit::Audit;
use agentrouter_configurator::{Configurator, FULL_SYNCS_PER_SECOND, Presence};
use agentrouter_gateway::{
    DeadlineLayer, Direct, DirectRpcs, Options, ProtocolOptions, Protocols, Transcoder,
};
use agentrouter_identity::{Authenticator, Issuers, KeyUsage, SigningKeys};
use agentrouter_projects::Projects;
use agentrouter_providers::{McpProfiles, McpServers, Providers};
use agentrouter_rpc::{Deps, EnforceLayer, ObserveLayer, Policies};
use agentrouter_tenancy::Tenancy;
use agentrouter_webhooks::{TargetPolicy, Webhooks};
use agentrouter_workspaces::{StatusWatch, Workspaces};
use anyhow::{Context, Result, anyhow, ensure};
use axum::Router;
use prost_reflect::DescriptorPool;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::Layer;

use crate::config::edge::EdgeConfig;
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
    edge: &EdgeConfig,
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
        .add_service(reflection(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET).build_v1alpha()?);
    // Each serves whoever speaks gRPC, and its unary rpcs are called without framing where a message is at hand.
    let mut rpcs = Rpcs::default();
    macro_rules! serve {
        ($($service:expr => $server:ident, $name:ident;)*) => {$({
            let service = Arc::new($service);
            $name(&service, &mut rpcs);
            services.add_service($server::from_arc(service));
        })*};
    }
    serve! {
        Tenancy::new(deps.clone()) => TenancyServiceServer, tenancy_service_rpcs;
        Projects::new(deps.clone()) => ProjectsServiceServer, projects_service_rpcs;
        Providers::new(deps.clone()) => ProvidersServiceServer, providers_service_rpcs;
        McpServers::new(deps.clone()) => McpServersServiceServer, mcp_servers_service_rpcs;
        McpProfiles::new(deps.clone()) => McpProfilesServiceServer, mcp_profiles_service_rpcs;
        workspaces => WorkspacesServiceServer, workspaces_service_rpcs;
        Webhooks::new(deps.clone(), webhooks) => WebhooksServiceServer, webhooks_service_rpcs;
        Audit::new(deps.clone()) => AuditServiceServer, audit_service_rpcs;
        configurator => ConfiguratorServiceServer, configurator_service_rpcs;
    }
    agentrouter_identity::add_services(&mut services, &mut rpcs, deps, &authenticator);
    rpcs.check()?;

    let policies = Policies::load(&DESCRIPTOR_POOL).map_err(|problem| anyhow!(problem))?;
    let observe = ObserveLayer::new(&policies, deps.db.telemetry().clone());
    let enforce = EnforceLayer::new(
        policies.clone(),
        Arc::clone(&authenticator) as _,
        deps.db.clone(),
        edge.calls,
        edge.rates,
    );
    let services = Direct::new(rpcs.0, services.routes());
    let grpc = observe.layer(DeadlineLayer.layer(enforce.layer(services)));
    // People paste curl lines without a content type, and every call needs a bearer token anyway.
    let options = Options { form_type_is_json: true, ..Options::default() };
    let rest = Transcoder::with_options(&DESCRIPTOR_POOL, grpc, options).context("REST routes")?;
    let at_edge = crate::edge::layer(edge, &rest, &policies);
    let protocols = Protocols::new(&callable()?, rest, ProtocolOptions::default());
    let router = http::routes(deps.db.clone(), keys, shutdown.clone()).fallback_service(protocols).layer((
        axum::middleware::from_fn_with_state(
            http::Observer { telemetry: deps.db.telemetry().clone(), proxies: edge.trusted_proxies },
            http::observe,
        ),
        at_edge,
    ));
    Ok(Wired { router, presence, status_watch, key_usage, health, authenticator })
}

/// The unary rpcs of all services.
#[derive(Default)]
struct Rpcs(DirectRpcs);

impl UnaryRpcs for Rpcs {
    fn add<Q, A, F, R>(&mut self, path: &'static str, call: F)
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + 'static,
        F: Fn(tonic::Request<Q>) -> R + Send + Sync + 'static,
        R: Future<Output = Result<tonic::Response<A>, tonic::Status>> + Send + 'static,
    {
        self.0.add(path, call);
    }
}

impl Rpcs {
    /// Fails where a service was forgotten.
    fn check(&self) -> Result<()> {
        for service in DESCRIPTOR_POOL.services() {
            for method in service
                .methods()
                .filter(|method| !method.is_client_streaming() && !method.is_server_streaming())
            {
                let path = format!("/{}/{}", service.full_name(), method.name());
                ensure!(self.0.has(&path), "nobody serves {path}");
            }
        }
        Ok(())
    }
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
