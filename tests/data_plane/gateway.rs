//! Agent Router as its clients see it, and the worker that runs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_liaison::{Token, Worker, WorkerConfig};
use agentrouter_target_agent_router::{AgentRouterOptions, AgentRouterTarget};
use reqwest::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The port of clients.
const PORT: u16 = 1975;
/// The longest that anything takes, on a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
/// What the worker's program needs to know; without them it is not one.
const BASE_URL: &str = "AGENTROUTER_DATA_PLANE_BASE_URL";
const TOKEN: &str = "AGENTROUTER_DATA_PLANE_TOKEN";
const FOLDER: &str = "AGENTROUTER_DATA_PLANE_FOLDER";

/// A worker in a process of its own, which can be killed: this test program, started once more.
pub(crate) struct WorkerProcess {
    child: Child,
}

impl WorkerProcess {
    pub(crate) fn start(base_url: &str, token: &str, folder: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "worker_program", "--nocapture"])
            .envs([(BASE_URL, base_url), (TOKEN, token)])
            .env(FOLDER, folder)
            .stdin(Stdio::null())
            // Its test harness would tell of a result that is none.
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        Self { child: child.unwrap() }
    }

    /// kill -9.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM, and its end.
    pub(crate) async fn stop(mut self) {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success());
    }
}

/// The worker's program, where this process is one.
pub(crate) async fn work() {
    let Some(base_url) = std::env::var_os(BASE_URL) else { return };
    let setting = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let mut options = AgentRouterOptions::new(setting(FOLDER), tool("AGENTROUTER_TEST_AIGW"));
    options.envoy = Some(tool("AGENTROUTER_TEST_ENVOY"));
    let target = AgentRouterTarget::open(options).unwrap();
    let token = Token::new(setting(TOKEN).into_string().unwrap());
    let config = WorkerConfig::new(base_url.into_string().unwrap(), token);
    let worker = Worker::new(config, Arc::new(target.clone())).unwrap();
    let worker = worker.on_report(|report| eprintln!("worker: {report:?}"));
    let stop = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::join!(worker.run(stop.clone()), async {
        terminate.recv().await;
        stop.cancel();
    });
    target.stop().await;
}

/// A tool of the tests.
pub(crate) fn tool(variable: &str) -> PathBuf {
    std::env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is not set; `cargo xtask test` sets it"))
        .into()
}

/// A client of the gateway, with a key of its own that no upstream may see.
pub(crate) struct Gateway {
    http: Client,
}

pub(crate) const CLIENT_KEY: &str = "client-key-canary";

impl Gateway {
    pub(crate) fn new() -> Self {
        // A connection for each request: those of before a restart are gone.
        Self { http: Client::builder().pool_max_idle_per_host(0).build().unwrap() }
    }

    /// The status and the answer; none where nobody listens.
    async fn post(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Option<(u16, Value)> {
        let mut request = self.http.post(url(path)).bearer_auth(CLIENT_KEY).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.ok()?;
        let (status, text) = (response.status().as_u16(), response.text().await.ok()?);
        Some((status, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// A chat request; the status and what was said.
    pub(crate) async fn chat(&self, model: &str) -> Option<(u16, String)> {
        let body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
        let (status, answer) = self.post("/v1/chat/completions", &body, &[]).await?;
        let said = answer["choices"][0]["message"]["content"].as_str();
        Some((status, said.map_or_else(|| answer.to_string(), str::to_owned)))
    }

    /// A request in Anthropic's way.
    pub(crate) async fn message(&self, model: &str) -> Option<(u16, Value)> {
        let body =
            json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": "hello"}]});
        self.post("/anthropic/v1/messages", &body, &[("x-api-key", CLIENT_KEY)]).await
    }

    pub(crate) async fn models(&self) -> Vec<String> {
        let Ok(response) = self.http.get(url("/v1/models")).send().await else { return Vec::new() };
        let answer: Value = response.json().await.unwrap_or_default();
        let models = answer["data"].as_array().cloned().unwrap_or_default();
        models.iter().filter_map(|model| model["id"].as_str().map(str::to_owned)).collect()
    }

    /// Calls a tool in a session of its own; the text of its answer.
    pub(crate) async fn tool(
        &self,
        tool: &str,
        arguments: Value,
        headers: &[(&str, &str)],
    ) -> Option<String> {
        let hello = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}});
        let request = |body: &Value| {
            let request = self.http.post(url("/mcp")).bearer_auth(CLIENT_KEY).json(body);
            let accept = request.header("accept", "application/json, text/event-stream");
            headers.iter().fold(accept, |request, (name, value)| request.header(*name, *value))
        };
        let response = request(&hello).send().await.ok()?;
        let session = response.headers().get("mcp-session-id")?.clone();
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        request(&initialized).header("mcp-session-id", &session).send().await.ok()?;
        let call = json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}});
        let response = request(&call).header("mcp-session-id", &session).send().await.ok()?;
        let text = response.text().await.ok()?;
        // An answer by itself, or as the data of an event.
        let json = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or(&text);
        let answer: Value = serde_json::from_str(json).ok()?;
        answer["result"]["content"][0]["text"].as_str().map(str::to_owned)
    }
}

fn url(path: &str) -> String {
    format!("http://127.0.0.1:{PORT}{path}")
}

/// The processes of a folder's data plane: `aigw` and Envoy.
pub(crate) fn processes(folder: &Path, program: &str) -> Vec<Pid> {
    let folder = std::fs::canonicalize(folder).unwrap();
    let ids = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let ours = ids.filter(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let first = line.split('\0').next().unwrap_or_default();
        Path::new(first).file_name().is_some_and(|name| name == program)
            && line.contains(folder.to_str().unwrap())
    });
    ours.filter_map(Pid::from_raw).collect()
}

pub(crate) fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
}
