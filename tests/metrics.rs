//! What `/metrics` tells, to whom, and that its labels are bounded.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]
#![expect(clippy::float_cmp, reason = "counters hold whole numbers")]

mod common;

use std::time::Duration;

use agentrouter::config::Config;
use agentrouter::server;
use agentrouter_api::configurator::CompleteEventRequest;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::identity::api_keys_service_client::ApiKeysServiceClient;
use agentrouter_api::identity::{ApiKeyKind, CreateApiKeyRequest};
use agentrouter_testkit::{TestDb, on_both_engines, refused};
use common::plane::{change, claim, complete, create_customer, create_provider, create_workspace, poll};
use common::scrape::{Scrape, until};
use common::{OPERATOR_KEY, TestServer, config};
use reqwest::{Client, Method, StatusCode};
use tonic::Code;

on_both_engines!(
    deliveries_are_counted,
    calls_are_counted_by_method_and_code,
    the_state_of_the_fleet_is_told,
    metrics_are_for_viewers_beyond_loopback,
);

const LONG: Duration = Duration::from_mins(1);

// Behaviour 4: a completion without a token or a worker is accepted from the credential of the claim, and counted.
async fn deliveries_are_counted(db: TestDb) {
    let server = TestServer::start(db).await;
    let operator = server.api(OPERATOR_KEY).await;
    create_customer(&operator, "acme").await;
    let worker = server.api(&create_workspace(&operator, "acme", "edge").await).await;
    create_provider(&operator, "acme").await;
    let fresh = Scrape::of(&server.base_url).await;
    assert_eq!(fresh.value("versions_total"), 1.0);
    assert_eq!(fresh.value("convergence_seconds_count"), 0.0);

    // A claim, another worker's, the holder's again; a completion with the token.
    let event = poll(&worker, Duration::ZERO).await.unwrap()[0].id.clone();
    let held = claim(&worker, &event, "one", LONG).await.unwrap();
    assert!(!claim(&worker, &event, "two", LONG).await.unwrap().success);
    assert!(claim(&worker, &event, "one", LONG).await.unwrap().success);
    assert!(complete(&worker, &event, &held.claim_token).await.unwrap());
    let now = Scrape::of(&server.base_url).await;
    for (outcome, count) in [("granted", 1.0), ("refused", 1.0), ("renewed", 1.0)] {
        assert_eq!(now.value(&format!("claims_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
    assert_eq!(now.value("completions_total{outcome=\"applied\"}"), 1.0);
    assert_eq!(now.value("convergence_seconds_count"), 1.0);
    assert!(now.value("convergence_seconds_bucket{le=\"60.0\"}") == 1.0, "{}", now.text);
    assert_eq!(now.value("bare_completions_total"), 0.0);

    // A newer version takes the place of one that waits; the newer one is completed bare.
    for weight in [2, 3] {
        change(&operator, "acme", weight).await.unwrap();
        assert_eq!(poll(&worker, Duration::ZERO).await.unwrap().len(), 1);
    }
    let event = poll(&worker, Duration::ZERO).await.unwrap()[0].id.clone();
    assert!(claim(&worker, &event, "one", LONG).await.unwrap().success);
    assert!(complete(&worker, &event, "").await.unwrap());
    let now = Scrape::of(&server.base_url).await;
    assert_eq!(now.value("superseded_events_total"), 1.0);
    assert_eq!(now.value("bare_completions_total"), 1.0);
    assert_eq!(now.value("versions_total"), 3.0);

    // A lease that runs out, its late completion, and a rejection for good.
    change(&operator, "acme", 4).await.unwrap();
    let event = poll(&worker, Duration::ZERO).await.unwrap()[0].id.clone();
    let late = claim(&worker, &event, "one", Duration::from_secs(1)).await.unwrap();
    server.running.db.advance_clock(Duration::from_secs(2));
    let refusal = complete(&worker, &event, &late.claim_token).await.map(tonic::Response::new);
    assert_eq!(refused(refusal), (Code::Aborted, "STALE_CLAIM".to_owned()));
    let again = claim(&worker, &event, "two", LONG).await.unwrap();
    assert_eq!((again.success, again.attempt), (true, 2));
    let rejection = CompleteEventRequest {
        event_id: event,
        success: false,
        claim_token: again.claim_token,
        permanent: true,
        ..Default::default()
    };
    ConfiguratorServiceClient::new(worker.clone()).complete_event(rejection).await.unwrap();
    let now = Scrape::of(&server.base_url).await;
    for (name, count) in [
        ("stale_completions_total", 1.0),
        ("lease_expiries_total", 1.0),
        ("slots_stuck_total", 1.0),
        ("completions_total{outcome=\"failed\"}", 1.0),
        ("completions_total{outcome=\"applied\"}", 2.0),
        ("convergence_seconds_count", 2.0),
    ] {
        assert_eq!(now.value(name), count, "{name}");
    }
    server.stop().await;
}

async fn calls_are_counted_by_method_and_code(db: TestDb) {
    let server = TestServer::start(db).await;
    let operator = server.api(OPERATOR_KEY).await;
    create_customer(&operator, "very-secret-tenant").await;
    server.ok(Method::GET, "/v1/customers/very-secret-tenant", None).await;
    assert_eq!(server.rest(Method::GET, "/v1/customers/not-there", None).await.status(), 404);
    let wrong =
        server.rest_as("Bearer wrong-key", Method::GET, "/v1/customers/very-secret-tenant", None).await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(server.http.get(format!("{}/v1/whoami", server.base_url)).send().await.unwrap().status(), 401);
    // Paths that clients make up, over both protocols.
    assert_eq!(server.rest(Method::GET, "/made/up/path", None).await.status(), 404);
    let grpc = Client::builder().http2_prior_knowledge().build().unwrap();
    let made_up = grpc.post(format!("{}/made.up.v1.Service/Method", server.base_url));
    let made_up = made_up.header("content-type", "application/grpc").header("te", "trailers");
    assert_eq!(made_up.send().await.unwrap().headers()["grpc-status"], "12");

    let now = Scrape::of(&server.base_url).await;
    let get = |code: &str| {
        format!(
            "rpc_requests_total{{method=\"agentrouter.tenancy.v1.TenancyService/GetCustomer\",code=\"{code}\"}}"
        )
    };
    for code in ["OK", "NOT_FOUND", "UNAUTHENTICATED"] {
        assert_eq!(now.value(&get(code)), 1.0, "{code}");
    }
    let count = "rpc_duration_seconds_count{method=\"agentrouter.tenancy.v1.TenancyService/GetCustomer\"}";
    assert_eq!(now.value(count), 3.0);
    assert_eq!(now.value("rpc_requests_total{method=\"unknown\",code=\"UNIMPLEMENTED\"}"), 1.0);
    assert_eq!(now.value("unauthenticated_refusals_total{credential=\"invalid\"}"), 1.0);
    assert_eq!(now.value("unauthenticated_refusals_total{credential=\"missing\"}"), 1.0);
    assert_eq!(now.value("http_responses_total{status=\"404\"}"), 2.0);
    assert_eq!(now.value("rpc_in_flight"), 0.0);
    assert!(now.value("db_connections{state=\"idle\"}") >= 1.0);
    assert!(now.value("db_statements_total{kind=\"read\"}") >= 1.0);
    assert!(now.text.contains("\nprocess_resident_memory_bytes "), "{}", now.text);
    assert!(now.text.contains("\nprocess_cpu_seconds_total "), "{}", now.text);
    for word in ["secret-tenant", "made", "cust_", "key_", "ws_", OPERATOR_KEY] {
        let found = now.names().find(|name| name.split('{').nth(1).is_some_and(|label| label.contains(word)));
        assert_eq!(found, None, "a label that clients choose");
    }
    server.stop().await;
}

async fn the_state_of_the_fleet_is_told(db: TestDb) {
    let server = TestServer::start(db).await;
    let operator = server.api(OPERATOR_KEY).await;
    create_customer(&operator, "acme").await;
    let worker = server.api(&create_workspace(&operator, "acme", "edge").await).await;
    create_workspace(&operator, "acme", "never-there").await;
    let observe = || agentrouter_delivery::observe_fleet(&server.running.db);
    assert!(poll(&worker, Duration::ZERO).await.unwrap().is_empty());
    // Presence is written by a job.
    let online = "workspaces{state=\"online\"}";
    while Scrape::of(&server.base_url).await.value(online) == 0.0 {
        observe().await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The third one is the default workspace of the first start.
    let now = Scrape::of(&server.base_url).await;
    assert_eq!((now.value(online), now.value("workspaces{state=\"offline\"}")), (1.0, 2.0));
    assert_eq!(now.value("oldest_open_event_age_seconds"), 0.0);

    create_provider(&operator, "acme").await;
    let age = async || {
        observe().await.unwrap();
        Scrape::of(&server.base_url).await.value("oldest_open_event_age_seconds")
    };
    server.running.db.advance_clock(Duration::from_secs(30));
    let offered = age().await;
    assert!((30.0..60.0).contains(&offered), "offered, and not laid out: {offered}");
    let event = poll(&worker, Duration::ZERO).await.unwrap()[0].id.clone();
    let laid_out = age().await;
    assert!((30.0..60.0).contains(&laid_out), "laid out: {laid_out}");
    let held = claim(&worker, &event, "one", LONG).await.unwrap();
    let rejection = CompleteEventRequest {
        event_id: event,
        claim_token: held.claim_token,
        permanent: true,
        ..Default::default()
    };
    ConfiguratorServiceClient::new(worker.clone()).complete_event(rejection).await.unwrap();
    assert_eq!(age().await, 0.0, "what is stuck waits for a person");
    assert_eq!(Scrape::of(&server.base_url).await.value("stuck_slots"), 1.0);
    change(&operator, "acme", 2).await.unwrap();
    let event = poll(&worker, Duration::ZERO).await.unwrap()[0].id.clone();
    let held = claim(&worker, &event, "one", LONG).await.unwrap();
    assert!(complete(&worker, &event, &held.claim_token).await.unwrap());
    assert_eq!(age().await, 0.0);
    assert_eq!(Scrape::of(&server.base_url).await.value("stuck_slots"), 0.0);

    // A poll that waits, for as long as it does.
    let (waiting, base_url) = (worker.clone(), server.base_url.clone());
    let held = async { poll(&waiting, LONG).await.unwrap() };
    let then = async {
        until(&base_url, "a poll waits", |now| now.value("waiters{kind=\"long_poll\"}") == 1.0).await;
        change(&operator, "acme", 3).await.unwrap();
    };
    let (events, ()) = tokio::join!(held, then);
    assert_eq!(events.len(), 1);
    until(&base_url, "it ended", |now| now.value("waiters{kind=\"long_poll\"}") == 0.0).await;
    assert!(Scrape::of(&base_url).await.value("wakeups_total{source=\"local\"}") >= 1.0);
    server.stop().await;
}

async fn metrics_are_for_viewers_beyond_loopback(db: TestDb) {
    let data_dir = tempfile::tempdir().unwrap();
    let mut everywhere: Config = config(data_dir.path(), db.target.clone());
    everywhere.listen = "0.0.0.0:0".parse().unwrap();
    everywhere.observability.metrics_listen = Some("127.0.0.1:0".parse().unwrap());
    let running = server::start(everywhere).await.unwrap();
    let (http, port) = (Client::new(), running.address.port());
    let url = format!("http://127.0.0.1:{port}/metrics");
    let status = async |token: Option<&str>| {
        let request = http.get(&url);
        let request = match token {
            Some(token) => request.bearer_auth(token),
            None => request,
        };
        request.send().await.unwrap().status()
    };
    assert_eq!(status(None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(Some("wrong")).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(Some(OPERATOR_KEY)).await, StatusCode::OK);

    let channel = tonic::transport::Endpoint::new(format!("http://127.0.0.1:{port}")).unwrap().connect_lazy();
    let bearer = common::bearer(OPERATOR_KEY);
    let operator = tonic::service::interceptor::InterceptedService::new(channel, bearer);
    create_customer(&operator, "acme").await;
    let token = create_workspace(&operator, "acme", "edge").await;
    assert_eq!(status(Some(&token)).await, StatusCode::FORBIDDEN);
    let create = CreateApiKeyRequest {
        customer_id: "acme".to_owned(),
        display_name: "Prometheus".to_owned(),
        kind: ApiKeyKind::Management.into(),
        role: "viewer".to_owned(),
        ..Default::default()
    };
    let viewer = ApiKeysServiceClient::new(operator).create_api_key(create).await.unwrap().into_inner();
    assert_eq!(status(Some(&viewer.key)).await, StatusCode::OK);

    let own = running.metrics_address.unwrap();
    assert!(Scrape::of(&format!("http://{own}")).await.value("build_info{version=\"0.1.0\"}") == 1.0);
    let beside = http.get(format!("http://{own}/v1/whoami")).send().await.unwrap();
    assert_eq!(beside.status(), StatusCode::NOT_FOUND, "nothing else is served there");
    running.stop().await.unwrap();
}
