//! A secret is shown once, to whom it is given, and kept where nobody reads it: no answer, error, audit entry, log
//! line or row holds it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;
mod surface;

mod secrets {
    pub(crate) mod needle;
}

use std::io::Write;
use std::sync::{Arc, LazyLock, Mutex};

use agentrouter::config::Secrets;
use agentrouter::server::{self, Running};
use agentrouter_envelope::{Aad, Keyring, Secret};
use agentrouter_storage::{Target, query};
use agentrouter_testkit::{TestDb, on_both_engines};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use secrets::needle::{Haystack, Needle};
use serde_json::{Value, json};
use surface::client::{Client, Outcome, told};
use surface::dump::Reader;
use surface::table::RPCS;
use surface::tenant::{Caller, Form, Names, Tenant};
use tonic::Code;
use tonic::transport::Endpoint;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

on_both_engines!(no_secret_is_shown_again);

/// What the server logs, at every level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

/// One for the process, as logging is.
static LOG: LazyLock<Log> = LazyLock::new(|| {
    let log = Log::default();
    let filter = EnvFilter::new("off,agentrouter=trace,sqlx=trace,tonic=trace,tower=trace,axum=trace");
    let json = tracing_subscriber::fmt().json().with_current_span(true).with_span_list(true);
    json.with_env_filter(filter).with_writer(log.clone()).init();
    log
});

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// A server whose own secrets are known, too.
struct World {
    running: Running,
    client: Client,
    test_db: TestDb,
    data_dir: tempfile::TempDir,
    bootstrap_key: String,
    tenant: Tenant,
}

impl World {
    async fn new(test_db: TestDb) -> Self {
        let data_dir = tempfile::tempdir().unwrap();
        let bootstrap_key = canary("bootstrap");
        let mut config = common::config(data_dir.path(), test_db.target.clone());
        // The key-encryption key is made by the server.
        config.secrets = Secrets { bootstrap_key: Some(Secret::new(&bootstrap_key)), keyring: None };
        let running = server::start(config).await.unwrap();
        let url = format!("http://{}", running.address);
        let client = Client(Endpoint::new(url).unwrap().connect().await.unwrap());
        let names = Names { customer: "acme", suffix: "" };
        let tenant = Tenant::create(&client, &bootstrap_key, names).await;
        Self { running, client, test_db, data_dir, bootstrap_key, tenant }
    }

    /// The secrets of the installation.
    async fn own_secrets(&self) -> Vec<Needle> {
        let kek = std::fs::read_to_string(self.data_dir.path().join("kek")).unwrap();
        let (_, bytes) = kek.trim().split_once(':').unwrap();
        let keyring = Keyring::parse(&kek).unwrap();
        let mut needles = vec![
            Needle::of_text("the bootstrap key", &self.bootstrap_key),
            Needle::of_bytes("the key-encryption key", &STANDARD.decode(bytes).unwrap()),
        ];
        let names: Vec<String> =
            query("SELECT name AS value FROM server_secrets").values(&self.test_db.db).await.unwrap();
        for name in names.iter().filter(|name| *name != "kek-check") {
            const SEALED: &str = "SELECT sealed AS value FROM server_secrets WHERE name = $1";
            let sealed: Vec<u8> = query(SEALED).bind(name).value(&self.test_db.db).await.unwrap().unwrap();
            let plain = keyring.open(&Aad::new("server-secret").with(name), &sealed).unwrap();
            // A signing key is a PKCS #8 document, which ends with the public half or holds none.
            let secret = if plain.expose().len() > 32 { &plain.expose()[16..48] } else { plain.expose() };
            needles.push(Needle::of_bytes(name, secret));
        }
        assert_eq!(needles.len(), 4, "{names:?}");
        needles
    }
}

fn canary(what: &str) -> String {
    let random = u128::from_be_bytes(agentrouter_envelope::random_bytes().unwrap());
    format!("{what}-{random:032x}")
}

