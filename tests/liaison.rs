//! The worker against a real server: what it finds out by itself, and upgrades from their start to their undoing.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agentrouter_api::configurator::{Configuration, ResourceResult};
use agentrouter_kernel::{Clock, SystemClock, Timestamp};
use agentrouter_liaison::{
    Applied, DirTarget, Rejected, Report, Target, Token, Upgrade, UpgradePolicy, UpgradeState, Upgrader,
    Worker, WorkerConfig,
};
use agentrouter_testkit::{TestDb, on_both_engines};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::TestServer;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(30);
const WORKSPACE: &str = "/v1/customers/acme/workspaces/edge";
const UPGRADES: &str = "/configurator/v1/dataplane-upgrades";

on_both_engines!(
    what_a_data_plane_lost_comes_back,
    a_slot_taken_in_part_says_which_part,
    a_token_is_renewed_and_survives_a_restart,
    an_upgrade_is_run_and_undone,
    a_running_upgrade_is_cancelled,
);

/// A worker, what it reports, and how to stop it.
struct Running {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    reports: watch::Receiver<Vec<Report>>,
}

impl Running {
    fn start(worker: Worker) -> Self {
        let (sender, reports) = watch::channel(Vec::new());
        let worker =
            worker.on_report(move |report| sender.send_modify(|reports| reports.push(report.clone())));
        let (stop, mut tasks) = (CancellationToken::new(), JoinSet::new());
        tasks.spawn(worker.run(stop.clone()));
        Self { stop, tasks, reports }
    }

    async fn until(&mut self, is: impl Fn(&Report) -> bool) {
        let found = timeout(PATIENCE, self.reports.wait_for(|reports| reports.iter().any(&is))).await;
        let found = found.is_ok_and(|found| found.is_ok());
        assert!(found, "it was never reported: {:?}", self.reports.borrow());
    }

    async fn stop(mut self) -> Vec<Report> {
        self.stop.cancel();
        self.tasks.join_next().await.unwrap().unwrap();
        self.reports.borrow().clone()
    }
}

async fn prepare(server: &TestServer) -> String {
    server.ok(Method::POST, "/v1/customers", Some(json!({"customer_id": "acme"}))).await;
    server.ok(Method::POST, "/v1/customers/acme/workspaces", Some(json!({"workspace_id": "edge"}))).await;
    let issued = server.ok(Method::POST, &format!("{WORKSPACE}:issueToken"), Some(json!({}))).await;
    issued["token"].as_str().unwrap().to_owned()
}

async fn provider(server: &TestServer) {
    let provider = json!({
        "provider_id": "openai", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://api.openai.example/v1",
        "models": ["m"], "api_key": "sk-canary",
    });
    server.ok(Method::POST, "/v1/customers/acme/providers", Some(provider)).await;
}

fn config(server: &TestServer, token: &str) -> WorkerConfig {
    WorkerConfig {
        backoff_min: Duration::from_millis(10),
        backoff_max: Duration::from_millis(100),
        upgrade_poll: Duration::from_millis(20),
        ..WorkerConfig::new(&server.base_url, Token::new(token))
    }
}

async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, Value>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(seen) => assert!(tokio::time::Instant::now() < deadline, "{what}: {seen}"),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn json_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

async fn what_a_data_plane_lost_comes_back(db: TestDb) {
    let server = TestServer::start(db).await;
    let token = prepare(&server).await;
    provider(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let target = DirTarget::open(folder.path()).unwrap();
    let config = WorkerConfig { sweep_interval: Duration::from_millis(200), ..config(&server, &token) };
    let mut worker = Running::start(Worker::new(config, Arc::new(target)).unwrap());
    worker.until(|report| matches!(report, Report::Applied { .. })).await;
    let file = until("a file", async || json_files(folder.path()).pop().ok_or(Value::Null)).await;
    std::fs::remove_file(&file).unwrap();
    worker.until(|report| matches!(report, Report::Drifted { full_sync: false, replayed: 1 })).await;
    until("the file", async || file.exists().then_some(()).ok_or(Value::Null)).await;
    worker.stop().await;
    server.stop().await;
}

/// Takes everything but one provider.
#[derive(Debug)]
struct Partly;

#[tonic::async_trait]
impl Target for Partly {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let rejected = ResourceResult {
            resource: "openai".to_owned(),
            applied: false,
            reason: "no route to it".to_owned(),
        };
        Ok(Applied {
            version: configuration.version,
            checksum: configuration.checksum.clone(),
            resources: vec![rejected],
        })
    }
}

