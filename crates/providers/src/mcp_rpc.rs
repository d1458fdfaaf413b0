//! McpServersService: decode, call, encode.

use agentrouter_api::common::PageRequest;
use agentrouter_api::providers as pb;
use agentrouter_api::providers::mcp_servers_service_server::McpServersService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status};

use crate::model::McpServer;
use crate::{convert, service, store};

/// McpServersService.
#[derive(Debug, Clone)]
pub struct McpServers {
    deps: Deps,
}

impl McpServers {
    /// The service on this database, with these keys.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn get(&self, call: &Call, request: pb::GetMcpServerRequest) -> Result<pb::McpServer, Fault> {
        convert::check_mcp_server_name(&request.customer_id, &request.mcp_server_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find_mcp_server(&self.deps.db, customer.id, &request.mcp_server_id).await?;
        Ok(convert::mcp_server(found, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListMcpServersRequest,
    ) -> Result<pb::ListMcpServersResponse, Fault> {
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let list = call.list(&store::MCP_SERVERS, request.page.map(in_total_order)).bind(customer.id);
        let (found, page) = list.fetch::<McpServer>(&self.deps).await?;
        let mcp_servers = found.into_iter().map(|found| convert::mcp_server(found, &customer.slug)).collect();
        Ok(pb::ListMcpServersResponse { mcp_servers, page: Some(page) })
    }

    async fn disable(
        &self,
        call: &Call,
        request: pb::DisableMcpServerRequest,
    ) -> Result<pb::McpServer, Fault> {
        convert::check_mcp_server_name(&request.customer_id, &request.mcp_server_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let disabled = service::disable_mcp_server(write.tx(), customer.id, &request.mcp_server_id).await?;
        let target = disabled.id.clone();
        write.commit(customer.id, target, convert::mcp_server(disabled, &customer.slug)).await
    }
}

/// The same page with `id` at the end of its order, which makes the order total.
fn in_total_order(mut page: PageRequest) -> PageRequest {
    let mut fields = page.order_by.split(',').filter_map(|part| part.split_whitespace().next()).peekable();
    if fields.peek().is_some() && !fields.any(|field| field == "id") {
        page.order_by.push_str(", id");
    }
    page
}

#[tonic::async_trait]
impl McpServersService for McpServers {
    async fn get_mcp_server(
        &self,
        request: Request<pb::GetMcpServerRequest>,
    ) -> Result<Response<pb::McpServer>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_mcp_servers(
        &self,
        request: Request<pb::ListMcpServersRequest>,
    ) -> Result<Response<pb::ListMcpServersResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn disable_mcp_server(
        &self,
        request: Request<pb::DisableMcpServerRequest>,
    ) -> Result<Response<pb::McpServer>, Status> {
        let (call, request) = Call::open(request)?;
        self.disable(&call, request).await.map(Response::new).map_err(into_status)
    }
}
