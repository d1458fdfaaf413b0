//! WorkspacesService: decode, call, encode.

use std::fmt;
use std::sync::Arc;

use agentrouter_api::configurator::DoctorRuntime;
use agentrouter_api::workspaces as pb;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_delivery::{resync, upgrade};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{self, Id, NameOrId};
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, WorkspaceTokens, Write, into_status};
use agentrouter_storage::scope::CustomerScope;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use tonic::{Request, Response, Status};

use crate::model::Workspace;
use crate::watch::StatusWatch;
use crate::{convert, service, status, store};

/// WorkspacesService.
#[derive(Clone)]
pub struct Workspaces {
    deps: Deps,
    tokens: Arc<dyn WorkspaceTokens>,
    watch: Arc<StatusWatch>,
}

impl fmt::Debug for Workspaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workspaces").field("deps", &self.deps).finish_non_exhaustive()
    }
}

impl Workspaces {
    /// The service on this database, with these keys, and with the issuer of its workers' tokens.
    pub fn new(deps: Deps, tokens: Arc<dyn WorkspaceTokens>) -> Self {
        Self { deps, tokens, watch: Arc::default() }
    }

    /// What wakes the streams of status. It has to run.
    pub fn status_watch(&self) -> Arc<StatusWatch> {
        Arc::clone(&self.watch)
    }

    async fn create(&self, call: &Call, request: pb::CreateWorkspaceRequest) -> Result<pb::Workspace, Fault> {
        let new = convert::new_workspace(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let created = service::create_workspace(write.tx(), customer.id, new).await?;
        write.commit(customer.id, created.id, convert::workspace(created, &customer.slug)).await
    }

    async fn get(&self, call: &Call, request: pb::GetWorkspaceRequest) -> Result<pb::Workspace, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find(&self.deps.db, customer.id, &name).await?;
        Ok(convert::workspace(found, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListWorkspacesRequest,
    ) -> Result<pb::ListWorkspacesResponse, Fault> {
        let show_deleted = call.show_deleted(request.show_deleted)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let list = call.list(&store::WORKSPACES, request.page).bind(customer.id).bind(show_deleted);
        let (found, page) = list.fetch::<Workspace>(&self.deps).await?;
        let workspaces = found.into_iter().map(|found| convert::workspace(found, &customer.slug)).collect();
        Ok(pb::ListWorkspacesResponse { workspaces, page: Some(page) })
    }

    async fn update(&self, call: &Call, request: pb::UpdateWorkspaceRequest) -> Result<pb::Workspace, Fault> {
        let (name, change) = convert::change(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let updated = service::update(write.tx(), customer.id, &name, expected, change).await?;
        write.commit(customer.id, updated.id, convert::workspace(updated, &customer.slug)).await
    }

    async fn archive(
        &self,
        call: &Call,
        request: pb::ArchiveWorkspaceRequest,
    ) -> Result<pb::ArchiveWorkspaceResponse, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let archived = service::archive(write.tx(), customer.id, &name, expected).await?;
        write.commit(customer.id, archived, pb::ArchiveWorkspaceResponse {}).await
    }

    async fn issue_token(
        &self,
        call: &Call,
        request: pb::IssueWorkspaceTokenRequest,
    ) -> Result<pb::IssueWorkspaceTokenResponse, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let workspace = service::find(write.tx(), customer.id, &name).await?;
        let token = self.tokens.issue(write.tx(), customer.id, workspace.id).await?;
        write.commit(customer.id, workspace.id, convert::issued(&token)).await
    }

    async fn renew_token(
        &self,
        call: &Call,
        request: pb::RenewWorkspaceTokenRequest,
    ) -> Result<pb::RenewWorkspaceTokenResponse, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let caller = call.principal()?;
        service::check_own(caller, &name)?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let workspace = service::find(write.tx(), customer.id, &name).await?;
        service::hold_token(write.tx(), caller).await?;
        let token = self.tokens.issue(write.tx(), customer.id, workspace.id).await?;
        write.commit(customer.id, workspace.id, convert::renewed(&token)).await
    }

