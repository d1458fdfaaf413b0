//! A management plane in memory, behind a real socket: events with claims, leases and fencing, and a place to put
//! trouble in.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::{
    ConfiguratorService, ConfiguratorServiceServer,
};
use agentrouter_kernel::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) const TOKEN: &str = "workspace-token";
/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What happens at the nth call of an rpc, counted from 1, and whether it makes the call fail.
type Trouble = Arc<dyn Fn(&mut State, &str, u32) -> Option<Status> + Send + Sync>;

#[derive(Clone)]
pub(crate) struct State {
    pub(crate) events: Vec<Delivery>,
    pub(crate) configurations: Vec<pb::Configuration>,
    pub(crate) calls: BTreeMap<&'static str, u32>,
    pub(crate) token: &'static str,
    /// Before a call is looked at.
    pub(crate) before: Trouble,
    /// After it was carried out: the answer is lost.
    pub(crate) after: Trouble,
    /// Whether polls are answered at once, whatever they ask for.
    pub(crate) ignores_wait: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) event: pb::ConfigurationEvent,
    pub(crate) claim: Option<Claim>,
    pub(crate) renewals: u32,
    pub(crate) completion: Option<pb::CompleteEventRequest>,
}

#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) worker_id: String,
    pub(crate) token: String,
    pub(crate) ends: Instant,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("events", &self.events)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn calls(&self, rpc: &str) -> u32 {
        self.calls.get(rpc).copied().unwrap_or_default()
    }

    pub(crate) fn delivery(&self, event_id: &str) -> &Delivery {
        self.events.iter().find(|delivery| delivery.event.id == event_id).expect("the event exists")
    }

    fn delivery_mut(&mut self, event_id: &str) -> Result<&mut Delivery, Status> {
        let found = self.events.iter_mut().find(|delivery| delivery.event.id == event_id);
        found.ok_or_else(|| Status::not_found("no such event"))
    }

    pub(crate) fn completion(&self, event_id: &str) -> Option<&pb::CompleteEventRequest> {
        self.delivery(event_id).completion.as_ref()
    }

    fn pending(&self) -> Vec<pb::ConfigurationEvent> {
        let now = Instant::now();
        let waits = |delivery: &&Delivery| {
            delivery.completion.is_none() && delivery.claim.as_ref().is_none_or(|claim| claim.ends <= now)
        };
        self.events.iter().filter(waits).map(|delivery| delivery.event.clone()).collect()
    }

    /// Adds an event without content.
    pub(crate) fn announce(&mut self, event: pb::ConfigurationEvent) -> String {
        let id = format!("evt_{}", self.events.len() + 1);
        let now = SystemClock.now();
        let created_at = prost_types::Timestamp { seconds: now.as_secs(), nanos: now.subsec_nanos() };
        let event = pb::ConfigurationEvent { id: id.clone(), created_at: Some(created_at), ..event };
        self.events.push(Delivery { event, claim: None, renewals: 0, completion: None });
        id
    }

    /// Stores a configuration and the event that delivers it.
    pub(crate) fn publish(&mut self, configuration: pb::Configuration) -> String {
        self.configurations.retain(|held| held.user_id != configuration.user_id);
        let event = pb::ConfigurationEvent {
            workspace_id: "edge".to_owned(),
            user_id: configuration.user_id.clone(),
            config_type: configuration.config_type,
            key_id: configuration.key_id.clone(),
            version: configuration.version,
            ..Default::default()
        };
        self.configurations.push(configuration);
        self.announce(event)
    }
}

/// A version of a user's slot.
pub(crate) fn configuration(user_id: &str, version: i64) -> pb::Configuration {
    pb::Configuration {
        id: format!("cfg_{user_id}"),
        user_id: user_id.to_owned(),
        config_type: pb::ConfigType::ProxyUrl.into(),
        version,
        checksum: format!("sum-{version}"),
        payload: Some(Payload::ProxyUrl(pb::ProxyUrlPayload { url: format!("https://{version}.example") })),
        ..Default::default()
    }
}

pub(crate) fn stale_claim() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("STALE_CLAIM", "agentrouter", std::collections::HashMap::new());
    Status::with_error_details(Code::Aborted, "the claim is not current any more", details)
}

/// The server, and the state that outlives it.
pub(crate) struct Plane {
    state: watch::Sender<State>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let state = State {
            events: Vec::new(),
            configurations: Vec::new(),
            calls: BTreeMap::new(),
            token: TOKEN,
            before: Arc::new(|_, _, _| None),
            after: Arc::new(|_, _, _| None),
            ignores_wait: false,
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut plane = Self { state: watch::Sender::new(state), address, runtime: None };
        plane.resume().await;
        plane
    }

    /// Serves (again), on the same port.
    pub(crate) async fn resume(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime of the server's own");
        let (service, address) = (ConfiguratorServiceServer::new(Service(self.state.clone())), self.address);
        let (bound, mut bound_to) = watch::channel(None);
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            bound.send_replace(listener.local_addr().ok());
            Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)).await
        });
        self.runtime = Some(runtime);
        self.address = bound_to.wait_for(Option::is_some).await.expect("it listens").expect("an address");
    }

    /// Ends the server and its connections without a word, as kill -9 would.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait inside another one.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
            ended.expect("the server ends");
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.expect("it ran")
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn publish(&self, user_id: &str, version: i64) -> String {
        self.change(|state| state.publish(configuration(user_id, version)))
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        let found = match tokio::time::timeout(PATIENCE, states.wait_for(holds)).await {
            Ok(state) => Some(state.expect("the plane lives").clone()),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("it never held: {:?}", self.state()))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}

