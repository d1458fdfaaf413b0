//! An installation with something of everything in it.

use reqwest::Method;
use serde_json::{Value, json};
use tonic::transport::Endpoint;

use crate::common::{OPERATOR_KEY, TestServer};
use crate::surface::client::Client;
use crate::surface::table::RPCS;
use crate::surface::tenant::{Names, Tenant};

/// What was given out, and must go on working.
pub(crate) struct Given {
    pub(crate) admin_key: String,
    pub(crate) session: String,
    pub(crate) worker: String,
    /// An event that the worker holds.
    pub(crate) event: String,
    pub(crate) claim_token: String,
}

/// Two tenants on whom every RPC was called, and a third one with a worker in the middle of its work.
pub(crate) async fn populate(server: &TestServer) -> Given {
    let client = Client(Endpoint::new(server.base_url.clone()).unwrap().connect().await.unwrap());
    for (customer, suffix) in [("initech", "-i"), ("umbrella", "-u")] {
        let tenant = Tenant::create(&client, OPERATOR_KEY, Names { customer, suffix }).await;
        for rpc in RPCS.iter().filter(|rpc| rpc.is_served && keeps(rpc.name)) {
            let request = tenant.request(rpc, crate::surface::tenant::Form::Slug);
            let token = tenant.rightful(rpc);
            // Answers are kept, too.
            let repeat = format!("{customer}-{}", rpc.name);
            let outcome =
                client.call_with(rpc.name, &request, Some(token), &[("idempotency-key", &repeat)]).await;
            assert!(outcome.is_ok(), "{}: {outcome:?}", rpc.name);
        }
    }
    in_the_middle(server).await
}

/// Whether a call leaves things as full as they were.
fn keeps(name: &str) -> bool {
    let takes_away = ["Archive", "Delete", "Purge", "Revoke", "Remove", "AckDataplane", "Cancel", "Undelete"];
    name != "TenancyService/CreateCustomer" && !takes_away.iter().any(|word| name.contains(word))
}

async fn in_the_middle(server: &TestServer) -> Given {
    let post = async |path: &str, body: Value| server.ok(Method::POST, path, Some(body)).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    post("/v1/customers", json!({"customer_id": "acme"})).await;
    post("/v1/customers/acme/workspaces", json!({"workspace_id": "edge"})).await;
    let provider = json!({
        "provider_id": "openai", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://a.example",
        "models": ["m"], "api_key": "sk-canary",
    });
    post("/v1/customers/acme/providers", provider).await;
    let ada = post("/v1/customers/acme/identities", json!({"display_name": "Ada"})).await;
    let key = json!({"display_name": "k", "role": "admin", "identity_id": ada["id"]});
    let admin_key = text(&post("/v1/customers/acme/api-keys", key).await["key"]);
    let bearer = format!("Bearer {admin_key}");
    let session = server.rest_as(&bearer, Method::POST, "/v1/sessions", Some(json!({}))).await;
    let session = text(&session.json::<Value>().await.unwrap()["token"]);
    let worker = text(&post("/v1/customers/acme/workspaces/edge:issueToken", json!({})).await["token"]);

    let as_worker = format!("Bearer {worker}");
    let pending = server.rest_as(&as_worker, Method::GET, "/configurator/v1/pending-events", None).await;
    let event = text(&pending.json::<Value>().await.unwrap()["events"][0]["id"]);
    // Held for as long as can be: the claim must still be live wherever the data was taken to.
    let claim = json!({"event_id": event, "worker_id": "w", "lease": "900s"});
    let path = "/configurator/v1/acknowledge-event";
    let claim: Value =
        server.rest_as(&as_worker, Method::POST, path, Some(claim)).await.json().await.unwrap();
    assert_eq!(claim["success"], true, "{claim}");
    Given { admin_key, session, worker, event, claim_token: text(&claim["claim_token"]) }
}

/// That everything that was given out works at this server.
pub(crate) async fn works(server: &TestServer, given: &Given) {
    let who = |token: &str| {
        let bearer = format!("Bearer {token}");
        async move {
            let response = server.rest_as(&bearer, Method::GET, "/v1/whoami", None).await;
            assert_eq!(response.status(), 200);
            response.json::<Value>().await.unwrap()
        }
    };
    assert_eq!(who(&given.admin_key).await["role"], "admin");
    assert_eq!(who(&given.session).await["credential"], "session");
    assert_eq!(who(&given.worker).await["workspace_id"], "edge");
    let as_worker = format!("Bearer {}", given.worker);
    let call = async |path: &str, body: Value| {
        let response = server.rest_as(&as_worker, Method::POST, path, Some(body)).await;
        let (status, answer) = (response.status(), response.json::<Value>().await.unwrap());
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    let wanted = json!({"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS"}]});
    let content = call("/configurator/v1/config", wanted).await;
    let provider = &content["configurations"][0]["providers"]["providers"][0];
    assert_eq!(provider["credential"]["value"], "sk-canary");
    let done = json!({"event_id": given.event, "success": true, "claim_token": given.claim_token});
    assert_eq!(call("/configurator/v1/complete-event", done).await["success"], true);
    // And the next change arrives.
    let path = "/v1/customers/acme/providers/openai";
    server.ok(Method::PATCH, path, Some(json!({"weight": 9}))).await;
    let pending = server.rest_as(&as_worker, Method::GET, "/configurator/v1/pending-events", None).await;
    assert_eq!(pending.json::<Value>().await.unwrap()["events"][0]["version"], "2");
}
