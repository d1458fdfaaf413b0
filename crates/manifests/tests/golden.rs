//! What is rendered, byte for byte. `AGENTROUTER_WRITE_GOLDEN=1 cargo test -p agentrouter-manifests` writes the files
//! anew; what changed in them is then for a person to read.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

use std::fmt::Write;
use std::path::Path;

use agentrouter_api::configurator::{
    Credential, McpCatalogPayload, McpServerConfig, ProviderConfig, ProvidersPayload, ProxyUrlPayload,
};
use agentrouter_manifests::{
    GatewayOptions, MANAGED_BY, MANAGED_BY_LABEL, Options, Rendered, Resource, Routes, SLOT_LABEL, Snapshot,
    render, to_file,
};

fn provider(id: &str, schema: &str, base_url: &str, models: &[&str]) -> ProviderConfig {
    ProviderConfig {
        provider_id: id.to_owned(),
        schema: schema.to_owned(),
        base_url: base_url.to_owned(),
        models: models.iter().map(|model| (*model).to_owned()).collect(),
        priority: 0,
        weight: 100,
        credential: Some(Credential {
            id: format!("cred_{id}"),
            version: 1,
            value: format!("sk-{id}-canary"),
        }),
    }
}

fn server(id: &str, url: &str, requires_auth: bool) -> McpServerConfig {
    let authentication = if requires_auth { "bearer" } else { "none" }.to_owned();
    McpServerConfig {
        id: id.to_owned(),
        name: id.to_owned(),
        url: url.to_owned(),
        authentication,
        requires_auth,
    }
}

fn providers(providers: Vec<ProviderConfig>) -> Snapshot {
    Snapshot { providers: Some(ProvidersPayload { providers }), ..Snapshot::default() }
}

