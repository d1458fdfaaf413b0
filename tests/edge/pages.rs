//! Pages of other origins.

use std::time::Duration;

use agentrouter_edge::Cors;
use reqwest::{Method, Response};

use crate::common::TestServer;

const PAGE: &str = "https://console.example.com";

async fn preflight(server: &TestServer, path: &str) -> Response {
    let request = server.http.request(Method::OPTIONS, format!("{}{path}", server.base_url));
    let request = request.header("origin", PAGE).header("access-control-request-method", "POST");
    request.send().await.unwrap()
}

// A11 #112: what a page may do follows from the routes, for REST and for RPCs by their own paths.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn methods_follow_from_the_routes() {
    let db = agentrouter_testkit::sqlite().await;
    let cors = Cors::new(&[PAGE.to_owned()], false, Duration::from_mins(1)).unwrap();
    let server = TestServer::start_with(db, |config| config.edge.cors = Some(cors)).await;
    for (path, methods) in [
        ("/v1/customers", "GET,HEAD,OPTIONS,POST"),
        ("/v1/customers/acme", "DELETE,GET,HEAD,OPTIONS,PATCH"),
        ("/configurator/v1/acknowledge-event", "OPTIONS,POST"),
        ("/agentrouter.identity.v1.SessionsService/WhoAmI", "OPTIONS,POST"),
    ] {
        let response = preflight(&server, path).await;
        assert_eq!(response.status(), 204, "{path}");
        assert_eq!(response.headers()["access-control-allow-methods"], methods, "{path}");
        assert_eq!(response.headers()["access-control-allow-origin"], PAGE);
    }
    let nothing = preflight(&server, "/nothing").await;
    assert!(!nothing.headers().contains_key("access-control-allow-methods"));

    // A refusal can be read, too, or the page would not know why.
    let request = server.http.get(format!("{}/v1/customers", server.base_url)).header("origin", PAGE);
    let refused = request.send().await.unwrap();
    assert_eq!(
        (refused.status().as_u16(), &refused.headers()["access-control-allow-origin"]),
        (401, &PAGE.parse().unwrap())
    );
    assert_eq!(refused.headers()["x-content-type-options"], "nosniff");
    server.stop().await;
}
