//! The tonic service: decode, call, encode.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::{
    ConfiguratorService, ConfiguratorServiceServer,
};
use agentrouter_delivery::group::Groups;
use agentrouter_rpc::{Call, Deps, into_status};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, async_trait};

use crate::admission::{Admission, FULL_SYNCS_PER_SECOND};
use crate::presence::Presence;
use crate::watch::{HEARTBEAT, Watches};
use crate::{
    batches, byok, configurations, dataplane_url, drift, events, history, mcp_catalog, revocations, rollout,
    triggers, upgrade, watch,
};

/// The service.
#[derive(Debug)]
pub struct Configurator {
    deps: Deps,
    presence: Arc<Presence>,
    shutdown: CancellationToken,
    watches: Watches,
    full_syncs: Admission,
    groups: Groups,
}

impl Configurator {
    /// The service. Long polls end when `shutdown` is cancelled.
    pub fn new(deps: Deps, presence: Arc<Presence>, shutdown: CancellationToken) -> Self {
        let full_syncs = Admission::new(FULL_SYNCS_PER_SECOND);
        let groups = Groups::new(deps.db.clone());
        Self { deps, presence, shutdown, watches: Watches::new(HEARTBEAT), full_syncs, groups }
    }

    /// The same, letting in so many full syncs a second in place of [`FULL_SYNCS_PER_SECOND`].
    #[must_use]
    pub fn with_full_syncs_per_second(self, full_syncs: u32) -> Self {
        Self { full_syncs: Admission::new(full_syncs), ..self }
    }

    /// The same, with another time between the heartbeats of streams.
    #[must_use]
    pub fn with_heartbeat(self, heartbeat: Duration) -> Self {
        Self { watches: Watches::new(heartbeat), ..self }
    }

    /// The service, ready to be routed to.
    pub fn server(
        deps: Deps,
        presence: Arc<Presence>,
        shutdown: CancellationToken,
    ) -> ConfiguratorServiceServer<Self> {
        ConfiguratorServiceServer::new(Self::new(deps, presence, shutdown))
    }
}

