//! grpcurl, which knows nothing but what reflection tells it: lists and describes every service (its main job is among
//! those of `tests/clients`). And gRPC-Web and Connect, which browsers speak.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test that meets the unexpected must stop")]

mod common;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::{OPERATOR_KEY, TestServer};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::process::Command;

on_both_engines!(reflection_tells_everything, grpc_web_is_served, connect_is_served);

/// Runs grpcurl and returns what it printed.
async fn grpcurl(server: &TestServer, token: &str, arguments: &[&str], target: &[&str]) -> String {
    #[expect(clippy::disallowed_methods, reason = "tests have no configuration to read it from")]
    let program = std::env::var("AGENTROUTER_TEST_GRPCURL")
        .expect("AGENTROUTER_TEST_GRPCURL is not set; run the tests with `cargo xtask test`");
    let header = format!("authorization: Bearer {token}");
    let output = Command::new(program)
        .args(["-plaintext", "-H", &header])
        .args(arguments)
        .arg(server.running.address.to_string())
        .args(target)
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{target:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

async fn call(server: &TestServer, token: &str, method: &str, request: &Value) -> Value {
    let printed = grpcurl(server, token, &["-d", &request.to_string()], &[method]).await;
    serde_json::from_str(&printed).unwrap()
}

/// A12 #116: whoever knows nothing learns everything, and whether the server is well.
async fn reflection_tells_everything(db: TestDb) {
    let server = TestServer::start(db).await;
    let listed = grpcurl(&server, OPERATOR_KEY, &[], &["list"]).await;
    let services: Vec<_> = agentrouter_api::DESCRIPTOR_POOL
        .services()
        .map(|service| service.full_name().to_owned())
        .filter(|name| name.starts_with("agentrouter."))
        .collect();
    assert!(services.len() >= 10);
    for service in &services {
        assert!(listed.lines().any(|line| line == service), "{service} is not in {listed}");
        let described = grpcurl(&server, OPERATOR_KEY, &[], &["describe", service]).await;
        assert!(described.contains("rpc "), "{described}");
    }
    for other in [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ] {
        assert!(listed.lines().any(|line| line == other), "{other} is not in {listed}");
    }
    let health = call(&server, "nobody", "grpc.health.v1.Health/Check", &json!({})).await;
    assert_eq!(health, json!({"status": "SERVING"}));
    server.stop().await;
}

/// A12 #114: on the one port.
async fn grpc_web_is_served(db: TestDb) {
    let server = TestServer::start(db).await;
    // One empty, uncompressed message.
    let response = server
        .http
        .request(
            Method::POST,
            format!("{}/agentrouter.tenancy.v1.TenancyService/ListCustomers", server.base_url),
        )
        .header("authorization", format!("Bearer {OPERATOR_KEY}"))
        .header("content-type", "application/grpc-web+proto")
        .body(vec![0, 0, 0, 0, 0])
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
    let body = response.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&body);
    assert!(text.contains("default") && text.contains("grpc-status: 0"), "{text:?}");
    server.stop().await;
}

/// A1 #17, A12 #116: with no header of Connect's own, as `curl` would call.
async fn connect_is_served(db: TestDb) {
    let server = TestServer::start(db).await;
    let call = async |token: &str, method: &str, request: Value| {
        let url = format!("{}/{method}", server.base_url);
        let response = server.http.post(url).bearer_auth(token).json(&request).send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let list = "agentrouter.tenancy.v1.TenancyService/ListCustomers";
    let (status, customers) = call(OPERATOR_KEY, list, json!({})).await;
    assert_eq!(status, 200);
    assert!(customers["customers"].as_array().is_some_and(|customers| !customers.is_empty()), "{customers}");

    let (status, error) = call("wrong", list, json!({})).await;
    assert_eq!((status, &error["code"]), (401, &json!("unauthenticated")));
    assert_eq!(error["details"][0]["type"], "google.rpc.ErrorInfo");
    let (status, error) = call(OPERATOR_KEY, list, json!({"nope": 1})).await;
    assert_eq!((status, &error["code"]), (400, &json!("invalid_argument")));
    let (status, health) = call("", "grpc.health.v1.Health/Check", json!({})).await;
    assert_eq!((status, health), (200, json!({"status": "SERVING"})));
    let (status, error) =
        call(OPERATOR_KEY, "agentrouter.tenancy.v1.TenancyService/Missing", json!({})).await;
    assert_eq!((status, &error["code"]), (404, &json!(5)));
    server.stop().await;
}
