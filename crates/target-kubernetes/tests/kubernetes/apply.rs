//! What becomes of configurations.

use agentrouter_api::configurator::{ConfigType, Configuration, ObservedSlot};
use agentrouter_liaison::Target;
use agentrouter_target_kubernetes::{Access, KubernetesTarget};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::content::{no_providers, providers, servers, user_keys};
use crate::server::Space;

const AI: (&str, &str) = ("ai", "ai.example");
const BEE: (&str, &str) = ("bee", "bee.example");

pub(crate) async fn apply(target: &KubernetesTarget, configuration: &Configuration) -> i64 {
    let applied = target.apply(configuration).await.expect("it is applied");
    assert_eq!(applied.resources, []);
    applied.version
}

pub(crate) async fn observed(target: &KubernetesTarget) -> Vec<(ConfigType, i64, String)> {
    let observed = target.observed().await.expect("it can tell").expect("it can tell");
    observed.into_iter().map(|slot: ObservedSlot| (slot.config_type(), slot.version, slot.checksum)).collect()
}

async fn key_of(space: &Space, provider: &str) -> Option<Vec<u8>> {
    let secret = space.api::<Secret>().get_opt(&format!("provider-{provider}")).await.expect("an answer")?;
    secret.data?.remove("apiKey").map(|value| value.0)
}

fn fingerprint(object: &DynamicObject) -> (Option<String>, Option<i64>) {
    (object.metadata.resource_version.clone(), object.metadata.generation)
}

#[tokio::test]
async fn configurations_come_change_and_go() {
    let space = Space::new("come-and-go").await;
    let target = space.target().await;
    assert_eq!(apply(&target, &providers(1, &[AI, BEE])).await, 1);
    assert_eq!(space.names("AIServiceBackend").await, ["provider-ai", "provider-bee"]);
    assert_eq!(space.names("AIGatewayRoute").await, ["models-ai", "models-bee"]);
    assert_eq!(key_of(&space, "ai").await.as_deref(), Some(b"secret-of-ai-1".as_slice()));

    assert_eq!(apply(&target, &servers(1, &["files"])).await, 1);
    assert_eq!(space.names("MCPRoute").await, ["mcp"]);
    assert_eq!(space.names("AIServiceBackend").await.len(), 2, "the other slot stays");

    assert_eq!(apply(&target, &providers(2, &[BEE])).await, 2);
    assert_eq!(space.names("AIServiceBackend").await, ["provider-bee"]);
    assert_eq!(key_of(&space, "ai").await, None);
    assert_eq!(key_of(&space, "bee").await.as_deref(), Some(b"secret-of-bee-2".as_slice()));
    assert_eq!(apply(&target, &providers(1, &[AI, BEE])).await, 2, "it never goes back");

    assert_eq!(apply(&target, &no_providers(3)).await, 3);
    assert_eq!(space.names("AIServiceBackend").await, <[String; 0]>::default());
    assert_eq!(space.names("MCPRoute").await, ["mcp"]);
    let wanted =
        [(ConfigType::Providers, 3, "sum-3".to_owned()), (ConfigType::McpCatalog, 1, "sum-1".to_owned())];
    assert_eq!(observed(&target).await, wanted);
}

#[tokio::test]
async fn the_same_again_changes_nothing() {
    let space = Space::new("same-again").await;
    apply(&space.target().await, &providers(1, &[AI])).await;
    let backend = space.gateway("Backend");
    let before = fingerprint(&backend.get("provider-ai").await.expect("a backend"));
    // Another replica, or the same worker after a restart.
    assert_eq!(apply(&space.target().await, &providers(1, &[AI])).await, 1);
    let after = fingerprint(&backend.get("provider-ai").await.expect("a backend"));
    assert_eq!(before, after);
}

#[tokio::test]
async fn what_others_made_is_left_alone() {
    let space = Space::new("left-alone").await;
    let mine = json!({
        "metadata": {"name": "mine", "labels": {"app.kubernetes.io/managed-by": "agentrouter"}},
        "spec": {"endpoints": []},
    });
    let backend = space.gateway("Backend");
    let mut object = mine.clone();
    object["apiVersion"] = "gateway.envoyproxy.io/v1alpha1".into();
    object["kind"] = "Backend".into();
    space.create(&backend, object).await;
    space
        .create(
            &space.api::<Secret>(),
            json!({"metadata": {"name": "provider-ai"}, "stringData": {"a": "b"}}),
        )
        .await;

    let target = space.target().await;
    let applied = target.apply(&providers(1, &[AI, BEE])).await.expect("the good part is applied");
    let names: Vec<_> = applied.resources.iter().map(|it| (it.resource.as_str(), it.applied)).collect();
    assert_eq!(names, [("ai", false)]);
    assert!(applied.resources[0].reason.contains("not managed by this worker"), "{applied:?}");
    assert_eq!(space.names("Backend").await, ["mine", "provider-bee"]);
    assert_eq!(key_of(&space, "ai").await, None, "the secret of somebody else is as it was");
}

