//! The gRPC service: decode, call, encode.

use agentrouter_api::audit as pb;
use agentrouter_api::audit::audit_service_server::AuditService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::{Call, Deps, into_status};
use tonic::{Request, Response, Status};

use crate::{convert, store};

/// `agentrouter.audit.v1.AuditService`.
#[derive(Debug, Clone)]
pub struct Audit {
    deps: Deps,
}

impl Audit {
    /// The service.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn list(
        &self,
        call: Call,
        req: pb::ListAuditEntriesRequest,
    ) -> Result<pb::ListAuditEntriesResponse, Fault> {
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let list = call.list(&store::ENTRIES, req.page).bind(customer.id);
        let (entries, page) = list.fetch(&self.deps).await?;
        let audit_entries = entries.into_iter().map(|entry| convert::entry(entry, &customer.slug)).collect();
        Ok(pb::ListAuditEntriesResponse { audit_entries, page: Some(page) })
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    async fn list_audit_entries(
        &self,
        request: Request<pb::ListAuditEntriesRequest>,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.list(call, req).await.map(Response::new).map_err(into_status)
    }
}
