//! The edge of the server: what its layers need to know of the services.

use std::collections::HashSet;
use std::sync::Arc;

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_edge::{Edge, EdgeLayer, Methods};
use agentrouter_gateway::Transcoder;
use agentrouter_rpc::Policies;
use axum::http::Method;

use crate::config::edge::EdgeConfig;

/// Methods of the services that are not ours whose requests are streams.
const OTHER_CLIENT_STREAMS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// The layer for routes and RPCs.
pub fn layer<B>(config: &EdgeConfig, rest: &Transcoder<B>, policies: &Policies) -> EdgeLayer
where
    B: Clone + Send + Sync + 'static,
{
    let rpcs: HashSet<String> = policies.iter().map(|policy| format!("/{}", policy.method)).collect();
    let routes = rest.clone();
    let methods = Methods::new(move |path| {
        if rpcs.contains(path) { vec![Method::OPTIONS, Method::POST] } else { routes.methods(path) }
    });
    EdgeLayer::new(Edge {
        head: config.heads,
        cors: config.cors.clone(),
        hsts_seconds: config.tls.as_ref().map_or(0, |tls| tls.hsts_seconds),
        methods,
        errors: rest.errors().clone(),
    })
}

/// The paths of the methods whose requests are streams of messages.
pub fn client_streams() -> Arc<HashSet<String>> {
    let services = DESCRIPTOR_POOL.services();
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let streams = methods.filter(prost_reflect::MethodDescriptor::is_client_streaming);
    let ours = streams.map(|method| format!("/{}/{}", method.parent_service().full_name(), method.name()));
    Arc::new(ours.chain(OTHER_CLIENT_STREAMS.map(str::to_owned)).collect())
}
