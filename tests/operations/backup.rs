//! A backup while the server serves, and a server over what was restored.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use agentrouter::server;
use agentrouter_storage::{Target, query};
use agentrouter_testkit::TestDb;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::common::{OPERATOR_KEY, TestServer, config};
use crate::populated::{Given, populate};

/// What the worker runs, as it tells.
async fn reconcile(http: &Client, base_url: &str, given: &Given, version: u64, checksum: &str) -> Value {
    let slot = json!({
        "user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS", "version": version.to_string(),
        "checksum": checksum,
    });
    let body = json!({"observed": [slot], "observed_complete": true});
    ask(http, base_url, Method::POST, "/configurator/v1/reconcile-workspace", &given.worker, Some(body)).await
}

async fn ask(
    http: &Client,
    base_url: &str,
    method: Method,
    path: &str,
    bearer: &str,
    body: Option<Value>,
) -> Value {
    let request = http.request(method, format!("{base_url}{path}")).bearer_auth(bearer);
    let request = if let Some(body) = body { request.json(&body) } else { request };
    let response = request.send().await.unwrap();
    let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
    assert_eq!(status, 200, "{path}: {answer}");
    answer
}

/// Claims and completes whatever is pending; the versions that were applied.
async fn apply_all(http: &Client, base_url: &str, given: &Given) -> Vec<u64> {
    let call = async |method: Method, path: &str, body: Option<Value>| {
        ask(http, base_url, method, path, &given.worker, body).await
    };
    let mut applied = Vec::new();
    let pending = call(Method::GET, "/configurator/v1/pending-events", None).await;
    for event in pending["events"].as_array().unwrap() {
        let claim = json!({"event_id": event["id"], "worker_id": "w"});
        let claim = call(Method::POST, "/configurator/v1/acknowledge-event", Some(claim)).await;
        let done = json!({
            "event_id": event["id"], "success": true, "claim_token": claim["claim_token"],
            "applied_version": event["version"],
        });
        let done = call(Method::POST, "/configurator/v1/complete-event", Some(done)).await;
        assert_eq!(done["success"], true);
        applied.push(event["version"].as_str().unwrap().parse().unwrap());
    }
    applied
}

async fn weigh(server: &TestServer, weight: u32) {
    let path = "/v1/customers/acme/providers/openai";
    server.ok(Method::PATCH, path, Some(json!({"weight": weight}))).await;
}

