//! The clients that are scripts.

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Semaphore;

use crate::common::OPERATOR_KEY;
use crate::run::{Server, succeed};
use crate::tools::{Tools, source};

pub(crate) async fn python(tools: &Tools, server: Server) {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", &tools.python_path).arg(source("python/job.py"));
    command.args([&server.address.to_string(), "grpcio", OPERATOR_KEY]);
    succeed(command).await;
}

pub(crate) async fn node(tools: &Tools, server: Server, protocol: &'static str) {
    let customer = format!("node-{}", protocol.replace('.', "-"));
    let mut command = Command::new("node");
    command.arg(&tools.node).args([protocol, &server.base_url, &customer, OPERATOR_KEY]);
    succeed(command).await;
}

/// A client of browsers, in a page of another origin than the server's.
pub(crate) async fn chromium(tools: &Tools, server: Server, page: String, protocol: &'static str) {
    let customer = format!("chromium-{protocol}");
    let call = ["runMainJob", protocol, &server.base_url, &customer, OPERATOR_KEY];
    // Connect reads by GET where an rpc changes nothing. The library grpc-web does not tell.
    let methods = match protocol {
        "connect" => json!(["GET", "POST"]),
        "grpc-web" => json!(["POST"]),
        _ => json!([]),
    };
    assert_eq!(in_page(tools, &page, &call).await, methods);
}

/// An allowed page can read even a refusal; the same page by another name of the machine is of another origin, and
/// learns nothing.
pub(crate) async fn foreign_page(tools: &Tools, server: Server, page: String) {
    let call = ["tryCall", &server.base_url];
    assert_eq!(in_page(tools, &page, &call).await, "UNAUTHENTICATED");
    assert_eq!(in_page(tools, &page.replace("127.0.0.1", "localhost"), &call).await, "Unknown");
}

/// Calls a function of the page; what it returned.
async fn in_page(tools: &Tools, page: &str, call: &[&str]) -> Value {
    /// Places for browsers, which are slow to start together. Waiting for one is not part of what is timed.
    static BROWSERS: Semaphore = Semaphore::const_new(2);
    let _place = BROWSERS.acquire().await.unwrap();
    let mut command = Command::new("node");
    command.arg(source("browser/drive.mjs")).arg(&tools.packages).arg(&tools.chromium).arg(page).args(call);
    serde_json::from_str(&succeed(command).await).unwrap()
}
