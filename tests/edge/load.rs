//! More calls than there is room for.

use std::time::Duration;

use agentrouter_api::identity::WhoAmIRequest;
use agentrouter_api::identity::sessions_service_client::SessionsServiceClient;
use agentrouter_storage::Tx;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tonic::Code;
use tonic_types::StatusExt;

use crate::common::{OPERATOR_KEY, TestServer};

/// How long a poll waits that is to be there meanwhile.
const POLL: &str = "/configurator/v1/pending-events?wait=60s";

// A9 #102: what is too much is refused at once with the time to come back, in each protocol; who waits for news takes
// nothing from those who do not; health is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_beyond_the_bound_are_told_to_come_back() {
    let db = agentrouter_testkit::sqlite().await;
    let server = TestServer::start_with(db, |config| {
        config.edge.calls.calls = 1;
        config.edge.calls.line = 0;
        config.edge.calls.waits = 1;
    })
    .await;
    // Until the one below is over, which does not wait.
    let poll = async {
        loop {
            let answer = server.rest(Method::GET, POLL, None).await;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                return answer;
            }
        }
    };
    let meanwhile = async {
        // A second poll is one too many, and a call is not.
        let deadline = Instant::now() + Duration::from_secs(30);
        let refused = loop {
            let answer = server.rest(Method::GET, "/configurator/v1/pending-events", None).await;
            if answer.status() != StatusCode::OK || Instant::now() > deadline {
                break answer;
            }
            sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(server.rest(Method::GET, "/v1/customers/default", None).await.status(), StatusCode::OK);

        // A call that waits for the database takes the only place.
        let writing = server.running.db.begin().await.unwrap();
        let call = async {
            while server
                .rest(Method::POST, "/v1/customers", Some(json!({"customer_id": "waits"})))
                .await
                .status()
                == StatusCode::SERVICE_UNAVAILABLE
            {}
        };
        tokio::join!(call, refusals(&server, writing));
    };
    tokio::select! {
        answer = poll => panic!("the poll should still wait: {answer:?}"),
        () = meanwhile => {}
    }
    server.stop().await;
}

/// What calls beyond the bound are told while somebody writes.
async fn refusals(server: &TestServer, writing: Tx) {
    let refused = until_refused(server).await;
    let seconds: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    let body: Value = refused.json().await.unwrap();
    assert_eq!(body["code"], 14);
    assert!(body["details"].to_string().contains("SERVER_BUSY"), "{body}");
    let mut sessions = SessionsServiceClient::new(server.api(OPERATOR_KEY).await);
    let status = sessions.who_am_i(WhoAmIRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    let health = server.http.get(format!("{}/readyz", server.base_url)).send().await.unwrap();
    assert_eq!(health.status(), StatusCode::OK);
    drop(writing);
}

async fn until_refused(server: &TestServer) -> reqwest::Response {
    for _ in 0..200 {
        let answer = server.rest(Method::GET, "/v1/customers/default", None).await;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return answer;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing holds the only place")
}
