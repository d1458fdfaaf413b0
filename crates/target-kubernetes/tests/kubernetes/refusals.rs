//! What the cluster does not take.

use std::time::Duration;

use agentrouter_api::configurator::ConfigType;
use agentrouter_liaison::Target;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use serde_json::{Value, json};

use crate::apply::{apply, observed};
use crate::content::{providers, servers};
use crate::server::Space;

/// What the cluster says when it refuses.
const REFUSED: &str = "not in this house";

/// Has the cluster refuse objects of a namespace, by an expression that is true for those it takes.
async fn refuse(space: &Space, plural: &str, expression: &str) {
    let name = &space.name;
    let rule = json!({
        "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [plural],
    });
    let policy = json!({"metadata": {"name": name}, "spec": {
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": expression, "message": REFUSED}],
    }});
    space.create(&space.all::<ValidatingAdmissionPolicy>(), policy).await;
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let binding = json!({"metadata": {"name": name}, "spec": {
        "policyName": name, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": selector},
    }});
    space.create(&space.all::<ValidatingAdmissionPolicyBinding>(), binding).await;
}

/// Waits until the policy is in force: an object that it refuses is tried without being kept.
async fn until_refused(space: &Space, kind: &str, object: Value) {
    let api = space.gateway(kind);
    let object: kube::api::DynamicObject = serde_json::from_value(object).expect("an object");
    let how = kube::api::PostParams { dry_run: true, ..Default::default() };
    for _ in 0..300 {
        // Nothing else that may fail meanwhile says so.
        let refused = api.create(&how, &object).await.err();
        if refused.is_some_and(|error| error.to_string().contains(REFUSED)) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the policy is not enforced");
}

fn backend(host: &str) -> Value {
    json!({
        "apiVersion": "gateway.envoyproxy.io/v1alpha1", "kind": "Backend", "metadata": {"name": "probe"},
        "spec": {"endpoints": [{"fqdn": {"hostname": host, "port": 443}}]},
    })
}

#[tokio::test]
async fn a_refused_part_keeps_its_last_good_state() {
    let space = Space::new("refused-part").await;
    let target = space.target().await;
    apply(&target, &providers(1, &[("ai", "ai.example"), ("bee", "bee.example")])).await;
    refuse(&space, "backends", "!object.spec.endpoints[0].fqdn.hostname.startsWith('bad')").await;
    until_refused(&space, "Backend", backend("bad.example")).await;

    // One part is refused, one changes, one is new and one is new and refused.
    let next = [("ai", "bad.example"), ("bee", "b.example"), ("cat", "cat.example"), ("dog", "bad.example")];
    let applied = target.apply(&providers(2, &next)).await.expect("the good part is applied");
    assert_eq!(applied.version, 2);
    let resources: Vec<_> = applied.resources.iter().map(|it| (it.resource.as_str(), it.applied)).collect();
    assert_eq!(resources, [("ai", false), ("dog", false)]);
    assert!(applied.resources[0].reason.contains(REFUSED), "{applied:?}");

    let host = |name: &'static str| {
        let api = space.gateway("Backend");
        async move {
            let object = api.get(name).await.expect("a backend");
            object.data["spec"]["endpoints"][0]["fqdn"]["hostname"].as_str().map(str::to_owned)
        }
    };
    assert_eq!(host("provider-ai").await.as_deref(), Some("ai.example"));
    assert_eq!(host("provider-bee").await.as_deref(), Some("b.example"));
    assert_eq!(host("provider-cat").await.as_deref(), Some("cat.example"));
    let all = ["provider-ai", "provider-bee", "provider-cat"];
    for kind in ["Backend", "AIServiceBackend", "BackendSecurityPolicy", "BackendTLSPolicy"] {
        assert_eq!(space.names(kind).await, all, "{kind}");
    }
    assert_eq!(space.names("AIGatewayRoute").await, ["models-ai", "models-bee", "models-cat"]);

    // It is settled: not drift, and not forgotten with the change of another slot.
    let slots = [(ConfigType::Providers, 2, "sum-2".to_owned())];
    assert_eq!(observed(&space.target().await).await, slots);
    apply(&target, &servers(1, &["files"])).await;
    assert_eq!(host("provider-ai").await.as_deref(), Some("ai.example"));
    assert_eq!(observed(&target).await[0], slots[0]);
}

