//! What is served beside the RPCs: health, readiness, the JWKS, what the API is like; and what every request passes: a request id, a
//! span, one log line.

use std::sync::Arc;
use std::time::Instant;

use agentrouter_edge::client_address;
use agentrouter_identity::SigningKeys;
use agentrouter_kernel::id::{Audit, Id};
use agentrouter_kernel::{Clock, SystemClock};
use agentrouter_listener::Connection;
use agentrouter_rpc::{Peer, RequestId, observe::caller};
use agentrouter_storage::Db;
use agentrouter_telemetry::Telemetry;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::openapi;

/// The header of request ids, both ways.
const REQUEST_ID: &str = "x-request-id";
const REQUEST_ID_MAX: usize = 128;

#[derive(Clone)]
struct Health {
    db: Db,
    keys: Arc<SigningKeys>,
    shutdown: CancellationToken,
}

/// The routes beside the RPCs.
pub(crate) fn routes(db: Db, keys: Arc<SigningKeys>, shutdown: CancellationToken) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/.well-known/jwks.json", get(jwks))
        .merge(openapi::routes())
        .with_state(Health { db, keys, shutdown })
}

/// Ready means: the database answers and the server is not on its way out.
async fn ready(State(health): State<Health>) -> Response {
    if health.shutdown.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n").into_response();
    }
    match health.db.ping().await {
        Ok(()) => "ok\n".into_response(),
        Err(error) => {
            tracing::warn!(%error, "not ready");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
        }
    }
}

async fn jwks(State(health): State<Health>) -> Response {
    let headers =
        [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "public, max-age=300")];
    match health.keys.jwks_json().await {
        Ok(json) => (headers, json.to_string()).into_response(),
        Err(fault) => {
            tracing::warn!(%fault, "the public keys cannot be read");
            (StatusCode::SERVICE_UNAVAILABLE, "the database does not answer\n").into_response()
        }
    }
}

/// What [`observe`] needs to know.
#[derive(Debug, Clone)]
pub struct Observer {
    /// Where responses are counted.
    pub telemetry: Telemetry,
    /// How many proxies are believed when they tell who called them.
    pub proxies: usize,
}

/// Gives every request an id and its peer, and logs it once when its answer begins.
pub async fn observe(
    State(Observer { telemetry, proxies }): State<Observer>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(&request);
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let peer = request.extensions().get::<Connection>().map(|connection| connection.peer);
    let peer = peer.map(|peer| client_address(request.headers(), peer, proxies));
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    if let Some(peer) = peer {
        request.extensions_mut().insert(Peer(peer));
    }
    let span = tracing::info_span!("request", request_id = &*id, trace_id = tracing::field::Empty);
    if let Some(caller) = caller(request.headers()) {
        span.record("trace_id", caller.trace_id().to_string());
    }
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let _entered = span.enter();
    let status = response.status().as_u16();
    telemetry.metrics().http_response(status);
    let grpc_status =
        response.headers().get("grpc-status").and_then(|value| value.to_str().ok()).unwrap_or("");
    let milliseconds = started.elapsed().as_secs_f64() * 1e3;
    // Paths carry slugs and ids, never secrets; the query is left out all the same.
    tracing::debug!(%method, path, status, grpc_status, milliseconds, "request served");
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// The caller's request id where it is usable, else a new one.
fn request_id(request: &Request) -> Arc<str> {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        (1..=REQUEST_ID_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':'))
    };
    if let Some(given) = given.filter(usable) {
        return Arc::from(given);
    }
    let id = Id::<Audit>::new(SystemClock.now()).uuid();
    Arc::from(&*id.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()))
}
