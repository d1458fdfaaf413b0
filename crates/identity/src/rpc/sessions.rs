//! SessionsService.

use std::sync::Arc;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::sessions_service_server::SessionsService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use agentrouter_storage::scope::CustomerScope;
use tonic::{Request, Response, Status, async_trait};

use crate::store::subjects::find_live;
use crate::store::tokens::{self as store, SessionRow};
use crate::{Authenticator, convert, sessions, subjects};

/// Serves SessionsService.
#[derive(Debug, Clone)]
pub struct Sessions {
    deps: Deps,
    authenticator: Arc<Authenticator>,
}

impl Sessions {
    /// The service. `authenticator` is the one that this process checks credentials with.
    pub fn new(deps: Deps, authenticator: Arc<Authenticator>) -> Self {
        Self { deps, authenticator }
    }

    async fn create(
        &self,
        call: &Call,
        request: pb::CreateSessionRequest,
    ) -> Result<pb::CreateSessionResponse, Fault> {
        if !request.oidc_token.is_empty() {
            return self.exchange(call, request).await;
        }
        let customer = call.own_customer(&self.deps.db).await?;
        self.create_for(call, request, customer).await
    }

    /// A session for the user of an OIDC token, who is the caller from here on.
    async fn exchange(
        &self,
        call: &Call,
        request: pb::CreateSessionRequest,
    ) -> Result<pb::CreateSessionResponse, Fault> {
        if call.caller.is_some() {
            return Err(Fault::invalid_field("oidc_token", "must come without another credential"));
        }
        let issuers = self.authenticator.issuers();
        let subject = issuers.verify(&request.oidc_token, self.deps.db.now().await?).await?;
        let found = find_live(&self.deps.db, &subject).await?;
        let (customer, caller) = subjects::principal(found, issuers, &subject)?;
        if call.customer_header.is_some() {
            return Err(Fault::denied("OPERATOR_REQUIRED", "only operators may name a customer by header"));
        }
        let call = Call { caller: Some(caller), ..call.clone() };
        self.create_for(&call, request, customer).await
    }

    async fn create_for(
        &self,
        call: &Call,
        request: pb::CreateSessionRequest,
        customer: CustomerScope,
    ) -> Result<pb::CreateSessionResponse, Fault> {
        let caller = call.principal()?;
        let new = convert::new_session(&request)?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let signing = self.authenticator.signing_keys();
        let (row, issued) = sessions::create(write.tx(), signing, caller, customer.id, &new).await?;
        let session = Some(convert::session(row, &customer.slug));
        let answer = pb::CreateSessionResponse { session, token: issued.token.expose().to_owned() };
        write.commit(customer.id, &issued.jti, answer).await
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListSessionsRequest,
    ) -> Result<pb::ListSessionsResponse, Fault> {
        let caller = call.principal()?;
        let customer = call.own_customer(&self.deps.db).await?;
        let seen = sessions::seen_identity(caller);
        let spec = if seen.is_some() { &store::LIST_OF_IDENTITY } else { &store::LIST };
        let mut listing = call.list(spec, request.page).bind(customer.id).bind(caller.is_operator());
        if let Some(identity) = seen {
            listing = listing.bind(identity);
        }
        let (rows, page) = listing.fetch::<SessionRow>(&self.deps).await?;
        let sessions = rows.into_iter().map(|row| convert::session(row, &customer.slug)).collect();
        Ok(pb::ListSessionsResponse { sessions, page: Some(page) })
    }

    async fn revoke(
        &self,
        call: &Call,
        request: pb::RevokeSessionRequest,
    ) -> Result<pb::RevokeSessionResponse, Fault> {
        let id = convert::session_id(&request.session_id)?;
        let caller = call.principal()?;
        let customer = call.own_customer(&self.deps.db).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        sessions::revoke(write.tx(), caller, customer.id, id).await?;
        let answer = write.commit(customer.id, id, pb::RevokeSessionResponse {}).await?;
        self.authenticator.forget();
        Ok(answer)
    }
}

#[async_trait]
impl SessionsService for Sessions {
    async fn create_session(
        &self,
        request: Request<pb::CreateSessionRequest>,
    ) -> Result<Response<pb::CreateSessionResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_sessions(
        &self,
        request: Request<pb::ListSessionsRequest>,
    ) -> Result<Response<pb::ListSessionsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn revoke_session(
        &self,
        request: Request<pb::RevokeSessionRequest>,
    ) -> Result<Response<pb::RevokeSessionResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.revoke(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn who_am_i(
        &self,
        request: Request<pb::WhoAmIRequest>,
    ) -> Result<Response<pb::WhoAmIResponse>, Status> {
        let (call, _) = Call::open(request)?;
        call.principal().map(convert::who_am_i).map(Response::new).map_err(into_status)
    }
}