async fn no_secret_is_shown_again(db: TestDb) {
    LazyLock::force(&LOG);
    let world = World::new(db).await;
    let mut answers = Vec::new();
    let mut needles = world.own_secrets().await;
    needles.extend(world.tenant.secrets.iter().map(|(what, secret)| Needle::of_text(what, secret)));
    // What the requests of the table bring.
    needles.push(Needle::of_text("a key that somebody brings", "a key of the own"));
    needles.push(Needle::of_text("a password that an admin submits", "the password of the table"));

    mistakes(&world, &mut answers, &mut needles).await;
    mistakes_over_rest(&world, &mut answers, &mut needles).await;
    for rpc in RPCS {
        for (who, outcome) in world.tenant.call_as_everybody(&world.client, rpc).await {
            let outcome = outcome.map(|answer| without_disclosed(rpc.name, &who, answer, &mut needles));
            answers.push(format!("{} {who}: {}", rpc.name, told(&outcome)));
        }
    }
    let audit = json!({"customer_id": "acme", "page": {"page_size": 1000}});
    let audit = world.client.ask("AuditService/ListAuditEntries", &audit, &world.bootstrap_key).await;
    assert!(audit["audit_entries"].as_array().unwrap().len() > 100, "{audit}");
    answers.push(audit.to_string());
    assert!(
        answers.len() > 1_000 && needles.len() > 20,
        "{} answers, {} secrets",
        answers.len(),
        needles.len()
    );

    for answer in &answers {
        hidden("an answer", answer.as_bytes(), &needles);
    }
    let rows: Vec<u8> = Reader::new(&world.test_db.db).await.everything().await.into_text().into();
    assert!(String::from_utf8_lossy(&rows).contains(&world.tenant.canary), "what is no secret is found");
    hidden("the database", &rows, &needles);
    if let Target::Sqlite(path) = &world.test_db.target {
        for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            hidden(&path.display().to_string(), &std::fs::read(&path).unwrap(), &needles);
        }
    }
    world.running.stop().await.unwrap();
    let log = LOG.0.lock().unwrap().clone();
    let lines = log.split(|byte| *byte == b'\n').count();
    assert!(
        lines > 1_000 && String::from_utf8_lossy(&log).contains("request served"),
        "{lines} lines of log"
    );
    hidden("the log", &log, &needles);
}

#[track_caller]
fn hidden(place: &str, bytes: &[u8], needles: &[Needle]) {
    let haystack = Haystack::new(bytes);
    let found: Vec<_> = needles.iter().filter_map(|needle| needle.find(&haystack)).collect();
    let text = String::from_utf8_lossy(bytes);
    assert!(found.is_empty(), "{place} shows {found:?}: {}", text.chars().take(2_000).collect::<String>());
}

/// An answer without what it is there to disclose, which is a secret from then on.
fn without_disclosed(name: &str, who: &str, mut answer: Value, needles: &mut Vec<Needle>) -> Value {
    let field = match name {
        "ApiKeysService/CreateApiKey" | "ApiKeysService/RotateApiKey" => "key",
        "SessionsService/CreateSession"
        | "WorkspacesService/IssueWorkspaceToken"
        | "WorkspacesService/RenewWorkspaceToken" => "token",
        "WebhooksService/CreateWebhook" | "WebhooksService/RotateWebhookSecret" => "secret",
        // Workers need the keys of providers, and nobody else gets them.
        "ConfiguratorService/GetConfiguration" if matches!(who, "Rightful" | "Workspace" | "Sibling") => {
            let providers = answer["configurations"][0]["providers"]["providers"].as_array_mut().unwrap();
            assert_eq!(providers.len(), 2);
            for provider in providers {
                let value = provider["credential"]["value"].take();
                assert!(value.as_str().unwrap().starts_with("sk-"), "{provider}");
            }
            return answer;
        }
        // So do they need logins to registries.
        "ConfiguratorService/FetchDataplaneUpgradeCredentials" if matches!(who, "Rightful" | "Workspace") => {
            let password = answer["credentials"][0]["password"].take();
            needles.push(Needle::of_text("the password of the table", password.as_str().unwrap()));
            return answer;
        }
        _ => return answer,
    };
    let disclosed = answer[field].take();
    needles.push(Needle::of_text(&format!("what {name} disclosed to {who}"), disclosed.as_str().unwrap()));
    answer
}

