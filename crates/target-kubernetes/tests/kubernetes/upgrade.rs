//! Upgrades. No controller runs jobs here: the tests say how they end.

use std::io::Write;
use std::time::Duration;

use agentrouter_api::configurator::RegistryCredential;
use agentrouter_liaison::{Target, Upgrade, UpgradeState};
use agentrouter_target_kubernetes::{KubernetesTarget, Registry, UpgradeOptions};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::server::{ADMIN, Space, access};

const JOB: &str = "agentrouter-upgrade-evt-1";

async fn target(space: &Space) -> KubernetesTarget {
    let mut options = space.options();
    options.upgrade = Some(UpgradeOptions {
        image: "registry.example/helm:4".to_owned(),
        release: "gateway".to_owned(),
        chart: "oci://public.example/charts/gateway".to_owned(),
        registries: vec![
            Registry { prefix: "public.example/charts".to_owned(), credentials: Vec::new() },
            Registry { prefix: "private.example".to_owned(), credentials: vec!["chart".to_owned()] },
        ],
        service_account: "upgrader".to_owned(),
        timeout: Duration::from_mins(5),
    });
    KubernetesTarget::connect(&access(ADMIN), options).await.expect("a target")
}

fn upgrade(chart: &str) -> Upgrade {
    Upgrade {
        event_id: "evt_1".to_owned(),
        target_version: "2.0.0".to_owned(),
        chart: chart.to_owned(),
        registry: String::new(),
        values: json!({"replicas": 2}),
        credentials: Vec::new(),
        persist_credentials: false,
    }
}

async fn start(space: &Space, upgrade: &Upgrade) {
    target(space).await.upgrader().expect("an upgrader").start(upgrade).await.expect("it starts");
}

async fn state(space: &Space) -> UpgradeState {
    target(space).await.upgrader().expect("an upgrader").state("evt_1").await.expect("a state")
}

async fn cancel(space: &Space) {
    target(space).await.upgrader().expect("an upgrader").cancel("evt_1").await.expect("it is asked");
}

/// Helm's record of a revision.
async fn record(space: &Space, revision: u64, status: &str, version: &str) {
    let text = json!({"chart": {"metadata": {"version": version}}, "manifest": "..."}).to_string();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(text.as_bytes()).expect("memory");
    let release = STANDARD.encode(gzip.finish().expect("memory"));
    let name = format!("sh.helm.release.v1.gateway.v{revision}");
    let _ = space.api::<Secret>().delete(&name, &DeleteParams::default()).await;
    let labels =
        json!({"owner": "helm", "name": "gateway", "status": status, "version": revision.to_string()});
    let secret = json!({
        "metadata": {"name": name, "labels": labels}, "type": "helm.sh/release.v1", "stringData": {"release": release},
    });
    space.create(&space.api::<Secret>(), secret).await;
}

async fn set_status(space: &Space, job: &str, status: Value) {
    let patch = Patch::Merge(json!({ "status": status }));
    space.api::<Job>().patch_status(job, &PatchParams::default(), &patch).await.expect("a new status");
}

const START: &str = "2026-01-01T00:00:00Z";
const END: &str = "2026-01-01T00:01:00Z";

async fn complete(space: &Space, job: &str) {
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": END});
    let conditions = [condition("SuccessCriteriaMet"), condition("Complete")];
    let status = json!({"startTime": START, "completionTime": END, "succeeded": 1, "conditions": conditions});
    set_status(space, job, status).await;
}

async fn fail(space: &Space, job: &str, message: &str) {
    let pod = json!({
        "metadata": {"name": format!("{job}-pod"), "labels": {"batch.kubernetes.io/job-name": job}},
        "spec": {"containers": [{"name": "helm", "image": "x"}]},
    });
    space.create(&space.api::<Pod>(), pod).await;
    let ended = json!({"exitCode": 1, "reason": "Error", "message": message});
    let container = json!({
        "name": "helm", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": ended},
    });
    let patch = Patch::Merge(json!({"status": {"phase": "Failed", "containerStatuses": [container]}}));
    let name = format!("{job}-pod");
    space.api::<Pod>().patch_status(&name, &PatchParams::default(), &patch).await.expect("a new status");
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastTransitionTime": END});
    let conditions = [condition("FailureTarget"), condition("Failed")];
    set_status(space, job, json!({"startTime": START, "failed": 1, "conditions": conditions})).await;
}

