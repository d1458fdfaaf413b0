//! The services of the plane: calls run on its state, with the trouble of the day.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::workspaces as ws;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::State;
use super::calls::{claim, complete, fetch, release, renew, report_upgrade, sweep};
use super::stream::{self, Messages};

/// The service on the state.
#[derive(Clone)]
pub(super) struct Service(pub(super) watch::Sender<State>);

impl Service {
    /// Runs a call on the state, with the trouble of the day.
    fn run<Q, A>(
        &self,
        rpc: &'static str,
        request: Request<Q>,
        call: impl FnOnce(&mut State, Q) -> Result<A, Status>,
    ) -> Result<Response<A>, Status> {
        let mut result = None;
        self.0.send_modify(|state| {
            let count = state.calls.entry(rpc).or_default();
            *count += 1;
            let count = *count;
            let bearer = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
            let (before, after) = (Arc::clone(&state.before), Arc::clone(&state.after));
            let is_good = |token: &str| bearer == Some(&format!("Bearer {token}"));
            let renewed = state.keeps_renewed && !state.renewals.is_empty() && is_good(&state.next_token);
            let before = if renewed || is_good(state.token) {
                before(state, rpc, count)
            } else {
                Some(Status::unauthenticated("the token is not valid"))
            };
            let done = before.map_or_else(|| call(state, request.into_inner()), Err);
            result = Some(after(state, rpc, count).map_or(done, Err));
        });
        result.expect("it ran").map(Response::new)
    }

    async fn poll(
        &self,
        request: Request<pb::ListPendingEventsRequest>,
    ) -> Result<Response<pb::ListPendingEventsResponse>, Status> {
        let wait = request.get_ref().wait.map(|wait| Duration::try_from(wait).unwrap_or_default());
        let mut states = self.0.subscribe();
        let waits = wait.is_some();
        let rpc = if waits { "poll" } else { "look" };
        let mut answer = self.run(rpc, request, |state, request| {
            if !waits {
                state.looks.push(request.clone());
            }
            let renewed =
                request.held.iter().filter_map(|held| renew(state, &request.worker_id, held)).collect();
            Ok(pb::ListPendingEventsResponse { events: state.pending(), renewed })
        })?;
        let ignores_wait = self.0.borrow().ignores_wait;
        if waits && answer.get_ref().events.is_empty() && answer.get_ref().renewed.is_empty() && !ignores_wait
        {
            let deadline = Instant::now() + wait.unwrap_or_default();
            if let Ok(Ok(state)) =
                timeout_at(deadline, states.wait_for(|state| !state.pending().is_empty())).await
            {
                answer.get_mut().events = state.pending();
            }
        }
        Ok(answer)
    }
}

/// The service with what a worker does not call refused. The attribute has to see the whole of it, so it stands inside.
macro_rules! service {
    ($($unused:ident: $request:ident -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl ConfiguratorService for Service {
            type WatchPendingEventsStream = Messages;

            async fn watch_pending_events(
                &self,
                request: Request<pb::WatchPendingEventsRequest>,
            ) -> Result<Response<Self::WatchPendingEventsStream>, Status> {
                let at = self.run("watch", request, |state, request| stream::open(state, &request))?;
                if self.0.borrow().holds_back {
                    std::future::pending::<()>().await;
                }
                Ok(Response::new(stream::messages(self.0.subscribe(), at.into_inner())))
            }

            async fn list_pending_events(
                &self,
                request: Request<pb::ListPendingEventsRequest>,
            ) -> Result<Response<pb::ListPendingEventsResponse>, Status> {
                self.poll(request).await
            }

            async fn acknowledge_event(
                &self,
                request: Request<pb::AcknowledgeEventRequest>,
            ) -> Result<Response<pb::AcknowledgeEventResponse>, Status> {
                self.run("claim", request, claim)
            }

            async fn get_configuration(
                &self,
                request: Request<pb::GetConfigurationRequest>,
            ) -> Result<Response<pb::GetConfigurationResponse>, Status> {
                self.run("fetch", request, |state, request| Ok(fetch(state, &request)))
            }

            async fn complete_event(
                &self,
                request: Request<pb::CompleteEventRequest>,
            ) -> Result<Response<pb::CompleteEventResponse>, Status> {
                self.run("complete", request, complete)
            }

            async fn release_event(
                &self,
                request: Request<pb::ReleaseEventRequest>,
            ) -> Result<Response<pb::ReleaseEventResponse>, Status> {
                self.run("release", request, release)
            }

            async fn full_sync_workspace(
                &self,
                request: Request<pb::FullSyncWorkspaceRequest>,
            ) -> Result<Response<pb::FullSyncWorkspaceResponse>, Status> {
                self.run("full_sync", request, |state, request| {
                    let replayed_total = sweep(state, true, &request.observed, request.observed_complete)?;
                    Ok(pb::FullSyncWorkspaceResponse { replayed_total, ..Default::default() })
                })
            }

            async fn reconcile_workspace(
                &self,
                request: Request<pb::ReconcileWorkspaceRequest>,
            ) -> Result<Response<pb::ReconcileWorkspaceResponse>, Status> {
                self.run("reconcile", request, |state, request| {
                    let replayed_total = sweep(state, false, &request.observed, request.observed_complete)?;
                    Ok(pb::ReconcileWorkspaceResponse { replayed_total, ..Default::default() })
                })
            }

            async fn report_dataplane_upgrade(
                &self,
                request: Request<pb::ReportDataplaneUpgradeRequest>,
            ) -> Result<Response<pb::DataplaneUpgrade>, Status> {
                self.run("report", request, report_upgrade)
            }

            async fn fetch_dataplane_upgrade_credentials(
                &self,
                request: Request<pb::FetchDataplaneUpgradeCredentialsRequest>,
            ) -> Result<Response<pb::FetchDataplaneUpgradeCredentialsResponse>, Status> {
                self.run("credentials", request, |state, _| {
                    let credentials = state.upgrade.credentials.clone();
                    Ok(pb::FetchDataplaneUpgradeCredentialsResponse { credentials, persist_in_cluster: true })
                })
            }

            async fn ack_dataplane_upgrade_credentials(
                &self,
                request: Request<pb::AckDataplaneUpgradeCredentialsRequest>,
            ) -> Result<Response<pb::AckDataplaneUpgradeCredentialsResponse>, Status> {
                self.run("confirm", request, |state, _| {
                    state.upgrade.confirmed += 1;
                    state.upgrade.credentials.clear();
                    Ok(pb::AckDataplaneUpgradeCredentialsResponse {})
                })
            }

            $(async fn $unused(&self, _: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("not for workers of this kind"))
            })*
        }
    };
}

