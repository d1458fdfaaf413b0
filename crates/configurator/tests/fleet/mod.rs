//! A customer with workspaces and a provider, and shorthands for what its workers do.

#![expect(dead_code, reason = "each test file uses its part")]

use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_configurator::{Configurator, Presence};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id, Provider, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request, workspace};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_types::StatusExt;

pub(crate) struct Fleet {
    pub(crate) test: TestDb,
    pub(crate) service: Arc<Configurator>,
    pub(crate) presence: Arc<Presence>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) customer: Id<Customer>,
    pub(crate) admin: Principal,
    workspaces: Vec<(String, Id<Workspace>)>,
}

impl Fleet {
    pub(crate) async fn new(test: TestDb, slugs: &[&str]) -> Self {
        let customer = test.customer("acme").await;
        let mut workspaces = Vec::new();
        for slug in slugs {
            workspaces.push(((*slug).to_owned(), test.workspace(customer, slug).await));
        }
        let (presence, shutdown) = (Arc::new(Presence::default()), CancellationToken::new());
        let service = Configurator::new(test.deps(), Arc::clone(&presence), shutdown.clone())
            .with_heartbeat(Duration::from_millis(200));
        let admin = admin(customer, "acme");
        Self { service: Arc::new(service), presence, shutdown, customer, admin, workspaces, test }
    }

    pub(crate) fn workspace(&self, slug: &str) -> Id<Workspace> {
        self.workspaces.iter().find(|(known, _)| known == slug).unwrap().1
    }

    pub(crate) fn worker(&self, slug: &str) -> Principal {
        workspace(self.customer, "acme", self.workspace(slug), slug)
    }

    /// Changes the provider, so that the next trigger finds new content.
    pub(crate) async fn provider(&self, weight: i64) {
        const PROVIDER: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
             priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let mut tx = self.test.db.begin().await.unwrap();
        let id = Id::<Provider>::new(tx.now().await.unwrap());
        query(PROVIDER).bind(id).bind(self.customer).bind(weight).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    /// Adds workspaces that nobody looks at one by one.
    pub(crate) async fn many_workspaces(&self, count: i64) {
        const WORKSPACE: &str = "INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, '', '{}', 1, 0, 0)";
        const SYNC: &str =
            "INSERT INTO workspace_sync (workspace_id, customer_id, position) VALUES ($1, $2, 0)";
        let mut tx = self.test.db.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        for index in 0..count {
            let id = Id::<Workspace>::new(now);
            let workspace = query(WORKSPACE).bind(id).bind(self.customer).bind(format!("w-{index}"));
            workspace.bind(1_000 + index).execute(&mut tx).await.unwrap();
            query(SYNC).bind(id).bind(self.customer).execute(&mut tx).await.unwrap();
        }
        tx.commit_unaudited("test data").await.unwrap();
    }

    pub(crate) async fn trigger(&self, message: pb::TriggerUpdateRequest) -> pb::TriggerUpdateResponse {
        self.service.trigger_update(request(call(&self.admin), message)).await.unwrap().into_inner()
    }

    pub(crate) async fn change(&self, weight: i64) -> pb::TriggerUpdateResponse {
        self.provider(weight).await;
        self.trigger(providers()).await
    }

    /// Triggers the slot of a user.
    pub(crate) async fn keys(&self, user: &str) -> pb::TriggerUpdateResponse {
        self.trigger(pb::TriggerUpdateRequest {
            user_id: user.into(),
            config_type: ConfigType::UserKeys.into(),
            ..Default::default()
        })
        .await
    }

    pub(crate) async fn poll(
        &self,
        slug: &str,
        poll: pb::ListPendingEventsRequest,
    ) -> pb::ListPendingEventsResponse {
        self.service.list_pending_events(request(call(&self.worker(slug)), poll)).await.unwrap().into_inner()
    }

    pub(crate) async fn claim(&self, slug: &str, event: &str, worker: &str) -> pb::AcknowledgeEventResponse {
        let message =
            pb::AcknowledgeEventRequest { event_id: event.into(), worker_id: worker.into(), lease: None };
        self.service.acknowledge_event(request(call(&self.worker(slug)), message)).await.unwrap().into_inner()
    }

    async fn complete(&self, slug: &str, message: pb::CompleteEventRequest) {
        let done = self.service.complete_event(request(call(&self.worker(slug)), message)).await;
        assert!(done.unwrap().into_inner().success);
    }

    /// Claims an event and reports that it could not be applied.
    pub(crate) async fn fail(&self, slug: &str, event: &str, permanent: bool) {
        let claim = self.claim(slug, event, "worker").await;
        let message = pb::CompleteEventRequest {
            event_id: event.into(),
            claim_token: claim.claim_token,
            error_message: "no".into(),
            permanent,
            ..Default::default()
        };
        self.complete(slug, message).await;
    }

    /// Claims and applies an event.
    pub(crate) async fn apply(&self, slug: &str, event: &str) {
        let claim = self.claim(slug, event, "worker").await;
        let message = pb::CompleteEventRequest {
            event_id: event.into(),
            success: true,
            claim_token: claim.claim_token,
            ..Default::default()
        };
        self.complete(slug, message).await;
    }

    /// Applies everything that waits in a workspace.
    pub(crate) async fn converge(&self, slug: &str) -> usize {
        let events = self.poll(slug, pb::ListPendingEventsRequest::default()).await.events;
        for event in &events {
            self.apply(slug, &event.id).await;
        }
        events.len()
    }

    pub(crate) async fn event(&self, event: &str) -> pb::ConfigurationEvent {
        let message = pb::GetEventRequest { event_id: event.into() };
        self.service.get_event(request(call(&self.admin), message)).await.unwrap().into_inner()
    }
}

pub(crate) fn providers() -> pb::TriggerUpdateRequest {
    pb::TriggerUpdateRequest {
        user_id: "system".to_owned(),
        config_type: ConfigType::Providers.into(),
        ..Default::default()
    }
}

pub(crate) fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

pub(crate) fn fields(status: &Status) -> Vec<String> {
    let details = status.get_details_bad_request().unwrap();
    details.field_violations.into_iter().map(|violation| violation.field).collect()
}
