//! The three services as tonic sees them: decode, call, encode.

mod api_keys;
mod identities;
mod sessions;

use std::sync::Arc;

use agentrouter_api::UnaryRpcs;
use agentrouter_api::identity::api_keys_service_server::ApiKeysServiceServer;
use agentrouter_api::identity::identities_service_server::IdentitiesServiceServer;
use agentrouter_api::identity::sessions_service_server::SessionsServiceServer;
use agentrouter_api::identity::{api_keys_service_rpcs, identities_service_rpcs, sessions_service_rpcs};
use agentrouter_rpc::Deps;
use tonic::service::RoutesBuilder;

use crate::Authenticator;

pub use api_keys::ApiKeys;
pub use identities::Identities;
pub use sessions::Sessions;

/// Adds the three services, and names their unary rpcs. `authenticator` is the one that this process checks credentials
/// with.
pub fn add_services(
    routes: &mut RoutesBuilder,
    rpcs: &mut impl UnaryRpcs,
    deps: &Deps,
    authenticator: &Arc<Authenticator>,
) {
    let identities = Arc::new(Identities::new(deps.clone(), Arc::clone(authenticator)));
    let api_keys = Arc::new(ApiKeys::new(deps.clone(), Arc::clone(authenticator)));
    let sessions = Arc::new(Sessions::new(deps.clone(), Arc::clone(authenticator)));
    identities_service_rpcs(&identities, rpcs);
    api_keys_service_rpcs(&api_keys, rpcs);
    sessions_service_rpcs(&sessions, rpcs);
    routes
        .add_service(IdentitiesServiceServer::from_arc(identities))
        .add_service(ApiKeysServiceServer::from_arc(api_keys))
        .add_service(SessionsServiceServer::from_arc(sessions));
}
