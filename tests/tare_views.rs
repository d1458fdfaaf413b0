//! The views of `tare` on a real server: what they print, when they end, and what they say of a refusal.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_api::configurator::CompleteEventRequest;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_tare::Failure;
use agentrouter_testkit::{TestDb, on_both_engines};
use common::plane::{change, claim, complete, create_customer, create_provider, create_workspace, poll};
use common::program::PATIENCE;
use common::{Api, OPERATOR_KEY, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

on_both_engines!(
    a_fleet_is_listed_and_looked_into,
    callers_see_their_own_customer,
    refusals_are_said_in_full,
    a_rollout_is_watched_to_its_end,
    a_rollout_that_does_not_end_is_given_up,
    events_are_told_once_each,
    a_watch_survives_the_server,
);

const CUSTOMER: &str = "acme";
const LEASE: Duration = Duration::from_secs(30);

/// What a view prints.
#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn lines(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Waits until it is as it should be.
    async fn until(&self, what: &str, is: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is(&self.text()) {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.text());
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A view that runs beside the test. Dropping it ends it.
struct Running {
    printed: Printed,
    task: JoinSet<Result<(), Failure>>,
}

impl Running {
    async fn ended(&mut self) -> Result<(), Failure> {
        let ended = timeout(PATIENCE, self.task.join_next()).await;
        ended.unwrap_or_else(|_| panic!("it does not end:\n{}", self.printed.text())).unwrap().unwrap()
    }
}

/// Views of a server with a key.
struct Tare {
    base_url: String,
    folder: tempfile::TempDir,
}

impl Tare {
    fn new(server: &TestServer, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), format!("{key}\n")).unwrap();
        Self { base_url: server.base_url.clone(), folder }
    }

    fn start(&self, arguments: &str) -> Running {
        let mut arguments: Vec<String> = arguments.split(' ').map(str::to_owned).collect();
        let key = self.folder.path().join("key").display().to_string();
        arguments.extend(["--base-url".to_owned(), self.base_url.clone(), "--api-key-file".to_owned(), key]);
        let printed = Printed::default();
        let mut task = JoinSet::new();
        task.spawn(agentrouter_tare::show(arguments, printed.clone()));
        Running { printed, task }
    }

    async fn run(&self, arguments: &str) -> String {
        let mut running = self.start(arguments);
        running.ended().await.unwrap_or_else(|failure| panic!("{arguments}: {failure}"));
        running.printed.text()
    }

    async fn fails(&self, arguments: &str) -> (u8, String) {
        let Err(failure) = self.start(arguments).ended().await else { panic!("{arguments} succeeds") };
        (failure.code(), failure.to_string())
    }
}

/// A server with a customer of three workspaces; the operator and the workers.
async fn fleet(db: TestDb) -> (TestServer, Api, Vec<Api>) {
    let server = TestServer::start(db).await;
    let operator = server.api(OPERATOR_KEY).await;
    create_customer(&operator, CUSTOMER).await;
    let mut workers = Vec::new();
    for workspace in ["edge-ap", "edge-eu", "edge-us"] {
        let token = create_workspace(&operator, CUSTOMER, workspace).await;
        workers.push(server.api(&token).await);
    }
    create_provider(&operator, CUSTOMER).await;
    (server, operator, workers)
}

async fn apply(worker: &Api) {
    for event in poll(worker, PATIENCE).await.unwrap() {
        let token = claim(worker, &event.id, "one", LEASE).await.unwrap().claim_token;
        assert!(complete(worker, &event.id, &token).await.unwrap());
    }
}

/// The data plane rejects what waits, for ever.
async fn reject(worker: &Api) {
    for event in poll(worker, PATIENCE).await.unwrap() {
        let claim_token = claim(worker, &event.id, "one", LEASE).await.unwrap().claim_token;
        let request = CompleteEventRequest {
            event_id: event.id,
            claim_token,
            error_message: "no such\nmodel".to_owned(),
            permanent: true,
            ..Default::default()
        };
        ConfiguratorServiceClient::new(worker.clone()).complete_event(request).await.unwrap();
    }
}

