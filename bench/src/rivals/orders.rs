//! The service that all serve, and its descriptors.

use std::sync::Arc;

use agentrouter_gateway::DirectRpcs;
use anyhow::Result;
use prost_reflect::DescriptorPool;
use tonic::{Request, Response, Status};

use pb::orders_service_server::OrdersService;

/// Generated from the proto.
#[allow(
    clippy::all,
    clippy::pedantic,
    clippy::allow_attributes,
    unreachable_pub,
    unused_qualifications,
    reason = "generated code"
)]
pub(crate) mod pb {
    tonic::include_proto!("agentrouter.bench.v1");
}

/// The descriptors of the service alone.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
const DESCRIPTORS_10: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor-10.bin"));
const DESCRIPTORS_1000: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor-1000.bin"));

/// How many routes there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Routes {
    Two,
    Ten,
    Thousand,
}

/// The descriptors of the service, and of so many routes.
pub(crate) fn pool(routes: Routes) -> Result<DescriptorPool> {
    Ok(DescriptorPool::decode(match routes {
        Routes::Two => DESCRIPTORS,
        Routes::Ten => DESCRIPTORS_10,
        Routes::Thousand => DESCRIPTORS_1000,
    })?)
}

/// Sends back what it gets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders;

#[async_trait::async_trait]
impl OrdersService for Orders {
    async fn echo(&self, request: Request<pb::Order>) -> Result<Response<pb::Order>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn find(&self, request: Request<pb::FindRequest>) -> Result<Response<pb::FindResponse>, Status> {
        let pb::FindRequest { shop, number, state, limit, since, tags } = request.into_inner();
        Ok(Response::new(pb::FindResponse { shop, number, state, limit, since, tags }))
    }
}

/// Its rpcs, to be called without framing, as the build script of the product's services makes them.
pub(crate) fn direct() -> DirectRpcs {
    let mut rpcs = DirectRpcs::default();
    let service = Arc::new(Orders);
    let orders = Arc::clone(&service);
    rpcs.add("/agentrouter.bench.v1.OrdersService/Echo", move |request| {
        let service = Arc::clone(&orders);
        async move { service.echo(request).await }
    });
    rpcs.add("/agentrouter.bench.v1.OrdersService/Find", move |request| {
        let service = Arc::clone(&service);
        async move { service.find(request).await }
    });
    rpcs
}