#[tokio::test]
async fn what_is_changed_by_hand_shows_and_heals() {
    let space = Space::new("by-hand").await;
    let target = space.target().await;
    apply(&target, &providers(4, &[AI])).await;
    apply(&target, &servers(2, &["files"])).await;
    apply(&target, &user_keys(7, "id_1")).await;
    let all = [
        (ConfigType::Providers, 4, "sum-4".to_owned()),
        (ConfigType::McpCatalog, 2, "sum-2".to_owned()),
        (ConfigType::UserKeys, 7, "sum-7".to_owned()),
    ];
    // Known to a worker that has just started.
    assert_eq!(observed(&space.target().await).await, all);

    space.api::<Secret>().delete("provider-ai", &DeleteParams::default()).await.expect("it is deleted");
    let mut drifted = all.clone();
    drifted[0] = (ConfigType::Providers, 0, String::new());
    assert_eq!(observed(&target).await, drifted);
    apply(&target, &providers(4, &[AI])).await;
    assert_eq!(observed(&target).await, all);
    assert!(key_of(&space, "ai").await.is_some());

    let patch =
        Patch::Merge(json!({"spec": {"endpoints": [{"fqdn": {"hostname": "evil.example", "port": 443}}]}}));
    space
        .gateway("Backend")
        .patch("mcp-files", &PatchParams::default(), &patch)
        .await
        .expect("it is changed");
    assert_eq!(observed(&target).await[1], (ConfigType::McpCatalog, 0, String::new()));
    apply(&target, &servers(2, &["files"])).await;
    assert_eq!(observed(&target).await, all);

    // What somebody adds is theirs, and no drift.
    let patch = Patch::Merge(json!({"metadata": {"labels": {"team": "a"}}, "spec": {"fallback": true}}));
    space
        .gateway("Backend")
        .patch("mcp-files", &PatchParams::default(), &patch)
        .await
        .expect("it is changed");
    assert_eq!(observed(&target).await, all);
}

#[tokio::test]
async fn replicas_that_apply_at_once_end_with_everything() {
    let space = Space::new("replicas").await;
    let (one, other) = (space.target().await, space.target().await);
    for version in 1..=5 {
        let (ours, theirs) = (providers(version, &[AI]), servers(version, &["files"]));
        tokio::join!(apply(&one, &ours), apply(&other, &theirs));
        assert_eq!(space.names("Backend").await, ["mcp-files", "provider-ai"]);
    }
    assert_eq!(observed(&one).await, observed(&other).await);
}

#[tokio::test]
async fn changes_that_come_together_are_one_pass() {
    let space = Space::new("together").await;
    let target = space.target().await;
    let (a, b, c) = (providers(1, &[AI]), servers(1, &["files"]), user_keys(1, "id_1"));
    let versions = tokio::join!(apply(&target, &a), apply(&target, &b), apply(&target, &c));
    assert_eq!(versions, (1, 1, 1));
    let states = ListParams::default().labels("agentrouter/state=default");
    let states = space.api::<Secret>().list(&states).await.expect("a list").items;
    assert_eq!(states.len(), 3);
    let text = format!("{target:?}");
    assert!(!text.contains("secret"), "{text}");
}

#[tokio::test]
async fn a_lost_or_broken_record_takes_nothing_down() {
    let space = Space::new("lost-record").await;
    let target = space.target().await;
    apply(&target, &providers(1, &[AI])).await;
    apply(&target, &servers(1, &["files"])).await;
    let secrets = space.api::<Secret>();
    let records = ListParams::default().labels("agentrouter/state");
    for record in secrets.list(&records).await.expect("a list").items {
        let name = record.metadata.name.expect("a name");
        let of = record.metadata.annotations.unwrap_or_default().remove("agentrouter/of").unwrap_or_default();
        if of.starts_with("providers/") {
            let patch = Patch::Merge(json!({"data": {"desired": "/w=="}}));
            secrets.patch(&name, &PatchParams::default(), &patch).await.expect("it is broken");
        } else {
            secrets.delete(&name, &DeleteParams::default()).await.expect("it is lost");
        }
    }
    assert_eq!(observed(&target).await, []);
    apply(&target, &providers(1, &[AI])).await;
    assert_eq!(space.names("Backend").await, ["mcp-files", "provider-ai"]);
    apply(&target, &servers(2, &["docs"])).await;
    assert_eq!(space.names("Backend").await, ["mcp-docs", "provider-ai"]);
}

#[tokio::test]
async fn content_that_is_too_large_is_refused_alone() {
    let space = Space::new("too-large").await;
    let target = space.target().await;
    let long = "x".repeat(2 << 20);
    let (large, small) = (providers(1, &[(&long, "ai.example")]), servers(1, &["files"]));
    let (large, small) = tokio::join!(target.apply(&large), target.apply(&small));
    assert!(large.expect_err("no secret holds it").is_permanent());
    assert_eq!(small.map(|applied| applied.version), Ok(1));
}

#[tokio::test]
async fn a_server_that_is_away_is_no_fault_of_the_content() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("kubeconfig");
    let text = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "a", "user": {}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
    });
    std::fs::write(&path, text.to_string()).expect("a file");
    let options = Space::options_of("away");
    let access = Access::Kubeconfig { path, context: None };
    let target = KubernetesTarget::connect(&access, options).await.expect("nothing is asked yet");
    let rejected = target.apply(&providers(1, &[AI])).await.expect_err("nobody is there");
    assert!(!rejected.is_permanent());
    assert!(!rejected.message().contains("127.0.0.1"), "{rejected}");
    assert!(target.observed().await.is_err());
}
