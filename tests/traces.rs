//! Traces, as a collector receives them, and the lines of the log that belong to them.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{AcknowledgeEventRequest, CompleteEventRequest};
use agentrouter_api::providers::UpdateProviderRequest;
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use common::plane::{create_customer, create_provider, create_workspace, poll};
use common::program::{PATIENCE, Program, Settings};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

on_both_engines!(
    one_trace_leads_from_the_change_to_its_application,
    what_is_not_sampled_leaves_nothing,
    a_collector_that_is_away_harms_nobody,
);

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PERSON: &str = "b7ad6b7169203331";
const WORKERS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// A collector.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts one; its endpoint.
    async fn start(&self, tasks: &mut JoinSet<()>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let server = Server::builder().add_service(TraceServiceServer::new(self.clone()));
        tasks.spawn(async move { server.serve_with_incoming(TcpIncoming::from(listener)).await.unwrap() });
        endpoint
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().unwrap();
        let scopes =
            requests.iter().flat_map(|request| &request.resource_spans).flat_map(|it| &it.scope_spans);
        scopes.flat_map(|scope| &scope.spans).cloned().collect()
    }

    /// Waits for a span.
    async fn span(&self, name: &str, trace: &str) -> Span {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let spans = self.spans();
            let found = spans.iter().find(|span| span.name.ends_with(name) && hex(&span.trace_id) == trace);
            if let Some(span) = found {
                return span.clone();
            }
            assert!(Instant::now() < deadline, "no span {name} in {trace}: {spans:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A message from inside a trace.
fn from<T>(trace: &str, span: &str, flags: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let context = format!("00-{trace}-{span}-{flags}");
    request.metadata_mut().insert("traceparent", context.parse().unwrap());
    request.metadata_mut().insert("x-request-id", format!("request-{span}").parse().unwrap());
    request
}

fn update(weight: i32, api_key: &str) -> UpdateProviderRequest {
    UpdateProviderRequest {
        customer_id: "acme".to_owned(),
        provider_id: "openai".to_owned(),
        weight: Some(weight),
        api_key: Some(api_key.to_owned()),
        ..Default::default()
    }
}

// Behaviour 48: spans hold no key, no token and no credential of a provider.
async fn one_trace_leads_from_the_change_to_its_application(db: TestDb) {
    const PROVIDER_KEY: &str = "sk-canary-of-a-provider";
    let (collector, mut tasks) = (Collector::default(), JoinSet::new());
    let data_dir = tempfile::tempdir().unwrap();
    let operator_key = agentrouter_identity::keys::generate_key().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    settings.environment = vec![
        ("AGENTROUTER_BOOTSTRAP_KEY", operator_key.expose().to_owned()),
        ("AGENTROUTER_LOG", "agentrouter=debug".to_owned()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.start(&mut tasks).await),
        ("OTEL_BSP_SCHEDULE_DELAY", "20".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test".to_owned()),
    ];
    let program = Program::start(&settings).await;
    let operator = program.api(operator_key.expose());
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    create_provider(&operator, "acme").await;
    let change = from(TRACE, PERSON, "01", update(7, PROVIDER_KEY));
    ProvidersServiceClient::new(operator.clone()).update_provider(change).await.unwrap();

    let api = program.api(&token);
    let event = poll(&api, Duration::ZERO).await.unwrap()[0].id.clone();
    let mut worker = ConfiguratorServiceClient::new(api);
    let claim = AcknowledgeEventRequest {
        event_id: event.clone(),
        worker_id: "worker".to_owned(),
        ..Default::default()
    };
    let claim = from(WORKERS_TRACE, "00f067aa0ba902b7", "01", claim);
    let claim = worker.acknowledge_event(claim).await.unwrap().into_inner();
    let done = CompleteEventRequest {
        event_id: event.clone(),
        success: true,
        claim_token: claim.claim_token.clone(),
        ..Default::default()
    };
    let done = from(WORKERS_TRACE, "00f067aa0ba902b8", "01", done);
    assert!(worker.complete_event(done).await.unwrap().into_inner().success);

    // The trace of the change holds everything.
    let trigger = collector.span("ProvidersService/UpdateProvider", TRACE).await;
    assert_eq!(hex(&trigger.parent_span_id), PERSON);
    let wait = collector.span("delivery.wait", TRACE).await;
    let apply = collector.span("delivery.apply", TRACE).await;
    for step in [&wait, &apply] {
        assert_eq!(step.parent_span_id, trigger.span_id, "{step:#?}");
        let attribute = step.attributes.iter().find(|it| it.key == "agentrouter.event.id").unwrap();
        assert!(format!("{attribute:?}").contains(&event), "{attribute:?}");
    }
    assert!(wait.start_time_unix_nano <= wait.end_time_unix_nano);
    assert_eq!(wait.end_time_unix_nano, apply.start_time_unix_nano, "it is applied from when it was claimed");
    assert!(apply.start_time_unix_nano <= apply.end_time_unix_nano);
    // The worker's calls are in its own trace, and lead there and back.
    for (call, step) in [("AcknowledgeEvent", &wait), ("CompleteEvent", &apply)] {
        let call = collector.span(call, WORKERS_TRACE).await;
        let link = &call.links[0];
        assert_eq!((hex(&link.trace_id).as_str(), &link.span_id), (TRACE, &trigger.span_id));
        let back = &step.links[0];
        assert_eq!((hex(&back.trace_id).as_str(), &back.span_id), (WORKERS_TRACE, &call.span_id));
    }

    program.terminate();
    let (status, log) = program.ended().await;
    assert!(status.success(), "{log}");
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let served = |id: &str| lines.iter().find(|line| line["span"]["request_id"] == id).unwrap();
    assert_eq!(served(&format!("request-{PERSON}"))["span"]["trace_id"], TRACE);
    assert_eq!(served("request-00f067aa0ba902b8")["span"]["trace_id"], WORKERS_TRACE);
    let of_its_own = lines.iter().filter(|line| line["message"] == "request served");
    assert!(of_its_own.clone().count() >= 7, "{log}");
    for line in of_its_own {
        assert!(line["span"]["trace_id"].as_str().is_some_and(|trace| trace.len() == 32), "{line}");
    }

    let sent = collector.0.lock().unwrap().clone();
    let resource = format!("{:?}", sent[0].resource_spans[0].resource);
    assert!(
        resource.contains("\"agentrouter\"") && resource.contains("deployment.environment.name"),
        "{resource}"
    );
    let bytes: Vec<u8> = sent.iter().flat_map(Message::encode_to_vec).collect();
    for secret in [operator_key.expose(), &token, PROVIDER_KEY, &claim.claim_token] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found && !log.contains(secret), "a secret got out");
    }
}

async fn what_is_not_sampled_leaves_nothing(db: TestDb) {
    let (collector, mut tasks) = (Collector::default(), JoinSet::new());
    let endpoint = collector.start(&mut tasks).await;
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    let kept = async || {
        let stored = settings.open().await;
        let sql = "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_versions \
             WHERE traceparent IS NOT NULL";
        query(sql).value::<i64>(&stored).await.unwrap().unwrap()
    };
    // Off, although the caller traces.
    let program = Program::start(&settings).await;
    let operator = program.api(common::OPERATOR_KEY);
    create_customer(&operator, "acme").await;
    create_provider(&operator, "acme").await;
    let change = from(TRACE, PERSON, "01", update(2, "x"));
    ProvidersServiceClient::new(operator).update_provider(change).await.unwrap();
    program.stop().await;
    assert_eq!(kept().await, 0);

    // On, and the caller says that this one is not recorded.
    settings.environment.push(("AGENTROUTER_OTLP_ENDPOINT", endpoint));
    let program = Program::start(&settings).await;
    let change = from(TRACE, PERSON, "00", update(3, "y"));
    ProvidersServiceClient::new(program.api(common::OPERATOR_KEY)).update_provider(change).await.unwrap();
    program.stop().await;
    assert_eq!(collector.spans(), []);

    settings.environment.push(("OTEL_TRACES_SAMPLER", "always_on".to_owned()));
    let program = Program::start(&settings).await;
    let change = from(TRACE, PERSON, "00", update(4, "z"));
    ProvidersServiceClient::new(program.api(common::OPERATOR_KEY)).update_provider(change).await.unwrap();
    // Stopping sends what is left.
    program.stop().await;
    assert_eq!(collector.spans().len(), 1, "{:#?}", collector.spans());
}

async fn a_collector_that_is_away_harms_nobody(db: TestDb) {
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    settings.environment.push(("AGENTROUTER_OTLP_ENDPOINT", format!("http://{nobody}")));
    let program = Program::start(&settings).await;
    create_customer(&program.api(common::OPERATOR_KEY), "acme").await;
    program.stop().await;
}
