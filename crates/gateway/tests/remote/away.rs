//! An upstream that is not there, goes away, and comes back.

use std::time::Duration;

use agentrouter_gateway::Protocols;
use agentrouter_gateway::remote::Remote;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tower::ServiceExt as _;

use crate::upstream::{PATIENCE, Upstream, services};
use crate::{PROTOCOLS, SERVICE, call, envelope, front, get, pool, request, send, wire};

/// Waits until a GET has this status.
async fn until(front: &Protocols<Remote>, status: u16) {
    let waiting = async {
        while get(front, "/v2/items/a").await.status != status {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{status} at last"));
}

/// A6 #81: UNAVAILABLE while there is no upstream, in every protocol; served again as soon as there is one.
#[tokio::test]
async fn an_upstream_goes_away_and_comes_back() {
    let upstream = Upstream::start(services(pool()));
    let address = upstream.address;
    let front = front(&upstream.uri(), &pool());
    assert_eq!(get(&front, "/v2/items/a").await.status, 200);

    drop(upstream);
    until(&front, 503).await;
    let away = get(&front, "/v2/items/a").await;
    assert_eq!(away.json()["code"], 14);
    let told = String::from_utf8_lossy(&away.body);
    assert!(
        !told.contains(&address.port().to_string()),
        "where the upstream is, is nobody's business: {told}"
    );
    for protocol in PROTOCOLS {
        let gone = call(&front, protocol, "Chat", &[], &[Vec::new()]).await;
        assert_eq!((gone.messages.len(), gone.code), (0, 14), "{protocol}");
    }
    let unary = [("content-type", "application/json")];
    let gone = send(&front, request("POST", &format!("{SERVICE}/GetItem"), &unary, "{}")).await;
    assert_eq!((gone.status.as_u16(), &gone.json()["code"]), (503, &json!("unavailable")));

    let upstream = Upstream::start_at(address, services(pool()));
    until(&front, 200).await;
    for protocol in PROTOCOLS {
        assert_eq!(call(&front, protocol, "Chat", &[], &[Vec::new()]).await.code, 0, "{protocol}");
    }
    drop(upstream);
}

/// A6 #81: a stream whose upstream dies ends with UNAVAILABLE, not with a success and not in silence.
#[tokio::test]
async fn a_stream_is_told_that_its_upstream_died() {
    let upstream = Upstream::start(services(pool()));
    let front = front(&upstream.uri(), &pool());
    // The first chunk of a body that goes on for minutes.
    let count = wire("gateway.test.v1.CountRequest", &json!({"to": 1, "delay": "600s"}));
    let call = Request::post(format!("{SERVICE}/Count"))
        .header("content-type", "application/grpc")
        .body(Full::new(Bytes::from(envelope(&count))))
        .expect("a request");
    let response =
        timeout(PATIENCE, front.clone().oneshot(call)).await.expect("headers").expect("infallible");
    assert!(!response.headers().contains_key("grpc-status"));
    let mut tasks = JoinSet::new();
    let waiting = front.clone();
    tasks.spawn(async move { get(&waiting, "/v2/count/1?delay=600s").await });
    // Until the headers of the stream are there it has not begun.
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(upstream);

    let end = timeout(PATIENCE, response.into_body().collect()).await.expect("an end").expect("no error");
    assert_eq!(end.trailers().expect("trailers")["grpc-status"], "14");
    let rest =
        timeout(PATIENCE, tasks.join_next()).await.expect("an end").expect("a task").expect("no panic");
    let error = if rest.status == 200 { rest.json()["error"].clone() } else { rest.json() };
    assert_eq!(error["code"], 14, "{rest:?}");
}

/// Tells when its call is dropped at the upstream.
struct Guard(mpsc::UnboundedSender<&'static str>);

impl Drop for Guard {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send("dropped");
    }
}

/// A7 #89: a client that goes away ends its call at the upstream.
#[tokio::test]
async fn a_client_that_goes_away_ends_its_call() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let hanging = axum::Router::new().fallback(move || {
        let tell = tell.clone();
        async move {
            let _ = tell.send("called");
            let _guard = Guard(tell);
            std::future::pending::<()>().await;
        }
    });
    let upstream = Upstream::start(hanging.into());
    let front = front(&upstream.uri(), &pool());
    let unary = ("content-type", "application/json");
    for request in [
        request("GET", "/v2/items/a", &[], ""),
        request("POST", &format!("{SERVICE}/GetItem"), &[unary], "{}"),
        request("POST", &format!("{SERVICE}/Chat"), &[("content-type", "application/grpc")], envelope(b"")),
    ] {
        let mut tasks = JoinSet::new();
        let call = front.clone().oneshot(request);
        tasks.spawn(async move { drop(call.await) });
        assert_eq!(timeout(PATIENCE, told.recv()).await.expect("a call"), Some("called"));
        tasks.abort_all();
        assert_eq!(timeout(PATIENCE, told.recv()).await.expect("its end"), Some("dropped"));
    }
}

/// Nothing is connected before the first call, and a wrong address is told at once.
#[tokio::test]
async fn addresses() {
    assert!(Remote::connect("http://127.0.0.1:1").is_ok());
    assert!(Remote::connect("unix:/run/library").is_ok());
    assert!(Remote::connect("no address").is_err());
    let front = front("http://127.0.0.1:1", &pool());
    assert_eq!(get(&front, "/v2/items/a").await.status, 503);
}