async fn a_fleet_is_listed_and_looked_into(db: TestDb) {
    let (server, _, workers) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    apply(&workers[0]).await;
    reject(&workers[1]).await;
    // When workers called is written down in batches.
    let deadline = Instant::now() + PATIENCE;
    let list = loop {
        let list = tare.run("workspace list --customer acme").await;
        if list.matches("  yes  ").count() >= 3 {
            break list;
        }
        assert!(Instant::now() < deadline, "never online: {list}");
        sleep(Duration::from_millis(100)).await;
    };
    let rows: Vec<Vec<&str>> = list.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0][..2], ["WORKSPACE", "ONLINE"], "{list}");
    assert_eq!(rows[1][..2], ["edge-ap", "yes"], "{list}");
    assert_eq!(rows[2][..2], ["edge-eu", "yes"], "{list}");
    assert_eq!(rows[1][rows[1].len() - 4..], ["yes", "-", "-", "-"], "{list}");
    assert_eq!(rows[2][rows[2].len() - 4..], ["no", "1", "1", "-"], "{list}");
    assert_eq!(rows[3], ["edge-us", "no", "never", "no", "1", "-", "-"], "{list}");
    assert!(!list.contains('\u{1b}'), "{list}");

    let json = tare.run("workspace list --customer acme --output json").await;
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 3);
    assert_eq!(
        (&rows[1]["workspace_id"], &rows[1]["stuck_events"], &rows[1]["slots_behind"]),
        (&json!("edge-eu"), &json!(1), &json!(1))
    );

    let status = tare.run("workspace status edge-eu --customer acme").await;
    assert!(status.starts_with("edge-eu of acme\n  online     yes, last poll "), "{status}");
    assert!(status.contains("no: 1 of 1 slots behind"), "{status}");
    let slot = status.lines().last().unwrap();
    assert!(slot.starts_with("  providers/system  1        0        never  stuck  evt_"), "{status}");
    assert!(slot.ends_with("  no such model"), "{status}");
    let json = tare.run("workspace status edge-ap --customer acme --output json").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["converged"], &json["slots"][0]["applied_version"]), (&json!(true), &json!("1")));
    server.stop().await;
}

async fn callers_see_their_own_customer(db: TestDb) {
    let (server, _, workers) = fleet(db).await;
    apply(&workers[0]).await;
    let create = json!({"display_name": "viewer", "kind": "API_KEY_KIND_MANAGEMENT", "role": "viewer"});
    let made = server.ok(Method::POST, "/v1/customers/acme/api-keys", Some(create)).await;
    let viewer = Tare::new(&server, made["key"].as_str().unwrap());
    assert_eq!(viewer.run("workspace list").await.lines().count(), 4);
    assert_eq!(viewer.run("workspace list --customer acme").await.lines().count(), 4);
    let rollout = viewer.run("rollout status providers").await;
    assert!(rollout.starts_with("providers/system version 1\n"), "{rollout}");
    let (code, text) = viewer.fails("workspace list --customer default").await;
    assert_eq!((code, text.contains("(CUSTOMER_NOT_FOUND)")), (1, true), "{text}");
    // Only operators may name one with a header.
    let (code, text) = viewer.fails("rollout status providers --customer default").await;
    assert_eq!(code, 1, "{text}");
    // Without one, an operator looks at its own.
    let operator = Tare::new(&server, OPERATOR_KEY);
    assert!(operator.run("workspace list").await.contains("\ndefault "));
    server.stop().await;
}

async fn refusals_are_said_in_full(db: TestDb) {
    let (server, _, _) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    let (code, text) = tare.fails("workspace status nowhere").await;
    assert_eq!((code, text.contains("(WORKSPACE_NOT_FOUND)")), (1, true), "{text}");
    let (code, text) = tare.fails("rollout status byok/system").await;
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("\n  user_id: ") && text.contains("\n  key_id: "), "{text}");
    let (code, text) = tare.fails("rollout status nonsense").await;
    assert_eq!(
        (code, text.contains("the type of a slot must be providers, mcp-catalog")),
        (2, true),
        "{text}"
    );
    let (code, text) = Tare::new(&server, "wrong").fails("workspace list").await;
    assert_eq!((code, text.contains("wrong")), (1, false), "{text}");
    server.stop().await;
    let (code, text) = tare.fails("events tail").await;
    assert_eq!((code, text.contains("cannot be reached: ")), (1, true), "{text}");
}

async fn a_rollout_is_watched_to_its_end(db: TestDb) {
    let (server, operator, workers) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    let mut watch = tare.start("rollout status providers --customer acme --watch --timeout 120s");
    watch.printed.until("a first look", |text| text.contains("version 1: 0 of 3 applied, 3 pending")).await;
    apply(&workers[0]).await;
    watch.printed.until("the first one", |text| text.contains("version 1: 1 of 3 applied, 2 pending")).await;
    // What comes meanwhile is waited for, too.
    change(&operator, CUSTOMER, 2).await.unwrap();
    for worker in &workers {
        apply(worker).await;
    }
    watch.ended().await.unwrap();
    let text = watch.printed.text();
    assert_eq!(text.lines().last(), Some("providers/system version 2: 3 of 3 applied"), "{text}");
    let whole = tare.run("rollout status providers --customer acme").await;
    assert!(whole.contains("[########################################] 100 %"), "{whole}");
    server.stop().await;
}