async fn secrets(space: &Space) -> Vec<String> {
    let list = space.api::<Secret>().list(&ListParams::default()).await.expect("a list");
    let names = list.items.into_iter().filter_map(|secret| secret.metadata.name);
    names.filter(|name| !name.starts_with("sh.helm")).collect()
}

async fn job(space: &Space, name: &str) -> Job {
    space.api::<Job>().get(name).await.expect("a job")
}

fn args(job: &Job) -> Vec<String> {
    let spec = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref()).expect("a pod");
    spec.containers[0].args.clone().unwrap_or_default()
}

#[tokio::test]
async fn an_upgrade_runs_and_is_undone() {
    let space = Space::new("upgrade").await;
    record(&space, 3, "deployed", "1.9.0").await;
    assert_eq!(state(&space).await, UpgradeState::Unknown);
    start(&space, &upgrade("")).await;
    start(&space, &upgrade("")).await;
    assert!(matches!(state(&space).await, UpgradeState::Running { .. }));
    let made = job(&space, JOB).await;
    let args_of_upgrade = args(&made);
    for wanted in
        ["upgrade", "--install", "--atomic", "--version=2.0.0", "oci://public.example/charts/gateway"]
    {
        assert!(args_of_upgrade.iter().any(|arg| arg == wanted), "{wanted} in {args_of_upgrade:?}");
    }
    assert_eq!(made.spec.and_then(|spec| spec.suspend), Some(false));
    assert_eq!(secrets(&space).await, [format!("{JOB}-values")]);

    record(&space, 3, "superseded", "1.9.0").await;
    record(&space, 4, "deployed", "2.0.0").await;
    complete(&space, JOB).await;
    assert_eq!(state(&space).await, UpgradeState::Completed { running_version: "2.0.0".to_owned() });
    cancel(&space).await;
    assert_eq!(state(&space).await, UpgradeState::Completed { running_version: "2.0.0".to_owned() });

    let rollback = || async { target(&space).await.upgrader().expect("an upgrader").rollback("evt_1").await };
    rollback().await.expect("it goes back");
    rollback().await.expect("it goes back once");
    assert!(matches!(state(&space).await, UpgradeState::Running { .. }));
    let back = format!("{JOB}-rollback");
    assert_eq!(args(&job(&space, &back).await).last().map(String::as_str), Some("3"));
    fail(&space, &back, "Error: no such release").await;
    let UpgradeState::Failed { message, running_version, .. } = state(&space).await else {
        panic!("the way back failed");
    };
    assert_eq!(
        (message.as_str(), running_version.as_str()),
        ("cannot go back: Error: no such release", "2.0.0")
    );

    rollback().await.expect("it is tried again");
    record(&space, 5, "deployed", "1.9.0").await;
    complete(&space, &back).await;
    assert_eq!(state(&space).await, UpgradeState::RolledBack { running_version: "1.9.0".to_owned() });
}

