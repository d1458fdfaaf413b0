//! Stopping, dying, starting again, and refusing to start.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod common;

use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{
    AcknowledgeEventRequest, CompleteEventRequest, CompleteEventResponse, Configuration,
    ListPendingEventsRequest,
};
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_api::providers::{CreateProviderRequest, ProviderSchema, UpdateProviderRequest};
use agentrouter_api::tenancy::CreateCustomerRequest;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_api::workspaces::{CreateWorkspaceRequest, IssueWorkspaceTokenRequest};
use agentrouter_delivery::claim::Reach;
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::poll;
use agentrouter_kernel::Id;
use agentrouter_kernel::id::NameOrId;
use agentrouter_liaison::{Applied, DirTarget, Rejected, Report, Target, Token, Worker, WorkerConfig};
use agentrouter_storage::scope::find_customer;
use agentrouter_storage::{Db, query};
use agentrouter_testkit::{TestDb, on_both_engines, refused};
use common::program::{PATIENCE, Program, Settings};
use common::{Api, OPERATOR_KEY, TestServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::Code;

on_both_engines!(
    a_stop_lets_calls_finish,
    a_worker_outlives_the_server,
    what_a_dead_worker_held_comes_back,
    a_newer_schema_is_refused,
    the_wrong_key_encryption_key_is_refused_by_name,
);

async fn a_stop_lets_calls_finish(db: TestDb) {
    let data_dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(data_dir.path(), &db.target);
    let mut program = Program::start(&settings).await;
    let token = create_workspace(&program.api(OPERATOR_KEY)).await;

    // A worker's poll. Once a later call on the same connection is answered, it has arrived.
    let mut worker = ConfiguratorServiceClient::new(program.api(&token));
    let (mut held, began) = (worker.clone(), Instant::now());
    let mut held = pin!(held.list_pending_events(poll_for(Duration::from_mins(1))));
    tokio::select! {
        biased;
        ended = &mut held => panic!("nothing is pending: {ended:?}"),
        answer = worker.list_pending_events(poll_for(Duration::ZERO)) => assert_eq!(answer.unwrap().into_inner().events, []),
    }
    // A write whose body is still to come. The server asks for it, so it is at the call.
    let body = r#"{"customer_id": "late"}"#;
    let mut write = TcpStream::connect(program.address()).await.unwrap();
    let head = format!(
        "POST /v1/customers HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {OPERATOR_KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    write.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    write.read_exact(&mut asked).await.unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");

    program.terminate();
    let polled = timeout(PATIENCE, held).await.unwrap().unwrap().into_inner();
    assert_eq!(polled.events, []);
    assert!(began.elapsed() < PATIENCE, "a poll ends with the server, not with its time");
    is_closed(&program).await;
    assert!(program.is_running(), "a call is still under way");
    write.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, write.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let (status, log) = program.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let stored = find_customer(&settings.open().await, &NameOrId::parse("late")).await.unwrap();
    assert!(stored.is_some());
}

/// Waits until nobody can connect any more.
async fn is_closed(program: &Program) {
    let refused = async {
        while TcpStream::connect(program.address()).await.is_ok() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, refused).await.unwrap();
}

async fn a_worker_outlives_the_server(db: TestDb) {
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    let mut program = Program::start(&settings).await;
    settings.listen = program.address().to_string();
    let token = create_workspace(&program.api(OPERATOR_KEY)).await;
    create_provider(&program.api(OPERATOR_KEY)).await;

    let folder = tempfile::tempdir().unwrap();
    let target = DirTarget::open(folder.path().join("applied")).unwrap();
    let config = WorkerConfig {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        ..WorkerConfig::new(program.base_url(), Token::new(token))
    };
    let (sender, mut reports) = watch::channel(Vec::new());
    let worker = Worker::new(config, Arc::new(target)).unwrap();
    let worker = worker.on_report(move |report| sender.send_modify(|reports| reports.push(report.clone())));
    let (stop, mut running) = (CancellationToken::new(), JoinSet::new());
    running.spawn(worker.run(stop.clone()));
    until(&mut reports, 0, |report| is_applied(report, 1)).await;

    for (version, is_killed) in [(2, true), (3, false)] {
        let seen = reports.borrow().len();
        if is_killed {
            program.kill().await;
        } else {
            program.stop().await;
        }
        until(&mut reports, seen, |report| matches!(report, Report::Unreachable { .. })).await;
        program = Program::start(&settings).await;
        let update = UpdateProviderRequest {
            customer_id: "acme".to_owned(),
            provider_id: "openai".to_owned(),
            weight: Some(version),
            ..Default::default()
        };
        ProvidersServiceClient::new(program.api(OPERATOR_KEY)).update_provider(update).await.unwrap();
        until(&mut reports, seen, |report| is_applied(report, i64::from(version))).await;
    }
    stop.cancel();
    running.join_next().await.unwrap().unwrap();
    let reports = reports.borrow().clone();
    assert!(
        !reports.iter().any(|report| matches!(report, Report::Refused { .. } | Report::Failed { .. })),
        "{reports:?}"
    );
    program.stop().await;
}

fn is_applied(report: &Report, wanted: i64) -> bool {
    matches!(report, Report::Applied { version, .. } if *version == wanted)
}

/// Waits for a report after the first `seen`.
async fn until(reports: &mut watch::Receiver<Vec<Report>>, seen: usize, is: impl Fn(&Report) -> bool) {
    let found = timeout(PATIENCE, reports.wait_for(|reports| reports[seen..].iter().any(&is))).await;
    let found = found.map(|found| found.map(|_| ()));
    assert!(matches!(found, Ok(Ok(()))), "it was never reported: {:?}", reports.borrow());
}

/// A data plane that never gets anything done.
#[derive(Debug)]
struct Hanging(watch::Sender<bool>);

#[tonic::async_trait]
impl Target for Hanging {
    async fn apply(&self, _: &Configuration) -> Result<Applied, Rejected> {
        self.0.send_replace(true);
        pending().await
    }
}

async fn what_a_dead_worker_held_comes_back(db: TestDb) {
    const LEASE: Duration = Duration::from_secs(1);
    let server = TestServer::start(db).await;
    let operator = server.api(OPERATOR_KEY).await;
    let token = create_workspace(&operator).await;
    create_provider(&operator).await;
    let (sender, mut is_applying) = watch::channel(false);
    let config = WorkerConfig {
        worker_id: "dead".to_owned(),
        lease: LEASE,
        ..WorkerConfig::new(&server.base_url, Token::new(&token))
    };
    let worker = Worker::new(config, Arc::new(Hanging(sender))).unwrap();
    let mut running = JoinSet::new();
    running.spawn(worker.run(CancellationToken::new()));
    timeout(PATIENCE, is_applying.wait_for(|is| *is)).await.unwrap().unwrap();

    running.shutdown().await;
    let died = Instant::now();
    let mut other = ConfiguratorServiceClient::new(server.api(&token).await);
    let pending = other.list_pending_events(poll_for(PATIENCE)).await.unwrap().into_inner();
    let took = died.elapsed();
    // A poll that ends without news does so after nine tenths of its time at the earliest, so this one had some.
    assert!(took <= LEASE + Duration::from_secs(20), "{took:?}");
    let event = pending.events[0].clone();
    let held = row(&server.running.db, &event.id).await;
    assert_eq!((held.worker_id.as_str(), held.attempt, held.status.as_str()), ("dead", 1, "pending"));
    let late = CompleteEventRequest {
        event_id: event.id.clone(),
        success: true,
        claim_token: held.claim_token.unwrap().to_string(),
        worker_id: "dead".to_owned(),
        ..Default::default()
    };

    comes_too_late(&server, &mut other, &late).await;
    let claim = AcknowledgeEventRequest {
        event_id: event.id.clone(),
        worker_id: "alive".to_owned(),
        ..Default::default()
    };
    let claim = other.acknowledge_event(claim).await.unwrap().into_inner();
    assert_eq!((claim.success, claim.attempt), (true, 2));
    comes_too_late(&server, &mut other, &late).await;
    let done = CompleteEventRequest {
        claim_token: claim.claim_token,
        worker_id: "alive".to_owned(),
        ..late.clone()
    };
    let done = other.complete_event(done).await.unwrap().into_inner();
    assert_eq!(done, CompleteEventResponse { success: true });
    comes_too_late(&server, &mut other, &late).await;
    let applied = row(&server.running.db, &event.id).await;
    assert_eq!((applied.worker_id.as_str(), applied.status.as_str()), ("alive", "applied"));
    server.stop().await;
}

/// A late completion is refused and changes nothing.
async fn comes_too_late(
    server: &TestServer,
    worker: &mut ConfiguratorServiceClient<Api>,
    late: &CompleteEventRequest,
) {
    let before = row(&server.running.db, &late.event_id).await;
    let answer = worker.complete_event(late.clone()).await;
    assert_eq!(refused(answer), (Code::Aborted, "STALE_CLAIM".to_owned()));
    let after = row(&server.running.db, &late.event_id).await;
    assert_eq!(format!("{after:?}"), format!("{before:?}"));
}

async fn row(db: &Db, event: &str) -> EventRow {
    let customer = find_customer(db, &NameOrId::parse("acme")).await.unwrap().unwrap().id;
    let reach = Reach { customer, workspace: None, credential: String::new() };
    let mut tx = db.begin().await.unwrap();
    poll::find(&mut tx, &reach, Id::parse(event).unwrap()).await.unwrap().unwrap()
}

async fn a_newer_schema_is_refused(db: TestDb) {
    const FUTURE: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, $1, 0)";
    let data_dir = tempfile::tempdir().unwrap();
    let settings = Settings::new(data_dir.path(), &db.target);
    Program::start(&settings).await.stop().await;
    let stored = settings.open().await;
    let mut tx = stored.begin().await.unwrap();
    query(FUTURE).bind(vec![0_u8; 48]).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("a newer program was here").await.unwrap();
    stored.close().await;
    let log = Program::refused(&settings).await;
    assert!(log.contains("the database schema is newer than this program: it has migration 9999"), "{log}");
}