async fn a_rollout_that_does_not_end_is_given_up(db: TestDb) {
    let (server, _, workers) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    let (code, text) = tare.fails("rollout status providers --customer acme --watch --timeout 5s").await;
    assert_eq!((code, text.as_str()), (1, "providers/system is not applied in 3 workspaces after 5 s"));
    let mut watch =
        tare.start("rollout status providers --customer acme --watch --exit-on-stuck --timeout 120s");
    watch.printed.until("a first look", |text| text.contains("3 pending")).await;
    reject(&workers[2]).await;
    let Err(failure) = watch.ended().await else { panic!("it succeeds") };
    assert_eq!(
        (failure.code(), failure.to_string().as_str()),
        (1, "providers/system is stuck in 1 workspace")
    );
    let text = watch.printed.text();
    assert!(text.contains("\nedge-us: stuck: no such model evt_"), "{text}");
    let json = tare.run("rollout status providers --customer acme --output json").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["stuck"], &json["complete"]), (&json!(1), &json!(false)));
    assert_eq!(json["lagging"][0]["workspace_id"], "edge-us", "{json}");
    server.stop().await;
}

async fn events_are_told_once_each(db: TestDb) {
    let (server, operator, workers) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    let all = tare.start("events tail --customer acme --output json");
    let stuck = tare.start("events tail --customer acme --stuck --output json -n 0");
    all.printed.until("the first events", |text| text.lines().count() == 3).await;
    // The second version comes and is applied between two looks, or not.
    apply(&workers[0]).await;
    change(&operator, CUSTOMER, 2).await.unwrap();
    apply(&workers[0]).await;
    apply(&workers[1]).await;
    reject(&workers[2]).await;
    let is_done =
        |text: &str| text.matches("EVENT_STATUS_APPLIED").count() == 3 && text.contains("\"stuck\":true");
    all.printed.until("the last state of each", is_done).await;
    stuck.printed.until("a stuck one", |text| text.lines().count() == 1).await;
    // Two more looks have nothing to tell.
    let before = all.printed.text();
    sleep(Duration::from_secs(2)).await;
    assert_eq!(all.printed.text(), before);

    let mut told: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for line in all.printed.lines() {
        let name = |field: &str| line[field].as_str().unwrap().to_owned();
        let status = name("status").trim_start_matches("EVENT_STATUS_").to_lowercase();
        told.entry((name("workspace_id"), line["version"].to_string())).or_default().push(status);
    }
    let told: Vec<_> =
        told.iter().map(|((workspace, version), states)| (&**workspace, &**version, states)).collect();
    let whole = ["pending", "acknowledged", "applied"].map(str::to_owned).to_vec();
    let failed = ["pending", "acknowledged", "failed"].map(str::to_owned).to_vec();
    let superseded = ["pending", "superseded"].map(str::to_owned).to_vec();
    assert_eq!(
        told,
        [
            ("edge-ap", "1", &whole),
            ("edge-ap", "2", &whole),
            ("edge-eu", "1", &superseded),
            ("edge-eu", "2", &whole),
            ("edge-us", "1", &superseded),
            ("edge-us", "2", &failed),
        ]
    );
    let lines = stuck.printed.lines();
    assert_eq!((&lines[0]["workspace_id"], &lines[0]["stuck"]), (&json!("edge-us"), &json!(true)));
    let one = tare.start("events tail --customer acme --workspace edge-eu --type providers -n 1");
    one.printed.until("the newest one", |text| text.contains(" applied ")).await;
    assert_eq!(one.printed.text().lines().count(), 1);
    drop((all, stuck, one));
    server.stop().await;
}

async fn a_watch_survives_the_server(db: TestDb) {
    let (server, operator, workers) = fleet(db).await;
    let tare = Tare::new(&server, OPERATOR_KEY);
    let status = tare.start("workspace status edge-eu --customer acme --watch");
    let rollout = tare.start("rollout status providers --customer acme --watch");
    status.printed.until("a first look", |text| text.contains("providers/system pending: desired 1")).await;
    rollout.printed.until("a first look", |text| text.contains("0 of 3 applied")).await;
    let address = server.running.address;
    drop((operator, workers));
    let db = server.stop_and_keep().await;
    sleep(Duration::from_millis(300)).await;
    let server = TestServer::start_with(db, |config| config.listen = address).await;
    let operator = server.api(OPERATOR_KEY).await;
    change(&operator, CUSTOMER, 2).await.unwrap();
    status.printed.until("the change", |text| text.contains("providers/system pending: desired 2")).await;
    rollout.printed.until("the change", |text| text.contains("version 2: 0 of 3 applied")).await;
    let text = status.printed.text();
    assert_eq!(text.matches("desired 1").count(), 1, "{text}");
    drop((status, rollout, operator));
    server.stop().await;
}
