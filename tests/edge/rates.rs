//! How often callers may call.

use std::time::Duration;

use agentrouter_api::identity::WhoAmIRequest;
use agentrouter_api::identity::sessions_service_client::SessionsServiceClient;
use agentrouter_rpc::Rate;
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::{OPERATOR_KEY, TestServer};

fn slowly(burst: u32) -> Rate {
    Rate { times: 1, per: Duration::from_mins(10), burst }
}

// A9 #102, A12 #119: one bucket for a credential, whatever it speaks, and every protocol says when to come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_has_one_bucket_in_every_protocol() {
    let db = agentrouter_testkit::sqlite().await;
    let server = TestServer::start_with(db, |config| config.edge.rates.calls = Some(slowly(2))).await;
    let first = server.rest(Method::GET, "/v1/customers/default", None).await;
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()["ratelimit-policy"], "\"credential\";q=2;w=1200");
    assert_eq!(first.headers()["ratelimit"], "\"credential\";r=1;t=600");

    let mut sessions = SessionsServiceClient::new(server.api(OPERATOR_KEY).await);
    let second = sessions.who_am_i(WhoAmIRequest {}).await.unwrap();
    assert!(second.metadata().get("ratelimit").is_some_and(|level| level.to_str().unwrap().contains("r=0")));

    let status = sessions.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.get_details_error_info().unwrap().reason, "RATE_LIMITED");
    let delay = status.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_mins(8)..=Duration::from_mins(10)).contains(&delay), "{delay:?}");

    let refused = server.rest(Method::GET, "/v1/customers/default", None).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((500..=600).contains(&seconds), "{seconds}");
    assert!(refused.headers()["ratelimit"].to_str().unwrap().starts_with("\"credential\";r=0;t="));
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], 8);

    // Health has no credential, and no bucket.
    let health = server.http.get(format!("{}/healthz", server.base_url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    server.stop().await;
}

// A9 #102: who tries credentials is stopped before they are looked at.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_may_fail_a_few_times() {
    let db = agentrouter_testkit::sqlite().await;
    let server = TestServer::start_with(db, |config| {
        config.edge.rates.failures = Some(slowly(3));
        config.edge.trusted_proxies = 1;
    })
    .await;
    let ask = async |address: &str, key: &str| {
        let request = server.http.get(format!("{}/v1/customers/default", server.base_url));
        let request = request.header("x-forwarded-for", format!("6.6.6.6, {address}"));
        request.bearer_auth(key).send().await.unwrap()
    };
    for _ in 0..3 {
        assert_eq!(ask("192.0.2.1", "wrong").await.status(), StatusCode::UNAUTHORIZED);
    }
    for key in ["wrong", OPERATOR_KEY] {
        let refused = ask("192.0.2.1", key).await;
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(refused.headers().contains_key("retry-after"));
        assert!(refused.text().await.unwrap().contains("TOO_MANY_FAILURES"));
    }
    assert_eq!(ask("192.0.2.2", OPERATOR_KEY).await.status(), StatusCode::OK, "others are not asked to wait");
    server.stop().await;
}
