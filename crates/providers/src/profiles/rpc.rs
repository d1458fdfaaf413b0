//! McpProfilesService: decode, call, encode.

use agentrouter_api::providers as pb;
use agentrouter_api::providers::mcp_profiles_service_server::McpProfilesService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status};

use super::{Profile, convert, store};

/// McpProfilesService.
#[derive(Debug, Clone)]
pub struct McpProfiles {
    deps: Deps,
}

impl McpProfiles {
    /// The service on this database, with these keys.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn create(
        &self,
        call: &Call,
        request: pb::CreateMcpProfileRequest,
    ) -> Result<pb::McpProfile, Fault> {
        let new = convert::new_profile(request.clone())?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let created = super::create(write.tx(), customer.id, new).await?;
        write.commit(customer.id, created.id, convert::profile(created, &customer.slug)).await
    }

    async fn get(&self, call: &Call, request: pb::GetMcpProfileRequest) -> Result<pb::McpProfile, Fault> {
        let name = convert::name(&request.customer_id, &request.mcp_profile_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = store::find(&self.deps.db, customer.id, &name).await?;
        let found = found.ok_or_else(|| super::not_found(&name))?;
        Ok(convert::profile(found, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListMcpProfilesRequest,
    ) -> Result<pb::ListMcpProfilesResponse, Fault> {
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let list = call.list(&store::LIST, request.page).bind(customer.id);
        let (found, page) = list.fetch::<Profile>(&self.deps).await?;
        let mcp_profiles = found.into_iter().map(|found| convert::profile(found, &customer.slug)).collect();
        Ok(pb::ListMcpProfilesResponse { mcp_profiles, page: Some(page) })
    }

    async fn update(
        &self,
        call: &Call,
        request: pb::UpdateMcpProfileRequest,
    ) -> Result<pb::McpProfile, Fault> {
        let (name, change) = convert::change(request.clone())?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let updated = super::update(write.tx(), customer.id, &name, expected, change).await?;
        write.commit(customer.id, updated.id, convert::profile(updated, &customer.slug)).await
    }

    async fn delete(
        &self,
        call: &Call,
        request: pb::DeleteMcpProfileRequest,
    ) -> Result<pb::DeleteMcpProfileResponse, Fault> {
        let name = convert::name(&request.customer_id, &request.mcp_profile_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let deleted = super::delete(write.tx(), customer.id, &name, expected).await?;
        write.commit(customer.id, deleted, pb::DeleteMcpProfileResponse {}).await
    }
}

#[tonic::async_trait]
impl McpProfilesService for McpProfiles {
    async fn create_mcp_profile(
        &self,
        request: Request<pb::CreateMcpProfileRequest>,
    ) -> Result<Response<pb::McpProfile>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_mcp_profile(
        &self,
        request: Request<pb::GetMcpProfileRequest>,
    ) -> Result<Response<pb::McpProfile>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_mcp_profiles(
        &self,
        request: Request<pb::ListMcpProfilesRequest>,
    ) -> Result<Response<pb::ListMcpProfilesResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn update_mcp_profile(
        &self,
        request: Request<pb::UpdateMcpProfileRequest>,
    ) -> Result<Response<pb::McpProfile>, Status> {
        let (call, request) = Call::open(request)?;
        self.update(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn delete_mcp_profile(
        &self,
        request: Request<pb::DeleteMcpProfileRequest>,
    ) -> Result<Response<pb::DeleteMcpProfileResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.delete(&call, request).await.map(Response::new).map_err(into_status)
    }
}