/// Requests with a secret in them that are refused, each for another reason, and two that are not.
async fn mistakes(world: &World, answers: &mut Vec<String>, needles: &mut Vec<Needle>) {
    let admin = world.tenant.token(Caller::Admin);
    let event = world.tenant.name("$event", Form::Id);
    let good =
        json!({"customer_id": "acme", "schema": "PROVIDER_SCHEMA_OPENAI", "base_url": "https://a.example"});
    let with = |changes: Value| {
        let mut request = good.clone();
        request.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        request
    };
    let mut call = async |name: &str, request: Value, token: &str, expected: Option<Code>| {
        let outcome: Outcome =
            world.client.call_with(name, &request, Some(token), &[("idempotency-key", "the-same")]).await;
        assert_eq!(
            outcome.as_ref().err().map(|refusal| refusal.code),
            expected,
            "{name} {request}: {outcome:?}"
        );
        answers.push(format!("{name}: {}", told(&outcome)));
    };
    let mut secret = |what: &str| {
        let secret = canary("sk");
        needles.push(Needle::of_text(what, &secret));
        secret
    };
    let (create, update) = ("ProvidersService/CreateProvider", "ProvidersService/UpdateProvider");
    for (what, changes) in [
        ("a key beside wrong fields", json!({"provider_id": "Wrong", "base_url": "ftp://a", "weight": -1})),
        ("a key of a provider that exists", json!({"provider_id": "first"})),
        ("a key for a customer that does not exist", json!({"provider_id": "new", "customer_id": "nobody"})),
    ] {
        let expected = match what {
            "a key of a provider that exists" => Code::AlreadyExists,
            "a key for a customer that does not exist" => Code::NotFound,
            _ => Code::InvalidArgument,
        };
        let mut request = with(changes);
        request["api_key"] = json!(secret(what));
        call(create, request, admin, Some(expected)).await;
    }
    let unprintable = format!("{}\u{7}", secret("an unprintable key"));
    call(
        create,
        with(json!({"provider_id": "new", "api_key": unprintable})),
        admin,
        Some(Code::InvalidArgument),
    )
    .await;
    let long = format!("{}{}", secret("a key that is too long"), "x".repeat(20_000));
    call(create, with(json!({"provider_id": "new", "api_key": long})), admin, Some(Code::InvalidArgument))
        .await;
    let stored = json!({"provider_id": "stored", "enabled": false, "api_key": secret("a stored key")});
    call(create, with(stored), admin, None).await;
    let other = json!({"provider_id": "stored", "api_key": secret("a key with a used idempotency key")});
    call(create, with(other), admin, Some(Code::Aborted)).await;
    let masked = json!({
        "customer_id": "acme", "provider_id": "stored", "update_mask": "nothing", "api_key": secret("a masked key"),
    });
    call(update, masked, admin, Some(Code::InvalidArgument)).await;
    let rotated = json!({"customer_id": "acme", "provider_id": "stored", "api_key": secret("a new key")});
    call(update, rotated, admin, None).await;
    let denied = json!({"customer_id": "acme", "provider_id": "stored", "api_key": secret("a viewer's key")});
    call(update, denied, world.tenant.token(Caller::Viewer), Some(Code::PermissionDenied)).await;

    let exchange = json!({"oidc_token": secret("a token of another issuer")});
    call("SessionsService/CreateSession", exchange, admin, Some(Code::InvalidArgument)).await;
    let upgrade = world.tenant.name("$upgrade", Form::Id);
    let submit = "ConfiguratorService/SubmitDataplaneUpgradeCredentials";
    for (what, upgrade, slot, registry, expected) in [
        ("a login for an event that is no upgrade", &event, "chart", "r.example", Code::NotFound),
        ("a login for another slot", &upgrade, "images", "r.example", Code::InvalidArgument),
        ("a login beside a wrong field", &upgrade, "chart", "", Code::InvalidArgument),
    ] {
        let login = json!({"slot": slot, "registry": registry, "username": "u", "password": secret(what)});
        let login = json!({"upgrade_event_id": upgrade, "credentials": [login]});
        call(submit, login, admin, Some(expected)).await;
    }

    let own = &world.tenant.secrets[0].1;
    for token in
        [secret("a wrong credential"), format!("ey{}.e30.e30", secret("a wrong token")), format!("{own}x")]
    {
        call("SessionsService/WhoAmI", json!({}), &token, Some(Code::Unauthenticated)).await;
    }
    // A secret where the id of its row belongs is not repeated.
    for (name, field) in
        [("ApiKeysService/GetApiKey", "api_key_id"), ("ApiKeysService/RevokeApiKey", "api_key_id")]
    {
        call(name, json!({"customer_id": "acme", field: own}), admin, Some(Code::InvalidArgument)).await;
    }
    call("SessionsService/RevokeSession", json!({"session_id": own}), admin, Some(Code::InvalidArgument))
        .await;
}

/// The same over REST, where the server reads the JSON itself.
async fn mistakes_over_rest(world: &World, answers: &mut Vec<String>, needles: &mut Vec<Needle>) {
    let http = reqwest::Client::new();
    let admin = format!("Bearer {}", world.tenant.token(Caller::Admin));
    let secret = canary("sk");
    let providers = format!("http://{}/v1/customers/acme/providers", world.running.address);
    for (method, url, authorization, body, status) in [
        (Method::POST, providers.clone(), &admin, format!(r#"{{"api_key": "{secret}",}}"#), 400),
        (Method::POST, providers.clone(), &admin, format!(r#"{{"api_key": "{secret}"#), 400),
        (Method::POST, providers.clone(), &admin, format!(r#"{{"api_key": ["{secret}"]}}"#), 400),
        (Method::POST, providers.clone(), &admin, format!(r#"{{"api_key": {{"value": "{secret}"}}}}"#), 400),
        (Method::POST, providers.clone(), &admin, format!(r#"{{"api_key": "{secret}", "models": 7}}"#), 400),
        (Method::POST, providers.clone(), &admin, secret.clone(), 400),
        (Method::GET, format!("{providers}?api_key={secret}"), &admin, String::new(), 400),
        (Method::GET, providers.clone(), &format!("Bearer {secret}"), String::new(), 401),
        (Method::GET, providers.clone(), &format!("Basic {secret}"), String::new(), 401),
    ] {
        let request = http.request(method, &url).header("authorization", authorization).body(body.clone());
        let response = request.header("content-type", "application/json").send().await.unwrap();
        assert_eq!(response.status(), status, "{body}");
        answers.push(format!(
            "{body:.12}: {:?} {}",
            response.headers().clone(),
            response.text().await.unwrap()
        ));
    }
    needles.push(Needle::of_text("a key sent over REST", &secret));
}