fn check(name: &str, rendered: &Rendered) {
    let mut text = to_file(&rendered.resources).unwrap();
    for rejection in &rendered.rejected {
        writeln!(text, "# {}: {}", rejection.resource, rejection.reason).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("AGENTROUTER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{name} is not what it was");
}

#[test]
fn nothing() {
    check("nothing.yaml", &render(&Snapshot::default(), &Options::default()));
}

#[test]
fn every_schema() {
    let mut no_key = provider("local", "openai", "http://127.0.0.1:11434/v1", &["llama3"]);
    no_key.credential = None;
    let mut bedrock =
        provider("bedrock-no-key", "aws_bedrock", "https://bedrock-runtime.eu-west-1.amazonaws.com", &["b"]);
    bedrock.credential = None;
    let snapshot = providers(vec![
        provider("anthropic", "anthropic", "https://api.anthropic.com", &["claude"]),
        provider(
            "azure",
            "azure_openai",
            "https://acme.openai.azure.com?api-version=2025-01-01",
            &["gpt-az"],
        ),
        provider("bedrock", "aws_bedrock", "https://bedrock-runtime.us-east-1.amazonaws.com", &["nova"]),
        bedrock,
        provider("cohere", "cohere", "https://api.cohere.com", &["rerank"]),
        provider("cohere-chat", "cohere", "https://api.cohere.com/compatibility/v1", &["command"]),
        no_key,
        provider("newer", "something_new", "https://a.example", &["n"]),
        provider("no-models", "openai", "https://a.example", &[]),
        provider("no-url", "openai", "not a url", &["m"]),
        provider("openai", "openai", "https://api.openai.com/v1", &["gpt-4o", "gpt-4o-mini", "gpt-4o"]),
        provider("query", "openai", "https://a.example/v1?x=y", &["m"]),
        provider("vertex", "gcp_vertex_ai", "https://europe-west1-aiplatform.googleapis.com", &["gemini"]),
    ]);
    check("schemas.yaml", &render(&snapshot, &Options::default()));
}

#[test]
fn models_of_several_providers() {
    let with = |id: &str, priority, weight, models: &[&str]| ProviderConfig {
        priority,
        weight,
        ..provider(id, "openai", &format!("https://{id}.example/v1"), models)
    };
    let snapshot = providers(vec![
        with("a", 10, 3, &["both", "split", "only-a"]),
        with("b", 700_000, 1, &["both"]),
        with("c", 10, 1, &["split"]),
    ]);
    check("several.yaml", &render(&snapshot, &Options::default()));
}

#[test]
fn mcp_and_public_url() {
    let servers = vec![
        server("docs", "http://mcp.internal:8080/", false),
        server("github", "https://api.githubcopilot.com/mcp", true),
        server("query", "https://a.example/mcp?token=x", false),
    ];
    let snapshot = Snapshot {
        mcp_catalog: Some(McpCatalogPayload { servers }),
        proxy_url: Some(ProxyUrlPayload { url: "https://ai.example.com".to_owned() }),
        ..Snapshot::default()
    };
    check("mcp.yaml", &render(&snapshot, &Options::default()));
}

#[test]
fn a_gateway_that_is_there() {
    let gateway = GatewayOptions::Existing { name: "edge".to_owned(), namespace: Some("infra".to_owned()) };
    let options = Options { namespace: "ai".to_owned(), gateway, ..Options::default() };
    let snapshot = providers(vec![provider("openai", "openai", "https://api.openai.com/v1", &["gpt-4o"])]);
    check("existing.yaml", &render(&snapshot, &options));
}

#[test]
fn many_models_take_several_routes() {
    let models: Vec<String> = (0..40).map(|number| format!("model-{number:02}")).collect();
    let models: Vec<&str> = models.iter().map(String::as_str).collect();
    let rendered =
        render(&providers(vec![provider("p", "openai", "https://a.example", &models)]), &Options::default());
    let rules = rendered.resources.iter().filter_map(|resource| match resource {
        Resource::AIGatewayRoute(route) => Some((route.metadata.name.as_str(), route.spec.rules.len())),
        _ => None,
    });
    assert_eq!(rules.collect::<Vec<_>>(), [("models-p", 15), ("models-p--1", 15), ("models-p--2", 10)]);
}

#[test]
fn few_routes_where_all_are_read_at_once() {
    let all = (0..40).map(|number| {
        let (id, model) = (format!("p{number}"), format!("model-{number:02}"));
        provider(&id, "openai", "https://a.example", &[&model])
    });
    let snapshot = providers(all.collect());
    let names = |routes| {
        let rendered = render(&snapshot, &Options { routes, ..Options::default() });
        let routes = rendered.resources.into_iter().filter(|resource| resource.kind() == "AIGatewayRoute");
        routes.map(|route| route.metadata().name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(Routes::Few), ["models", "models--1", "models--2"]);
    assert_eq!(names(Routes::Steady).len(), 40);
}

#[test]
fn hostile_ids_become_labels() {
    let long = "a".repeat(63);
    let ids =
        ["../../etc", "A", "a", "a b", "$HOME", "---\nkind: Secret", "日本", "", &long, "a--b", "\u{1b}[2J"];
    let credential = Some(Credential { value: "sk".to_owned(), ..Credential::default() });
    let all = ids.iter().map(|id| ProviderConfig {
        credential: credential.clone(),
        ..provider(id, "openai", "https://a.example/v1", &["m"])
    });
    let all = all.collect();
    let servers = ids.iter().map(|id| server(id, "http://a.example", true)).collect();
    let mut snapshot = providers(all);
    snapshot.mcp_catalog = Some(McpCatalogPayload { servers });
    let rendered = render(&snapshot, &Options::default());
    assert_eq!(rendered.rejected, []);
    let mut seen = std::collections::BTreeSet::new();
    for resource in &rendered.resources {
        let metadata = resource.metadata();
        let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &metadata.name;
        assert!((1..=63).contains(&name.len()) && name.chars().all(fit), "{name}");
        assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
        assert!(seen.insert((resource.kind(), name.clone())), "{name} stands for two");
        assert_eq!(metadata.labels[MANAGED_BY_LABEL], MANAGED_BY);
        assert!(metadata.labels.contains_key(SLOT_LABEL));
        assert!(Resource::KINDS.iter().any(|kind| {
            *kind
                == (resource.api_version(), resource.kind(), resource.plural(), metadata.namespace.is_some())
        }));
    }
    assert_eq!(render(&snapshot, &Options::default()), rendered);
}

#[test]
fn providers_with_addresses_share_no_model() {
    let with = |id: &str, host: &str, priority, models: &[&str]| ProviderConfig {
        priority,
        ..provider(id, "openai", &format!("http://{host}/v1"), models)
    };
    let rendered = render(
        &providers(vec![
            with("a", "10.0.0.1", 2, &["m"]),
            with("b", "b.example", 1, &["m"]),
            with("c", "10.0.0.1", 1, &["n"]),
            with("d", "d.example", 9, &["n", "m"]),
            with("e", "127.0.0.1:8000", 9, &["m"]),
        ]),
        &Options::default(),
    );
    let rejected: Vec<_> = rendered.rejected.iter().map(|rejection| rejection.resource.as_str()).collect();
    assert_eq!(rejected, ["a", "d"]);
    assert!(rendered.rejected.iter().all(|rejection| rejection.reason.contains("use host names")));
}

#[test]
fn secrets_are_not_shown() {
    let snapshot = providers(vec![provider("openai", "openai", "https://api.openai.com/v1", &["gpt-4o"])]);
    let rendered = render(&snapshot, &Options::default());
    assert!(to_file(&rendered.resources).unwrap().contains("sk-openai-canary"));
    assert!(!format!("{rendered:?} {snapshot:?}").contains("canary"));
}

#[test]
fn keys_that_no_header_takes_are_refused() {
    let mut bad = provider("bad", "openai", "https://a.example", &["m"]);
    bad.credential = Some(Credential { value: "sk\r\nx-evil: 1".to_owned(), ..Credential::default() });
    let rendered = render(&providers(vec![bad]), &Options::default());
    assert_eq!(rendered.rejected.len(), 1);
    assert!(!rendered.resources.iter().any(|resource| resource.kind() == "AIGatewayRoute"));
}