async fn the_wrong_key_encryption_key_is_refused_by_name(db: TestDb) {
    const FIRST: &str = "first:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
    const OTHER_FIRST: &str = "first:AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=";
    const SECOND: &str = "second:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";
    let data_dir = tempfile::tempdir().unwrap();
    let with = |kek: &str| {
        let mut settings = Settings::new(data_dir.path(), &db.target);
        if !kek.is_empty() {
            settings.environment.push(("AGENTROUTER_KEK", kek.to_owned()));
        }
        settings
    };
    Program::start(&with(FIRST)).await.stop().await;
    for (kek, complaint) in [
        (SECOND, "the database needs the key-encryption key \"first\""),
        (OTHER_FIRST, "the configured key-encryption key \"first\" is not the one"),
        ("", "AGENTROUTER_KEK"),
    ] {
        let log = Program::refused(&with(kek)).await;
        assert!(log.contains(complaint), "{log}");
        let secret = kek.split_once(':').map_or("no secret", |(_, secret)| secret);
        assert!(!log.contains(secret), "{log}");
    }
    assert!(!data_dir.path().join("kek").exists(), "a key is made for new databases only");
    // More keys than one may be there, in any order.
    Program::start(&with(&format!("{SECOND},{FIRST}"))).await.stop().await;
}