#[tokio::test]
async fn what_is_of_no_part_alone_refuses_the_slot() {
    let space = Space::new("refused-slot").await;
    let target = space.target().await;
    apply(&target, &servers(1, &["a", "b"])).await;
    refuse(&space, "mcproutes", "object.spec.backendRefs.size() < 3").await;
    let route = json!({
        "apiVersion": "aigateway.envoyproxy.io/v1beta1", "kind": "MCPRoute", "metadata": {"name": "probe"},
        "spec": {"backendRefs": [{}, {}, {}]},
    });
    until_refused(&space, "MCPRoute", route).await;

    let rejected = target.apply(&servers(2, &["a", "b", "c"])).await.expect_err("three are too many");
    assert!(rejected.is_permanent());
    assert!(rejected.message().contains(REFUSED), "{rejected}");
    assert_eq!(space.names("Backend").await, ["mcp-a", "mcp-b"]);
    assert_eq!(observed(&target).await, [(ConfigType::McpCatalog, 1, "sum-1".to_owned())]);
    apply(&target, &providers(1, &[("ai", "ai.example")])).await;
    assert_eq!(space.names("Backend").await, ["mcp-a", "mcp-b", "provider-ai"]);
    assert_eq!(apply(&target, &servers(3, &["c"])).await, 3);
}

#[tokio::test]
async fn what_cannot_be_rendered_keeps_its_last_good_state() {
    let space = Space::new("not-rendered").await;
    let target = space.target().await;
    apply(&target, &providers(1, &[("ai", "ai.example")])).await;
    let applied = target.apply(&providers(2, &[("ai", "ai.example/v1?x=y#"), ("bee", "bee.example")])).await;
    let applied = applied.expect("the good part is applied");
    assert_eq!(applied.resources.iter().map(|it| it.resource.as_str()).collect::<Vec<_>>(), ["ai"]);
    assert_eq!(space.names("Backend").await, ["provider-ai", "provider-bee"]);
}

#[tokio::test]
async fn what_the_cluster_writes_in_its_own_way_is_no_drift() {
    let space = Space::new("own-way").await;
    let name = &space.name;
    let dynamic = |kind: &str, plural: &str| {
        let resource = kube::api::ApiResource {
            group: "admissionregistration.k8s.io".to_owned(),
            version: "v1".to_owned(),
            api_version: "admissionregistration.k8s.io/v1".to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        kube::Api::<kube::api::DynamicObject>::all_with(space.client.clone(), &resource)
    };
    let rule = json!({
        "apiGroups": ["*"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": ["backends"],
    });
    let expression = "[JSONPatch{op: 'replace', path: '/spec/endpoints/0/fqdn/port', value: 8443}]";
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [rule]}, "reinvocationPolicy": "Never", "failurePolicy": "Fail",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": expression}}],
        },
    });
    space.create(&dynamic("MutatingAdmissionPolicy", "mutatingadmissionpolicies"), policy).await;
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "matchResources": {"namespaceSelector": selector}},
    });
    space
        .create(&dynamic("MutatingAdmissionPolicyBinding", "mutatingadmissionpolicybindings"), binding)
        .await;
    let backends = space.gateway("Backend");
    let how = kube::api::PostParams { dry_run: true, ..Default::default() };
    let probe: kube::api::DynamicObject = serde_json::from_value(backend("ai.example")).expect("an object");
    let mut tries = 0;
    while backends.create(&how, &probe).await.expect("it is taken").data["spec"]["endpoints"][0]["fqdn"]["port"]
        != 8443
    {
        tries += 1;
        assert!(tries < 300, "the policy is not in force");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }

    let target = space.target().await;
    apply(&target, &providers(1, &[("ai", "ai.example")])).await;
    let slots = [(ConfigType::Providers, 1, "sum-1".to_owned())];
    assert_eq!(observed(&target).await, slots);
}
