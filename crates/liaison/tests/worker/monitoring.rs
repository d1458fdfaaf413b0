//! What probes, Prometheus and the doctor's readers see.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator::DoctorRuntime;
use agentrouter_liaison::{Doctor, Monitor, Report, WorkerConfig};
use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::plane::{Plane, configuration};
use crate::running::{Gated, Running, config};

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: worker\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("it answers");
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[tokio::test]
async fn probes_and_prometheus_see_how_it_does() {
    let mut plane = Plane::start().await;
    plane.change(|state| (state.watches, state.syncs) = (true, true));
    plane.kill();
    let target = Gated::new();
    target.open.send_replace(true);
    let mut seen: Option<Monitor> = None;
    let worker = Running::start_with(config(&plane), target, |mut worker| {
        seen = Some(worker.monitor());
        worker
    });
    let monitor = seen.expect("a monitor");
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (stop, mut serving) = (CancellationToken::new(), JoinSet::new());
    serving.spawn(monitor.serve(listener, stop.clone()));

    worker.until(|report| matches!(report, Report::Unreachable { .. })).await;
    let (status, answer) = get(address, "/healthz").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("the management plane has not answered yet: UNAVAILABLE"), "{answer}");

    plane.resume().await;
    let event = plane.change(|state| state.publish(configuration("ann", 1)));
    plane.until(|state| state.completion(&event).is_some() && !state.sweeps.is_empty()).await;
    worker.until(|report| matches!(report, Report::Applied { .. })).await;
    assert_eq!(get(address, "/healthz").await.0, 200);
    // The worker counts once it has the answer.
    let mut answer = get(address, "/metrics").await;
    for _ in 0..200 {
        if answer.1.contains("kind=\"full_sync\"") && answer.1.contains("held_claims 0") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        answer = get(address, "/metrics").await;
    }
    let (status, metrics) = answer;
    assert_eq!(status, 200);
    for line in [
        "agentrouter_liaison_connected 1",
        "agentrouter_liaison_watching 1",
        "agentrouter_liaison_held_claims 0",
        "agentrouter_liaison_events_total{config_type=\"proxy_url\",outcome=\"applied\"} 1",
        "agentrouter_liaison_apply_seconds_count{config_type=\"proxy_url\"} 1",
        "agentrouter_liaison_trigger_to_applied_seconds_count{config_type=\"proxy_url\"} 1",
        "agentrouter_liaison_sweeps_total{kind=\"full_sync\"} 1",
        "agentrouter_liaison_token_expires_timestamp_seconds 0",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    assert!(!metrics.contains("ann"), "{metrics}");
    worker.stop().await;
    stop.cancel();
    serving.join_next().await.expect("it served").expect("it ends").expect("without an error");
}

#[derive(Debug)]
struct Looking;

#[async_trait]
impl Doctor for Looking {
    async fn observe(&self) -> Option<DoctorRuntime> {
        Some(DoctorRuntime {
            cron_job_present: true,
            reason: "ImagePullBackOff".to_owned(),
            ..Default::default()
        })
    }
}

#[tokio::test]
async fn the_doctor_is_told_of_by_light_polls_beside_the_watch() {
    let plane = Plane::start().await;
    plane.change(|state| state.watches = true);
    let config = WorkerConfig { doctor_interval: Duration::from_millis(100), ..config(&plane) };
    let worker = Running::start_with(config, Gated::new(), |worker| worker.with_doctor(Arc::new(Looking)));
    let told = |state: &crate::plane::State| {
        let reasons = state.looks.iter().filter_map(|look| look.doctor_runtime.as_ref());
        reasons.filter(|doctor| doctor.reason == "ImagePullBackOff").count()
    };
    plane.until(|state| told(state) >= 3).await;
    worker.stop().await;
}
