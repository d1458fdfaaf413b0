//! The whole way with the real data plane: a change made by a person decides where a request through Agent Router
//! goes, and with which key, whatever dies in between.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it took is shown where a test fails")]

#[path = "../common/mod.rs"]
mod common;
mod fakes;
mod gateway;

use std::path::Path;
use std::time::Duration;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::OPERATOR_KEY;
use common::program::{Program, Settings};
use fakes::{Call, Fake, Speaks};
use gateway::{CLIENT_KEY, Gateway, PATIENCE, WorkerProcess, kill, processes, tool};
use reqwest::{Client, Method};
use rustix::process::Pid;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

/// A machine has one Agent Router at a time: most of its ports cannot be moved.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

on_both_engines!(changes_decide_where_requests_go, it_follows_whatever_dies);

/// No test by itself, but the worker of the others, which start it as a program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_program() {
    gateway::work().await;
}

#[tokio::test]
async fn the_demo_sends_a_request_through() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut demo = Command::new(env!("CARGO_BIN_EXE_agentrouter"));
    demo.args(["demo", "--once", "--data-plane", "agent-router"]);
    demo.arg("--aigw").arg(tool("AGENTROUTER_TEST_AIGW")).arg("--envoy").arg(tool("AGENTROUTER_TEST_ENVOY"));
    let output = timeout(PATIENCE * 2, demo.kill_on_drop(true).output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Agent Router called me with the provider's key"), "{text}");
}

