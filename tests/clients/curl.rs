//! curl: REST, and a stream as server-sent events.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::OPERATOR_KEY;
use crate::run::{Following, Server, end, succeed, text};

/// A request as a person would type it.
fn curl(server: &Server, key: &str, path: &str) -> Command {
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "-H", &format!("Authorization: Bearer {key}")]);
    command.arg(format!("{}{path}", server.base_url));
    command
}

fn post(server: &Server, key: &str, path: &str, body: &Value) -> Command {
    let mut command = curl(server, key, path);
    command.args(["-H", "Content-Type: application/json", "-d", &body.to_string()]);
    command
}

/// What must be answered well; with `--fail-with-body` curl says so by its exit code.
async fn answer(mut command: Command) -> Value {
    command.arg("--fail-with-body");
    serde_json::from_str(&succeed(command).await).unwrap()
}

/// What must be refused with this status.
async fn refusal(mut command: Command, status: &str) -> Value {
    command.args(["--fail-with-body", "-w", "\n%{http_code}"]);
    let ended = end(command).await;
    let (body, found) = ended.stdout.rsplit_once('\n').unwrap();
    assert!(!ended.ok && found == status, "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains(status), "{}", ended.stderr);
    serde_json::from_str(body).unwrap()
}

pub(crate) async fn main_job(server: Server) {
    let create = |path: &'static str, body: Value| post(&server, OPERATOR_KEY, path, &body);

    let stranger = refusal(curl(&server, "wrong", "/v1/customers/default"), "401").await;
    assert_eq!(
        (&stranger["code"], &stranger["details"][0]["reason"]),
        (&json!(16), &json!("UNAUTHENTICATED"))
    );
    let wrong = refusal(create("/v1/customers", json!({"customer_id": "Not A Slug"})), "400").await;
    assert_eq!(wrong["details"][1]["field_violations"][0]["field"], "customer_id", "{wrong}");

    answer(create("/v1/customers", json!({"customer_id": "curl"}))).await;
    answer(create("/v1/customers/curl/projects", json!({"project_id": "chat"}))).await;
    answer(create("/v1/customers/curl/workspaces", json!({"workspace_id": "edge"}))).await;
    let issued = answer(create("/v1/customers/curl/workspaces/edge:issueToken", json!({}))).await;
    let token = text(&issued["token"]);
    let worker = |path: &'static str, body: Value| post(&server, token, path, &body);

    let mut watch = curl(&server, OPERATOR_KEY, "/v1/customers/curl/workspaces/edge/status:watch");
    watch.args(["-N", "-H", "Accept: text/event-stream"]);
    let mut statuses = Following::start(watch);
    statuses.until(|printed| events(printed).len() == 1).await;

    // The poll waits until there is something.
    let poll = answer(curl(&server, token, "/configurator/v1/pending-events?wait=40s"));
    let provider = json!({
        "provider_id": "openai", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://api.openai.example/v1",
        "models": ["m"], "api_key": "sk-canary",
    });
    let (pending, _) = tokio::join!(poll, answer(create("/v1/customers/curl/providers", provider)));
    let event = &pending["events"][0];
    assert_eq!(event["version"], "1", "{pending}");
    let claim = json!({"event_id": event["id"], "worker_id": "curl"});
    let claim = answer(worker("/configurator/v1/acknowledge-event", claim)).await;
    let slot = json!({"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"});
    let configuration = answer(worker("/configurator/v1/config", json!({"queries": [slot]}))).await;
    let provider = &configuration["configurations"][0]["providers"]["providers"][0];
    assert_eq!(provider["credential"]["value"], "sk-canary", "{configuration}");
    let done = json!({"event_id": event["id"], "success": true, "claim_token": claim["claim_token"]});
    assert_eq!(answer(worker("/configurator/v1/complete-event", done)).await, json!({"success": true}));

    let status = answer(curl(&server, OPERATOR_KEY, "/v1/customers/curl/workspaces/edge/status")).await;
    assert!(is_applied(&status), "{status}");
    statuses.until(|printed| events(printed).iter().any(is_applied)).await;

    let mut trigger = post(&server, OPERATOR_KEY, "/configurator/v1/trigger", &slot);
    trigger.args(["-H", "x-agentrouter-customer: curl"]);
    let triggered = answer(trigger).await;
    assert_eq!(
        (&triggered["configuration_updated"], &triggered["configuration"]["version"]),
        (&json!(false), &json!("1"))
    );
}

fn is_applied(status: &Value) -> bool {
    status["converged"] == true && status["slots"][0]["applied_version"] == "1"
}

/// The events that have arrived whole.
fn events(printed: &str) -> Vec<Value> {
    let whole = printed.rsplit_once("\n\n").map_or("", |(whole, _)| whole);
    let data = whole.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(|data| serde_json::from_str(data).unwrap()).collect()
}
