//! Something to deliver, and workers to deliver it to.

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::claim::{self, Claim, Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{self, Completion, Outcome};
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::{Audience, Slot, Triggered, poll, trigger};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{self, Customer, Event, Id};
use agentrouter_storage::scope::{self, WorkspaceScope};
use agentrouter_storage::{Db, query};

use crate::Tenant;

impl Tenant<'_> {
    pub(crate) fn providers_slot(&self) -> Slot {
        Slot::global(self.id, ConfigType::Providers)
    }

    /// Changes the only provider, for everybody.
    pub(crate) async fn change_providers(&self, weight: i64) -> Triggered {
        self.change_providers_for(weight, &Audience::Everyone).await
    }

    pub(crate) async fn change_providers_for(&self, weight: i64, audience: &Audience) -> Triggered {
        const UPSERT: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
                 priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[]', 0, $3, TRUE, '{}', 1, $4, $4) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let mut tx = self.db.db.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        query(UPSERT)
            .bind(Id::<id::Provider>::new(now))
            .bind(self.id)
            .bind(weight)
            .bind(now)
            .execute(&mut tx)
            .await
            .unwrap();
        let triggered = trigger(&mut tx, &self.providers_slot(), EventType::Updated, audience).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        triggered
    }

    /// Triggers a slot as it is.
    pub(crate) async fn trigger(&self, slot: &Slot) -> Triggered {
        let mut tx = self.db.db.begin().await.unwrap();
        let triggered = trigger(&mut tx, slot, EventType::Updated, &Audience::Everyone).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        triggered
    }

    pub(crate) async fn scope(&self, workspace_id: &str) -> WorkspaceScope {
        scope::workspace(&self.db.db, self.id, workspace_id).await.unwrap()
    }
}

/// The worker of a workspace.
#[derive(Debug)]
pub(crate) struct Worker {
    db: Db,
    customer: Id<Customer>,
    pub(crate) workspace: Id<id::Workspace>,
}

impl Worker {
    pub(crate) async fn new(tenant: &Tenant<'_>, workspace_id: &str) -> Self {
        let workspace = tenant.scope(workspace_id).await.id;
        Self { db: tenant.db.db.clone(), customer: tenant.id, workspace }
    }

    fn reach(&self) -> Reach {
        Reach { customer: self.customer, workspace: Some(self.workspace), credential: "tok".to_owned() }
    }

    pub(crate) async fn pending(&self) -> Vec<EventRow> {
        poll::pending_of_workspace(&self.db, self.customer, self.workspace, 100).await.unwrap()
    }

    pub(crate) async fn only_pending(&self) -> EventRow {
        let mut pending = self.pending().await;
        assert_eq!(pending.len(), 1);
        pending.remove(0)
    }

    pub(crate) async fn hold(&self, event: Id<Event>) -> Claim {
        match claim::acknowledge(&self.db, &self.reach(), event, "worker", LEASE_DEFAULT).await.unwrap() {
            Claimed::Held(claim) => claim,
            Claimed::Refused { holder } => panic!("held by {holder:?}"),
        }
    }

    pub(crate) async fn complete(
        &self,
        event: &EventRow,
        claim: &Claim,
        outcome: Outcome,
    ) -> Result<bool, Fault> {
        let completion = Completion {
            event: event.id,
            outcome,
            token: Some(claim.token),
            worker: String::new(),
            resources: Vec::new(),
        };
        complete::complete(&self.db, &self.reach(), &completion).await
    }

    /// Claims and fails the only pending event.
    pub(crate) async fn fail(&self, permanent: bool) -> EventRow {
        let event = self.only_pending().await;
        let claim = self.hold(event.id).await;
        let outcome = Outcome::Failed { message: "no such model".to_owned(), permanent, running: None };
        assert!(self.complete(&event, &claim, outcome).await.unwrap());
        event
    }

    /// Claims and applies everything that is pending.
    pub(crate) async fn converge(&self) -> usize {
        let pending = self.pending().await;
        for event in &pending {
            let claim = self.hold(event.id).await;
            assert!(self.complete(event, &claim, applied()).await.unwrap());
        }
        pending.len()
    }

    pub(crate) async fn open_events(&self) -> i64 {
        const OPEN: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM liaison_configuration_events \
             WHERE workspace_id = $1 AND is_open = TRUE";
        query(OPEN).bind(self.workspace).value(&self.db).await.unwrap().unwrap_or_default()
    }
}

pub(crate) fn applied() -> Outcome {
    Outcome::Applied { version: None, checksum: String::new() }
}