async fn changes_decide_where_requests_go(db: TestDb) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folders = tempfile::tempdir().unwrap();
    let program = Program::start(&Settings::new(folders.path(), &db.target)).await;
    let plane = Plane::prepare(program.base_url()).await;
    let folder = folders.path().join("gateway");
    let worker = WorkerProcess::start(&plane.base_url, &plane.token, &folder);
    let gateway = Gateway::new();
    let (first, second) =
        (Fake::start("first", Speaks::OpenAi).await, Fake::start("second", Speaks::OpenAi).await);

    // A provider, called with its key.
    plane.provider("first", "OPENAI", &first.url("/v1"), "shared", "sk-first-$1", 0).await;
    plane.converged().await;
    assert_eq!(gateway.chat("shared").await, Some((200, "from first".to_owned())));
    assert_eq!(key(&first.take()), "Bearer sk-first-$1");
    assert_eq!(gateway.chat("unknown").await.unwrap().0, 404);
    assert_eq!(gateway.models().await, ["shared"]);

    // A second one for the same model, under a path of its own, takes over with a key of its own.
    plane.provider("second", "OPENAI", &second.url("/openai/v1"), "shared", "sk-second", 1).await;
    plane.converged().await;
    assert_eq!(gateway.chat("shared").await, Some((200, "from first".to_owned())));
    assert_eq!(second.take().len(), 0);
    first.answer_with(503);
    assert_eq!(gateway.chat("shared").await, Some((200, "from second".to_owned())));
    let calls = second.take();
    assert_eq!((key(&calls), calls[0].path.as_str()), ("Bearer sk-second", "/openai/v1/chat/completions"));
    assert!(first.take().iter().all(|call| call.header("authorization") == Some("Bearer sk-first-$1")));

    // A new key.
    first.answer_with(200);
    plane.call(Method::PATCH, "/v1/customers/acme/providers/first", json!({"api_key": "sk-first-2"})).await;
    plane.converged().await;
    assert_eq!(gateway.chat("shared").await, Some((200, "from first".to_owned())));
    assert_eq!(key(&first.take()), "Bearer sk-first-2");

    // A disabled provider, one that speaks otherwise, one that cannot be served, and an MCP server: one restart.
    let (claude, tools) =
        (Fake::start("claude", Speaks::Anthropic).await, Fake::start("tools", Speaks::Mcp).await);
    plane.call(Method::POST, "/v1/customers/acme/providers/first:disable", json!({})).await;
    plane.provider("claude", "ANTHROPIC", &claude.url(""), "claude", "sk-claude", 0).await;
    plane.provider("vertex", "GCP_VERTEX_AI", "https://vertex.example", "gemini", "sk-vertex", 0).await;
    let server = json!({"id": "tools", "url": tools.url("/mcp"), "name": "Tools", "requires_auth": true,
        "authentication": "bearer"});
    plane.call_as(&plane.token, Method::POST, "/configurator/v1/mcp-catalog/upsert", server).await;
    plane.converged().await;
    assert_eq!(gateway.chat("shared").await, Some((200, "from second".to_owned())));
    assert_eq!(first.take().len(), 0);
    let (status, answer) = gateway.message("claude").await.unwrap();
    assert_eq!((status, &answer["content"][0]["text"]), (200, &json!("from claude")));
    let calls = claude.take();
    assert_eq!((calls[0].path.as_str(), calls[0].header("x-api-key")), ("/v1/messages", Some("sk-claude")));
    assert_eq!(gateway.chat("gemini").await.unwrap().0, 404);
    let login = [("x-mcp-tools-authorization", "Bearer of-the-user")];
    let sum = gateway.tool("mcp-tools__add", json!({"a": 40, "b": 2}), &login).await;
    assert_eq!(sum.as_deref(), Some("42"));
    let calls = tools.take();
    let call = calls.iter().find(|call| call.body["method"] == "tools/call").unwrap();
    assert_eq!((call.path.as_str(), call.header("authorization")), ("/mcp", Some("Bearer of-the-user")));

    // The public URL is noted without a restart.
    let before = processes(&folder, "aigw");
    let url = json!({"workspace_id": "edge", "url": "https://ai.example.com", "trigger_update": true});
    plane.call_as(&plane.token, Method::POST, "/configurator/v1/dataplane-url", url).await;
    plane.converged().await;
    assert!(std::fs::read_to_string(folder.join("config.yaml")).unwrap().contains("https://ai.example.com"));
    assert_eq!(processes(&folder, "aigw"), before);
    for fake in [&first, &second, &claude, &tools] {
        let sent = fake.ever();
        assert!(!sent.is_empty(), "every one was called");
        let sent = format!("{sent:?}");
        assert!(!sent.contains(CLIENT_KEY), "the client's key reached an upstream: {sent}");
    }

    assert_eq!((processes(&folder, "aigw").len(), processes(&folder, "envoy").len()), (1, 1));
    worker.stop().await;
    assert!(processes(&folder, "aigw").is_empty() && processes(&folder, "envoy").is_empty());
    program.kill().await;
}

async fn it_follows_whatever_dies(db: TestDb) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let folders = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(folders.path(), &db.target);
    let program = Program::start(&settings).await;
    settings.listen = program.address().to_string();
    let plane = Plane::prepare(program.base_url()).await;
    let folder = folders.path().join("gateway");
    let worker = WorkerProcess::start(&plane.base_url, &plane.token, &folder);
    let gateway = Gateway::new();
    let upstream = Fake::start("upstream", Speaks::OpenAi).await;
    plane.provider("only", "OPENAI", &upstream.url("/v1"), "m", "sk-1", 0).await;
    plane.converged().await;
    assert_eq!(gateway.chat("m").await.unwrap().0, 200);

    // `aigw` dies: it is started again by itself, and its Envoy with it.
    let (before, proxies) = (processes(&folder, "aigw"), processes(&folder, "envoy"));
    for pid in &before {
        kill(*pid);
    }
    replaced(&folder, "aigw", &before).await;
    replaced(&folder, "envoy", &proxies).await;
    serves(&gateway, &upstream, "Bearer sk-1").await;

    // The worker dies: the gateway goes on. The next worker ends it, and brings what changed meanwhile.
    worker.kill().await;
    assert_eq!(gateway.chat("m").await.unwrap().0, 200);
    let orphan = processes(&folder, "aigw");
    assert_eq!(orphan.len(), 1);
    plane.call(Method::PATCH, "/v1/customers/acme/providers/only", json!({"api_key": "sk-2"})).await;
    let worker = WorkerProcess::start(&plane.base_url, &plane.token, &folder);
    serves(&gateway, &upstream, "Bearer sk-2").await;
    plane.converged().await;
    assert_ne!(processes(&folder, "aigw"), orphan);

    // The server dies: the gateway goes on, and follows the next one.
    program.kill().await;
    assert_eq!(gateway.chat("m").await.unwrap().0, 200);
    let program = Program::start(&settings).await;
    plane.call(Method::PATCH, "/v1/customers/acme/providers/only", json!({"api_key": "sk-3"})).await;
    plane.converged().await;
    assert_eq!(gateway.chat("m").await.unwrap().0, 200);
    assert_eq!(key(&upstream.take()), "Bearer sk-3");

    worker.stop().await;
    program.kill().await;
}

