//! ApiKeysService.

use std::sync::Arc;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_kernel::{Fault, id};
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status, async_trait};

use crate::store::api_keys::{self as store, ApiKeyRow};
use crate::{Authenticator, api_keys, convert};

/// Serves ApiKeysService.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    deps: Deps,
    authenticator: Arc<Authenticator>,
}

impl ApiKeys {
    /// The service. `authenticator` is the one that this process checks credentials with.
    pub fn new(deps: Deps, authenticator: Arc<Authenticator>) -> Self {
        Self { deps, authenticator }
    }

    async fn create(
        &self,
        call: &Call,
        request: pb::CreateApiKeyRequest,
    ) -> Result<pb::CreateApiKeyResponse, Fault> {
        let new = convert::new_api_key(&request)?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let (row, secret) = api_keys::create(write.tx(), caller, customer.id, &new).await?;
        let id = row.id;
        let api_key = Some(convert::api_key(row, &customer.slug));
        let answer = pb::CreateApiKeyResponse { api_key, key: secret.expose().to_owned() };
        write.commit(customer.id, id, answer).await
    }

    async fn get(&self, call: &Call, request: pb::GetApiKeyRequest) -> Result<pb::ApiKey, Fault> {
        let id = convert::api_key_id(&request.api_key_id)?;
        let sees_operators = call.principal()?.is_operator();
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let row = store::find(&self.deps.db, customer.id, id, sees_operators).await?;
        let row = row.ok_or_else(|| Fault::not_found::<id::ApiKey>(id))?;
        Ok(convert::api_key(row, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListApiKeysRequest,
    ) -> Result<pb::ListApiKeysResponse, Fault> {
        let sees_operators = call.principal()?.is_operator();
        let show_deleted = call.show_deleted(request.show_deleted)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let listing = call.list(&store::LIST, request.page);
        let listing = listing.bind(customer.id).bind(sees_operators).bind(show_deleted);
        let (rows, page) = listing.fetch::<ApiKeyRow>(&self.deps).await?;
        let api_keys = rows.into_iter().map(|row| convert::api_key(row, &customer.slug)).collect();
        Ok(pb::ListApiKeysResponse { api_keys, page: Some(page) })
    }

    async fn revoke(&self, call: &Call, request: pb::RevokeApiKeyRequest) -> Result<pb::ApiKey, Fault> {
        let id = convert::api_key_id(&request.api_key_id)?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let row = api_keys::revoke(write.tx(), caller, customer.id, id).await?;
        let answer = write.commit(customer.id, id, convert::api_key(row, &customer.slug)).await?;
        self.authenticator.forget();
        Ok(answer)
    }

    async fn rotate(
        &self,
        call: &Call,
        request: pb::RotateApiKeyRequest,
    ) -> Result<pb::RotateApiKeyResponse, Fault> {
        let (id, overlap) = convert::rotation(&request)?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let (row, secret) = api_keys::rotate(write.tx(), caller, customer.id, id, overlap).await?;
        let api_key = Some(convert::api_key(row, &customer.slug));
        let answer = pb::RotateApiKeyResponse { api_key, key: secret.expose().to_owned() };
        let answer = write.commit(customer.id, id, answer).await?;
        self.authenticator.forget();
        Ok(answer)
    }
}

#[async_trait]
impl ApiKeysService for ApiKeys {
    async fn create_api_key(
        &self,
        request: Request<pb::CreateApiKeyRequest>,
    ) -> Result<Response<pb::CreateApiKeyResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_api_key(
        &self,
        request: Request<pb::GetApiKeyRequest>,
    ) -> Result<Response<pb::ApiKey>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_api_keys(
        &self,
        request: Request<pb::ListApiKeysRequest>,
    ) -> Result<Response<pb::ListApiKeysResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn revoke_api_key(
        &self,
        request: Request<pb::RevokeApiKeyRequest>,
    ) -> Result<Response<pb::ApiKey>, Status> {
        let (call, request) = Call::open(request)?;
        self.revoke(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn rotate_api_key(
        &self,
        request: Request<pb::RotateApiKeyRequest>,
    ) -> Result<Response<pb::RotateApiKeyResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.rotate(&call, request).await.map(Response::new).map_err(into_status)
    }
}