async fn a_slot_taken_in_part_says_which_part(db: TestDb) {
    let server = TestServer::start(db).await;
    let token = prepare(&server).await;
    provider(&server).await;
    let worker = Worker::new(config(&server, &token), Arc::new(Partly)).unwrap();
    let mut worker = Running::start(worker);
    worker.until(|report| matches!(report, Report::Applied { rejected, .. } if rejected.len() == 1)).await;
    let admin = admin(&server).await;
    let events = call(&server, &admin, Method::GET, "/configurator/v1/events", None).await;
    let event = &events["events"][0];
    assert_eq!((&event["status"], &event["attempt"]), (&json!("EVENT_STATUS_APPLIED"), &json!(1)), "{event}");
    let expected = json!([{"resource": "openai", "applied": false, "reason": "no route to it"}]);
    assert_eq!(event["resources"], expected);
    worker.stop().await;
    server.stop().await;
}

/// A clock that is ahead.
#[derive(Debug)]
struct Ahead(Duration);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus(self.0)
    }
}

async fn a_token_is_renewed_and_survives_a_restart(db: TestDb) {
    let server = TestServer::start(db).await;
    let token = prepare(&server).await;
    let folder = tempfile::tempdir().unwrap();
    let make = || {
        let config = WorkerConfig { state_dir: Some(folder.path().join("state")), ..config(&server, &token) };
        Worker::new(config, Arc::new(Partly)).unwrap()
    };
    // Tokens tell seconds apart.
    sleep(Duration::from_millis(1_100)).await;
    let mut worker = Running::start(make().with_clock(Arc::new(Ahead(Duration::from_hours(24 * 61)))));
    worker.until(|report| matches!(report, Report::TokenRenewed)).await;
    worker.stop().await;
    let kept = std::fs::read_to_string(folder.path().join("state/liaison.json")).unwrap();
    let kept: Value = serde_json::from_str(&kept).unwrap();
    let renewed = kept["token"].as_str().unwrap();
    assert_ne!(renewed, token);

    // The next one goes on with the token that was kept, not with the one that it was given.
    provider(&server).await;
    let jti = token_id(&token);
    let revoke = json!({"reason": "a test"});
    let path = format!("/configurator/v1/user-tokens/{jti}:revoke");
    call(&server, &admin(&server).await, Method::POST, &path, Some(revoke)).await;
    let mut worker = Running::start(make());
    worker.until(|report| matches!(report, Report::Applied { .. })).await;
    let reports = worker.stop().await;
    assert!(!reports.iter().any(|report| matches!(report, Report::Refused { .. })), "{reports:?}");
    server.stop().await;
}

/// The id of a token, as its payload has it.
fn token_id(token: &str) -> String {
    let payload = token.trim_start_matches("ak-").split('.').nth(1).unwrap();
    let payload = URL_SAFE_NO_PAD.decode(payload).unwrap();
    let payload: Value = serde_json::from_slice(&payload).unwrap();
    payload["jti"].as_str().unwrap().to_owned()
}

/// A data plane whose releases come up when it is told so.
#[derive(Debug)]
struct Releases(Mutex<UpgradeState>, Mutex<Vec<String>>);

impl Releases {
    fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(UpgradeState::Unknown), Mutex::default()))
    }

    fn become_(&self, state: UpgradeState) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

#[tonic::async_trait]
impl Target for Releases {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        Ok(Applied { version: configuration.version, ..Applied::default() })
    }

    fn upgrader(&self) -> Option<&dyn Upgrader> {
        Some(self)
    }
}

#[tonic::async_trait]
impl Upgrader for Releases {
    async fn start(&self, upgrade: &Upgrade) -> Result<(), Rejected> {
        if upgrade.credentials.is_empty() {
            self.become_(UpgradeState::NeedsCredentials(vec!["chart".to_owned()]));
            return Ok(());
        }
        let passwords = upgrade.credentials.iter().map(|login| login.password.clone());
        self.1.lock().unwrap_or_else(PoisonError::into_inner).extend(passwords);
        self.become_(UpgradeState::Running { message: "rolls out".to_owned() });
        Ok(())
    }

    async fn state(&self, _: &str) -> Result<UpgradeState, Rejected> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    async fn cancel(&self, _: &str) -> Result<(), Rejected> {
        self.become_(UpgradeState::Cancelled { running_version: "1.0.0".to_owned() });
        Ok(())
    }

    async fn rollback(&self, _: &str) -> Result<(), Rejected> {
        self.become_(UpgradeState::RolledBack { running_version: "1.0.0".to_owned() });
        Ok(())
    }
}

/// Starts an upgrade, as the customer's admin does it.
async fn trigger(server: &TestServer, admin: &str) -> String {
    let request = json!({
        "config_type": "CONFIG_TYPE_DATAPLANE_UPGRADE", "workspace_id": "edge",
        "metadata": {"target_version": "2.0.0", "chart": "oci://r.example/gateway", "values": {"replicas": 2}},
    });
    let answer = call(server, admin, Method::POST, "/configurator/v1/trigger", Some(request)).await;
    answer["event_ids"][0].as_str().unwrap().to_owned()
}

