//! `/metrics`: open on a loopback address or a listener of its own, for viewers elsewhere.

use std::sync::Arc;

use agentrouter_identity::Authenticator;
use agentrouter_kernel::{CredentialKind, Role};
use agentrouter_rpc::Authenticate;
use agentrouter_rpc::enforce::bearer;
use agentrouter_storage::Db;
use agentrouter_telemetry::metrics::CONTENT_TYPE;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

#[derive(Clone)]
struct Exposed {
    db: Db,
    /// None where anybody may read.
    authenticator: Option<Arc<Authenticator>>,
}

/// The route for anybody who can reach it.
pub(crate) fn open(db: &Db) -> Router {
    route(Exposed { db: db.clone(), authenticator: None })
}

/// The route for whoever has at least a viewer's key.
pub(crate) fn guarded(db: &Db, authenticator: &Arc<Authenticator>) -> Router {
    route(Exposed { db: db.clone(), authenticator: Some(Arc::clone(authenticator)) })
}

fn route(exposed: Exposed) -> Router {
    Router::new().route("/metrics", get(metrics)).with_state(exposed)
}

async fn metrics(State(exposed): State<Exposed>, request: Request) -> Response {
    if let Some(authenticator) = &exposed.authenticator {
        // The body waits for nobody, and need not be shared with the future of the look-up.
        let headers = request.headers().clone();
        drop(request);
        let Some(token) = bearer(&headers) else { return unauthenticated() };
        let Ok(caller) = authenticator.authenticate(token).await else { return unauthenticated() };
        if caller.credential == CredentialKind::Workspace || !caller.has(Role::Viewer) {
            return (StatusCode::FORBIDDEN, "reading metrics needs the role viewer\n").into_response();
        }
    }
    exposed.db.observe_pool();
    match exposed.db.telemetry().metrics().encode() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

fn unauthenticated() -> Response {
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
    let hint = "on this address metrics need a viewer's key: send `authorization: Bearer <key>`\n";
    (StatusCode::UNAUTHORIZED, challenge, hint).into_response()
}
