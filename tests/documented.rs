//! The documented REST lines of every endpoint that is served, with live ids, on both engines, and with the
//! credential written in both documented ways.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod common;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::{OPERATOR_KEY, TestServer};
use reqwest::Method;
use serde_json::{Value, json};

on_both_engines!(
    customers,
    projects_and_members,
    the_configurator,
    upgrades,
    errors_are_json,
    a_body_may_come_as_curl_sends_it,
);

/// The two ways that documented lines write the same key.
const WAYS: [&str; 2] = ["", "ak-"];

struct Caller<'a> {
    server: &'a TestServer,
    authorization: String,
}

impl Caller<'_> {
    async fn answer(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let response = self.server.rest_as(&self.authorization, method, path, body).await;
        let status = response.status().as_u16();
        assert_eq!(response.headers()["content-type"], "application/json", "{path}");
        (status, response.json().await.unwrap())
    }

    async fn ok(&self, method: Method, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.answer(method, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }
}

fn caller<'a>(server: &'a TestServer, prefix: &str) -> Caller<'a> {
    Caller { server, authorization: format!("Bearer {prefix}{OPERATOR_KEY}") }
}

async fn customers(db: TestDb) {
    let server = TestServer::start(db).await;
    for (index, prefix) in WAYS.into_iter().enumerate() {
        let (slug, caller) = (format!("acme-{index}"), caller(&server, prefix));
        let body = json!({"customer_id": slug, "display_name": "Acme", "description": "A customer"});
        let created = caller.ok(Method::POST, "/v1/customers", Some(body)).await;
        assert_eq!(
            (created["customer_id"].as_str(), created["state"].as_str()),
            (Some(slug.as_str()), Some("CUSTOMER_STATE_ACTIVE"))
        );
        let id = created["id"].as_str().unwrap();
        assert!(id.starts_with("cust_01") && id.len() == 31, "{id}");
        for name in [slug.as_str(), id] {
            assert_eq!(caller.ok(Method::GET, &format!("/v1/customers/{name}"), None).await, created);
        }
        let listed =
            caller.ok(Method::GET, "/v1/customers?page.page_size=1&page.order_by=customer_id", None).await;
        assert_eq!(listed["customers"].as_array().unwrap().len(), 1);
        assert_ne!(listed["page"]["next_page_token"], "");
        let body = json!({"display_name": "New", "description": ""});
        let updated = caller.ok(Method::PATCH, &format!("/v1/customers/{slug}"), Some(body)).await;
        assert_eq!(
            (updated["display_name"].as_str(), updated["description"].as_str()),
            (Some("New"), Some(""))
        );
        assert_eq!(caller.ok(Method::DELETE, &format!("/v1/customers/{slug}"), None).await, json!({}));
        let (status, gone) = caller.answer(Method::GET, &format!("/v1/customers/{slug}"), None).await;
        assert_eq!((status, gone["details"][0]["reason"].as_str()), (404, Some("CUSTOMER_NOT_FOUND")));
    }
    server.stop().await;
}

async fn projects_and_members(db: TestDb) {
    let server = TestServer::start(db).await;
    for (index, prefix) in WAYS.into_iter().enumerate() {
        let caller = caller(&server, prefix);
        let base = "/v1/customers/default/projects";
        let slug = format!("assistants-{index}");
        let created = caller.ok(Method::POST, base, Some(json!({"project_id": slug}))).await;
        let project = format!("{base}/{slug}");
        assert_eq!(caller.ok(Method::GET, &project, None).await, created);
        let listed =
            caller.ok(Method::GET, &format!("{base}?page.filter=project_id%3D%22{slug}%22"), None).await;
        assert_eq!(listed["projects"], json!([created]));
        let updated = caller.ok(Method::PATCH, &project, Some(json!({"labels": {"team": "a"}}))).await;
        assert_eq!(updated["labels"], json!({"team": "a"}));

        let identity = json!({"display_name": "Ada", "kind": "IDENTITY_KIND_PERSON"});
        let identity = caller.ok(Method::POST, "/v1/customers/default/identities", Some(identity)).await;
        let member = json!({"identity_id": identity["id"], "role": "admin"});
        let added = caller.ok(Method::POST, &format!("{project}/members"), Some(member)).await;
        assert_eq!((&added["identity_id"], &added["project_id"]), (&identity["id"], &json!(slug)));
        let path = format!("{project}/members/{}", identity["id"].as_str().unwrap());
        let changed = caller.ok(Method::PATCH, &path, Some(json!({"role": "member"}))).await;
        assert_eq!(changed["role"], "member");
        let listed = caller.ok(Method::GET, &format!("{project}/members?page.page_size=10"), None).await;
        assert_eq!(listed["members"], json!([changed]));
        assert_eq!(caller.ok(Method::DELETE, &path, None).await, json!({}));
        assert_eq!(caller.ok(Method::DELETE, &project, None).await, json!({}));
        let (status, refused) = caller.answer(Method::DELETE, &format!("{base}/default"), None).await;
        assert_eq!((status, refused["details"][0]["reason"].as_str()), (400, Some("DEFAULT_PROJECT")));
    }
    server.stop().await;
}

