//! The rights of a worker, as the files in deploy/kubernetes give them.

use std::time::Duration;

use agentrouter_liaison::{Doctor as _, Target, Upgrade, UpgradeState};
use agentrouter_manifests::{GatewayOptions, Options};
use agentrouter_target_kubernetes::{KubernetesTarget, Registry, UpgradeOptions};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::apply::{apply, observed};
use crate::content::{no_providers, providers, servers};
use crate::server::{Space, access};

const LIAISON: &str = include_str!("../../../../deploy/kubernetes/liaison.yaml");
const UPGRADES: &str = include_str!("../../../../deploy/kubernetes/upgrades.yaml");

async fn install(space: &Space, manifests: &str) {
    for manifest in serde_saphyr::from_multiple::<Value>(manifests).expect("YAML") {
        match manifest["kind"].as_str().expect("a kind") {
            "ServiceAccount" => space.create(&space.api::<ServiceAccount>(), manifest).await,
            "Role" => space.create(&space.api::<Role>(), manifest).await,
            "Deployment" => space.create(&space.api::<Deployment>(), manifest).await,
            "RoleBinding" => {
                let mut binding = manifest;
                // The worker of the tests calls with a token of its own.
                binding["subjects"] =
                    json!([{"kind": "User", "name": "worker", "apiGroup": "rbac.authorization.k8s.io"}]);
                space.create(&space.api::<RoleBinding>(), binding).await;
            }
            other => panic!("{other} is not tested"),
        }
    }
}

async fn worker(space: &Space) -> KubernetesTarget {
    let mut options = space.options();
    let gateway = GatewayOptions::Existing { name: "agentrouter".to_owned(), namespace: None };
    options.render = Options { gateway, ..Options::default() };
    options.upgrade = Some(UpgradeOptions {
        image: "helm".to_owned(),
        release: "gateway".to_owned(),
        chart: "oci://public.example/gateway".to_owned(),
        registries: vec![Registry { prefix: "public.example".to_owned(), credentials: Vec::new() }],
        service_account: "agentrouter-upgrade".to_owned(),
        timeout: Duration::from_mins(5),
    });
    KubernetesTarget::connect(&access("worker"), options).await.expect("a target")
}

#[tokio::test]
async fn the_role_is_enough() {
    let space = Space::new("rights").await;
    let target = worker(&space).await;
    let rejected =
        target.apply(&providers(1, &[("ai", "ai.example")])).await.expect_err("it has no rights yet");
    assert!(!rejected.is_permanent(), "rights can be given");
    assert!(rejected.message().contains("forbidden"), "{rejected}");

    install(&space, LIAISON).await;
    for _ in 0..600 {
        if target.observed().await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    apply(&target, &providers(1, &[("ai", "ai.example"), ("bee", "bee.example")])).await;
    apply(&target, &servers(1, &["files"])).await;
    apply(&target, &providers(2, &[("ai", "other.example")])).await;
    space.gateway("Backend").delete("provider-ai", &DeleteParams::default()).await.expect("it is deleted");
    assert_eq!(observed(&target).await[0].1, 0);
    apply(&target, &providers(2, &[("ai", "other.example")])).await;
    apply(&target, &no_providers(3)).await;
    assert_eq!(observed(&target).await.len(), 2);

    let upgrader = target.upgrader().expect("an upgrader");
    let upgrade = Upgrade {
        event_id: "evt_1".to_owned(),
        target_version: "1.0.0".to_owned(),
        chart: String::new(),
        registry: String::new(),
        values: Value::Null,
        credentials: Vec::new(),
        persist_credentials: false,
    };
    assert!(target.doctor().observe().await.is_some());
    let rejected = upgrader.start(&upgrade).await.expect_err("whoever may make Jobs may do much");
    assert!(rejected.message().contains("forbidden"), "{rejected}");
    install(&space, UPGRADES).await;
    for _ in 0..600 {
        if upgrader.start(&upgrade).await.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(matches!(upgrader.state("evt_1").await, Ok(UpgradeState::Running { .. })));
    upgrader.cancel("evt_1").await.expect("it is cancelled");
    assert!(matches!(upgrader.state("evt_1").await, Ok(UpgradeState::Cancelled { .. })));
}
