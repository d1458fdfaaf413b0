//! Streams that are open when the credential that opened them ends, on another replica than the one that ends it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;

use std::time::{Duration, Instant};

use agentrouter::server::{self, Running};
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{WatchPendingEventsRequest, WatchPendingEventsResponse};
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_api::workspaces::{WatchWorkspaceStatusRequest, WorkspaceStatus};
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{Bearer, OPERATOR_KEY, TestServer, bearer, config};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Streaming};
use tonic_types::StatusExt;

on_both_engines!(
    streams_end_with_their_credential_on_every_replica,
    an_archived_workspace_ends_its_streams,
    a_stream_over_rest_says_why_it_ends,
);

/// About a second, on a machine that has many other things to do.
const SOON: Duration = Duration::from_secs(15);
/// How long a test waits for the next message of a stream.
const PATIENCE: Duration = Duration::from_secs(20);
const WORKSPACE: &str = "/v1/customers/default/workspaces/default";

/// Two replicas over one database: credentials end here, streams are open there.
struct Pair {
    here: TestServer,
    there: Running,
    _data_dir: tempfile::TempDir,
}

impl Pair {
    async fn start(db: TestDb) -> Self {
        let here = TestServer::start(db).await;
        let data_dir = tempfile::tempdir().unwrap();
        let there = server::start(config(data_dir.path(), here.test_db.target.clone())).await.unwrap();
        Self { here, there, _data_dir: data_dir }
    }

    fn url(&self) -> String {
        format!("http://{}", self.there.address)
    }

    async fn api(&self, token: &str) -> InterceptedService<Channel, Bearer> {
        let channel = Endpoint::new(self.url()).unwrap().connect().await.unwrap();
        InterceptedService::new(channel, bearer(token))
    }

    /// A watch of events whose first message was read.
    async fn watch_events(&self, token: &str) -> Streaming<WatchPendingEventsResponse> {
        let message = WatchPendingEventsRequest::default();
        let mut client = ConfiguratorServiceClient::new(self.api(token).await);
        let mut stream = client.watch_pending_events(message).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    }

    /// A watch of a status whose first message was read.
    async fn watch_status(&self, token: &str) -> Streaming<WorkspaceStatus> {
        let message = WatchWorkspaceStatusRequest {
            customer_id: "default".to_owned(),
            workspace_id: "default".to_owned(),
        };
        let mut client = WorkspacesServiceClient::new(self.api(token).await);
        let mut stream = client.watch_workspace_status(message).await.unwrap().into_inner();
        stream.message().await.unwrap().unwrap();
        stream
    }

    /// A worker's token and its id.
    async fn worker(&self) -> (String, String) {
        let issued = self.here.ok(Method::POST, &format!("{WORKSPACE}:issueToken"), Some(json!({}))).await;
        let text = |name: &str| issued[name].as_str().unwrap().to_owned();
        (text("token"), text("jti"))
    }

    async fn stop(self) {
        self.there.stop().await.unwrap();
        self.here.stop().await;
    }
}

/// Reads until the stream ends, and asserts that it ends soon, for that reason.
async fn ends<T>(stream: &mut Streaming<T>) {
    let ended = Instant::now();
    let status = loop {
        match timeout(PATIENCE, stream.message()).await.unwrap() {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends as if all were said"),
            Err(status) => break status,
        }
    };
    assert!(ended.elapsed() < SOON, "it took {:?}", ended.elapsed());
    let reason = status.get_details_error_info().unwrap().reason;
    assert_eq!((status.code(), reason.as_str()), (Code::Unauthenticated, "CREDENTIAL_ENDED"));
}

// Behaviour 45: streams that a revoked key and a revoked token have opened end on another replica, and no others do.
async fn streams_end_with_their_credential_on_every_replica(db: TestDb) {
    let pair = Pair::start(db).await;
    let (token, jti) = pair.worker().await;
    let (other, _) = pair.worker().await;
    let create = json!({"display_name": "a viewer", "kind": "API_KEY_KIND_MANAGEMENT", "role": "viewer"});
    let created = pair.here.ok(Method::POST, "/v1/customers/default/api-keys", Some(create)).await;
    let mut events = pair.watch_events(&token).await;
    let mut events_of_other = pair.watch_events(&other).await;
    let mut status = pair.watch_status(created["key"].as_str().unwrap()).await;

    let key = created["api_key"]["id"].as_str().unwrap();
    let revoke = format!("/v1/customers/default/api-keys/{key}:revoke");
    pair.here.ok(Method::POST, &revoke, Some(json!({}))).await;
    ends(&mut status).await;

    let revoke = format!("/configurator/v1/user-tokens/{jti}:revoke");
    pair.here.ok(Method::POST, &revoke, Some(json!({}))).await;
    ends(&mut events).await;
    // The other one gets what comes, here the list of what was revoked.
    let news = async {
        loop {
            let told = events_of_other.message().await.unwrap().unwrap();
            // Without events, it says that the stream still stands.
            if !told.events.is_empty() {
                return told.events;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, news).await.unwrap().len(), 1);
    pair.stop().await;
}

// Behaviour 45: archiving a workspace ends the streams of its workers on every replica.
async fn an_archived_workspace_ends_its_streams(db: TestDb) {
    let pair = Pair::start(db).await;
    let (token, _) = pair.worker().await;
    let mut events = pair.watch_events(&token).await;
    let mut status = pair.watch_status(OPERATOR_KEY).await;
    pair.here.ok(Method::DELETE, WORKSPACE, None).await;
    ends(&mut events).await;
    // Who may still call is told what is the matter.
    let refused = async {
        loop {
            match status.message().await {
                // What it said before it knew.
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends as if all were said"),
                Err(status) => return status,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, refused).await.unwrap().code(), Code::NotFound);
    pair.stop().await;
}

async fn a_stream_over_rest_says_why_it_ends(db: TestDb) {
    let pair = Pair::start(db).await;
    let (token, jti) = pair.worker().await;
    let watch = format!("{}/configurator/v1/pending-events:watch", pair.url());
    let watching = pair.here.http.get(watch).bearer_auth(&token);
    let response = watching.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let revoke = format!("/configurator/v1/user-tokens/{jti}:revoke");
    pair.here.ok(Method::POST, &revoke, Some(json!({}))).await;
    let text = timeout(PATIENCE, response.text()).await.unwrap().unwrap();
    let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    assert_eq!(last["error"]["code"], 16, "{text}");
    let details = last["error"]["details"].as_array().unwrap();
    assert!(details.iter().any(|detail| detail["reason"] == "CREDENTIAL_ENDED"), "{text}");
    pair.stop().await;
}
