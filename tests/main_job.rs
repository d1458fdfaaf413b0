//! The main job through the one port: a change made by a person reaches a worker and is reported as applied.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use agentrouter_liaison::{DirTarget, Token, Worker, WorkerConfig};
use agentrouter_testkit::{TestDb, on_both_engines};
use common::TestServer;
use reqwest::Method;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

on_both_engines!(a_change_reaches_the_data_plane, by_hand_over_rest);

async fn a_change_reaches_the_data_plane(db: TestDb) {
    let server = TestServer::start(db).await;
    prepare(&server).await;
    let issued =
        server.ok(Method::POST, "/v1/customers/acme/workspaces/edge:issueToken", Some(json!({}))).await;
    let folder = tempfile::tempdir().unwrap();
    let target = DirTarget::open(folder.path().join("applied")).unwrap();
    let stop = CancellationToken::new();
    let token = Token::new(issued["token"].as_str().unwrap());
    let worker = Worker::new(WorkerConfig::new(&server.base_url, token), Arc::new(target)).unwrap();
    let mut working = tokio::task::JoinSet::new();
    working.spawn(worker.run(stop.clone()));

    let status = converged(&server, 1).await;
    assert_eq!(status["slots"][0]["config_type"], "CONFIG_TYPE_PROVIDERS");
    server.ok(Method::PATCH, "/v1/customers/acme/providers/openai", Some(json!({"weight": 7}))).await;
    let status = converged(&server, 2).await;
    assert_eq!((status["pending_events"].as_i64(), status["in_flight_events"].as_i64()), (Some(0), Some(0)));
    let file = std::fs::read_dir(folder.path().join("applied"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.extension().is_some_and(|extension| extension == "json"))
        .unwrap();
    let applied: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(applied["version"], "2");
    assert_eq!(applied["providers"]["providers"][0]["weight"], 7);
    assert_eq!(applied["providers"]["providers"][0]["credential"]["value"], "sk-canary");
    // Presence is written in batches.
    let online = "/v1/customers/acme/workspaces/edge/status";
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while server.ok(Method::GET, online, None).await["online"] != true {
        assert!(tokio::time::Instant::now() < deadline, "never online");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    working.join_all().await;
    server.stop().await;
}

/// The loop as the documented curl lines have it, with the workspace's own token.
async fn by_hand_over_rest(db: TestDb) {
    let server = TestServer::start(db).await;
    prepare(&server).await;
    let issued =
        server.ok(Method::POST, "/v1/customers/acme/workspaces/edge:issueToken", Some(json!({}))).await;
    let worker = format!("Bearer ak-{}", issued["token"].as_str().unwrap());
    let call = async |method: Method, path: &str, body: Option<Value>| -> Value {
        let response = server.rest_as(&worker, method, path, body).await;
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    };
    let pending = call(Method::GET, "/configurator/v1/pending-events?limit=10", None).await;
    let event = pending["events"][0].clone();
    assert_eq!(
        (event["version"].as_str(), event["status"].as_str()),
        (Some("1"), Some("EVENT_STATUS_PENDING"))
    );
    let claim = json!({"event_id": event["id"], "worker_id": "by-hand"});
    let claim = call(Method::POST, "/configurator/v1/acknowledge-event", Some(claim)).await;
    assert_eq!(claim["success"], true);
    let query = json!({"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}]});
    let configuration = call(Method::POST, "/configurator/v1/config", Some(query)).await;
    assert_eq!(configuration["configurations"][0]["providers"]["providers"][0]["provider_id"], "openai");
    let done = json!({"event_id": event["id"], "success": true, "claim_token": claim["claim_token"]});
    let done = call(Method::POST, "/configurator/v1/complete-event", Some(done)).await;
    assert_eq!(done, json!({"success": true}));
    assert_eq!(
        call(Method::GET, "/configurator/v1/pending-events", None).await,
        json!({"events": [], "renewed": []})
    );
    converged(&server, 1).await;

    // A poll that waits ends as soon as there is something.
    let trigger = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.ok(Method::POST, "/v1/customers/acme/providers/openai:disable", Some(json!({}))).await
    };
    let poll = call(Method::GET, "/configurator/v1/pending-events?wait=20s", None);
    let (pending, _) = tokio::join!(poll, trigger);
    assert_eq!(pending["events"][0]["version"], "2");
    server.stop().await;
}

async fn prepare(server: &TestServer) {
    server.ok(Method::POST, "/v1/customers", Some(json!({"customer_id": "acme"}))).await;
    server.ok(Method::POST, "/v1/customers/acme/workspaces", Some(json!({"workspace_id": "edge"}))).await;
    let provider = json!({
        "provider_id": "openai", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://api.openai.example/v1",
        "models": ["m"], "api_key": "sk-canary",
    });
    server.ok(Method::POST, "/v1/customers/acme/providers", Some(provider)).await;
}

/// Waits until the workspace runs this version of its first slot and everything else, too.
async fn converged(server: &TestServer, version: i64) -> Value {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let status = server.ok(Method::GET, "/v1/customers/acme/workspaces/edge/status", None).await;
        if status["converged"] == true && status["slots"][0]["applied_version"] == json!(version.to_string())
        {
            return status;
        }
        assert!(tokio::time::Instant::now() < deadline, "not converged: {status}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
