//! Upgrades that end, as delivery brings it about.

use agentrouter_api::configurator::EventType;
use agentrouter_delivery::claim::{self, Claimed, LEASE_DEFAULT, Reach};
use agentrouter_delivery::complete::{self, Completion, Outcome};
use agentrouter_delivery::upgrade::{self, Phase};
use agentrouter_delivery::{instruct, retire_workspace};
use agentrouter_kernel::id::{Event, Id, Upgrade, Workspace};
use agentrouter_testkit::{TestDb, on_both_engines};
use agentrouter_webhooks::tell_signals;
use serde_json::{Value, json};

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(
    an_upgrade_that_completes_is_told_once,
    an_upgrade_that_fails_is_told,
    a_rollback_that_ends_is_told_after_the_upgrade,
    an_upgrade_that_ends_with_its_workspace_is_told,
    an_end_that_is_taken_back_is_not_told,
);

/// A workspace that is upgraded, and a receiver of everything.
struct Fleet<'a> {
    acme: Tenant<'a>,
    workspace: Id<Workspace>,
    receiver: Receiver,
}

impl<'a> Fleet<'a> {
    async fn new(db: &'a TestDb) -> Self {
        let acme = Tenant::new(db, "acme").await;
        let workspace = db.workspace(acme.id, "west").await;
        let receiver = Receiver::start().await;
        acme.created(&receiver.url).await;
        Self { acme, workspace, receiver }
    }

    fn reach(&self) -> Reach {
        Reach { customer: self.acme.id, workspace: Some(self.workspace), credential: "tok_1".to_owned() }
    }

    async fn start(&self) -> Id<Event> {
        let mut tx = self.acme.db.db.begin().await.unwrap();
        let metadata = prost_types::Struct::default();
        let (customer, workspace) = (self.acme.id, self.workspace);
        let event = instruct(&mut tx, customer, workspace, EventType::Upgrade, &metadata).await.unwrap();
        assert!(upgrade::insert(&mut tx, event, customer, workspace, "2.4.0", &metadata).await.unwrap());
        tx.commit_unaudited("test").await.unwrap();
        event
    }

    /// Asks for a rollback of what has completed.
    async fn roll_back(&self, upgrade: Id<Event>) -> Id<Event> {
        let mut tx = self.acme.db.db.begin().await.unwrap();
        let (customer, workspace) = (self.acme.id, self.workspace);
        let upgrade = Id::<Upgrade>::from_uuid(upgrade.uuid());
        let found = upgrade::find(&mut tx, customer, None, upgrade).await.unwrap().unwrap();
        let mut held = upgrade::hold(&mut tx, &found).await.unwrap();
        let metadata = prost_types::Struct::default();
        let event =
            instruct(&mut tx, customer, workspace, EventType::UpgradeRollback, &metadata).await.unwrap();
        let now = tx.now().await.unwrap();
        held.upgrade.enter(Phase::RollingBack, "", now);
        held.upgrade.rollback_event_id = Some(event);
        held.save(&mut tx).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        event
    }

    async fn complete(&self, event: Id<Event>, outcome: Outcome) {
        let db = &self.acme.db.db;
        let claimed = claim::acknowledge(db, &self.reach(), event, "worker", LEASE_DEFAULT).await.unwrap();
        let Claimed::Held(claim) = claimed else { unreachable!("nobody else wants it") };
        let token = Some(claim.token);
        let completion = Completion { event, outcome, token, worker: String::new(), resources: Vec::new() };
        assert!(complete::complete(db, &self.reach(), &completion).await.unwrap());
    }

    /// The only message that there is to tell.
    async fn told(&self) -> Value {
        assert_eq!(tell_signals(&self.acme.db.db).await.unwrap(), 1);
        assert_eq!(tell_signals(&self.acme.db.db).await.unwrap(), 0, "once");
        self.acme.sender.send_due().await.unwrap();
        self.receiver.received().pop().unwrap().json()
    }