async fn checksum(http: &Client, base_url: &str, given: &Given) -> (u64, String) {
    let body = json!({"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}]});
    let answer =
        ask(http, base_url, Method::POST, "/configurator/v1/config", &given.worker, Some(body)).await;
    let content = &answer["configurations"][0];
    let version = content["version"].as_str().unwrap().parse().unwrap();
    (version, content["checksum"].as_str().unwrap().to_owned())
}

// Behaviour 22: what a worker reports counts, also where it is ahead of the store.
pub(crate) async fn a_restored_backup_serves_and_brings_workers_back(db: TestDb) {
    let server = TestServer::start(db).await;
    let given = populate(&server).await;
    let http = server.http.clone();
    let done = json!({"event_id": given.event, "success": true, "claim_token": given.claim_token});
    let path = "/configurator/v1/complete-event";
    ask(&http, &server.base_url, Method::POST, path, &given.worker, Some(done)).await;

    // The backup is made while people write.
    let (stop, writes) = (CancellationToken::new(), Arc::new(AtomicU64::new(0)));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (stop, writes) = (stop.clone(), Arc::clone(&writes));
        let (http, base_url) = (http.clone(), server.base_url.clone());
        writers.spawn(async move {
            let body = json!({"display_name": "k", "role": "viewer"});
            while !stop.is_cancelled() {
                let path = "/v1/customers/acme/api-keys";
                ask(&http, &base_url, Method::POST, path, OPERATOR_KEY, Some(body.clone())).await;
                writes.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    while writes.load(Ordering::Relaxed) < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let backup = backup(&server, folder.path()).await;
    stop.cancel();
    writers.join_all().await;

    // The world goes on, and the worker with it: to version 4.
    for weight in [2, 3, 4] {
        weigh(&server, weight).await;
        apply_all(&http, &server.base_url, &given).await;
    }
    let (ahead, ahead_checksum) = checksum(&http, &server.base_url, &given).await;
    assert_eq!(ahead, 4);
    let target = server.stop_and_keep().await.target;

    let restored = restore(&target, &backup, folder.path()).await;
    let data_dir = tempfile::tempdir().unwrap();
    let running = server::start(config(data_dir.path(), restored)).await.unwrap();
    let base_url = format!("http://{}", running.address);
    for token in [&given.admin_key, &given.session, &given.worker] {
        ask(&http, &base_url, Method::GET, "/v1/whoami", token, None).await;
    }
    let (stored, _) = checksum(&http, &base_url, &given).await;
    assert_eq!(stored, 1);
    // A worker that is ahead of the store runs what was never decided here: it gets what is stored, once.
    let replayed = reconcile(&http, &base_url, &given, ahead, &ahead_checksum).await;
    assert_eq!(replayed["replayed_global"], 1, "{replayed}");
    assert_eq!(apply_all(&http, &base_url, &given).await, [1]);
    let (version, own) = checksum(&http, &base_url, &given).await;
    let replayed = reconcile(&http, &base_url, &given, version, &own).await;
    assert_eq!(replayed["replayed_total"], 0, "{replayed}");
    // The next change reaches a version that the worker has seen with other content: the checksum tells them apart.
    let path = "/v1/customers/acme/providers/openai";
    let change = Some(json!({"weight": 9}));
    ask(&http, &base_url, Method::PATCH, path, OPERATOR_KEY, change).await;
    assert_eq!(apply_all(&http, &base_url, &given).await, [2]);
    let replayed = reconcile(&http, &base_url, &given, 2, &ahead_checksum).await;
    assert_eq!(replayed["replayed_global"], 1, "{replayed}");
    running.stop().await.unwrap();
}

async fn backup(server: &TestServer, folder: &Path) -> PathBuf {
    let file = folder.join("backup");
    match &server.test_db.target {
        Target::Sqlite(_) => {
            let vacuum = query("VACUUM INTO $1").bind(file.to_str().unwrap());
            vacuum.values::<String>(&server.test_db.db).await.unwrap();
        }
        Target::Postgres(url) => {
            let (database, schema) = parts(url);
            run(
                "pg_dump",
                &["--format=custom", "--schema", schema, "--file", file.to_str().unwrap(), database],
            )
            .await;
        }
    }
    file
}

async fn restore(old: &Target, backup: &Path, folder: &Path) -> Target {
    match old {
        Target::Sqlite(_) => {
            let file = folder.join("restored.db");
            std::fs::copy(backup, &file).unwrap();
            Target::Sqlite(file)
        }
        Target::Postgres(url) => {
            let (database, schema) = parts(url);
            let name = format!("restored_{schema}");
            run("psql", &["--quiet", "--command", &format!("CREATE DATABASE {name}"), database]).await;
            let (server, _) = database.rsplit_once('/').unwrap();
            let new = format!("{server}/{name}");
            run("pg_restore", &["--exit-on-error", "--dbname", &new, backup.to_str().unwrap()]).await;
            Target::Postgres(format!("{new}?options=-c%20search_path%3D{schema}"))
        }
    }
}

/// The URL of the database, and the schema of the test in it.
fn parts(url: &str) -> (&str, &str) {
    let (database, _) = url.split_once('?').unwrap();
    (database, url.rsplit_once("%3D").unwrap().1)
}

async fn run(program: &str, arguments: &[&str]) {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration to read it from")]
    let folder = std::env::var("AGENTROUTER_TEST_POSTGRES_BIN").unwrap_or_else(|_| {
        panic!("AGENTROUTER_TEST_POSTGRES_BIN is not set; run the tests with `cargo xtask test`")
    });
    let output = Command::new(Path::new(&folder).join(program)).args(arguments).output().await.unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
}
