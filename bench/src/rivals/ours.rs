//! The gateway: alone, with everything that the product puts around it, with many routes, and in front of a remote
//! service.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use agentrouter::config::StoreConfig;
use agentrouter::config::edge::EdgeConfig;
use agentrouter::{bootstrap, edge, http, store, telemetry};
use agentrouter_edge::Timely;
use agentrouter_envelope::Secret;
use agentrouter_gateway::remote::Remote;
use agentrouter_gateway::{DeadlineLayer, Direct, ProtocolOptions, Protocols, Transcoder};
use agentrouter_identity::{Authenticator, SigningKeys};
use agentrouter_listener::{self as listener, Settings};
use agentrouter_rpc::{EnforceLayer, ObserveLayer, Policies};
use agentrouter_storage::Target;
use agentrouter_telemetry::Telemetry;
use anyhow::{Context as _, Result, anyhow};
use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::Layer;

use super::orders::pb::orders_service_server::OrdersServiceServer;
use super::orders::{self, Orders, Routes};
use crate::server::{KEY, keyring};

type Backend = Direct<tonic::service::Routes>;

fn backend() -> Backend {
    Direct::new(orders::direct(), tonic::service::Routes::new(OrdersServiceServer::new(Orders)))
}

/// All protocols in front of the service in this process, and nothing else.
pub(crate) fn alone(routes: Routes) -> Result<Router> {
    let pool = orders::pool(routes)?;
    let rest = Transcoder::new(&pool, backend())?;
    Ok(Router::new().fallback_service(Protocols::new(&pool, rest, ProtocolOptions::default())))
}

/// The same in front of a gRPC server elsewhere.
pub(crate) fn proxy(upstream: SocketAddr) -> Result<Router> {
    let pool = orders::pool(Routes::Two)?;
    let remote = Remote::connect(&format!("http://{upstream}"))?;
    let rest = Transcoder::new(&pool, remote)?;
    Ok(Router::new().fallback_service(Protocols::new(&pool, rest, ProtocolOptions::default())))
}

/// Serves as the product does, on a database of its own: its listener and limits, request ids, CORS, metrics, traces,
/// deadlines, authentication and policies, put together as its composition root does it.
pub(crate) async fn everything(listener: TcpListener, folder: &Path) -> Result<()> {
    let config = EdgeConfig::default();
    telemetry::start("warn")?;
    let target = Target::Sqlite(folder.join("rivals.db"));
    let store = StoreConfig { data_dir: folder.to_owned(), target, max_connections: 4 };
    let deps = store::open_with(&store, Some(keyring()?), Telemetry::default()).await?;
    bootstrap::bootstrap(&deps, Some(&Secret::new(KEY)), folder).await?;
    let keys = Arc::new(SigningKeys::load_or_create(&deps.db, &deps.keyring).await.context("signing keys")?);
    let (authenticator, key_usage) = Authenticator::new(deps.db.clone(), keys);
    let stop = CancellationToken::new();
    let mut jobs = JoinSet::new();
    jobs.spawn(key_usage.run(stop.clone()));

    let pool = orders::pool(Routes::Two)?;
    let policies = Policies::load(&pool).map_err(|problem| anyhow!(problem))?;
    let observe = ObserveLayer::new(&policies, deps.db.telemetry().clone());
    let enforce = EnforceLayer::new(
        policies.clone(),
        Arc::new(authenticator),
        deps.db.clone(),
        config.calls,
        config.rates,
    );
    let grpc = observe.layer(DeadlineLayer.layer(enforce.layer(backend())));
    let rest = Transcoder::new(&pool, grpc)?;
    let at_edge = edge::layer(&config, &rest, &policies);
    let protocols = Protocols::new(&pool, rest, ProtocolOptions::default());
    let observer = http::Observer { telemetry: deps.db.telemetry().clone(), proxies: config.trusted_proxies };
    let router = Router::new()
        .fallback_service(protocols)
        .layer((axum::middleware::from_fn_with_state(observer, http::observe), at_edge));
    let settings = Settings { limits: config.connections, tls: None };
    let service = Timely::new(router, config.bodies, edge::client_streams());
    Ok(listener::serve(listener, settings, service, stop).await?)
}

/// The service behind a gRPC server alone.
pub(crate) fn upstream() -> Router {
    tonic::service::Routes::new(OrdersServiceServer::new(Orders)).into_axum_router()
}
