//! Slots that get stuck and recover, as delivery brings it about.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::claim::{self, Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{self, Completion, Outcome};
use agentrouter_delivery::{Audience, Slot, poll, settle_due, trigger};
use agentrouter_kernel::id::{Id, Provider, Workspace};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use agentrouter_webhooks::tell_signals;

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(
    a_rejected_slot_is_told_and_so_is_its_recovery,
    a_slot_that_kills_its_workers_is_told,
    a_short_trouble_is_not_missed,
);

/// A workspace and its worker.
struct Fleet<'a> {
    acme: Tenant<'a>,
    workspace: Id<Workspace>,
}

impl<'a> Fleet<'a> {
    async fn new(db: &'a TestDb) -> Self {
        let acme = Tenant::new(db, "acme").await;
        let workspace = db.workspace(acme.id, "west").await;
        Self { acme, workspace }
    }

    fn reach(&self) -> Reach {
        Reach { customer: self.acme.id, workspace: Some(self.workspace), credential: "tok_1".to_owned() }
    }

    /// New content for the slot of providers.
    async fn change(&self, weight: i64) {
        const UPSERT: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, \
             priority, weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, $3, TRUE, '{}', 1, 0, 0) \
             ON CONFLICT (customer_id, slug) DO UPDATE SET weight = excluded.weight";
        let mut tx = self.acme.db.db.begin().await.unwrap();
        let id = Id::<Provider>::new(tx.now().await.unwrap());
        query(UPSERT).bind(id).bind(self.acme.id).bind(weight).execute(&mut tx).await.unwrap();
        let slot = Slot::global(self.acme.id, ConfigType::Providers);
        trigger(&mut tx, &slot, EventType::Updated, &Audience::Everyone).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }

    /// Claims the only pending event.
    async fn claim(&self) -> (Completion, String) {
        let db = &self.acme.db.db;
        let pending = poll::pending_of_workspace(db, self.acme.id, self.workspace, 10).await.unwrap();
        let [event] = &pending[..] else { unreachable!("one pending event, not {}", pending.len()) };
        let claimed = claim::acknowledge(db, &self.reach(), event.id, "worker", LEASE_DEFAULT).await.unwrap();
        let Claimed::Held(claim) = claimed else { unreachable!("nobody else wants it") };
        let completion = Completion {
            event: event.id,
            outcome: Outcome::Applied { version: None, checksum: String::new() },
            token: Some(claim.token),
            worker: String::new(),
            resources: Vec::new(),
        };
        (completion, event.id.to_string())
    }

    async fn apply(&self) {
        let (completion, _) = self.claim().await;
        assert!(complete::complete(&self.acme.db.db, &self.reach(), &completion).await.unwrap());
    }

    async fn reject(&self) -> String {
        let (completion, event) = self.claim().await;
        let outcome = Outcome::Failed { message: "no such model".to_owned(), permanent: true, running: None };
        let completion = Completion { outcome, ..completion };
        assert!(complete::complete(&self.acme.db.db, &self.reach(), &completion).await.unwrap());
        event
    }
}

async fn a_rejected_slot_is_told_and_so_is_its_recovery(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let receiver = Receiver::start().await;
    fleet.acme.created(&receiver.url).await;
    fleet.change(1).await;
    fleet.apply().await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0);
    fleet.change(2).await;
    let event = fleet.reject().await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 1);
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0, "once");
    fleet.acme.sender.send_due().await.unwrap();
    let stuck = receiver.received().pop().unwrap().json();
    assert_eq!(stuck["type"], "slot.stuck");
    assert_eq!(
        stuck["data"],
        serde_json::json!({
            "customer_id": "acme",
            "workspace_id": "west",
            "workspace_row_id": fleet.workspace.to_string(),
            "user_id": "system",
            "config_type": "CONFIG_TYPE_PROVIDERS",
            "key_id": "",
            "version": 2,
            "event_id": event,
            "attempts": 1,
            "error_message": "no such model",
        })
    );

    fleet.change(3).await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0, "it is on its way, not there");
    fleet.apply().await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 1);
    fleet.acme.sender.send_due().await.unwrap();
    let recovered = receiver.received().pop().unwrap().json();
    assert_eq!(recovered["type"], "slot.recovered");
    assert_eq!(
        (&recovered["data"]["workspace_id"], &recovered["data"]["version"]),
        (&"west".into(), &3.into())
    );
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0);
}

async fn a_slot_that_kills_its_workers_is_told(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let (id, _) = fleet.acme.created("https://hooks.example").await;
    fleet.change(1).await;
    for _ in 0..agentrouter_delivery::ATTEMPTS_MAX {
        fleet.claim().await;
        db.db.advance_clock(LEASE_DEFAULT + Duration::from_secs(1));
        settle_due(&db.db, 10).await.unwrap();
        // Deaths may be followed by a delay.
        db.db.advance_clock(Duration::from_mins(6));
        settle_due(&db.db, 10).await.unwrap();
    }
    assert_eq!(tell_signals(&db.db).await.unwrap(), 1);
    let kinds: Vec<_> =
        fleet.acme.deliveries(&id).await.into_iter().map(|delivery| delivery.event_type).collect();
    assert_eq!(kinds, ["slot.stuck"]);
}

async fn a_short_trouble_is_not_missed(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let (id, _) = fleet.acme.created("https://hooks.example").await;
    fleet.change(1).await;
    fleet.reject().await;
    fleet.change(2).await;
    fleet.apply().await;
    // Nobody looked in between.
    assert_eq!(tell_signals(&db.db).await.unwrap(), 2);
    let mut kinds: Vec<_> =
        fleet.acme.deliveries(&id).await.into_iter().map(|delivery| delivery.event_type).collect();
    kinds.sort();
    assert_eq!(kinds, ["slot.recovered", "slot.stuck"]);
}