#[async_trait]
impl ConfiguratorService for Configurator {
    async fn get_configuration(
        &self,
        request: Request<pb::GetConfigurationRequest>,
    ) -> Result<Response<pb::GetConfigurationResponse>, Status> {
        let (call, request) = Call::open(request)?;
        configurations::get(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn trigger_update(
        &self,
        request: Request<pb::TriggerUpdateRequest>,
    ) -> Result<Response<pb::TriggerUpdateResponse>, Status> {
        let (call, request) = Call::open(request)?;
        triggers::trigger_update(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_configurations(
        &self,
        request: Request<pb::ListConfigurationsRequest>,
    ) -> Result<Response<pb::ListConfigurationsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        configurations::list(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_pending_events(
        &self,
        request: Request<pb::ListPendingEventsRequest>,
    ) -> Result<Response<pb::ListPendingEventsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        events::list_pending(&self.deps, &self.presence, &self.shutdown, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    type WatchPendingEventsStream = watch::Messages;

    async fn watch_pending_events(
        &self,
        request: Request<pb::WatchPendingEventsRequest>,
    ) -> Result<Response<Self::WatchPendingEventsStream>, Status> {
        let (call, request) = Call::open(request)?;
        watch::start(&self.deps, &self.watches, &self.presence, &self.shutdown, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn reconcile_workspace(
        &self,
        request: Request<pb::ReconcileWorkspaceRequest>,
    ) -> Result<Response<pb::ReconcileWorkspaceResponse>, Status> {
        let (call, request) = Call::open(request)?;
        drift::reconcile(&self.deps, &self.presence, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn full_sync_workspace(
        &self,
        request: Request<pb::FullSyncWorkspaceRequest>,
    ) -> Result<Response<pb::FullSyncWorkspaceResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.full_syncs.admit().map_err(into_status)?;
        drift::full_sync(&self.deps, &self.presence, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn acknowledge_event(
        &self,
        request: Request<pb::AcknowledgeEventRequest>,
    ) -> Result<Response<pb::AcknowledgeEventResponse>, Status> {
        let (call, request) = Call::open(request)?;
        events::acknowledge(&self.deps, &self.groups, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn set_dataplane_url(
        &self,
        request: Request<pb::SetDataplaneUrlRequest>,
    ) -> Result<Response<pb::SetDataplaneUrlResponse>, Status> {
        let (call, request) = Call::open(request)?;
        dataplane_url::set(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn upsert_mcp_catalog_server(
        &self,
        request: Request<pb::UpsertMcpCatalogServerRequest>,
    ) -> Result<Response<pb::UpsertMcpCatalogServerResponse>, Status> {
        let (call, request) = Call::open(request)?;
        mcp_catalog::upsert(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn complete_event(
        &self,
        request: Request<pb::CompleteEventRequest>,
    ) -> Result<Response<pb::CompleteEventResponse>, Status> {
        let (call, request) = Call::open(request)?;
        events::complete(&self.deps, &self.groups, &call, request)
            .await
            .map(Response::new)
            .map_err(into_status)
    }

    async fn list_active_users(
        &self,
        request: Request<pb::ListActiveUsersRequest>,
    ) -> Result<Response<pb::ListActiveUsersResponse>, Status> {
        let (call, request) = Call::open(request)?;
        configurations::active_users(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_active_providers(
        &self,
        request: Request<pb::ListActiveProvidersRequest>,
    ) -> Result<Response<pb::ListActiveProvidersResponse>, Status> {
        let (call, _) = Call::open(request)?;
        configurations::active_providers(&self.deps, &call).await.map(Response::new).map_err(into_status)
    }

    async fn save_byok_backends(
        &self,
        request: Request<pb::SaveByokBackendsRequest>,
    ) -> Result<Response<pb::SaveByokBackendsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        byok::save(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn delete_byok_backends(
        &self,
        request: Request<pb::DeleteByokBackendsRequest>,
    ) -> Result<Response<pb::DeleteByokBackendsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        byok::delete(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn revoke_user_token(
        &self,
        request: Request<pb::RevokeUserTokenRequest>,
    ) -> Result<Response<pb::RevokeUserTokenResponse>, Status> {
        let (call, request) = Call::open(request)?;
        revocations::revoke(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn submit_dataplane_upgrade_credentials(
        &self,
        request: Request<pb::SubmitDataplaneUpgradeCredentialsRequest>,
    ) -> Result<Response<pb::SubmitDataplaneUpgradeCredentialsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::submit(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn cancel_dataplane_upgrade(
        &self,
        request: Request<pb::CancelDataplaneUpgradeRequest>,
    ) -> Result<Response<pb::CancelDataplaneUpgradeResponse>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::cancel(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn rollback_dataplane_upgrade(
        &self,
        request: Request<pb::RollbackDataplaneUpgradeRequest>,
    ) -> Result<Response<pb::RollbackDataplaneUpgradeResponse>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::roll_back(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn batch_acknowledge_events(
        &self,
        request: Request<pb::BatchAcknowledgeEventsRequest>,
    ) -> Result<Response<pb::BatchAcknowledgeEventsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        batches::acknowledge(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn batch_complete_events(
        &self,
        request: Request<pb::BatchCompleteEventsRequest>,
    ) -> Result<Response<pb::BatchCompleteEventsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        batches::complete(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_events(
        &self,
        request: Request<pb::ListEventsRequest>,
    ) -> Result<Response<pb::ListEventsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        rollout::list_events(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_event(
        &self,
        request: Request<pb::GetEventRequest>,
    ) -> Result<Response<pb::ConfigurationEvent>, Status> {
        let (call, request) = Call::open(request)?;
        rollout::get_event(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn release_event(
        &self,
        request: Request<pb::ReleaseEventRequest>,
    ) -> Result<Response<pb::ReleaseEventResponse>, Status> {
        let (call, request) = Call::open(request)?;
        batches::release(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn retry_event(
        &self,
        request: Request<pb::RetryEventRequest>,
    ) -> Result<Response<pb::ConfigurationEvent>, Status> {
        let (call, request) = Call::open(request)?;
        batches::retry(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_rollout(
        &self,
        request: Request<pb::GetRolloutRequest>,
    ) -> Result<Response<pb::GetRolloutResponse>, Status> {
        let (call, request) = Call::open(request)?;
        rollout::get_rollout(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_configuration_versions(
        &self,
        request: Request<pb::ListConfigurationVersionsRequest>,
    ) -> Result<Response<pb::ListConfigurationVersionsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        history::list(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn diff_configurations(
        &self,
        request: Request<pb::DiffConfigurationsRequest>,
    ) -> Result<Response<pb::DiffConfigurationsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        history::diff(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn rollback_configuration(
        &self,
        request: Request<pb::RollbackConfigurationRequest>,
    ) -> Result<Response<pb::RollbackConfigurationResponse>, Status> {
        let (call, request) = Call::open(request)?;
        history::rollback(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_dataplane_upgrade(
        &self,
        request: Request<pb::GetDataplaneUpgradeRequest>,
    ) -> Result<Response<pb::DataplaneUpgrade>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::get(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn report_dataplane_upgrade(
        &self,
        request: Request<pb::ReportDataplaneUpgradeRequest>,
    ) -> Result<Response<pb::DataplaneUpgrade>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::report(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn fetch_dataplane_upgrade_credentials(
        &self,
        request: Request<pb::FetchDataplaneUpgradeCredentialsRequest>,
    ) -> Result<Response<pb::FetchDataplaneUpgradeCredentialsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::fetch(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }

    async fn ack_dataplane_upgrade_credentials(
        &self,
        request: Request<pb::AckDataplaneUpgradeCredentialsRequest>,
    ) -> Result<Response<pb::AckDataplaneUpgradeCredentialsResponse>, Status> {
        let (call, request) = Call::open(request)?;
        upgrade::ack(&self.deps, &call, request).await.map(Response::new).map_err(into_status)
    }
}