    async fn status(
        &self,
        call: &Call,
        request: pb::GetWorkspaceStatusRequest,
    ) -> Result<pb::WorkspaceStatus, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find(&self.deps.db, customer.id, &name).await?;
        self.picture(&customer, found).await
    }

    async fn picture(
        &self,
        customer: &CustomerScope,
        found: Workspace,
    ) -> Result<pb::WorkspaceStatus, Fault> {
        let db = &self.deps.db;
        let sync = store::find_sync(db, customer.id, found.id).await?;
        let slots = store::slots(db, customer.id, found.id).await?;
        let instructions = store::instructions(db, customer.id, found.id).await?;
        let status = status::status(found.number, found.last_seen_at, &slots, &instructions, sync.now)?;
        let doctor_runtime = sync.doctor_runtime.as_deref().map(DoctorRuntime::decode).transpose();
        let doctor_runtime = doctor_runtime.map_err(Fault::internal)?;
        let upgrade = upgrade::of_workspace(db, customer.id, found.id).await?;
        let upgrade = upgrade.map(|upgrade| upgrade.to_proto()).transpose()?;
        Ok(convert::status(convert::workspace(found, &customer.slug), status, doctor_runtime, upgrade))
    }

    async fn resync(
        &self,
        call: &Call,
        request: pb::ResyncWorkspaceRequest,
    ) -> Result<pb::ResyncWorkspaceResponse, Fault> {
        let (name, wanted) = convert::resync(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let workspace = service::find(write.tx(), customer.id, &name).await?.id;
        let queued = resync(write.tx(), customer.id, workspace, wanted.of(customer.id).as_ref()).await?;
        write.commit(customer.id, workspace, convert::resynced(queued)).await
    }

    async fn watch(
        &self,
        call: &Call,
        request: pb::WatchWorkspaceStatusRequest,
    ) -> Result<BoxStream<'static, Result<pb::WorkspaceStatus, Status>>, Fault> {
        let name = convert::workspace_name(&request.customer_id, &request.workspace_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find(&self.deps.db, customer.id, &name).await?;
        let news = self.watch.subscribe(found.id);
        let watcher = Watcher { service: self.clone(), customer, workspace: found.id, news, shown: None };
        Ok(stream::try_unfold(watcher, Watcher::next).map(|next| next.map_err(into_status)).boxed())
    }
}

#[tonic::async_trait]
impl WorkspacesService for Workspaces {
    async fn create_workspace(
        &self,
        request: Request<pb::CreateWorkspaceRequest>,
    ) -> Result<Response<pb::Workspace>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_workspace(
        &self,
        request: Request<pb::GetWorkspaceRequest>,
    ) -> Result<Response<pb::Workspace>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_workspaces(
        &self,
        request: Request<pb::ListWorkspacesRequest>,
    ) -> Result<Response<pb::ListWorkspacesResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn update_workspace(
        &self,
        request: Request<pb::UpdateWorkspaceRequest>,
    ) -> Result<Response<pb::Workspace>, Status> {
        let (call, request) = Call::open(request)?;
        self.update(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn archive_workspace(
        &self,
        request: Request<pb::ArchiveWorkspaceRequest>,
    ) -> Result<Response<pb::ArchiveWorkspaceResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.archive(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn issue_workspace_token(
        &self,
        request: Request<pb::IssueWorkspaceTokenRequest>,
    ) -> Result<Response<pb::IssueWorkspaceTokenResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.issue_token(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn renew_workspace_token(
        &self,
        request: Request<pb::RenewWorkspaceTokenRequest>,
    ) -> Result<Response<pb::RenewWorkspaceTokenResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.renew_token(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn resync_workspace(
        &self,
        request: Request<pb::ResyncWorkspaceRequest>,
    ) -> Result<Response<pb::ResyncWorkspaceResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.resync(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_workspace_status(
        &self,
        request: Request<pb::GetWorkspaceStatusRequest>,
    ) -> Result<Response<pb::WorkspaceStatus>, Status> {
        let (call, request) = Call::open(request)?;
        self.status(&call, request).await.map(Response::new).map_err(into_status)
    }

    type WatchWorkspaceStatusStream = BoxStream<'static, Result<pb::WorkspaceStatus, Status>>;

    async fn watch_workspace_status(
        &self,
        request: Request<pb::WatchWorkspaceStatusRequest>,
    ) -> Result<Response<Self::WatchWorkspaceStatusStream>, Status> {
        let (call, request) = Call::open(request)?;
        self.watch(&call, request).await.map(Response::new).map_err(into_status)
    }
}

/// A stream of status under way.
struct Watcher {
    service: Workspaces,
    customer: CustomerScope,
    workspace: Id<id::Workspace>,
    news: tokio::sync::watch::Receiver<u64>,
    shown: Option<pb::WorkspaceStatus>,
}

impl Watcher {
    /// The next status that differs from the last one; none once the server shuts down. A slow reader gets the newest
    /// one, because nothing is read before it asks.
    async fn next(mut self) -> Result<Option<(pb::WorkspaceStatus, Self)>, Fault> {
        loop {
            if self.shown.is_some() && self.news.changed().await.is_err() {
                return Ok(None);
            }
            let name = NameOrId::Id(self.workspace);
            // Archived, it is as missing here as anywhere.
            let found = service::find(&self.service.deps.db, self.customer.id, &name).await?;
            let status = self.service.picture(&self.customer, found).await?;
            if self.shown.as_ref().is_none_or(|shown| differs(shown, &status)) {
                self.shown = Some(status.clone());
                return Ok(Some((status, self)));
            }
        }
    }
}

/// Whether a status tells something new. That the worker called once more does not, while it is online.
fn differs(shown: &pb::WorkspaceStatus, status: &pb::WorkspaceStatus) -> bool {
    let mut shown = shown.clone();
    if let (Some(shown), Some(workspace)) = (&mut shown.workspace, &status.workspace) {
        shown.last_seen_at = workspace.last_seen_at;
    }
    shown != *status
}
