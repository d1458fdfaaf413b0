//! ProvidersService: decode, call, encode.

use agentrouter_api::providers as pb;
use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status};

use crate::convert::{self, Wiped};
use crate::model::Provider;
use crate::{service, store};

/// ProvidersService.
#[derive(Debug, Clone)]
pub struct Providers {
    deps: Deps,
}

impl Providers {
    /// The service on this database, with these keys.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn create(&self, call: &Call, request: pb::CreateProviderRequest) -> Result<pb::Provider, Fault> {
        let request = Wiped(request);
        let new = convert::new_provider(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &*request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let created = service::create(write.tx(), &self.deps.keyring, customer.id, new).await?;
        write.commit(customer.id, created.id, convert::provider(created, &customer.slug)).await
    }

    async fn get(&self, call: &Call, request: pb::GetProviderRequest) -> Result<pb::Provider, Fault> {
        let name = convert::provider_name(&request.customer_id, &request.provider_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find(&self.deps.db, customer.id, &name).await?;
        Ok(convert::provider(found, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListProvidersRequest,
    ) -> Result<pb::ListProvidersResponse, Fault> {
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let list = call.list(&store::PROVIDERS, request.page).bind(customer.id);
        let (found, page) = list.fetch::<Provider>(&self.deps).await?;
        let providers = found.into_iter().map(|found| convert::provider(found, &customer.slug)).collect();
        Ok(pb::ListProvidersResponse { providers, page: Some(page) })
    }

    async fn update(&self, call: &Call, request: pb::UpdateProviderRequest) -> Result<pb::Provider, Fault> {
        let request = Wiped(request);
        let (name, change) = convert::change(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &*request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let keyring = &self.deps.keyring;
        let updated = service::update(write.tx(), keyring, customer.id, &name, expected, change).await?;
        write.commit(customer.id, updated.id, convert::provider(updated, &customer.slug)).await
    }

    async fn delete(
        &self,
        call: &Call,
        request: pb::DeleteProviderRequest,
    ) -> Result<pb::DeleteProviderResponse, Fault> {
        let name = convert::provider_name(&request.customer_id, &request.provider_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let deleted = service::delete(write.tx(), customer.id, &name, expected).await?;
        write.commit(customer.id, deleted, pb::DeleteProviderResponse {}).await
    }

    async fn enable(&self, call: &Call, request: pb::EnableProviderRequest) -> Result<pb::Provider, Fault> {
        let name = convert::provider_name(&request.customer_id, &request.provider_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let enabled = service::set_enabled(write.tx(), customer.id, &name, true).await?;
        write.commit(customer.id, enabled.id, convert::provider(enabled, &customer.slug)).await
    }

    async fn disable(&self, call: &Call, request: pb::DisableProviderRequest) -> Result<pb::Provider, Fault> {
        let name = convert::provider_name(&request.customer_id, &request.provider_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let disabled = service::set_enabled(write.tx(), customer.id, &name, false).await?;
        write.commit(customer.id, disabled.id, convert::provider(disabled, &customer.slug)).await
    }
}

#[tonic::async_trait]
impl ProvidersService for Providers {
    async fn create_provider(
        &self,
        request: Request<pb::CreateProviderRequest>,
    ) -> Result<Response<pb::Provider>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_provider(
        &self,
        request: Request<pb::GetProviderRequest>,
    ) -> Result<Response<pb::Provider>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_providers(
        &self,
        request: Request<pb::ListProvidersRequest>,
    ) -> Result<Response<pb::ListProvidersResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn update_provider(
        &self,
        request: Request<pb::UpdateProviderRequest>,
    ) -> Result<Response<pb::Provider>, Status> {
        let (call, request) = Call::open(request)?;
        self.update(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn delete_provider(
        &self,
        request: Request<pb::DeleteProviderRequest>,
    ) -> Result<Response<pb::DeleteProviderResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.delete(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn enable_provider(
        &self,
        request: Request<pb::EnableProviderRequest>,
    ) -> Result<Response<pb::Provider>, Status> {
        let (call, request) = Call::open(request)?;
        self.enable(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn disable_provider(
        &self,
        request: Request<pb::DisableProviderRequest>,
    ) -> Result<Response<pb::Provider>, Status> {
        let (call, request) = Call::open(request)?;
        self.disable(&call, request).await.map(Response::new).map_err(into_status)
    }
}
