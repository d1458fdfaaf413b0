//! The services as a client meets them, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod credentials;
mod lists;
mod mcp;
mod profiles;
mod providers;
mod races;

use std::collections::BTreeMap;

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{Configuration, ProviderConfig};
use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_api::providers::{CreateProviderRequest, Provider, ProviderSchema, UpdateProviderRequest};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_providers::Providers;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request};
use prost::Message;
use prost_types::FieldMask;
use tonic::{Response, Status};

/// A customer with an admin.
struct Tenant<'a> {
    db: &'a TestDb,
    id: Id<Customer>,
    slug: &'static str,
    admin: Principal,
    providers: Providers,
}

impl<'a> Tenant<'a> {
    async fn new(db: &'a TestDb, slug: &'static str) -> Self {
        let id = db.customer(slug).await;
        Self { db, id, slug, admin: admin(id, slug), providers: Providers::new(db.deps()) }
    }

    /// What CreateProvider needs at least.
    fn openai(&self, provider_id: &str) -> CreateProviderRequest {
        CreateProviderRequest {
            customer_id: self.slug.to_owned(),
            provider_id: provider_id.to_owned(),
            schema: ProviderSchema::Openai.into(),
            base_url: "https://api.openai.example/v1".to_owned(),
            ..CreateProviderRequest::default()
        }
    }

    /// An update that names no field yet.
    fn change(&self, provider_id: &str) -> UpdateProviderRequest {
        UpdateProviderRequest {
            customer_id: self.slug.to_owned(),
            provider_id: provider_id.to_owned(),
            ..UpdateProviderRequest::default()
        }
    }

    async fn create(&self, message: CreateProviderRequest) -> Result<Response<Provider>, Status> {
        self.providers.create_provider(request(call(&self.admin), message)).await
    }

    async fn update(&self, message: UpdateProviderRequest) -> Result<Response<Provider>, Status> {
        self.providers.update_provider(request(call(&self.admin), message)).await
    }

    /// The newest version of a global slot, and its content.
    async fn delivered(&self, config_type: &str) -> (i64, Option<Payload>) {
        let select = |column: &str| {
            format!(
                "SELECT {column} AS value FROM liaison_configurations \
                 WHERE customer_id = $1 AND config_type = $2 AND user_id = 'system'"
            )
        };
        let version =
            query(select("version")).bind(self.id).bind(config_type).value(&self.db.db).await.unwrap();
        let content: Option<Vec<u8>> =
            query(select("content")).bind(self.id).bind(config_type).value(&self.db.db).await.unwrap();
        let payload = content.and_then(|content| Configuration::decode(content.as_slice()).unwrap().payload);
        (version.unwrap_or_default(), payload)
    }

    /// The newest version of the slot of providers, and the providers in it.
    async fn delivered_providers(&self) -> (i64, Vec<ProviderConfig>) {
        match self.delivered("providers").await {
            (version, Some(Payload::Providers(content))) => (version, content.providers),
            (version, other) => panic!("version {version} holds {other:?}"),
        }
    }

    /// Actions and targets in the audit log, oldest first.
    async fn audited(&self) -> Vec<String> {
        const AUDITED: &str =
            "SELECT target AS value FROM audit_entries WHERE customer_id = $1 ORDER BY created_at, id";
        query(AUDITED).bind(self.id).values(&self.db.db).await.unwrap()
    }
}

fn mask(paths: &[&str]) -> FieldMask {
    FieldMask { paths: texts(paths) }
}

fn labels(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