struct Service(watch::Sender<State>);

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
            let before = if bearer == Some(&format!("Bearer {}", state.token)) {
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
        let mut answer = self.run("poll", request, |state, request| {
            let renewed =
                request.held.iter().filter_map(|held| renew(state, &request.worker_id, held)).collect();
            Ok(pb::ListPendingEventsResponse { events: state.pending(), renewed })
        })?;
        let ignores_wait = self.0.borrow().ignores_wait;
        if answer.get_ref().events.is_empty() && answer.get_ref().renewed.is_empty() && !ignores_wait {
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

fn renew(state: &mut State, worker_id: &str, held: &pb::HeldEvent) -> Option<pb::Claim> {
    let delivery = state.delivery_mut(&held.event_id).ok()?;
    let claim = delivery.claim.as_mut().filter(|claim| {
        claim.worker_id == worker_id && claim.token == held.claim_token && claim.ends > Instant::now()
    })?;
    claim.ends = Instant::now() + Duration::from_secs(1);
    delivery.renewals += 1;
    Some(pb::Claim {
        event_id: held.event_id.clone(),
        claim_token: held.claim_token.clone(),
        ..Default::default()
    })
}

fn claim(
    state: &mut State,
    request: pb::AcknowledgeEventRequest,
) -> Result<pb::AcknowledgeEventResponse, Status> {
    let lease = request.lease.map(|lease| Duration::try_from(lease).unwrap_or_default());
    let delivery = state.delivery_mut(&request.event_id)?;
    let attempt = delivery.event.attempt;
    let (token, attempt) = match &delivery.claim {
        Some(claim) if claim.ends > Instant::now() && claim.worker_id == request.worker_id => {
            (claim.token.clone(), attempt)
        }
        Some(claim) if claim.ends > Instant::now() => {
            let holder = claim.worker_id.clone();
            return Ok(pb::AcknowledgeEventResponse { holder, ..Default::default() });
        }
        _ => (format!("claim-{}-{}", request.event_id, attempt + 1), attempt + 1),
    };
    delivery.event.attempt = attempt;
    let ends = Instant::now() + lease.unwrap_or(Duration::from_secs(30));
    delivery.claim = Some(Claim { worker_id: request.worker_id, token: token.clone(), ends });
    Ok(pb::AcknowledgeEventResponse { success: true, claim_token: token, attempt, ..Default::default() })
}

fn complete(
    state: &mut State,
    request: pb::CompleteEventRequest,
) -> Result<pb::CompleteEventResponse, Status> {
    let delivery = state.delivery_mut(&request.event_id)?;
    let current = delivery.claim.as_ref().is_some_and(|claim| {
        claim.token == request.claim_token
            && claim.worker_id == request.worker_id
            && claim.ends > Instant::now()
    });
    match &delivery.completion {
        Some(first) if *first == request => {}
        None if current => delivery.completion = Some(request),
        _ => return Err(stale_claim()),
    }
    Ok(pb::CompleteEventResponse { success: true })
}

fn fetch(state: &State, request: &pb::GetConfigurationRequest) -> pb::GetConfigurationResponse {
    let wanted = |configuration: &&pb::Configuration| {
        request.queries.iter().any(|query| {
            query.user_id == configuration.user_id
                && query.config_type == configuration.config_type
                && query.key_id == configuration.key_id
                && query.current_version < configuration.version
        })
    };
    pb::GetConfigurationResponse {
        configurations: state.configurations.iter().filter(wanted).cloned().collect(),
    }
}

/// The service with what a worker does not call refused. The attribute has to see the whole of it, so it stands inside.
macro_rules! service {
    ($($unused:ident: $request:ident -> $response:ident),* $(,)?) => {
        #[tonic::async_trait]
        impl ConfiguratorService for Service {
            type WatchPendingEventsStream = futures::stream::Empty<Result<pb::WatchPendingEventsResponse, Status>>;

            async fn watch_pending_events(
                &self,
                _: Request<pb::WatchPendingEventsRequest>,
            ) -> Result<Response<Self::WatchPendingEventsStream>, Status> {
                Err(Status::unimplemented("not for workers of this kind"))
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

            $(async fn $unused(&self, _: Request<pb::$request>) -> Result<Response<pb::$response>, Status> {
                Err(Status::unimplemented("not for workers of this kind"))
            })*
        }
    };
}

service! {
    trigger_update: TriggerUpdateRequest -> TriggerUpdateResponse,
    list_configurations: ListConfigurationsRequest -> ListConfigurationsResponse,
    reconcile_workspace: ReconcileWorkspaceRequest -> ReconcileWorkspaceResponse,
    full_sync_workspace: FullSyncWorkspaceRequest -> FullSyncWorkspaceResponse,
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
    release_event: ReleaseEventRequest -> ReleaseEventResponse,
    retry_event: RetryEventRequest -> ConfigurationEvent,
    get_rollout: GetRolloutRequest -> GetRolloutResponse,
    list_configuration_versions: ListConfigurationVersionsRequest -> ListConfigurationVersionsResponse,
    diff_configurations: DiffConfigurationsRequest -> DiffConfigurationsResponse,
    rollback_configuration: RollbackConfigurationRequest -> RollbackConfigurationResponse,
    get_dataplane_upgrade: GetDataplaneUpgradeRequest -> DataplaneUpgrade,
    report_dataplane_upgrade: ReportDataplaneUpgradeRequest -> DataplaneUpgrade,
    fetch_dataplane_upgrade_credentials: FetchDataplaneUpgradeCredentialsRequest
        -> FetchDataplaneUpgradeCredentialsResponse,
    ack_dataplane_upgrade_credentials: AckDataplaneUpgradeCredentialsRequest
        -> AckDataplaneUpgradeCredentialsResponse,
}
