//! A provider of the demo's own: it speaks enough of OpenAI's API to answer, and needs no key of anybody.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use axum::http::HeaderMap;
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The key that it wants.
pub(super) const KEY: &str = "key-of-the-demo-upstream";

/// The upstream, for as long as this is kept.
pub(super) struct Upstream {
    address: SocketAddr,
    _serving: JoinSet<()>,
}

impl Upstream {
    pub(super) async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let app = Router::new().route("/v1/chat/completions", post(answer));
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                tracing::error!(%error, "the demo's upstream ended");
            }
        });
        Ok(Self { address, _serving: serving })
    }

    pub(super) fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }
}

async fn answer(headers: HeaderMap, Json(request): Json<Value>) -> Json<Value> {
    let sent = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let key = if sent.strip_prefix("Bearer ") == Some(KEY) { "the provider's key" } else { "a wrong key" };
    let said = request["messages"].as_array().and_then(|messages| messages.last()?["content"].as_str());
    let content = format!("You said {:?}, and Agent Router called me with {key}.", said.unwrap_or_default());
    Json(json!({
        "id": "chatcmpl-demo", "object": "chat.completion", "created": 0, "model": request["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }))
}