#[tokio::test]
async fn a_weak_bootstrap_key_stays_at_home() {
    let weak = "hunter2-hunter2";
    let everywhere = |data_dir: &tempfile::TempDir, key: &str| {
        let db = agentrouter_storage::Target::Sqlite(data_dir.path().join("agentrouter.db"));
        let mut settings = Settings::new(data_dir.path(), &db);
        settings.listen = "0.0.0.0:0".to_owned();
        settings.environment = vec![("AGENTROUTER_BOOTSTRAP_KEY", key.to_owned())];
        settings
    };
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = everywhere(&data_dir, weak);
    let log = Program::refused(&settings).await;
    assert!(log.contains("AGENTROUTER_BOOTSTRAP_KEY is not in the key format"), "{log}");
    assert!(!log.contains(weak), "{log}");
    assert_eq!(std::fs::read_dir(data_dir.path()).unwrap().count(), 0, "it has not begun");

    settings.flags.push("--allow-weak-bootstrap-key".to_owned());
    let program = Program::start(&settings).await;
    create_workspace(&program.api(weak)).await;
    program.stop().await;

    let data_dir = tempfile::tempdir().unwrap();
    let strong = agentrouter_identity::keys::generate_key().unwrap();
    let program = Program::start(&everywhere(&data_dir, strong.expose())).await;
    create_workspace(&program.api(strong.expose())).await;
    program.stop().await;
}

/// A customer with a workspace; the workspace's token.
async fn create_workspace(operator: &Api) -> String {
    let (customer_id, workspace_id) = ("acme".to_owned(), "edge".to_owned());
    let customer = CreateCustomerRequest { customer_id: customer_id.clone(), ..Default::default() };
    TenancyServiceClient::new(operator.clone()).create_customer(customer).await.unwrap();
    let mut workspaces = WorkspacesServiceClient::new(operator.clone());
    let workspace = CreateWorkspaceRequest {
        customer_id: customer_id.clone(),
        workspace_id: workspace_id.clone(),
        ..Default::default()
    };
    workspaces.create_workspace(workspace).await.unwrap();
    let issue = IssueWorkspaceTokenRequest { customer_id, workspace_id };
    workspaces.issue_workspace_token(issue).await.unwrap().into_inner().token
}

async fn create_provider(operator: &Api) {
    let create = CreateProviderRequest {
        customer_id: "acme".to_owned(),
        provider_id: "openai".to_owned(),
        schema: ProviderSchema::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        models: vec!["a-model".to_owned()],
        ..Default::default()
    };
    ProvidersServiceClient::new(operator.clone()).create_provider(create).await.unwrap();
}

fn poll_for(wait: Duration) -> ListPendingEventsRequest {
    let wait = prost_types::Duration { seconds: wait.as_secs().cast_signed(), nanos: 0 };
    ListPendingEventsRequest { wait: Some(wait), worker_id: "other".to_owned(), ..Default::default() }
}
