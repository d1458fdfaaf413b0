//! A customer with workspaces and one provider slot, and shorthands for what a worker does.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::claim::{self, Claim, Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{self, Completion, Outcome};
use agentrouter_delivery::event::EventRow;
use agentrouter_delivery::{Audience, Slot, Triggered, poll, trigger};
use agentrouter_kernel::Fault;
use agentrouter_kernel::id::{Configuration, Customer, Event, Id, Workspace};
use agentrouter_storage::{Db, query, scope};
use agentrouter_testkit::TestDb;

#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) test: TestDb,
    pub(crate) customer: Id<Customer>,
    pub(crate) workspaces: Vec<Id<Workspace>>,
}

impl Fleet {
    pub(crate) async fn new(test: TestDb, workspaces: usize) -> Self {
        let customer = test.customer("acme").await;
        let mut fleet = Self { test, customer, workspaces: Vec::new() };
        for index in 0..workspaces {
            let workspace = fleet.test.workspace(customer, &format!("ws-{index}")).await;
            fleet.workspaces.push(workspace);
        }
        fleet
    }

    pub(crate) fn db(&self) -> &Db {
        &self.test.db
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot::global(self.customer, ConfigType::Providers)
    }

    /// Changes a provider, so that the next trigger finds new content.
    pub(crate) async fn change(&self, weight: i64) {
        const UPSERT: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let mut tx = self.db().begin().await.unwrap();
        let now = tx.now().await.unwrap();
        query(UPSERT)
            .bind(Id::<agentrouter_kernel::id::Provider>::new(now))
            .bind(self.customer)
            .bind(weight)
            .execute(&mut tx)
            .await
            .unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    /// Writes the first version of the slot of a user's key, whose content is given and not generated.
    pub(crate) async fn give_byok(&self, user_id: &str, key_id: &str) {
        const HEAD: &str =
            "UPDATE customer_sequences SET head = head + 1 WHERE customer_id = $1 RETURNING head AS value";
        const SLOT: &str = "INSERT INTO liaison_configurations (id, customer_id, user_id, config_type, key_id, version, \
             checksum, deleted, content, event_type, position, broadcast_position, created_at, updated_at) \
             VALUES ($1, $2, $3, 'byok', $4, 1, 'checksum', FALSE, $5, 'created', $6, $6, :now, :now)";
        const VERSION: &str = "INSERT INTO liaison_configuration_versions (configuration_id, version, customer_id, \
             position, checksum, deleted, content, event_type, created_at) \
             SELECT id, version, customer_id, position, checksum, deleted, content, event_type, created_at \
             FROM liaison_configurations WHERE id = $1";
        let mut tx = self.db().begin().await.unwrap();
        let id = Id::<Configuration>::new(tx.now().await.unwrap());
        let head: i64 = query(HEAD).bind(self.customer).value(&mut tx).await.unwrap().unwrap();
        let slot = query(SLOT).bind(id).bind(self.customer).bind(user_id).bind(key_id);
        slot.bind(Vec::<u8>::new()).bind(head).execute(&mut tx).await.unwrap();
        query(VERSION).bind(id).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    pub(crate) async fn trigger(&self) -> Triggered {
        let mut tx = self.db().begin().await.unwrap();
        let triggered =
            trigger(&mut tx, &self.slot(), EventType::Updated, &Audience::Everyone).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        triggered
    }

    /// Triggers for one workspace only.
    pub(crate) async fn trigger_only(&self, workspace: &str) -> Triggered {
        let mut tx = self.db().begin().await.unwrap();
        let only = Audience::Only(scope::workspace(&mut tx, self.customer, workspace).await.unwrap());
        let triggered = trigger(&mut tx, &self.slot(), EventType::Updated, &only).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        triggered
    }

    pub(crate) async fn pending(&self, workspace: usize) -> Vec<EventRow> {
        poll::pending_of_workspace(self.db(), self.customer, self.workspaces[workspace], 100).await.unwrap()
    }

    pub(crate) fn reach(&self, workspace: usize) -> Reach {
        Reach {
            customer: self.customer,
            workspace: Some(self.workspaces[workspace]),
            credential: format!("tok_{workspace}"),
        }
    }

    pub(crate) async fn claim(&self, workspace: usize, event: Id<Event>, worker: &str) -> Claimed {
        claim::acknowledge(self.db(), &self.reach(workspace), event, worker, LEASE_DEFAULT).await.unwrap()
    }

    /// Claims an event that must be free.
    pub(crate) async fn hold(&self, workspace: usize, event: Id<Event>, worker: &str) -> Claim {
        match self.claim(workspace, event, worker).await {
            Claimed::Held(claim) => claim,
            Claimed::Refused { holder } => panic!("held by {holder:?}"),
        }
    }

    pub(crate) async fn complete(
        &self,
        workspace: usize,
        event: Id<Event>,
        claim: &Claim,
        outcome: Outcome,
    ) -> Result<bool, Fault> {
        let completion = Completion {
            event,
            outcome,
            token: Some(claim.token),
            worker: String::new(),
            resources: Vec::new(),
        };
        complete::complete(self.db(), &self.reach(workspace), &completion).await
    }

    /// The whole loop for one workspace: everything pending is claimed and applied.
    pub(crate) async fn converge(&self, workspace: usize) -> usize {
        let pending = self.pending(workspace).await;
        for event in &pending {
            let claim = self.hold(workspace, event.id, "worker").await;
            assert!(self.complete(workspace, event.id, &claim, applied()).await.unwrap());
        }
        pending.len()
    }

    pub(crate) async fn event(&self, event: Id<Event>) -> EventRow {
        let reach = Reach { customer: self.customer, workspace: None, credential: "key".to_owned() };
        let mut tx = self.db().begin().await.unwrap();
        let row = poll::resolve(&mut tx, &reach, event).await.unwrap().unwrap();
        tx.commit_unaudited("test").await.unwrap();
        row
    }

    pub(crate) async fn applied_version(&self, workspace: usize) -> i64 {
        query("SELECT applied_version AS value FROM workspace_slots WHERE workspace_id = $1")
            .bind(self.workspaces[workspace])
            .value(self.db())
            .await
            .unwrap()
            .unwrap_or_default()
    }

    pub(crate) fn advance(&self, seconds: u64) {
        self.db().advance_clock(Duration::from_secs(seconds));
    }
}

pub(crate) fn applied() -> Outcome {
    Outcome::Applied { version: None, checksum: String::new() }
}

pub(crate) fn failed(permanent: bool) -> Outcome {
    Outcome::Failed { message: "no".to_owned(), permanent, running: None }
}