    fn data(&self, upgrade: Id<Event>, phase: &str, message: &str, (running, failed): (&str, &str)) -> Value {
        json!({
            "customer_id": "acme",
            "workspace_id": "west",
            "workspace_row_id": self.workspace.to_string(),
            "event_id": upgrade.to_string(),
            "phase": phase,
            "message": message,
            "target_version": "2.4.0",
            "running_version": running,
            "failed_version": failed,
        })
    }
}

fn applied() -> Outcome {
    Outcome::Applied { version: None, checksum: String::new() }
}

fn failed() -> Outcome {
    Outcome::Failed { message: "no such image".to_owned(), permanent: true, running: None }
}

async fn an_upgrade_that_completes_is_told_once(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let upgrade = fleet.start().await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0, "it is under way");
    fleet.complete(upgrade, applied()).await;
    let told = fleet.told().await;
    assert_eq!(told["type"], "upgrade.finished");
    assert_eq!(told["data"], fleet.data(upgrade, "UPGRADE_PHASE_COMPLETED", "", ("2.4.0", "")));
    // What is written of it afterwards is no further end.
    let mut tx = db.db.begin().await.unwrap();
    let id = Id::<Upgrade>::from_uuid(upgrade.uuid());
    let found = upgrade::find(&mut tx, fleet.acme.id, None, id).await.unwrap().unwrap();
    let mut held = upgrade::hold(&mut tx, &found).await.unwrap();
    "all pods are new".clone_into(&mut held.upgrade.message);
    held.save(&mut tx).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0);
}

async fn an_upgrade_that_fails_is_told(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let upgrade = fleet.start().await;
    fleet.complete(upgrade, failed()).await;
    let told = fleet.told().await;
    assert_eq!(told["type"], "upgrade.finished");
    assert_eq!(told["data"], fleet.data(upgrade, "UPGRADE_PHASE_FAILED", "no such image", ("", "2.4.0")));
}

async fn a_rollback_that_ends_is_told_after_the_upgrade(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let upgrade = fleet.start().await;
    fleet.complete(upgrade, applied()).await;
    assert_eq!(fleet.told().await["data"]["phase"], "UPGRADE_PHASE_COMPLETED");
    let rollback = fleet.roll_back(upgrade).await;
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0, "it is under way again");
    fleet.complete(rollback, applied()).await;
    let told = fleet.told().await;
    assert_eq!(told["data"], fleet.data(upgrade, "UPGRADE_PHASE_ROLLED_BACK", "", ("", "")));
}

async fn an_upgrade_that_ends_with_its_workspace_is_told(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let upgrade = fleet.start().await;
    let mut tx = db.db.begin().await.unwrap();
    retire_workspace(&mut tx, fleet.acme.id, fleet.workspace).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    let told = fleet.told().await;
    let message = "the workspace was taken out of service";
    assert_eq!(told["data"], fleet.data(upgrade, "UPGRADE_PHASE_CANCELLED", message, ("", "")));
}

async fn an_end_that_is_taken_back_is_not_told(db: TestDb) {
    let fleet = Fleet::new(&db).await;
    let upgrade = fleet.start().await;
    let mut tx = db.db.begin().await.unwrap();
    let id = Id::<Upgrade>::from_uuid(upgrade.uuid());
    let found = upgrade::find(&mut tx, fleet.acme.id, None, id).await.unwrap().unwrap();
    let mut held = upgrade::hold(&mut tx, &found).await.unwrap();
    let now = tx.now().await.unwrap();
    held.upgrade.enter(Phase::Cancelled, "", now);
    held.save(&mut tx).await.unwrap();
    // The transaction is given up.
    drop(tx);
    assert_eq!(tell_signals(&db.db).await.unwrap(), 0);
    fleet.complete(upgrade, applied()).await;
    assert_eq!(fleet.told().await["data"]["phase"], "UPGRADE_PHASE_COMPLETED");
}
