//! The clients that are scripts.

use serde_json::{Value, json};
use tokio::process::Command;

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

/// All clients of browsers, each in a page of its own.
pub(crate) async fn chromium(tools: &Tools, server: Server, page: String) {
    const PROTOCOLS: [&str; 4] = ["connect", "grpc-web", "grpc-web-text", "grpc-web-binary"];
    let mut command = Command::new("node");
    command.arg(source("browser/drive.mjs")).arg(&tools.packages).arg(&tools.chromium);
    command.args([&page, &server.base_url, OPERATOR_KEY]);
    for protocol in PROTOCOLS {
        command.args([protocol, &format!("chromium-{protocol}")]);
    }
    let told: Value = serde_json::from_str(&succeed(command).await).unwrap();
    // Reads went by GET, which Connect allows where an rpc changes nothing.
    let done = json!({
        "connect": ["GET", "POST"], "grpc-web": ["POST"], "grpc-web-text": [], "grpc-web-binary": [],
    });
    assert_eq!(told["done"], done);
    // Even a refusal can be read, and by no page of another origin.
    assert_eq!(told["allowed"], "UNAUTHENTICATED");
    assert_eq!(told["foreign"], "Unknown");
}
