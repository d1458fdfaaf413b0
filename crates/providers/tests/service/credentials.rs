//! API keys: sealed, versioned, and never shown.

use std::io::Write;
use std::sync::{Arc, Mutex};

use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_api::providers::{CreateProviderRequest, UpdateProviderRequest};
use agentrouter_envelope::{Kek, Keyring};
use agentrouter_kernel::id::{self, Credential, Id};
use agentrouter_providers::Providers;
use agentrouter_rpc::credential::provider_credential_aad;
use agentrouter_storage::{Target, query, row};
use agentrouter_testkit::{TestDb, call, on_both_engines, request, violations};
use tracing_subscriber::fmt::MakeWriter;

use crate::{Tenant, mask};

on_both_engines!(
    a_new_value_is_a_new_version,
    the_same_value_is_no_change,
    a_removed_key_is_gone,
    a_key_is_removed_by_name_only,
    a_value_opens_where_it_belongs_only,
    a_value_that_does_not_open_can_be_replaced,
    a_key_is_shown_nowhere,
);

row! {
    #[derive(Debug, Clone, PartialEq)]
    struct Stored {
        id: Id<Credential>,
        provider_id: Id<id::Provider>,
        version: i64,
        sealed: Vec<u8>,
    }
}

impl Tenant<'_> {
    async fn create_with_key(&self, provider_id: &str, api_key: &str) {
        let message = CreateProviderRequest { api_key: api_key.to_owned(), ..self.openai(provider_id) };
        assert!(self.create(message).await.unwrap().into_inner().has_api_key);
    }

    /// Sets the key and returns the etag.
    async fn set_key(&self, provider_id: &str, api_key: &str) -> String {
        let change = UpdateProviderRequest { api_key: Some(api_key.to_owned()), ..self.change(provider_id) };
        let updated = self.update(change).await.unwrap().into_inner();
        assert!(updated.has_api_key);
        updated.etag
    }

    async fn stored(&self) -> Option<Stored> {
        const STORED: &str =
            "SELECT id, provider_id, version, sealed FROM credentials WHERE customer_id = $1";
        query(STORED).bind(self.id).optional(&self.db.db).await.unwrap()
    }

    /// The stored key in plain.
    async fn opened(&self) -> String {
        let stored = self.stored().await.unwrap();
        let aad = provider_credential_aad(self.id, stored.provider_id, stored.id);
        let value = self.db.deps().keyring.open(&aad, &stored.sealed).unwrap();
        value.into_text().unwrap().expose().to_owned()
    }

    /// Which credential, in which version, data planes are told to use.
    async fn delivered_credential(&self) -> Option<(String, i64)> {
        let (_, delivered) = self.delivered_providers().await;
        delivered[0].credential.as_ref().map(|credential| {
            assert_eq!(credential.value, "");
            (credential.id.clone(), credential.version)
        })
    }
}

async fn a_new_value_is_a_new_version(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create(acme.openai("openai")).await.unwrap();
    assert_eq!(acme.delivered_credential().await, None);
    assert_eq!(acme.set_key("openai", "sk-1").await, "r2");
    let first = acme.stored().await.unwrap();
    assert_eq!((first.version, acme.opened().await.as_str()), (1, "sk-1"));
    assert_eq!(acme.delivered_credential().await, Some((first.id.to_string(), 1)));

    assert_eq!(acme.set_key("openai", "sk-2").await, "r3");
    let second = acme.stored().await.unwrap();
    assert_eq!((second.id, second.version, acme.opened().await.as_str()), (first.id, 2, "sk-2"));
    assert_eq!(acme.delivered_credential().await, Some((first.id.to_string(), 2)));
    assert_eq!(acme.delivered_providers().await.0, 3);
}

async fn the_same_value_is_no_change(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_with_key("openai", "sk-1").await;
    let before = acme.stored().await;
    assert_eq!(acme.set_key("openai", "sk-1").await, "r1");
    assert_eq!(acme.stored().await, before);
    assert_eq!(acme.delivered_providers().await.0, 1);
    // Not even together with another change.
    let change = UpdateProviderRequest {
        api_key: Some("sk-1".to_owned()),
        priority: Some(2),
        ..acme.change("openai")
    };
    assert_eq!(acme.update(change).await.unwrap().into_inner().etag, "r2");
    assert_eq!(acme.stored().await, before);
}

async fn a_removed_key_is_gone(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_with_key("openai", "sk-1").await;
    let first = acme.stored().await.unwrap();
    let removal = UpdateProviderRequest {
        api_key: Some(String::new()),
        update_mask: Some(mask(&["api_key"])),
        ..acme.change("openai")
    };
    let removed = acme.update(removal.clone()).await.unwrap().into_inner();
    assert_eq!((removed.has_api_key, removed.etag.as_str()), (false, "r2"));
    assert_eq!(acme.stored().await, None);
    assert_eq!(acme.delivered_credential().await, None);
    // There is nothing left to remove.
    assert_eq!(acme.update(removal).await.unwrap().into_inner(), removed);
    // A key that comes back is another credential, so that no data plane takes it for the old one.
    acme.set_key("openai", "sk-1").await;
    let second = acme.stored().await.unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(second.version, 1);
}

