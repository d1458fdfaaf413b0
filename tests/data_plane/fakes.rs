//! Servers that the data plane talks to, and what they were sent.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A request as a fake got it.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What a fake answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    OpenAi,
    Anthropic,
    Mcp,
}

/// A server on a free port of this machine.
pub(crate) struct Fake {
    address: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

struct Shared {
    name: &'static str,
    speaks: Speaks,
    status: AtomicU16,
    calls: Mutex<Vec<Call>>,
    ever: Mutex<Vec<Call>>,
}

impl Fake {
    pub(crate) async fn start(name: &'static str, speaks: Speaks) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            name,
            speaks,
            status: AtomicU16::new(200),
            calls: Mutex::default(),
            ever: Mutex::default(),
        });
        let app = Router::new().fallback(answer).with_state(Arc::clone(&shared));
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { address, shared, _serving: serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers with this status from now on.
    pub(crate) fn answer_with(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// What it was sent since this was asked last.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.shared.calls.lock().unwrap())
    }

    /// All that it was ever sent.
    pub(crate) fn ever(&self) -> Vec<Call> {
        self.shared.ever.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body: Bytes = to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let call = Call { path: head.uri.path().to_owned(), headers: head.headers, body: body.clone() };
    shared.ever.lock().unwrap().push(call.clone());
    shared.calls.lock().unwrap().push(call);
    let status = StatusCode::from_u16(shared.status.load(Ordering::Relaxed)).unwrap();
    if !status.is_success() {
        return (status, Json(json!({"error": {"message": "the fake says no"}}))).into_response();
    }
    match shared.speaks {
        Speaks::OpenAi => Json(json!({
            "id": "c", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop",
                "message": {"role": "assistant", "content": format!("from {}", shared.name)}}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }))
        .into_response(),
        Speaks::Anthropic => Json(json!({
            "id": "m", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": format!("from {}", shared.name)}],
            "usage": {"input_tokens": 1, "output_tokens": 1},
        }))
        .into_response(),
        Speaks::Mcp if head.method == Method::POST => mcp(&body),
        Speaks::Mcp => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn mcp(request: &Value) -> Response {
    let result = match request["method"].as_str() {
        Some("initialize") => json!({
            "protocolVersion": "2025-06-18", "capabilities": {"tools": {}},
            "serverInfo": {"name": "fake", "version": "1"},
        }),
        Some("tools/list") => json!({"tools": [{
            "name": "add", "description": "adds",
            "inputSchema": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        }]}),
        Some("tools/call") => {
            let arguments = &request["params"]["arguments"];
            let sum =
                arguments["a"].as_i64().unwrap_or_default() + arguments["b"].as_i64().unwrap_or_default();
            json!({"content": [{"type": "text", "text": sum.to_string()}]})
        }
        _ => return StatusCode::ACCEPTED.into_response(),
    };
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
    ([("mcp-session-id", "fake-session")], Json(answer)).into_response()
}
