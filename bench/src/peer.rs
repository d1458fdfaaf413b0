//! What the server's REST calls are compared with: the same service, behind less.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::{TenancyService, TenancyServiceServer};
use agentrouter_envelope::{Kek, Keyring};
use agentrouter_gateway::Transcoder;
use agentrouter_kernel::id::NameOrId;
use agentrouter_kernel::page::PageKey;
use agentrouter_kernel::{CredentialKind, Principal, Role, SystemClock};
use agentrouter_rpc::{Call, Deps};
use agentrouter_storage::scope::find_customer;
use agentrouter_storage::{CallOrigin, Db, Limits, Target};
use agentrouter_tenancy::Tenancy;
use anyhow::{Context, Result};
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use clap::ValueEnum;
use serde::Serialize;
use tonic::Request;
use tonic::service::Routes;
use tower::Layer;
use tower::util::MapRequestLayer;

/// How a peer serves. None of them authenticates, logs or limits anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peer {
    /// The gateway in front of the gRPC service, as in the server.
    Gateway,
    /// A handler as one writes it: axum calls the service's function, serde writes its answer.
    ByHand,
}

impl Peer {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::ByHand => "by-hand",
        }
    }

    /// What it is called in figures.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Gateway => "the gateway alone",
            Self::ByHand => "a hand-written handler",
        }
    }

    /// Serves `GET /v1/customers/{customer_id}` until it is killed.
    pub(crate) async fn serve(self, port: u16, database: &Path) -> Result<()> {
        let target = Target::Sqlite(database.to_owned());
        let db = Db::open(&target, Limits::default(), Arc::new(SystemClock)).await?;
        let call = operator(&db).await?;
        let deps = Deps {
            db,
            keyring: Arc::new(Keyring::new(vec![Kek::new("unused", &[0; 32])?])?),
            page_key: Arc::new(PageKey::new(&[0; 32])),
        };
        let tenancy = Tenancy::new(deps);
        let router = match self {
            Self::Gateway => {
                let admit = MapRequestLayer::new(move |mut request: http::Request<tonic::body::Body>| {
                    request.extensions_mut().insert(call.clone());
                    request
                });
                let grpc = admit.layer(Routes::new(TenancyServiceServer::new(tenancy)));
                Router::new().fallback_service(Transcoder::new(&DESCRIPTOR_POOL, grpc)?)
            }
            Self::ByHand => {
                Router::new().route("/v1/customers/{customer_id}", get(customer)).with_state((tenancy, call))
            }
        };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        Ok(axum::serve(listener, router).await?)
    }
}

/// A call by an operator, as the enforcement layer would have made it.
async fn operator(db: &Db) -> Result<Call> {
    let customer = find_customer(db, &NameOrId::parse("default")).await?;
    let customer = customer.context("the customer of the first start")?;
    Ok(Call {
        method: "agentrouter.tenancy.v1.TenancyService/GetCustomer".to_owned(),
        action: String::new(),
        caller: Some(Principal {
            credential: CredentialKind::ApiKey,
            credential_id: "bench".to_owned(),
            secret: None,
            customer: customer.id,
            customer_slug: customer.slug,
            role: Some(Role::Operator),
            identity: None,
            workspace: None,
            expires_at: None,
        }),
        origin: CallOrigin::default(),
        customer_header: None,
        idempotency_key: None,
    })
}

/// The answer as REST clients get it.
#[derive(Serialize)]
struct Answer {
    id: String,
    customer_id: String,
    display_name: String,
    description: String,
    state: &'static str,
    labels: BTreeMap<String, String>,
    created_at: Option<String>,
    updated_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    archived_at: Option<String>,
    etag: String,
}

async fn customer(
    State((tenancy, call)): State<(Tenancy, Call)>,
    UrlPath(customer_id): UrlPath<String>,
) -> Result<Json<Answer>, StatusCode> {
    let mut request = Request::new(pb::GetCustomerRequest { customer_id });
    request.extensions_mut().insert(call);
    let found = tenancy.get_customer(request).await.map_err(|_| StatusCode::NOT_FOUND)?.into_inner();
    let time = |time: prost_types::Timestamp| time.to_string();
    Ok(Json(Answer {
        state: found.state().as_str_name(),
        id: found.id,
        customer_id: found.customer_id,
        display_name: found.display_name,
        description: found.description,
        labels: found.labels,
        created_at: found.created_at.map(time),
        updated_at: found.updated_at.map(time),
        archived_at: found.archived_at.map(time),
        etag: found.etag,
    }))
}