async fn the_configurator(db: TestDb) {
    let server = TestServer::start(db).await;
    for (index, prefix) in WAYS.into_iter().enumerate() {
        let caller = caller(&server, prefix);
        let provider = json!({
            "provider_id": format!("openai-{index}"), "schema": "PROVIDER_SCHEMA_OPENAI",
            "base_url": "https://api.openai.example/v1", "models": ["m"],
        });
        caller.ok(Method::POST, "/v1/customers/default/providers", Some(provider)).await;
        let trigger = json!({"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS", "event_type": "EVENT_TYPE_UPDATED"});
        let triggered = caller.ok(Method::POST, "/configurator/v1/trigger", Some(trigger)).await;
        let version = (index + 1).to_string();
        // Creating the provider has triggered it already.
        assert_eq!(
            (&triggered["configuration_updated"], &triggered["configuration"]["version"]),
            (&json!(false), &json!(version))
        );
        let query = json!({"queries": [{"user_id": "system", "config_type": "CONFIG_TYPE_PROVIDERS", "current_version": "0"}]});
        let found = caller.ok(Method::POST, "/configurator/v1/config", Some(query)).await;
        assert_eq!(found["configurations"][0]["version"], version);
        let listed = caller
            .ok(Method::GET, "/configurator/v1/configs?config_type=CONFIG_TYPE_PROVIDERS&page_size=5", None)
            .await;
        assert_eq!(
            (listed["configurations"][0]["version"].as_str(), listed["next_page_token"].as_str()),
            (Some(version.as_str()), Some(""))
        );
        let pending = caller.ok(Method::GET, "/configurator/v1/pending-events?limit=100", None).await;
        let event = &pending["events"][0];
        assert_eq!(
            (event["workspace_id"].as_str(), event["version"].as_str()),
            (Some("default"), Some(version.as_str()))
        );
        let polled =
            caller.ok(Method::POST, "/configurator/v1/pending-events:poll", Some(json!({"limit": 1}))).await;
        assert_eq!(polled["events"][0]["id"], event["id"]);
        let claim = json!({"event_id": event["id"], "worker_id": "worker-1"});
        let claim = caller.ok(Method::POST, "/configurator/v1/acknowledge-event", Some(claim)).await;
        assert_eq!((&claim["success"], &claim["attempt"]), (&json!(true), &json!(1)));
        // As documented: neither token nor worker, from the credential that claimed.
        let complete = json!({"event_id": event["id"], "success": true, "error_message": ""});
        assert_eq!(
            caller.ok(Method::POST, "/configurator/v1/complete-event", Some(complete)).await,
            json!({"success": true})
        );
        let users = caller.ok(Method::GET, "/configurator/v1/active-users?limit=10", None).await;
        assert_eq!(users, json!({"user_ids": []}));
        let providers = caller.ok(Method::GET, "/configurator/v1/active-providers", None).await;
        assert_eq!(providers["providers"].as_array().unwrap().len(), index + 1);
    }
    server.stop().await;
}

