//! Another key-encryption key, while servers serve.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agentrouter::sealed::SEALED;
use agentrouter_envelope::Keyring;
use agentrouter_identity::keks;
use agentrouter_storage::{Db, query};
use agentrouter_testkit::TestDb;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::OPERATOR_KEY;
use crate::common::program::{Program, Settings};
use crate::{failed, program, ran};

const OLD: &str = "old:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const NEW: &str = "new:AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

/// An installation that servers with different keys are started on.
struct Installation {
    settings: Settings,
    data_dir: tempfile::TempDir,
}

impl Installation {
    fn new(db: &TestDb) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        Self { settings: Settings::new(data_dir.path(), &db.target), data_dir }
    }

    fn with(&self, keks: &str) -> Settings {
        let mut settings = self.settings.clone();
        settings.environment.push(("AGENTROUTER_KEK", keks.to_owned()));
        settings
    }

    async fn start(&self, keks: &str) -> Server {
        let program = Program::start(&self.with(keks)).await;
        Server { base_url: program.base_url(), program, http: Client::new() }
    }

    /// The arguments and the environment of `keys rotate-kek`.
    fn rotation(&self) -> (Vec<String>, String) {
        let url = self.settings.database_url.clone();
        (data_dir_arguments(self.data_dir.path()), url.unwrap_or_default())
    }

    async fn rotate(&self, keks: &str) -> String {
        let (arguments, url) = self.rotation();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        ran(&arguments, &environment(keks, &url)).await
    }

    async fn db(&self) -> Db {
        self.settings.open().await
    }
}

fn data_dir_arguments(folder: &Path) -> Vec<String> {
    ["keys", "rotate-kek", "--data-dir", folder.to_str().unwrap()].map(str::to_owned).to_vec()
}

fn environment<'a>(keks: &'a str, url: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut environment = vec![("AGENTROUTER_KEK", keks)];
    if !url.is_empty() {
        environment.push(("AGENTROUTER_DATABASE_URL", url));
    }
    environment
}

struct Server {
    program: Program,
    base_url: String,
    http: Client,
}

impl Server {
    async fn call(&self, path: &str, bearer: &str, repeat: &str, body: &Value) -> (u16, Value) {
        call(&self.http, &self.base_url, path, bearer, repeat, body).await
    }

