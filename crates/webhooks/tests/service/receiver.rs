//! An HTTP server that keeps what it gets and answers as it is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request that was received.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).expect("the header").to_str().unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Type and workspace of the message.
    pub(crate) fn summary(&self) -> (String, String) {
        let json = self.json();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&json["type"]), text(&json["data"]["workspace_id"]))
    }

    /// Whether one of the signatures is that of a secret.
    pub(crate) fn is_signed_with(&self, secret: &str) -> bool {
        let time = self.header("webhook-timestamp").parse().unwrap();
        let verifier = standardwebhooks::Webhook::new(secret).unwrap();
        let expected = verifier.sign(self.header("webhook-id"), time, &self.body).unwrap();
        self.header("webhook-signature").split(' ').any(|signature| signature == expected)
    }
}

/// What a receiver answers.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Status(u16),
    /// 302 to another path of the same server.
    Redirect,
    /// 429, and how many seconds it wants to be left alone.
    Busy(u64),
    /// Nothing, ever.
    Nothing,
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    answers: Mutex<VecDeque<Answer>>,
    count: watch::Sender<usize>,
}

/// A receiver; it ends with the test.
pub(crate) struct Receiver {
    pub(crate) url: String,
    pub(crate) port: u16,
    shared: Arc<Shared>,
    _server: JoinSet<()>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url: format!("http://127.0.0.1:{port}/hook"), port, shared, _server: server }
    }

    /// Answers of the next requests, in order; all others get 204.
    pub(crate) fn answers(&self, answers: impl IntoIterator<Item = Answer>) {
        self.shared.answers.lock().unwrap().extend(answers);
    }

    pub(crate) fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Types and workspaces of the messages so far, sorted.
    pub(crate) fn summaries(&self) -> Vec<(String, String)> {
        let mut summaries: Vec<_> = self.received().iter().map(Received::summary).collect();
        summaries.sort();
        summaries
    }

    /// Waits until this many requests came in.
    pub(crate) async fn until(&self, count: usize) {
        let mut seen = self.shared.count.subscribe();
        let waited = tokio::time::timeout(PATIENCE, seen.wait_for(|seen| *seen >= count)).await;
        waited.expect("the requests come in").unwrap();
    }
}

async fn receive(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    shared.received.lock().unwrap().push(Received { path: uri.path().to_owned(), headers, body });
    shared.count.send_modify(|count| *count += 1);
    let answer = shared.answers.lock().unwrap().pop_front();
    match answer.unwrap_or(Answer::Status(204)) {
        Answer::Status(status) => {
            (StatusCode::from_u16(status).unwrap(), "canary-of-the-body").into_response()
        }
        Answer::Redirect => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        Answer::Busy(seconds) => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())]).into_response()
        }
        Answer::Nothing => std::future::pending().await,
    }
}
