//! A real server on a free port, on either engine, and clients to call it with.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]
#![expect(unreachable_pub, reason = "a module that each test binary compiles as its own")]
#![expect(dead_code, reason = "every test binary uses a part of it")]

pub mod plane;
pub mod program;
pub mod scrape;

use std::net::{Ipv4Addr, SocketAddr};

use agentrouter::config::edge::EdgeConfig;
use agentrouter::config::{Config, Observability, Secrets, StoreConfig};
use agentrouter::server::{self, Running};
use agentrouter_envelope::{Keyring, Secret};
use agentrouter_storage::Target;
use agentrouter_testkit::TestDb;
use reqwest::{Client, Method, Response};
use serde_json::Value;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// The first operator key of every test server.
pub const OPERATOR_KEY: &str = "dev";

/// The key-encryption key of every test server.
pub const KEK: &str = "test:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";

/// A server of its own over a database of its own.
pub struct TestServer {
    pub running: Running,
    pub base_url: String,
    pub http: Client,
    /// The database, opened a second time, for looking behind the server's back.
    pub test_db: TestDb,
    _data_dir: tempfile::TempDir,
}

impl TestServer {
    /// Starts a server over an empty, migrated database.
    pub async fn start(test_db: TestDb) -> Self {
        Self::start_with(test_db, |_| {}).await
    }

    /// Starts a server whose configuration was changed.
    pub async fn start_with(test_db: TestDb, change: impl FnOnce(&mut Config)) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let mut config = config(data_dir.path(), test_db.target.clone());
        change(&mut config);
        let running = server::start(config).await.unwrap();
        let base_url = format!("http://{}", running.address);
        Self { running, base_url, http: Client::new(), test_db, _data_dir: data_dir }
    }

    /// A REST call as the operator, with a JSON body where one is given.
    pub async fn rest(&self, method: Method, path: &str, body: Option<Value>) -> Response {
        self.rest_as(&format!("Bearer {OPERATOR_KEY}"), method, path, body).await
    }

    /// A REST call with this `Authorization` header.
    pub async fn rest_as(
        &self,
        authorization: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Response {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.base_url))
            .header("authorization", authorization);
        if let Some(body) = body {
            request = request.json(&body);
        }
        request.send().await.unwrap()
    }

    /// A REST call as the operator that must succeed; its JSON answer.
    pub async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let response = self.rest(method.clone(), path, body).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{method} {path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// A gRPC channel.
    pub async fn channel(&self) -> Channel {
        Endpoint::new(self.base_url.clone()).unwrap().connect().await.unwrap()
    }

    /// A gRPC channel that sends a bearer token.
    pub async fn api(&self, token: &str) -> Api {
        InterceptedService::new(self.channel().await, Bearer(format!("Bearer {token}").parse().unwrap()))
    }

    pub async fn stop(self) {
        self.running.stop().await.unwrap();
    }

    /// Stops the server and gives its database back.
    pub async fn stop_and_keep(self) -> TestDb {
        self.running.stop().await.unwrap();
        self.test_db
    }
}

/// The configuration of a test server.
pub fn config(data_dir: &std::path::Path, target: Target) -> Config {
    // A fixed key, as replicas and restarts share it.
    let keyring = Keyring::parse(KEK).unwrap();
    Config {
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        store: StoreConfig { data_dir: data_dir.to_owned(), target, max_connections: 8 },
        log: String::new(),
        observability: Observability::default(),
        full_syncs_per_second: None,
        edge: EdgeConfig::default(),
        webhook_allow_private: true,
        allow_weak_bootstrap_key: false,
        oidc_issuers: Vec::new(),
        secrets: Secrets { bootstrap_key: Some(Secret::new(OPERATOR_KEY)), keyring: Some(keyring) },
    }
}

pub type Api = InterceptedService<Channel, Bearer>;

/// Sends this bearer token.
pub fn bearer(token: &str) -> Bearer {
    Bearer(format!("Bearer {token}").parse().unwrap())
}

/// Sends a bearer token with every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}