/// The key of the last request.
fn key(calls: &[Call]) -> &str {
    calls.last().unwrap().header("authorization").unwrap_or_default()
}

/// Waits until one process of this program runs that is none of those before.
async fn replaced(folder: &Path, program: &str, before: &[Pid]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = processes(folder, program);
        if now.len() == 1 && !before.contains(&now[0]) {
            return;
        }
        assert!(Instant::now() < deadline, "{program} is not replaced: {before:?}, {now:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until requests arrive with this key.
async fn serves(gateway: &Gateway, upstream: &Fake, key: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        upstream.take();
        let answer = gateway.chat("m").await;
        let calls = upstream.take();
        let seen = calls.last().and_then(|call| call.header("authorization"));
        if answer.as_ref().is_some_and(|(status, _)| *status == 200) && seen == Some(key) {
            return;
        }
        assert!(Instant::now() < deadline, "not served with {key}: {answer:?} {calls:?}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// A customer with a workspace, through the API.
struct Plane {
    base_url: String,
    http: Client,
    token: String,
}

impl Plane {
    async fn prepare(base_url: String) -> Self {
        let plane = Self { base_url, http: Client::new(), token: String::new() };
        plane.call(Method::POST, "/v1/customers", json!({"customer_id": "acme"})).await;
        plane.call(Method::POST, "/v1/customers/acme/workspaces", json!({"workspace_id": "edge"})).await;
        let issued =
            plane.call(Method::POST, "/v1/customers/acme/workspaces/edge:issueToken", json!({})).await;
        Self { token: issued["token"].as_str().unwrap().to_owned(), ..plane }
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> Value {
        self.call_as(OPERATOR_KEY, method, path, body).await
    }

    async fn call_as(&self, token: &str, method: Method, path: &str, body: Value) -> Value {
        let mut request =
            self.http.request(method.clone(), format!("{}{path}", self.base_url)).bearer_auth(token);
        if method != Method::GET {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn provider(&self, id: &str, schema: &str, base_url: &str, model: &str, key: &str, priority: i32) {
        let provider = json!({
            "provider_id": id, "schema": format!("PROVIDER_SCHEMA_{schema}"), "base_url": base_url,
            "models": [model], "api_key": key, "priority": priority,
        });
        self.call(Method::POST, "/v1/customers/acme/providers", provider).await;
    }

    /// Waits until the workspace runs the newest version of everything.
    async fn converged(&self) {
        let (began, deadline) = (Instant::now(), Instant::now() + PATIENCE);
        loop {
            let status =
                self.call(Method::GET, "/v1/customers/acme/workspaces/edge/status", Value::Null).await;
            if status["converged"] == true
                && status["slots"].as_array().is_some_and(|slots| !slots.is_empty())
            {
                println!("converged after {:.1} s", began.elapsed().as_secs_f64());
                return;
            }
            assert!(Instant::now() < deadline, "not converged: {status}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}
