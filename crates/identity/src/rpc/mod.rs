//! The three services as tonic sees them: decode, call, encode.

mod api_keys;
mod identities;
mod sessions;

use std::sync::Arc;

use agentrouter_api::identity::api_keys_service_server::ApiKeysServiceServer;
use agentrouter_api::identity::identities_service_server::IdentitiesServiceServer;
use agentrouter_api::identity::sessions_service_server::SessionsServiceServer;
use agentrouter_rpc::Deps;
use tonic::service::RoutesBuilder;

use crate::Authenticator;

pub use api_keys::ApiKeys;
pub use identities::Identities;
pub use sessions::Sessions;

/// Adds the three services. `authenticator` is the one that this process checks credentials with.
pub fn add_services(routes: &mut RoutesBuilder, deps: &Deps, authenticator: &Arc<Authenticator>) {
    let identities = Identities::new(deps.clone(), Arc::clone(authenticator));
    let api_keys = ApiKeys::new(deps.clone(), Arc::clone(authenticator));
    let sessions = Sessions::new(deps.clone(), Arc::clone(authenticator));
    routes
        .add_service(IdentitiesServiceServer::new(identities))
        .add_service(ApiKeysServiceServer::new(api_keys))
        .add_service(SessionsServiceServer::new(sessions));
}