async fn upgrades(db: TestDb) {
    let server = TestServer::start(db).await;
    for prefix in WAYS {
        let caller = caller(&server, prefix);
        let post = async |path: &str, body: Value| {
            caller.ok(Method::POST, &format!("/configurator/v1/{path}"), Some(body)).await
        };
        let trigger = json!({
            "config_type": "CONFIG_TYPE_DATAPLANE_UPGRADE", "workspace_id": "default",
            "metadata": {"target_version": "2.0.0", "values": {"size": "small"}},
        });
        let upgrade = post("trigger", trigger).await["event_ids"][0].take();
        let upgrade = upgrade.as_str().unwrap();
        let polled = caller.ok(Method::GET, "/configurator/v1/pending-events", None).await;
        let event = polled["events"].as_array().unwrap().iter().find(|event| event["id"] == upgrade).unwrap();
        assert_eq!(event["metadata"], json!({"target_version": "2.0.0", "values": {"size": "small"}}));
        post("acknowledge-event", json!({"event_id": upgrade, "worker_id": "worker-1"})).await;
        let parked = json!({"phase": "UPGRADE_PHASE_NEEDS_CREDENTIALS", "required_credentials": ["chart"]});
        let reported = post(&format!("dataplane-upgrades/{upgrade}:report"), parked).await;
        assert_eq!(
            caller.ok(Method::GET, &format!("/configurator/v1/dataplane-upgrades/{upgrade}"), None).await,
            reported
        );
        let login = json!({"slot": "chart", "registry": "r.example", "username": "u", "password": "p"});
        let submission =
            json!({"upgrade_event_id": upgrade, "credentials": [login], "persist_in_cluster": true});
        let submitted = post("dataplane-upgrade-credentials", submission).await;
        assert!(submitted["credentials_id"].as_str().unwrap().starts_with("cred_"), "{submitted}");
        assert_eq!(submitted["success"], true);
        post("complete-event", json!({"event_id": upgrade, "success": true})).await;
        let named = json!({"upgrade_event_id": upgrade});
        assert_eq!(post("dataplane-upgrade/cancel", named.clone()).await, json!({"success": true}));
        let rolled_back = post("dataplane-upgrade/rollback", named).await;
        let rollback = rolled_back["rollback_event_id"].as_str().unwrap();
        assert_eq!(rolled_back["success"], true);
        post("acknowledge-event", json!({"event_id": rollback, "worker_id": "worker-1"})).await;
        post("complete-event", json!({"event_id": rollback, "success": true})).await;
        let path = format!("/configurator/v1/dataplane-upgrades/{rollback}");
        let ended = caller.ok(Method::GET, &path, None).await;
        assert_eq!(
            (&ended["event_id"], &ended["phase"]),
            (&json!(upgrade), &json!("UPGRADE_PHASE_ROLLED_BACK"))
        );
    }
    server.stop().await;
}

async fn errors_are_json(db: TestDb) {
    let server = TestServer::start(db).await;
    let good = caller(&server, "");
    let bad = Caller { server: &server, authorization: "Bearer ak-nobody".to_owned() };
    let (status, answer) = bad.answer(Method::GET, "/v1/customers", None).await;
    assert_eq!((status, answer["details"][0]["reason"].as_str()), (401, Some("UNAUTHENTICATED")));
    let (status, answer) = good.answer(Method::GET, "/v1/nowhere", None).await;
    assert_eq!((status, answer["details"][0]["reason"].as_str()), (404, Some("ROUTE_NOT_FOUND")));
    let (status, _) = good.answer(Method::PUT, "/v1/customers", Some(json!({}))).await;
    assert_eq!(status, 405);
    let wrong = json!({"customer_id": "Not A Slug", "display_name": "x".repeat(256), "labels": {"": "v"}});
    let (status, answer) = good.answer(Method::POST, "/v1/customers", Some(wrong)).await;
    let violations = answer["details"][1]["field_violations"].as_array().unwrap();
    let fields: Vec<_> = violations.iter().map(|violation| violation["field"].as_str().unwrap()).collect();
    assert_eq!((status, fields), (400, vec!["customer_id", "display_name", "labels"]));
    let (status, _) = good.answer(Method::POST, "/v1/customers", Some(json!({"customer_id": "twice"}))).await;
    assert_eq!(status, 200);
    let (status, answer) =
        good.answer(Method::POST, "/v1/customers", Some(json!({"customer_id": "twice"}))).await;
    assert_eq!((status, answer["details"][0]["reason"].as_str()), (409, Some("CUSTOMER_ALREADY_EXISTS")));
    server.stop().await;
}

async fn a_body_may_come_as_curl_sends_it(db: TestDb) {
    let server = TestServer::start(db).await;
    let response = server
        .http
        .post(format!("{}/v1/customers", server.base_url))
        .header("authorization", format!("Bearer {OPERATOR_KEY}"))
        .header("content-type", "application/x-www-form-urlencoded")
        .body(r#"{"customer_id": "by-curl"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.json::<Value>().await.unwrap()["customer_id"], "by-curl");
    server.stop().await;
}
