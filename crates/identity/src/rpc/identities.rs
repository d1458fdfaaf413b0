//! IdentitiesService.

use std::sync::Arc;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::identities_service_server::IdentitiesService;
use agentrouter_kernel::{Fault, id};
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status, async_trait};

use crate::store::identities::{self as store, IdentityRow};
use crate::store::subjects::{of_identities, of_identity};
use crate::subjects::Mapper;
use crate::{Authenticator, convert, identities};

/// Serves IdentitiesService.
#[derive(Debug, Clone)]
pub struct Identities {
    deps: Deps,
    authenticator: Arc<Authenticator>,
}

impl Identities {
    /// The service. `authenticator` is the one that this process checks credentials with.
    pub fn new(deps: Deps, authenticator: Arc<Authenticator>) -> Self {
        Self { deps, authenticator }
    }

    async fn create(&self, call: &Call, request: pb::CreateIdentityRequest) -> Result<pb::Identity, Fault> {
        let new = convert::new_identity(&request)?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let mapper = Mapper { caller, customer: &customer, issuers: self.authenticator.issuers() };
        let row = identities::create(write.tx(), mapper, &new).await?;
        let id = row.id;
        let subjects = of_identity(write.tx(), customer.id, id).await?;
        write.commit(customer.id, id, convert::identity(row, subjects, &customer.slug)).await
    }

    async fn get(&self, call: &Call, request: pb::GetIdentityRequest) -> Result<pb::Identity, Fault> {
        let id = convert::identity_id(&request.identity_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let row = store::find(&self.deps.db, customer.id, id).await?;
        let row = row.ok_or_else(|| Fault::not_found::<id::Identity>(id))?;
        let subjects = of_identity(&self.deps.db, customer.id, id).await?;
        Ok(convert::identity(row, subjects, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListIdentitiesRequest,
    ) -> Result<pb::ListIdentitiesResponse, Fault> {
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let listing = call.list(&store::LIST, request.page).bind(customer.id);
        let (rows, page) = listing.fetch::<IdentityRow>(&self.deps).await?;
        let ids = rows.iter().map(|row| row.id).collect();
        let mut subjects = of_identities(&self.deps.db, customer.id, ids).await?;
        let mut identities = Vec::with_capacity(rows.len());
        for row in rows {
            let own = subjects.extract_if(.., |subject| subject.identity_id == row.id).collect();
            identities.push(convert::identity(row, own, &customer.slug));
        }
        Ok(pb::ListIdentitiesResponse { identities, page: Some(page) })
    }

    async fn update(&self, call: &Call, request: pb::UpdateIdentityRequest) -> Result<pb::Identity, Fault> {
        let (id, change, expected) = convert::identity_change(request.clone())?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let mapper = Mapper { caller, customer: &customer, issuers: self.authenticator.issuers() };
        let row = identities::update(write.tx(), mapper, id, change, expected).await?;
        let subjects = of_identity(write.tx(), customer.id, id).await?;
        let answer = convert::identity(row, subjects, &customer.slug);
        let answer = write.commit(customer.id, id, answer).await?;
        // Sessions of users that went end now.
        self.authenticator.forget();
        Ok(answer)
    }

    async fn delete(
        &self,
        call: &Call,
        request: pb::DeleteIdentityRequest,
    ) -> Result<pb::DeleteIdentityResponse, Fault> {
        let id = convert::identity_id(&request.identity_id)?;
        let caller = call.principal()?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        identities::delete(write.tx(), caller, customer.id, id, expected).await?;
        let answer = write.commit(customer.id, id, pb::DeleteIdentityResponse {}).await?;
        self.authenticator.forget();
        Ok(answer)
    }
}

#[async_trait]
impl IdentitiesService for Identities {
    async fn create_identity(
        &self,
        request: Request<pb::CreateIdentityRequest>,
    ) -> Result<Response<pb::Identity>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_identity(
        &self,
        request: Request<pb::GetIdentityRequest>,
    ) -> Result<Response<pb::Identity>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_identities(
        &self,
        request: Request<pb::ListIdentitiesRequest>,
    ) -> Result<Response<pb::ListIdentitiesResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn update_identity(
        &self,
        request: Request<pb::UpdateIdentityRequest>,
    ) -> Result<Response<pb::Identity>, Status> {
        let (call, request) = Call::open(request)?;
        self.update(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn delete_identity(
        &self,
        request: Request<pb::DeleteIdentityRequest>,
    ) -> Result<Response<pb::DeleteIdentityResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.delete(&call, request).await.map(Response::new).map_err(into_status)
    }
}
