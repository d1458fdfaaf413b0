//! The calls a worker makes, each with a deadline.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use crate::failure::Failure;
use crate::slot::Slot;

/// How long a call may take beyond what it was asked to wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// The largest answer. A slot with everything a customer has is far below it.
const ANSWER_MAX: usize = 64 << 20;

/// Puts the token on every call.
#[derive(Clone)]
struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A worker's connection. It is made on the first call, and again whenever it is lost.
pub(crate) struct Client {
    service: ConfiguratorServiceClient<InterceptedService<Channel, Bearer>>,
    worker_id: String,
    lease: Duration,
}

impl Client {
    pub(crate) fn new(
        endpoint: &Endpoint,
        bearer: MetadataValue<Ascii>,
        worker_id: String,
        lease: Duration,
    ) -> Self {
        let channel = endpoint.connect_lazy();
        let service = ConfiguratorServiceClient::with_interceptor(channel, Bearer(bearer))
            .max_decoding_message_size(ANSWER_MAX);
        Self { service, worker_id, lease }
    }

    /// What waits for this worker, after at most `wait`.
    pub(crate) async fn poll(&self, wait: Duration) -> Result<Vec<pb::ConfigurationEvent>, Failure> {
        let request = pb::ListPendingEventsRequest {
            wait: Some(duration(wait)),
            worker_id: self.worker_id.clone(),
            ..Default::default()
        };
        let call = |request| async {
            self.service.clone().list_pending_events(request).await.map(Response::into_inner)
        };
        Ok(within(wait + DEADLINE, request, call).await?.events)
    }

    /// Renews a claim, by the poll that is meant for it. Returns whether it is still the worker's.
    pub(crate) async fn renew(&self, event_id: &str, claim_token: &str) -> Result<bool, Failure> {
        let held = pb::HeldEvent { event_id: event_id.to_owned(), claim_token: claim_token.to_owned() };
        let request = pb::ListPendingEventsRequest {
            // What else is pending is not asked for now, but 0 would mean the default.
            limit: 1,
            worker_id: self.worker_id.clone(),
            held: vec![held],
            ..Default::default()
        };
        let call = |request| async {
            self.service.clone().list_pending_events(request).await.map(Response::into_inner)
        };
        let answer = within(DEADLINE.min(self.lease / 3), request, call).await?;
        Ok(answer.renewed.iter().any(|claim| claim.event_id == event_id))
    }

    /// Claims an event.
    pub(crate) async fn claim(&self, event_id: &str) -> Result<pb::AcknowledgeEventResponse, Failure> {
        let request = pb::AcknowledgeEventRequest {
            event_id: event_id.to_owned(),
            worker_id: self.worker_id.clone(),
            lease: Some(duration(self.lease)),
        };
        let call = |request| async {
            self.service.clone().acknowledge_event(request).await.map(Response::into_inner)
        };
        within(DEADLINE, request, call).await
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
        let call = |request| async {
            self.service.clone().get_configuration(request).await.map(Response::into_inner)
        };
        let answer = within(DEADLINE, request, call).await?;
        Ok(answer.configurations.into_iter().find(|configuration| Slot::from(configuration) == *slot))
    }

    /// Reports an event. Returns whether the report counts.
    pub(crate) async fn complete(&self, mut request: pb::CompleteEventRequest) -> Result<bool, Failure> {
        request.worker_id.clone_from(&self.worker_id);
        let call =
            |request| async { self.service.clone().complete_event(request).await.map(Response::into_inner) };
        Ok(within(DEADLINE, request, call).await?.success)
    }
}

/// Runs a call under a deadline that both sides know.
async fn within<Q, A, F>(
    limit: Duration,
    message: Q,
    call: impl FnOnce(Request<Q>) -> F,
) -> Result<A, Failure>
where
    F: Future<Output = Result<A, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(limit);
    match tokio::time::timeout(limit, call(request)).await {
        Ok(answer) => Ok(answer?),
        Err(_) => {
            Err(Failure::local(Code::DeadlineExceeded, format!("no answer within {} s", limit.as_secs_f32())))
        }
    }
}

fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(length.subsec_nanos()).unwrap_or_default(),
    }
}
