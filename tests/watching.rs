//! A watch over REST: lines of JSON as they come, and an end that says when to come back.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;

use std::time::Duration;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::TestServer;
use reqwest::{Method, Response};
use serde_json::{Value, json};

on_both_engines!(a_watch_is_lines_of_json);

const WATCH: &str = "/configurator/v1/pending-events:watch";

/// The lines of an answer that is still being written.
struct Lines {
    response: Response,
    rest: Vec<u8>,
}

impl Lines {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let chunk = tokio::time::timeout(Duration::from_secs(20), self.response.chunk()).await.unwrap();
            self.rest.extend(chunk.unwrap().unwrap_or_else(|| panic!("the stream ended: {:?}", self.rest)));
        }
    }

    /// The next line with events: their ids, and the cursor behind them.
    async fn news(&mut self) -> (Vec<String>, String) {
        loop {
            let line = self.next().await;
            let events = line["events"].as_array().unwrap();
            if !events.is_empty() {
                let ids = events.iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
                return (ids, line["cursor"].as_str().unwrap().to_owned());
            }
        }
    }
}

async fn watch(server: &TestServer, token: &str, query: &str) -> Lines {
    let path = format!("{WATCH}{query}");
    let response = server.rest_as(&format!("Bearer {token}"), Method::GET, &path, None).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/x-ndjson");
    Lines { response, rest: Vec::new() }
}

async fn trigger(server: &TestServer, user: &str) -> String {
    let body = json!({"user_id": user, "config_type": "CONFIG_TYPE_USER_KEYS"});
    let triggered = server.ok(Method::POST, "/configurator/v1/trigger", Some(body)).await;
    triggered["event_ids"][0].as_str().unwrap().to_owned()
}

// Behaviour 37: a watch over REST goes on behind its last cursor, without loss or repeat.
async fn a_watch_is_lines_of_json(db: TestDb) {
    let server = TestServer::start(db).await;
    let issue = "/v1/customers/default/workspaces/default:issueToken";
    let issued = server.ok(Method::POST, issue, Some(json!({}))).await;
    let token = issued["token"].as_str().unwrap().to_owned();
    let first = trigger(&server, "ada").await;
    let mut lines = watch(&server, &token, "").await;
    let (ids, cursor) = lines.news().await;
    assert_eq!(ids, [first]);
    let second = trigger(&server, "bob").await;
    let (ids, _) = lines.news().await;
    assert_eq!(ids, std::slice::from_ref(&second));
    drop(lines);
    // From the cursor before it, the second one comes again, and only that.
    let mut lines = watch(&server, &token, &format!("?cursor={cursor}")).await;
    assert_eq!(lines.news().await.0, [second]);
    let wrong =
        server.rest_as(&format!("Bearer {token}"), Method::GET, &format!("{WATCH}?cursor=x"), None).await;
    assert_eq!(wrong.status(), 400);
    let mut stopping = tokio::task::JoinSet::new();
    stopping.spawn(server.stop());
    let end = loop {
        let line = lines.next().await;
        if let Some(error) = line.get("error") {
            break error.clone();
        }
    };
    assert_eq!(end["code"], 14, "{end}");
    let details = end["details"].as_array().unwrap();
    assert!(
        details
            .iter()
            .any(|detail| detail.get("retryDelay").is_some() || detail.get("retry_delay").is_some()),
        "{end}"
    );
    stopping.join_next().await.unwrap().unwrap();
}