async fn call(server: &TestServer, admin: &str, method: Method, path: &str, body: Option<Value>) -> Value {
    let response = server.rest_as(&format!("Bearer {admin}"), method, path, body).await;
    let (status, text) = (response.status(), response.text().await.unwrap());
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn admin(server: &TestServer) -> String {
    let key = json!({"display_name": "admin", "kind": "API_KEY_KIND_MANAGEMENT", "role": "admin"});
    let made = server.ok(Method::POST, "/v1/customers/acme/api-keys", Some(key)).await;
    made["key"].as_str().unwrap().to_owned()
}

async fn until_phase(server: &TestServer, admin: &str, upgrade: &str, phase: &str) -> Value {
    let path = format!("{UPGRADES}/{upgrade}");
    until(phase, async || {
        let found = call(server, admin, Method::GET, &path, None).await;
        if found["phase"] == format!("UPGRADE_PHASE_{phase}") { Ok(found) } else { Err(found) }
    })
    .await
}

fn upgrading(server: &TestServer, token: &str, target: &Arc<Releases>) -> Running {
    let policy = UpgradePolicy { charts: Vec::new(), registries: vec!["r.example".to_owned()] };
    let config = WorkerConfig { upgrades: policy, ..config(server, token) };
    Running::start(Worker::new(config, Arc::clone(target) as Arc<dyn Target>).unwrap())
}

async fn an_upgrade_is_run_and_undone(db: TestDb) {
    let server = TestServer::start(db).await;
    let token = prepare(&server).await;
    let admin = admin(&server).await;
    let target = Releases::new();
    let worker = upgrading(&server, &token, &target);
    let upgrade = trigger(&server, &admin).await;
    let waiting = until_phase(&server, &admin, &upgrade, "NEEDS_CREDENTIALS").await;
    assert_eq!(waiting["required_credentials"], json!(["chart"]));
    let logins = json!({
        "upgrade_event_id": upgrade, "persist_in_cluster": false,
        "credentials": [{"slot": "chart", "registry": "r.example", "username": "robot", "password": "pw-canary"}],
    });
    call(&server, &admin, Method::POST, "/configurator/v1/dataplane-upgrade-credentials", Some(logins)).await;
    until_phase(&server, &admin, &upgrade, "RUNNING").await;
    assert_eq!(*target.1.lock().unwrap_or_else(PoisonError::into_inner), ["pw-canary"]);
    target.become_(UpgradeState::Completed { running_version: "2.0.0".to_owned() });
    let done = until_phase(&server, &admin, &upgrade, "COMPLETED").await;
    assert_eq!(done["running_version"], "2.0.0");

    let undo = json!({"upgrade_event_id": upgrade});
    let answer =
        call(&server, &admin, Method::POST, "/configurator/v1/dataplane-upgrade/rollback", Some(undo)).await;
    let undone = until_phase(&server, &admin, &upgrade, "ROLLED_BACK").await;
    assert_eq!(undone["running_version"], "1.0.0");
    let event = format!("/configurator/v1/events/{}", answer["rollback_event_id"].as_str().unwrap());
    until("the event", async || {
        let event = call(&server, &admin, Method::GET, &event, None).await;
        if event["status"] == "EVENT_STATUS_APPLIED" { Ok(()) } else { Err(event) }
    })
    .await;
    worker.stop().await;
    server.stop().await;
}

async fn a_running_upgrade_is_cancelled(db: TestDb) {
    let server = TestServer::start(db).await;
    let token = prepare(&server).await;
    let admin = admin(&server).await;
    let target = Releases::new();
    let worker = upgrading(&server, &token, &target);
    let upgrade = trigger(&server, &admin).await;
    until_phase(&server, &admin, &upgrade, "NEEDS_CREDENTIALS").await;
    target.become_(UpgradeState::Running { message: "rolls out".to_owned() });
    until_phase(&server, &admin, &upgrade, "RUNNING").await;
    let cancel = json!({"upgrade_event_id": upgrade});
    call(&server, &admin, Method::POST, "/configurator/v1/dataplane-upgrade/cancel", Some(cancel)).await;
    let ended = until_phase(&server, &admin, &upgrade, "CANCELLED").await;
    assert_eq!(ended["running_version"], "1.0.0");
    // Both events come to an end, and the next upgrade finds the way free.
    until("no events", async || {
        let status = server.ok(Method::GET, &format!("{WORKSPACE}/status"), None).await;
        if status["pending_events"] == 0 && status["in_flight_events"] == 0 { Ok(()) } else { Err(status) }
    })
    .await;
    target.become_(UpgradeState::Unknown);
    let next = trigger(&server, &admin).await;
    until_phase(&server, &admin, &next, "NEEDS_CREDENTIALS").await;
    worker.stop().await;
    server.stop().await;
}