service! {
    trigger_update: TriggerUpdateRequest -> TriggerUpdateResponse,
    list_configurations: ListConfigurationsRequest -> ListConfigurationsResponse,
    set_dataplane_url: SetDataplaneUrlRequest -> SetDataplaneUrlResponse,
    upsert_mcp_catalog_server: UpsertMcpCatalogServerRequest -> UpsertMcpCatalogServerResponse,
    list_active_users: ListActiveUsersRequest -> ListActiveUsersResponse,
    list_active_providers: ListActiveProvidersRequest -> ListActiveProvidersResponse,
    save_byok_backends: SaveByokBackendsRequest -> SaveByokBackendsResponse,
    delete_byok_backends: DeleteByokBackendsRequest -> DeleteByokBackendsResponse,
    revoke_user_token: RevokeUserTokenRequest -> RevokeUserTokenResponse,
    submit_dataplane_upgrade_credentials: SubmitDataplaneUpgradeCredentialsRequest
        -> SubmitDataplaneUpgradeCredentialsResponse,
    cancel_dataplane_upgrade: CancelDataplaneUpgradeRequest -> CancelDataplaneUpgradeResponse,
    rollback_dataplane_upgrade: RollbackDataplaneUpgradeRequest -> RollbackDataplaneUpgradeResponse,
    batch_acknowledge_events: BatchAcknowledgeEventsRequest -> BatchAcknowledgeEventsResponse,
    batch_complete_events: BatchCompleteEventsRequest -> BatchCompleteEventsResponse,
    list_events: ListEventsRequest -> ListEventsResponse,
    get_event: GetEventRequest -> ConfigurationEvent,
    retry_event: RetryEventRequest -> ConfigurationEvent,
    get_rollout: GetRolloutRequest -> GetRolloutResponse,
    list_configuration_versions: ListConfigurationVersionsRequest -> ListConfigurationVersionsResponse,
    diff_configurations: DiffConfigurationsRequest -> DiffConfigurationsResponse,
    rollback_configuration: RollbackConfigurationRequest -> RollbackConfigurationResponse,
    get_dataplane_upgrade: GetDataplaneUpgradeRequest -> DataplaneUpgrade,
}

macro_rules! workspaces {
    ($($unused:ident: $request:ident -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl WorkspacesService for Service {
            type WatchWorkspaceStatusStream = futures::stream::Empty<Result<ws::WorkspaceStatus, Status>>;

            async fn watch_workspace_status(
                &self,
                _: Request<ws::WatchWorkspaceStatusRequest>,
            ) -> Result<Response<Self::WatchWorkspaceStatusStream>, Status> {
                Err(Status::unimplemented("not for workers"))
            }

            async fn renew_workspace_token(
                &self,
                request: Request<ws::RenewWorkspaceTokenRequest>,
            ) -> Result<Response<ws::RenewWorkspaceTokenResponse>, Status> {
                self.run("renew_token", request, |state, request| {
                    state.renewals.push((request.customer_id, request.workspace_id));
                    let token = state.next_token.clone();
                    Ok(ws::RenewWorkspaceTokenResponse { token, ..Default::default() })
                })
            }

            $(async fn $unused(&self, _: Request<ws::$request>) -> Result<Response<ws::$response>, Status> {
                Err(Status::unimplemented("not for workers"))
            })*
        }
    };
}

workspaces! {
    create_workspace: CreateWorkspaceRequest -> Workspace,
    get_workspace: GetWorkspaceRequest -> Workspace,
    list_workspaces: ListWorkspacesRequest -> ListWorkspacesResponse,
    update_workspace: UpdateWorkspaceRequest -> Workspace,
    archive_workspace: ArchiveWorkspaceRequest -> ArchiveWorkspaceResponse,
    issue_workspace_token: IssueWorkspaceTokenRequest -> IssueWorkspaceTokenResponse,
    resync_workspace: ResyncWorkspaceRequest -> ResyncWorkspaceResponse,
    get_workspace_status: GetWorkspaceStatusRequest -> WorkspaceStatus,
}