    async fn ok(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.call(path, OPERATOR_KEY, "", &body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    /// A key made under an idempotency key: its answer is kept, sealed.
    async fn api_key(&self, repeat: &str) -> String {
        made(&self.http, &self.base_url, repeat).await
    }

    /// The provider's credential, as the worker gets it.
    async fn credential(&self, worker: &str) -> String {
        credential(&self.http, &self.base_url, worker).await
    }
}

async fn call(
    http: &Client,
    base_url: &str,
    path: &str,
    bearer: &str,
    repeat: &str,
    body: &Value,
) -> (u16, Value) {
    let request = http.request(Method::POST, format!("{base_url}{path}")).bearer_auth(bearer).json(body);
    let request = if repeat.is_empty() { request } else { request.header("idempotency-key", repeat) };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

async fn made(http: &Client, base_url: &str, repeat: &str) -> String {
    let body = json!({"display_name": "k", "role": "viewer"});
    let (status, answer) =
        call(http, base_url, "/v1/customers/acme/api-keys", OPERATOR_KEY, repeat, &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["key"].as_str().unwrap().to_owned()
}

async fn credential(http: &Client, base_url: &str, worker: &str) -> String {
    let body = json!({"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}]});
    let (status, answer) = call(http, base_url, "/configurator/v1/config", worker, "", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["configurations"][0]["providers"]["providers"][0]["credential"]["value"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A customer with a provider that has a credential, and a workspace; the token of its worker.
async fn prepare(server: &Server) -> String {
    server.ok("/v1/customers", json!({"customer_id": "acme"})).await;
    server.ok("/v1/customers/acme/workspaces", json!({"workspace_id": "edge"})).await;
    let provider = json!({
        "provider_id": "openai", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://a.example",
        "models": ["m"], "api_key": "sk-canary",
    });
    server.ok("/v1/customers/acme/providers", provider).await;
    let issued = server.ok("/v1/customers/acme/workspaces/edge:issueToken", json!({})).await;
    issued["token"].as_str().unwrap().to_owned()
}

/// How many sealed values there are under each key.
async fn by_key(db: &Db) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for sealed in SEALED {
        let sql = format!(
            "SELECT {column} AS value FROM {} WHERE {column} IS NOT NULL",
            sealed.table,
            column = sealed.column
        );
        for value in query(sql).values::<Vec<u8>>(db).await.unwrap() {
            *counts.entry(Keyring::key_id(&value).unwrap().to_owned()).or_default() += 1;
        }
    }
    counts.into_iter().collect()
}

// Behaviour 47: every sealed value names its key, and is under the new one after a rotation.
pub(crate) async fn everything_is_rewrapped_under_load(db: TestDb) {
    db.db.close().await;
    let installation = Installation::new(&db);
    let server = installation.start(OLD).await;
    let worker = prepare(&server).await;
    let first = server.api_key("first").await;
    server.program.stop().await;

    // Every server gets the new key first. This one still seals under the old one.
    let both = format!("{OLD},{NEW}");
    let server = installation.start(&both).await;
    let (stop, calls) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let mut load = JoinSet::new();
    for number in 0..4 {
        let (stop, calls, worker) = (stop.clone(), Arc::clone(&calls), worker.clone());
        let (http, base_url) = (server.http.clone(), server.base_url.clone());
        load.spawn(async move {
            let mut answers: Vec<String> = Vec::new();
            while !stop.is_cancelled() {
                let repeat = format!("{number}-{}", answers.len());
                answers.push(made(&http, &base_url, &repeat).await);
                let earlier = fastrand::usize(..answers.len());
                assert_eq!(made(&http, &base_url, &format!("{number}-{earlier}")).await, answers[earlier]);
                assert_eq!(credential(&http, &base_url, &worker).await, "sk-canary");
                calls.fetch_add(3, Ordering::Relaxed);
            }
            (number, answers)
        });
    }
    while calls.load(Ordering::Relaxed) < 30 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = calls.load(Ordering::Relaxed);
    let report = installation.rotate(&format!("{NEW},{OLD}")).await;
    assert!(report.contains("every value is sealed under \"new\""), "{report}");
    assert!(report.contains("\"old\" is needed no more"), "{report}");
    assert!(calls.load(Ordering::Relaxed) > before, "calls went on meanwhile");
    // What is sealed from now on is under the new key, also by the server that began with the old one.
    server.api_key("after").await;
    stop.cancel();
    let answers = load.join_all().await;
    let counts = by_key(&installation.db().await).await;
    assert!(matches!(counts.as_slice(), [(key, 10..)] if key == "new"), "{counts:?}");
    let again = installation.rotate(&format!("{NEW},{OLD}")).await;
    assert!(again.lines().skip(1).take(SEALED.len()).all(|line| line.ends_with("\t0")), "{again}");
    server.program.stop().await;

    // The old key may go.
    let refused = Program::refused(&installation.with(OLD)).await;
    assert!(refused.contains("\"new\", which is not configured"), "{refused}");
    let server = installation.start(NEW).await;
    assert_eq!(server.api_key("first").await, first);
    assert_eq!(server.credential(&worker).await, "sk-canary");
    for (number, answers) in answers {
        for (place, answer) in answers.iter().enumerate() {
            assert_eq!(server.api_key(&format!("{number}-{place}")).await, *answer);
        }
    }
    server.program.stop().await;
    // A server that comes back with the old order seals under the new key all the same.
    let server = installation.start(&both).await;
    server.api_key("late").await;
    server.program.stop().await;
    let counts = by_key(&installation.db().await).await;
    assert_eq!(counts.len(), 1, "{counts:?}");
}

pub(crate) async fn a_rotation_cut_short_goes_on(db: TestDb) {
    db.db.close().await;
    let installation = Installation::new(&db);
    let server = installation.start(OLD).await;
    let worker = prepare(&server).await;
    let first = server.api_key("first").await;
    server.program.stop().await;

    // Killed while it waits for the servers to notice.
    let both = format!("{NEW},{OLD}");
    let (arguments, url) = installation.rotation();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mut killed = program(&arguments, &environment(&both, &url)).spawn().unwrap();
    let stored = installation.db().await;
    let begun = || query("SELECT kek_id AS value FROM retired_keks");
    while begun().value::<String>(&stored).await.unwrap().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    killed.kill().await.unwrap();
    let counts = by_key(&stored).await;
    assert_eq!(counts.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["new", "old"], "{counts:?}");

    // Now both keys are needed: one for the check value, the other for what was not wrapped anew yet.
    for (only, missing) in [(OLD, "new"), (NEW, "old")] {
        let refused = Program::refused(&installation.with(only)).await;
        assert!(refused.contains(&format!("{missing:?}")), "{refused}");
        let said = failed(&arguments, &environment(only, &url)).await;
        assert!(said.contains(&format!("{missing:?}")), "{said}");
    }
    let server = installation.start(&both).await;
    assert_eq!(server.api_key("first").await, first);
    let report = installation.rotate(&both).await;
    assert!(report.contains("\"old\" is needed no more"), "{report}");
    assert_eq!(by_key(&stored).await.len(), 1);
    server.program.stop().await;
    let server = installation.start(NEW).await;
    assert_eq!(server.credential(&worker).await, "sk-canary");

    // And back, as after a mistake.
    let back = format!("{OLD},{NEW}");
    server.program.stop().await;
    let server = installation.start(&back).await;
    installation.rotate(&back).await;
    server.program.stop().await;
    let server = installation.start(OLD).await;
    assert_eq!(server.api_key("first").await, first);
    server.program.stop().await;
    let keyring = Keyring::parse(OLD).unwrap();
    keks::verify_keyring(&stored, &keyring).await.unwrap();
}