#[tokio::test]
async fn a_private_registry_asks_for_its_login() {
    let space = Space::new("upgrade-login").await;
    let mut wanted = upgrade("oci://private.example/gateway");
    start(&space, &wanted).await;
    assert_eq!(state(&space).await, UpgradeState::NeedsCredentials(vec!["chart".to_owned()]));
    assert_eq!(job(&space, JOB).await.spec.and_then(|spec| spec.suspend), Some(true));

    wanted.credentials = vec![RegistryCredential {
        slot: "chart".to_owned(),
        registry: String::new(),
        username: "robot".to_owned(),
        password: "sesame".to_owned(),
    }];
    start(&space, &wanted).await;
    assert!(matches!(state(&space).await, UpgradeState::Running { .. }));
    let login = space.api::<Secret>().get(&format!("{JOB}-login")).await.expect("a login");
    assert_eq!(login.metadata.owner_references.map_or(0, |owners| owners.len()), 1);
    let file = login.data.expect("a file")["config.json"].0.clone();
    let file: Value = serde_json::from_slice(&file).expect("JSON");
    assert_eq!(file["auths"]["private.example"]["auth"], STANDARD.encode("robot:sesame"));
    let made = serde_json::to_string(&job(&space, JOB).await).expect("JSON");
    assert!(!made.contains("sesame"));

    fail(&space, JOB, "Error: UPGRADE FAILED: timed out").await;
    assert_eq!(
        state(&space).await,
        UpgradeState::Failed {
            message: "Error: UPGRADE FAILED: timed out".to_owned(),
            running_version: String::new(),
            failed_version: "2.0.0".to_owned(),
        }
    );
    assert_eq!(secrets(&space).await, [format!("{JOB}-values")], "the login is gone");
}

#[tokio::test]
async fn a_login_that_may_be_kept_is_used_again() {
    let space = Space::new("upgrade-kept").await;
    let mut wanted = upgrade("oci://private.example/gateway");
    wanted.persist_credentials = true;
    wanted.credentials =
        vec![RegistryCredential { slot: "chart".to_owned(), ..RegistryCredential::default() }];
    start(&space, &wanted).await;
    complete(&space, JOB).await;
    assert!(matches!(state(&space).await, UpgradeState::Completed { .. }));
    let mut next = upgrade("oci://private.example/gateway");
    next.event_id = "evt_2".to_owned();
    start(&space, &next).await;
    let login = space.api::<Secret>().get_opt("agentrouter-upgrade-evt-2-login").await.expect("an answer");
    assert!(login.is_some(), "{:?}", secrets(&space).await);
}

#[tokio::test]
async fn a_cancel_goes_back() {
    let space = Space::new("upgrade-cancel").await;
    record(&space, 1, "deployed", "1.0.0").await;
    start(&space, &upgrade("")).await;
    set_status(&space, JOB, json!({"startTime": START, "active": 1})).await;
    record(&space, 2, "pending-upgrade", "2.0.0").await;
    cancel(&space).await;
    cancel(&space).await;
    assert_eq!(job(&space, JOB).await.spec.and_then(|spec| spec.suspend), Some(true));
    assert!(matches!(state(&space).await, UpgradeState::Running { .. }), "its pod has not ended");
    // Starting it again does not undo the cancel.
    start(&space, &upgrade("")).await;

    // Helm was killed before it could go back.
    set_status(&space, JOB, json!({"startTime": null, "active": 0})).await;
    assert!(matches!(state(&space).await, UpgradeState::Running { .. }));
    let undo = job(&space, &format!("{JOB}-undo")).await;
    assert_eq!(args(&undo).first().map(String::as_str), Some("rollback"));
    record(&space, 2, "superseded", "2.0.0").await;
    record(&space, 3, "deployed", "1.0.0").await;
    complete(&space, &format!("{JOB}-undo")).await;
    assert_eq!(state(&space).await, UpgradeState::Cancelled { running_version: "1.0.0".to_owned() });
}

#[tokio::test]
async fn other_registries_are_refused_for_good() {
    let space = Space::new("upgrade-elsewhere").await;
    let target = target(&space).await;
    let upgrader = target.upgrader().expect("an upgrader");
    let rejected =
        upgrader.start(&upgrade("oci://elsewhere.example/gateway")).await.expect_err("not from there");
    assert!(rejected.is_permanent());
    assert_eq!(upgrader.state("evt_1").await, Ok(UpgradeState::Unknown));
    assert!(upgrader.rollback("evt_1").await.expect_err("nothing is there").is_permanent());
    upgrader.cancel("evt_1").await.expect("a cancel of nothing is fine");
}
