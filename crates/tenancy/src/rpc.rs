//! The gRPC service: decode, call, encode.

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::{Fault, id};
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use agentrouter_storage::scope::CustomerScope;
use tonic::{Request, Response, Status};

use crate::{convert, purge, service, store};

/// `agentrouter.tenancy.v1.TenancyService`.
#[derive(Debug, Clone)]
pub struct Tenancy {
    deps: Deps,
}

impl Tenancy {
    /// The service.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn create(&self, call: Call, req: pb::CreateCustomerRequest) -> Result<pb::Customer, Fault> {
        let new = convert::new_customer(&req)?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let customer = service::create_customer(write.tx(), new).await?;
        write.commit(customer.id, customer.id, convert::customer(customer)).await
    }

    async fn get(&self, call: Call, req: pb::GetCustomerRequest) -> Result<pb::Customer, Fault> {
        let scope = call.customer(&self.deps.db, &req.customer_id).await?;
        let found = store::find(&self.deps.db, scope.id).await?;
        found.map(convert::customer).ok_or_else(|| Fault::not_found::<id::Customer>(&req.customer_id))
    }

    async fn list(
        &self,
        call: Call,
        req: pb::ListCustomersRequest,
    ) -> Result<pb::ListCustomersResponse, Fault> {
        let show_deleted = call.show_deleted(req.show_deleted)?;
        let principal = call.principal()?;
        let list = if principal.is_operator() {
            call.list(&store::ALL, req.page).bind(show_deleted)
        } else {
            call.list(&store::ONE, req.page).bind(show_deleted).bind(principal.customer)
        };
        let (customers, page) = list.fetch(&self.deps).await?;
        let customers = customers.into_iter().map(convert::customer).collect();
        Ok(pb::ListCustomersResponse { customers, page: Some(page) })
    }

    async fn update(&self, call: Call, req: pb::UpdateCustomerRequest) -> Result<pb::Customer, Fault> {
        let changes = convert::changes(&req)?;
        let scope = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&req.etag);
        let customer = service::update(write.tx(), scope.id, changes, expected).await?;
        write.commit(customer.id, customer.id, convert::customer(customer)).await
    }

    async fn archive(
        &self,
        call: Call,
        req: pb::ArchiveCustomerRequest,
    ) -> Result<pb::ArchiveCustomerResponse, Fault> {
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        // Before the customer is looked up: a repeat of the call that archived it would not find it.
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let scope = call.customer(write.tx(), &req.customer_id).await?;
        service::archive(write.tx(), scope.id, expected_revision(&req.etag)).await?;
        write.commit(scope.id, scope.id, pb::ArchiveCustomerResponse {}).await
    }

    async fn undelete(&self, call: Call, req: pb::UndeleteCustomerRequest) -> Result<pb::Customer, Fault> {
        if req.customer_id.is_empty() {
            return Err(Fault::invalid_field("customer_id", "is required"));
        }
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let archived = service::lock_any(write.tx(), &req.customer_id, false).await?;
        call.check_customer_header(&CustomerScope { id: archived.id, slug: archived.slug.clone() })?;
        let customer = service::undelete(write.tx(), &archived).await?;
        write.commit(customer.id, customer.id, convert::customer(customer)).await
    }

    async fn purge(
        &self,
        call: Call,
        req: pb::PurgeCustomerRequest,
    ) -> Result<pb::PurgeCustomerResponse, Fault> {
        if req.customer_id.is_empty() {
            return Err(Fault::invalid_field("customer_id", "is required"));
        }
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let customer = service::lock_any(write.tx(), &req.customer_id, true).await?;
        call.check_customer_header(&CustomerScope { id: customer.id, slug: customer.slug.clone() })?;
        purge::begin(write.tx(), &customer).await?;
        // What says that it is gone cannot stand in what is gone.
        let own = call.principal()?.customer;
        let answer = write.commit(own, customer.id, pb::PurgeCustomerResponse {}).await?;
        purge::finish(&self.deps.db, customer.id).await?;
        Ok(answer)
    }
}

#[tonic::async_trait]
impl TenancyService for Tenancy {
    async fn create_customer(
        &self,
        request: Request<pb::CreateCustomerRequest>,
    ) -> Result<Response<pb::Customer>, Status> {
        let (call, req) = Call::open(request)?;
        self.create(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn get_customer(
        &self,
        request: Request<pb::GetCustomerRequest>,
    ) -> Result<Response<pb::Customer>, Status> {
        let (call, req) = Call::open(request)?;
        self.get(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn list_customers(
        &self,
        request: Request<pb::ListCustomersRequest>,
    ) -> Result<Response<pb::ListCustomersResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.list(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn update_customer(
        &self,
        request: Request<pb::UpdateCustomerRequest>,
    ) -> Result<Response<pb::Customer>, Status> {
        let (call, req) = Call::open(request)?;
        self.update(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn archive_customer(
        &self,
        request: Request<pb::ArchiveCustomerRequest>,
    ) -> Result<Response<pb::ArchiveCustomerResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.archive(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn undelete_customer(
        &self,
        request: Request<pb::UndeleteCustomerRequest>,
    ) -> Result<Response<pb::Customer>, Status> {
        let (call, req) = Call::open(request)?;
        self.undelete(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn purge_customer(
        &self,
        request: Request<pb::PurgeCustomerRequest>,
    ) -> Result<Response<pb::PurgeCustomerResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.purge(call, req).await.map(Response::new).map_err(into_status)
    }
}
