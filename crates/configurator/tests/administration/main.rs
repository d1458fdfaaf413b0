//! What people and workers set through ConfiguratorService, and the versions that come of it, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod byok;
mod catalog;
mod history;
mod races;
mod revocations;
mod rollback;
mod triggers;
mod urls;

use std::sync::Arc;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_configurator::{Configurator, Presence};
use agentrouter_delivery::{Slot, regenerate};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request, viewer, workspace};
use tokio_util::sync::CancellationToken;

/// A customer with two workspaces.
struct World<'a> {
    db: &'a TestDb,
    service: Configurator,
    customer: Id<Customer>,
    edge: Id<Workspace>,
    admin: Principal,
    viewer: Principal,
    worker: Principal,
    /// The worker of the other workspace, `sibling`.
    sibling: Principal,
}

impl<'a> World<'a> {
    async fn new(db: &'a TestDb, slug: &str) -> Self {
        let customer = db.customer(slug).await;
        let edge = db.workspace(customer, "edge").await;
        let sibling = db.workspace(customer, "sibling").await;
        let service = Configurator::new(db.deps(), Arc::new(Presence::default()), CancellationToken::new());
        Self {
            db,
            service,
            customer,
            edge,
            admin: admin(customer, slug),
            viewer: viewer(customer, slug),
            worker: workspace(customer, slug, edge, "edge"),
            sibling: workspace(customer, slug, sibling, "sibling"),
        }
    }

    /// The configuration of a slot as a caller sees it.
    async fn get(&self, caller: &Principal, slot: &Slot) -> Option<pb::Configuration> {
        let query = pb::ConfigurationQuery {
            user_id: slot.user_id.clone(),
            config_type: slot.config_type.into(),
            key_id: slot.key_id.clone(),
            current_version: 0,
        };
        let message = pb::GetConfigurationRequest { queries: vec![query] };
        let answer = self.service.get_configuration(request(call(caller), message)).await.unwrap();
        answer.into_inner().configurations.pop()
    }

    /// The newest version of a slot; 0 where there is none.
    async fn version(&self, slot: &Slot) -> i64 {
        self.get(&self.admin, slot).await.map_or(0, |configuration| configuration.version)
    }

    /// What waits for a worker: type and version of each event.
    async fn pending(&self, worker: &Principal) -> Vec<(ConfigType, i64)> {
        self.poll(worker).await.iter().map(|event| (event.config_type(), event.version)).collect()
    }

    async fn poll(&self, worker: &Principal) -> Vec<pb::ConfigurationEvent> {
        let poll = pb::ListPendingEventsRequest::default();
        self.service.list_pending_events(request(call(worker), poll)).await.unwrap().into_inner().events
    }

    /// A worker applies all that waits for it.
    async fn converge(&self, worker: &Principal) -> usize {
        let events = self.poll(worker).await;
        for event in &events {
            let claim = pb::AcknowledgeEventRequest {
                event_id: event.id.clone(),
                worker_id: "w".into(),
                lease: None,
            };
            let claim = self.service.acknowledge_event(request(call(worker), claim)).await.unwrap();
            let completion = pb::CompleteEventRequest {
                event_id: event.id.clone(),
                success: true,
                claim_token: claim.into_inner().claim_token,
                ..Default::default()
            };
            let done = self.service.complete_event(request(call(worker), completion)).await.unwrap();
            assert!(done.into_inner().success);
        }
        events.len()
    }

    /// Writes a provider and delivers it, as the service of providers does.
    async fn provider(&self, weight: i64) -> pb::Configuration {
        const PROVIDER: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
             priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let slot = self.providers();
        let mut tx = self.db.db.begin().await.unwrap();
        let id = Id::<agentrouter_kernel::id::Provider>::new(tx.now().await.unwrap());
        query(PROVIDER).bind(id).bind(self.customer).bind(weight).execute(&mut tx).await.unwrap();
        regenerate(&mut tx, &slot, pb::EventType::Updated).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
        self.get(&self.admin, &slot).await.unwrap()
    }

    fn providers(&self) -> Slot {
        Slot::global(self.customer, ConfigType::Providers)
    }

    fn catalog(&self) -> Slot {
        Slot::global(self.customer, ConfigType::McpCatalog)
    }

    /// Actions in the audit log.
    async fn audited(&self) -> i64 {
        const COUNT: &str =
            "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM audit_entries WHERE customer_id = $1";
        query(COUNT).bind(self.customer).value(&self.db.db).await.unwrap().unwrap()
    }
}