async fn a_key_is_removed_by_name_only(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_with_key("openai", "sk-1").await;
    let empty = UpdateProviderRequest { api_key: Some(String::new()), ..acme.change("openai") };
    assert_eq!(violations(acme.update(empty.clone()).await), ["api_key"]);
    // What a client sends that replaces the whole resource by what it read.
    let whole = UpdateProviderRequest {
        schema: Some(2),
        base_url: Some("https://api.example".to_owned()),
        update_mask: Some(mask(&["*"])),
        ..acme.change("openai")
    };
    assert!(acme.update(whole.clone()).await.unwrap().into_inner().has_api_key);
    let empty = UpdateProviderRequest { api_key: Some(String::new()), ..whole.clone() };
    assert_eq!(violations(acme.update(empty).await), ["api_key"]);
    // A mask that does not name the key leaves a present one alone.
    let other = UpdateProviderRequest {
        api_key: Some("sk-2".to_owned()),
        update_mask: Some(mask(&["priority"])),
        ..acme.change("openai")
    };
    acme.update(other).await.unwrap();
    assert_eq!(acme.opened().await, "sk-1");
    let whole = UpdateProviderRequest { api_key: Some("sk-2".to_owned()), ..whole };
    acme.update(whole).await.unwrap();
    assert_eq!(acme.opened().await, "sk-2");
    // An absent value under its name is a cleared one.
    let cleared = UpdateProviderRequest { update_mask: Some(mask(&["api_key"])), ..acme.change("openai") };
    assert!(!acme.update(cleared).await.unwrap().into_inner().has_api_key);
}

async fn a_value_opens_where_it_belongs_only(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.create_with_key("openai", "sk-1").await;
    let stored = acme.stored().await.unwrap();
    let ring = db.deps().keyring;
    let other_provider = Id::from_uuid(stored.id.uuid());
    let other_credential = Id::from_uuid(stored.provider_id.uuid());
    for aad in [
        provider_credential_aad(globex.id, stored.provider_id, stored.id),
        provider_credential_aad(acme.id, other_provider, stored.id),
        provider_credential_aad(acme.id, stored.provider_id, other_credential),
    ] {
        assert!(ring.open(&aad, &stored.sealed).is_err());
    }
}

async fn a_value_that_does_not_open_can_be_replaced(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let lost = Keyring::new(vec![Kek::new("lost", &[9; 32]).unwrap()]).unwrap();
    let mut deps = db.deps();
    deps.keyring = Arc::new(lost);
    let message = CreateProviderRequest { api_key: "sk-1".to_owned(), ..acme.openai("openai") };
    Providers::new(deps).create_provider(request(call(&acme.admin), message)).await.unwrap();
    acme.set_key("openai", "sk-1").await;
    assert_eq!(acme.stored().await.unwrap().version, 2);
    assert_eq!(acme.opened().await, "sk-1");
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

async fn a_key_is_shown_nowhere(db: TestDb) {
    const KEYS: [&str; 3] = ["sk-first-SECRET", "sk-second-SECRET", "sk-refused-SECRET\u{0}"];
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone()).finish();
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::info!("the log is read");

    let acme = Tenant::new(&db, "acme").await;
    let mut shown = Vec::new();
    let mut keyed = call(&acme.admin);
    keyed.idempotency_key = Some("once".to_owned());
    let message = CreateProviderRequest { api_key: KEYS[0].to_owned(), ..acme.openai("openai") };
    for call in [keyed.clone(), keyed.clone(), call(&acme.admin)] {
        shown.push(format!("{:?}", acme.providers.create_provider(request(call, message.clone())).await));
    }
    keyed.idempotency_key = Some("twice".to_owned());
    for (key, etag) in [(KEYS[1], ""), (KEYS[2], ""), (KEYS[1], "r1")] {
        let change = UpdateProviderRequest {
            api_key: Some(key.to_owned()),
            etag: etag.to_owned(),
            ..acme.change("openai")
        };
        shown.push(format!("{:?}", acme.providers.update_provider(request(keyed.clone(), change)).await));
    }
    let message = CreateProviderRequest { api_key: KEYS[2].to_owned(), ..acme.openai("refused") };
    shown.push(format!("{:?}", acme.create(message).await));
    shown.push(format!("{:?}", acme.providers));
    drop(guard);

    let log = log.0.lock().unwrap().clone();
    assert!(String::from_utf8_lossy(&log).contains("the log is read"));
    let mut places: Vec<Vec<u8>> = shown.into_iter().map(String::into_bytes).collect();
    places.push(log);
    for column in [
        "sealed AS value FROM credentials",
        "response AS value FROM idempotency_records",
        "request_hash AS value FROM idempotency_records",
        "content AS value FROM liaison_configurations",
        "content AS value FROM liaison_configuration_versions",
    ] {
        let found: Vec<Vec<u8>> = query(format!("SELECT {column}")).values(&db.db).await.unwrap();
        assert!(!found.is_empty(), "{column}");
        places.extend(found);
    }
    for column in ["action", "target", "actor_id", "reason"] {
        let found: Vec<String> =
            query(format!("SELECT {column} AS value FROM audit_entries")).values(&db.db).await.unwrap();
        assert_eq!(found.len(), 2);
        places.extend(found.into_iter().map(String::into_bytes));
    }
    if let Target::Sqlite(path) = &db.target {
        places.push(std::fs::read(path).unwrap());
        places.push(std::fs::read(path.with_extension("db-wal")).unwrap());
    }
    let secret = b"SECRET";
    for place in places {
        let shows = place.windows(secret.len()).any(|window| window == secret);
        assert!(!shows, "{}", String::from_utf8_lossy(&place));
    }
}
