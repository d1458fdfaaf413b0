//! grpcurl: gRPC, with nothing but what reflection tells.

use serde_json::{Value, json};
use tokio::process::Command;

use crate::common::OPERATOR_KEY;
use crate::run::{Following, Server, end, succeed, text};
use crate::tools::Tools;

struct Grpcurl {
    tools: &'static Tools,
    server: Server,
}

impl Grpcurl {
    fn command(&self, key: &str, method: &str, request: &Value) -> Command {
        let mut command = Command::new(&self.tools.grpcurl);
        command.args(["-plaintext", "-format-error", "-max-time", "60"]);
        command.args(["-H", &format!("authorization: Bearer {key}")]);
        if key == OPERATOR_KEY {
            command.args(["-H", "x-agentrouter-customer: grpcurl"]);
        }
        command.args(["-d", &request.to_string(), &self.server.address.to_string(), method]);
        command
    }

    async fn call(&self, key: &str, method: &str, request: Value) -> Value {
        serde_json::from_str(&succeed(self.command(key, method, &request)).await).unwrap()
    }

    /// What it prints of a call that must be refused.
    async fn refusal(&self, key: &str, method: &str, request: Value) -> Value {
        let ended = end(self.command(key, method, &request)).await;
        assert!(!ended.ok, "{}", ended.stdout);
        serde_json::from_str(&ended.stderr).unwrap_or_else(|_| panic!("{}", ended.stderr))
    }
}

pub(crate) async fn main_job(tools: &'static Tools, server: Server) {
    const TENANCY: &str = "agentrouter.tenancy.v1.TenancyService";
    const WORKSPACES: &str = "agentrouter.workspaces.v1.WorkspacesService";
    let grpcurl = Grpcurl { tools, server };
    let operator = async |method: String, request: Value| grpcurl.call(OPERATOR_KEY, &method, request).await;

    let get = format!("{TENANCY}/GetCustomer");
    let stranger = grpcurl.refusal("wrong", &get, json!({"customerId": "default"})).await;
    assert_eq!(
        (&stranger["code"], &stranger["details"][0]["reason"]),
        (&json!(16), &json!("UNAUTHENTICATED"))
    );
    let create = format!("{TENANCY}/CreateCustomer");
    let wrong = grpcurl.refusal(OPERATOR_KEY, &create, json!({"customerId": "Not A Slug"})).await;
    assert_eq!(wrong["details"][1]["fieldViolations"][0]["field"], "customer_id", "{wrong}");

    operator(create, json!({"customerId": "grpcurl"})).await;
    let project = json!({"customerId": "grpcurl", "projectId": "chat"});
    operator("agentrouter.tenancy.v1.ProjectsService/CreateProject".to_owned(), project).await;
    let edge = json!({"customerId": "grpcurl", "workspaceId": "edge"});
    operator(format!("{WORKSPACES}/CreateWorkspace"), edge.clone()).await;
    let issued = operator(format!("{WORKSPACES}/IssueWorkspaceToken"), edge.clone()).await;
    let token = text(&issued["token"]);
    let worker = async |method: &str, request: Value| {
        grpcurl
            .call(token, &format!("agentrouter.configurator.v1.ConfiguratorService/{method}"), request)
            .await
    };

    let watch = format!("{WORKSPACES}/WatchWorkspaceStatus");
    let mut statuses = Following::start(grpcurl.command(OPERATOR_KEY, &watch, &edge));
    statuses.until(|printed| messages(printed).len() == 1).await;

    // The poll waits until there is something.
    let poll = worker("ListPendingEvents", json!({"wait": "40s"}));
    let provider = json!({
        "customerId": "grpcurl", "providerId": "openai", "schema": "PROVIDER_SCHEMA_OPENAI",
        "baseUrl": "https://api.openai.example/v1", "models": ["m"], "apiKey": "sk-canary",
    });
    let create = operator("agentrouter.providers.v1.ProvidersService/CreateProvider".to_owned(), provider);
    let (pending, _) = tokio::join!(poll, create);
    let event = &pending["events"][0];
    assert_eq!(event["version"], "1", "{pending}");
    let claim = worker("AcknowledgeEvent", json!({"eventId": event["id"], "workerId": "grpcurl"})).await;
    let slot = json!({"userId": "system", "configType": "CONFIG_TYPE_PROVIDERS"});
    let configuration = worker("GetConfiguration", json!({"queries": [slot]})).await;
    let provider = &configuration["configurations"][0]["providers"]["providers"][0];
    assert_eq!(provider["credential"]["value"], "sk-canary", "{configuration}");
    let done = json!({"eventId": event["id"], "success": true, "claimToken": claim["claimToken"]});
    assert_eq!(worker("CompleteEvent", done).await, json!({"success": true}));

    let status = operator(format!("{WORKSPACES}/GetWorkspaceStatus"), edge).await;
    assert!(is_applied(&status), "{status}");
    statuses.until(|printed| messages(printed).iter().any(is_applied)).await;

    let trigger = "agentrouter.configurator.v1.ConfiguratorService/TriggerUpdate".to_owned();
    let triggered = operator(trigger, slot).await;
    // What is not so is not printed.
    assert_eq!(
        (&triggered["configurationUpdated"], &triggered["configuration"]["version"]),
        (&Value::Null, &json!("1"))
    );
}

fn is_applied(status: &Value) -> bool {
    status["converged"] == true && status["slots"][0]["appliedVersion"] == "1"
}

/// The messages that have arrived whole.
fn messages(printed: &str) -> Vec<Value> {
    serde_json::Deserializer::from_str(printed).into_iter().map_while(Result::ok).collect()
}
