//! The calls a worker makes, each with a deadline.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::workspaces::RenewWorkspaceTokenRequest;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use tokio::time::{Instant, timeout};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::failure::Failure;
use crate::slot::Slot;
use crate::sweep::Observed;
use crate::token::Token;

/// How long a call may take beyond what it was asked to wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long a sweep may take: it grows with the number of slots.
const SWEEP_DEADLINE: Duration = Duration::from_mins(1);
/// The largest answer. A slot with everything a customer has is far below it.
const ANSWER_MAX: usize = 64 << 20;

/// Puts the token on every call: the one of the moment, since tokens are renewed.
#[derive(Clone)]
struct Bearer(Arc<RwLock<Option<MetadataValue<Ascii>>>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = self.0.read().unwrap_or_else(PoisonError::into_inner).clone() {
            request.metadata_mut().insert("authorization", header);
        }
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Bearer>;

/// A worker's connection. It is made on the first call, and again whenever it is lost.
pub(crate) struct Client {
    service: ConfiguratorServiceClient<Line>,
    channel: Channel,
    bearer: Bearer,
    worker_id: String,
    lease: Duration,
    contact: Mutex<Option<Instant>>,
    /// Counts the tokens that it called with.
    token: AtomicU64,
    /// How many calls the server has taken the token of.
    passes: AtomicU64,
    /// The newest token that it took, counted from 1.
    good: AtomicU64,
}

/// Calls a method of the configurator, and takes the message out of its answer.
macro_rules! call {
    ($client:expr, $limit:expr, $method:ident, $request:expr) => {{
        let mut service = $client.service.clone();
        let call = async move |request| service.$method(request).await.map(Response::into_inner);
        $client.within($limit, $request, call).await
    }};
}

impl Client {
    pub(crate) fn new(channel: Channel, token: &Token, worker_id: String, lease: Duration) -> Self {
        let bearer = Bearer(Arc::new(RwLock::new(token.header())));
        let service = ConfiguratorServiceClient::with_interceptor(channel.clone(), bearer.clone())
            .max_decoding_message_size(ANSWER_MAX);
        Self {
            service,
            channel,
            bearer,
            worker_id,
            lease,
            contact: Mutex::new(None),
            token: AtomicU64::new(0),
            passes: AtomicU64::new(0),
            good: AtomicU64::new(0),
        }
    }

    /// Calls with another token from now on.
    pub(crate) fn use_token(&self, header: MetadataValue<Ascii>) {
        *self.bearer.0.write().unwrap_or_else(PoisonError::into_inner) = Some(header);
        self.token.fetch_add(1, Ordering::Relaxed);
    }

    /// Which of its tokens it calls with.
    pub(crate) fn token(&self) -> u64 {
        self.token.load(Ordering::Relaxed)
    }

    /// Notes that the server took one of the tokens.
    pub(crate) fn passed(&self, token: u64) {
        self.passes.fetch_add(1, Ordering::Relaxed);
        self.good.fetch_max(token + 1, Ordering::Relaxed);
    }

    /// How many calls the server has taken the token of.
    pub(crate) fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Whether the server has taken the token it calls with now.
    pub(crate) fn has_passed(&self) -> bool {
        self.good.load(Ordering::Relaxed) > self.token()
    }

    /// When the server last answered a call as asked.
    pub(crate) fn last_contact(&self) -> Option<Instant> {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that the server answered.
    pub(crate) fn touch(&self) {
        *self.contact.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// What waits for this worker, after at most `wait`.
    pub(crate) async fn poll(&self, wait: Duration) -> Result<Vec<pb::ConfigurationEvent>, Failure> {
        let request = pb::ListPendingEventsRequest {
            wait: Some(duration(wait)),
            worker_id: self.worker_id.clone(),
            ..Default::default()
        };
        Ok(call!(self, wait + DEADLINE, list_pending_events, request)?.events)
    }

    /// Looks at what waits without waiting for it, renews claims, and tells about the doctor.
    pub(crate) async fn look(
        &self,
        limit: i32,
        held: Vec<pb::HeldEvent>,
        doctor: Option<pb::DoctorRuntime>,
    ) -> Result<pb::ListPendingEventsResponse, Failure> {
        // A renewal that takes longer than this comes too late.
        let deadline = if held.is_empty() { DEADLINE } else { DEADLINE.min(self.lease / 3) };
        let request = pb::ListPendingEventsRequest {
            limit,
            doctor_runtime: doctor,
            worker_id: self.worker_id.clone(),
            held,
            ..Default::default()
        };
        call!(self, deadline, list_pending_events, request)
    }

    /// Opens a watch from a cursor on; an empty one begins with what is pending now.
    pub(crate) async fn watch(
        &self,
        cursor: &str,
    ) -> Result<Streaming<pb::WatchPendingEventsResponse>, Failure> {
        // Without the worker's name: the server would renew its claims as long as the stream seems to stand, which is
        // longer than the worker may live. It renews them itself.
        let request = pb::WatchPendingEventsRequest { cursor: cursor.to_owned(), ..Default::default() };
        let mut service = self.service.clone();
        let token = self.token();
        // The deadline is for the opening only, so the server must not know of it.
        match timeout(DEADLINE, service.watch_pending_events(request)).await {
            Ok(answer) => {
                answer.map(Response::into_inner).map_err(|status| Failure::from(status).with_token(token))
            }
            Err(_) => Err(late(DEADLINE)),
        }
    }

    /// Claims an event.
    pub(crate) async fn claim(&self, event_id: &str) -> Result<pb::AcknowledgeEventResponse, Failure> {
        let request = pb::AcknowledgeEventRequest {
            event_id: event_id.to_owned(),
            worker_id: self.worker_id.clone(),
            lease: Some(duration(self.lease)),
        };
        call!(self, DEADLINE, acknowledge_event, request)
    }

    /// Gives a claim back, unused.
    pub(crate) async fn release(&self, event_id: &str, claim_token: &str) -> Result<(), Failure> {
        let request = pb::ReleaseEventRequest {
            event_id: event_id.to_owned(),
            claim_token: claim_token.to_owned(),
            worker_id: self.worker_id.clone(),
        };
        call!(self, DEADLINE, release_event, request).map(|_| ())
    }

    /// The newest content of a slot; none where the server holds nothing for it.
    pub(crate) async fn fetch(&self, slot: &Slot) -> Result<Option<pb::Configuration>, Failure> {
        let query = pb::ConfigurationQuery {
            user_id: slot.user_id.clone(),
            config_type: slot.config_type,
            key_id: slot.key_id.clone(),
            current_version: 0,
        };
        let request = pb::GetConfigurationRequest { queries: vec![query] };
        let answer = call!(self, DEADLINE, get_configuration, request)?;
        Ok(answer.configurations.into_iter().find(|configuration| Slot::from(configuration) == *slot))
    }

    /// Reports an event. Returns whether the report counts.
    pub(crate) async fn complete(&self, mut request: pb::CompleteEventRequest) -> Result<bool, Failure> {
        request.worker_id.clone_from(&self.worker_id);
        Ok(call!(self, DEADLINE, complete_event, request)?.success)
    }

    /// Has everything queued that the data plane has drifted from, and returns how much that is.
    pub(crate) async fn reconcile(&self, observed: Observed) -> Result<i32, Failure> {
        let request = pb::ReconcileWorkspaceRequest {
            observed: observed.slots,
            observed_complete: observed.is_complete,
        };
        Ok(call!(self, SWEEP_DEADLINE, reconcile_workspace, request)?.replayed_total)
    }

    /// The same for all slots of users and their keys.
    pub(crate) async fn full_sync(&self, observed: Observed) -> Result<i32, Failure> {
        let request = pb::FullSyncWorkspaceRequest {
            observed: observed.slots,
            observed_complete: observed.is_complete,
        };
        Ok(call!(self, SWEEP_DEADLINE, full_sync_workspace, request)?.replayed_total)
    }

    /// Exchanges the token for a new one.
    pub(crate) async fn renew_token(&self, customer: &str, workspace: &str) -> Result<Token, Failure> {
        let request = RenewWorkspaceTokenRequest {
            customer_id: customer.to_owned(),
            workspace_id: workspace.to_owned(),
        };
        let mut service =
            WorkspacesServiceClient::with_interceptor(self.channel.clone(), self.bearer.clone());
        let call =
            async move |request| service.renew_workspace_token(request).await.map(Response::into_inner);
        Ok(Token::new(self.within(DEADLINE, request, call).await?.token))
    }

    /// Reports the phase of an upgrade.
    pub(crate) async fn report_upgrade(
        &self,
        request: pb::ReportDataplaneUpgradeRequest,
    ) -> Result<(), Failure> {
        call!(self, DEADLINE, report_dataplane_upgrade, request).map(|_| ())
    }

    /// The logins that were submitted for an upgrade, if any.
    pub(crate) async fn upgrade_credentials(
        &self,
        event_id: &str,
    ) -> Result<pb::FetchDataplaneUpgradeCredentialsResponse, Failure> {
        let request = pb::FetchDataplaneUpgradeCredentialsRequest { event_id: event_id.to_owned() };
        call!(self, DEADLINE, fetch_dataplane_upgrade_credentials, request)
    }

    /// Confirms that the data plane has them.
    pub(crate) async fn confirm_upgrade_credentials(&self, event_id: &str) -> Result<(), Failure> {
        let request = pb::AckDataplaneUpgradeCredentialsRequest { event_id: event_id.to_owned() };
        call!(self, DEADLINE, ack_dataplane_upgrade_credentials, request).map(|_| ())
    }

    /// Runs a call under a deadline that both sides know.
    async fn within<Q, A>(
        &self,
        limit: Duration,
        message: Q,
        call: impl AsyncFnOnce(Request<Q>) -> Result<A, Status>,
    ) -> Result<A, Failure> {
        let mut request = Request::new(message);
        request.set_timeout(limit);
        let token = self.token();
        match timeout(limit, call(request)).await {
            Ok(answer) => {
                let answer = answer.map_err(|status| Failure::from(status).with_token(token))?;
                self.touch();
                self.passed(token);
                Ok(answer)
            }
            Err(_) => Err(late(limit)),
        }
    }
}

fn late(limit: Duration) -> Failure {
    Failure::local(Code::DeadlineExceeded, format!("no answer within {} s", limit.as_secs_f32()))
}

fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or_default(),
    }
}
