//! ghz: gRPC by reflection, and load. It reports how calls went; what was answered stands in its log, as text.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::OPERATOR_KEY;
use crate::run::{Following, Server, succeed};
use crate::tools::Tools;

struct Ghz {
    tools: &'static Tools,
    server: Server,
    /// The customer that the operator acts for.
    customer: &'static str,
}

/// What ghz prints of some calls.
struct Report {
    report: Value,
    /// The last answer.
    answer: String,
}

impl Report {
    /// A string of the answer.
    fn text(&self, field: &str) -> String {
        let found = self.answer.split_once(&format!("{field}:\"")).and_then(|(_, rest)| rest.split_once('"'));
        found.unwrap_or_else(|| panic!("no {field} in {}", self.answer)).0.to_owned()
    }
}

impl Ghz {
    fn command(&self, key: &str, method: &str, request: &Value) -> Command {
        let mut metadata = json!({"authorization": format!("Bearer {key}")});
        if key == OPERATOR_KEY {
            metadata["x-agentrouter-customer"] = json!(self.customer);
        }
        let mut command = Command::new(&self.tools.ghz);
        command.args(["--insecure", "-t", "60s", "-O", "json", "--debug", "stdout", "--call", method]);
        command.args(["-m", &metadata.to_string(), "-d", &request.to_string()]);
        command
    }

    /// Makes the call once, or as `times` says.
    async fn report(&self, key: &str, method: &str, request: Value, times: &[&str]) -> Report {
        let mut command = self.command(key, method, &request);
        command.args(times).arg(self.server.address.to_string());
        let printed = succeed(command).await;
        let report = serde_json::from_str(printed.lines().last().unwrap()).unwrap();
        let answer = answers(&printed).pop().unwrap_or_default();
        Report { report, answer }
    }

    async fn call(&self, key: &str, method: &str, request: Value) -> Report {
        let report = self.report(key, method, request, &["-n", "1", "-c", "1"]).await;
        assert_eq!(report.report["statusCodeDistribution"], json!({"OK": 1}), "{method}: {}", report.report);
        report
    }

    /// The error as ghz counts it, of a call that must be refused.
    async fn refusal(&self, key: &str, method: &str, request: Value) -> (String, String) {
        let report = self.report(key, method, request, &["-n", "1", "-c", "1"]).await.report;
        let detail = &report["details"][0];
        (detail["status"].as_str().unwrap().to_owned(), detail["error"].as_str().unwrap().to_owned())
    }
}

/// Many reads at a time, none of which fails.
pub(crate) async fn load(tools: &'static Tools, server: Server) {
    let ghz = Ghz { tools, server, customer: "default" };
    let method = "agentrouter.workspaces.v1.WorkspacesService/GetWorkspaceStatus";
    let request = json!({"customerId": "default", "workspaceId": "default"});
    let report = ghz.report(OPERATOR_KEY, method, request, &["-n", "500", "-c", "20"]).await.report;
    assert_eq!(report["count"], 500);
    assert_eq!(
        (&report["statusCodeDistribution"], &report["errorDistribution"]),
        (&json!({"OK": 500}), &json!({}))
    );
}

pub(crate) async fn main_job(tools: &'static Tools, server: Server) {
    const TENANCY: &str = "agentrouter.tenancy.v1.TenancyService";
    const WORKSPACES: &str = "agentrouter.workspaces.v1.WorkspacesService";
    let ghz = Ghz { tools, server, customer: "ghz" };
    let operator = async |method: String, request: Value| ghz.call(OPERATOR_KEY, &method, request).await;

    let get = format!("{TENANCY}/GetCustomer");
    let (status, error) = ghz.refusal("wrong", &get, json!({"customerId": "default"})).await;
    assert_eq!(status, "Unauthenticated", "{error}");
    let create = format!("{TENANCY}/CreateCustomer");
    let (status, error) = ghz.refusal(OPERATOR_KEY, &create, json!({"customerId": "Not A Slug"})).await;
    assert!(status == "InvalidArgument" && error.contains("desc = customer_id: "), "{error}");

    operator(create, json!({"customerId": "ghz"})).await;
    let project = json!({"customerId": "ghz", "projectId": "chat"});
    operator("agentrouter.tenancy.v1.ProjectsService/CreateProject".to_owned(), project).await;
    let edge = json!({"customerId": "ghz", "workspaceId": "edge"});
    operator(format!("{WORKSPACES}/CreateWorkspace"), edge.clone()).await;
    let token = operator(format!("{WORKSPACES}/IssueWorkspaceToken"), edge.clone()).await.text("token");
    let worker = async |method: &str, request: Value| {
        ghz.call(&token, &format!("agentrouter.configurator.v1.ConfiguratorService/{method}"), request).await
    };

    let mut watch = ghz.command(OPERATOR_KEY, &format!("{WORKSPACES}/WatchWorkspaceStatus"), &edge);
    watch.args(["-n", "1", "-c", "1"]).arg(ghz.server.address.to_string());
    let mut statuses = Following::start(watch);
    statuses.until(|printed| answers(printed).len() == 1).await;

    // The poll waits until there is something.
    let poll = worker("ListPendingEvents", json!({"wait": "40s"}));
    let provider = json!({
        "customerId": "ghz", "providerId": "openai", "schema": "PROVIDER_SCHEMA_OPENAI",
        "baseUrl": "https://api.openai.example/v1", "models": ["m"], "apiKey": "sk-canary",
    });
    let create = operator("agentrouter.providers.v1.ProvidersService/CreateProvider".to_owned(), provider);
    let (pending, _) = tokio::join!(poll, create);
    let event = pending.text("id");
    let claim = worker("AcknowledgeEvent", json!({"eventId": event, "workerId": "ghz"})).await;
    let slot = json!({"userId": "system", "configType": "CONFIG_TYPE_PROVIDERS"});
    let configuration = worker("GetConfiguration", json!({"queries": [slot]})).await;
    assert_eq!(configuration.text("value"), "sk-canary");
    let done = json!({"eventId": event, "success": true, "claimToken": claim.text("claim_token")});
    assert_eq!(worker("CompleteEvent", done).await.answer, "success:true");

    let status = operator(format!("{WORKSPACES}/GetWorkspaceStatus"), edge).await.answer;
    assert!(is_applied(&status), "{status}");
    statuses.until(|printed| answers(printed).iter().any(|status| is_applied(status))).await;

    let trigger = "agentrouter.configurator.v1.ConfiguratorService/TriggerUpdate".to_owned();
    let triggered = operator(trigger, slot).await.answer;
    assert!(!triggered.contains("configuration_updated") && triggered.contains(" version:1 "), "{triggered}");
}

fn is_applied(status: &str) -> bool {
    status.contains("converged:true") && status.contains("applied_version:1 ")
}

/// The answers in the log, as text.
fn answers(printed: &str) -> Vec<String> {
    // The last line may not be whole yet.
    let lines = printed.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| line["response"].as_str().map(str::to_owned)).collect()
}
