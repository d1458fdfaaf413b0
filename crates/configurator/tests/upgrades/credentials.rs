//! Logins to registries: who sees them, where they are kept, and how long.

use std::sync::Arc;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::UpgradePhase;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_configurator::{Configurator, Presence, sweep_upgrade_credentials};
use agentrouter_envelope::{Kek, Keyring};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Credential, Event, Id};
use agentrouter_rpc::Deps;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, on_both_engines, request, workspace};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use super::world::{Ended, World, fields, reason};

on_both_engines!(
    the_worker_gets_what_was_submitted_until_it_has_it,
    submissions_tell_every_wrong_field,
    only_a_parked_upgrade_takes_credentials,
    the_last_submission_counts,
    credentials_leave_with_the_cancel_and_with_the_end,
    credentials_are_kept_for_a_day,
    a_row_opens_only_where_it_belongs,
    old_rows_open_after_the_key_changed,
    nothing_else_shows_a_password,
    a_disclosure_is_audited_and_not_kept,
);

const PASSWORD: &str = "canary-of-a-password";

fn login(slot: &str) -> pb::RegistryCredential {
    pb::RegistryCredential {
        slot: slot.into(),
        registry: "registry.example:5000".into(),
        username: "robot".into(),
        password: format!("{PASSWORD}-for-{slot}"),
    }
}

impl World {
    async fn submit(
        &self,
        upgrade: &str,
        credentials: Vec<pb::RegistryCredential>,
    ) -> Result<pb::SubmitDataplaneUpgradeCredentialsResponse, Status> {
        let submit = pb::SubmitDataplaneUpgradeCredentialsRequest {
            upgrade_event_id: upgrade.into(),
            credentials,
            persist_in_cluster: true,
        };
        let answer = self.service.submit_dataplane_upgrade_credentials(request(call(&self.admin), submit));
        answer.await.map(Response::into_inner)
    }

    async fn fetch(&self, upgrade: &str) -> Result<pb::FetchDataplaneUpgradeCredentialsResponse, Status> {
        fetch_as(&self.service, &self.worker, upgrade).await
    }

    async fn ack(&self, upgrade: &str) {
        let ack = pb::AckDataplaneUpgradeCredentialsRequest { event_id: upgrade.into() };
        self.service.ack_dataplane_upgrade_credentials(request(call(&self.worker), ack)).await.unwrap();
    }

    async fn kept(&self) -> i64 {
        self.count("dataplane_upgrade_credentials").await
    }
}

async fn fetch_as(
    service: &Configurator,
    caller: &Principal,
    upgrade: &str,
) -> Result<pb::FetchDataplaneUpgradeCredentialsResponse, Status> {
    let fetch = pb::FetchDataplaneUpgradeCredentialsRequest { event_id: upgrade.into() };
    let answer = service.fetch_dataplane_upgrade_credentials(request(call(caller), fetch)).await;
    answer.map(Response::into_inner)
}

async fn the_worker_gets_what_was_submitted_until_it_has_it(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart", "images"]).await;
    assert_eq!(world.fetch(&upgrade).await.unwrap(), pb::FetchDataplaneUpgradeCredentialsResponse::default());
    let submitted = world.submit(&upgrade, vec![login("images"), login("chart")]).await.unwrap();
    assert!(
        submitted.success && Id::<Credential>::parse(&submitted.credentials_id).is_some(),
        "{submitted:?}"
    );
    // Readable again and again, in case the first answer was lost.
    for _ in 0..2 {
        let fetched = world.fetch(&upgrade).await.unwrap();
        assert_eq!(fetched.credentials, [login("chart"), login("images")]);
        assert!(fetched.persist_in_cluster);
    }
    assert_eq!(world.kept().await, 2);
    for _ in 0..2 {
        world.ack(&upgrade).await;
        assert_eq!(
            (world.kept().await, world.fetch(&upgrade).await.unwrap()),
            (0, pb::FetchDataplaneUpgradeCredentialsResponse::default())
        );
    }
    assert_eq!(world.phase(&upgrade).await, UpgradePhase::NeedsCredentials, "the worker moves on");
    world.report(&upgrade, UpgradePhase::Running).await.unwrap();
}

async fn submissions_tell_every_wrong_field(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart", "images"]).await;
    assert_eq!(fields(world.submit("", vec![]).await), ["upgrade_event_id", "credentials"]);
    let many = (0..33).map(|index| login(&format!("slot-{index}"))).collect();
    assert_eq!(fields(world.submit(&upgrade, many).await), ["credentials"]);
    let empty = pb::RegistryCredential { slot: "chart".into(), ..Default::default() };
    let long = pb::RegistryCredential { password: "x".repeat(16 * 1024 + 1), ..login("a slot") };
    let expected = [
        "credentials[1].slot",
        "credentials[1].registry",
        "credentials[1].username",
        "credentials[1].password",
        "credentials[2].slot",
        "credentials[2].password",
    ];
    assert_eq!(fields(world.submit(&upgrade, vec![login("chart"), empty, long]).await), expected);
    let other = world.submit(&upgrade, vec![login("chart"), login("other")]).await;
    assert_eq!(fields(other), ["credentials[1].slot", "credentials"]);
    assert_eq!(world.kept().await, 0);
}

async fn only_a_parked_upgrade_takes_credentials(db: TestDb) {
    let world = World::new(db).await;
    for phase in super::world::PHASES {
        let upgrade = world.upgrade_in(phase).await;
        let outcome = world.submit(&upgrade, vec![login("chart")]).await;
        if phase == UpgradePhase::NeedsCredentials {
            assert!(outcome.unwrap().success);
        } else {
            let expected = (Code::FailedPrecondition, "UPGRADE_PHASE_MISMATCH".into());
            assert_eq!((reason(outcome), world.kept().await), (expected, 0), "{phase:?}");
        }
        world.clear().await;
    }
}

async fn the_last_submission_counts(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart"]).await;
    let first = world.submit(&upgrade, vec![login("chart")]).await.unwrap();
    let mistyped = pb::RegistryCredential { password: "another".into(), ..login("chart") };
    let second = world.submit(&upgrade, vec![mistyped.clone()]).await.unwrap();
    assert_ne!(first.credentials_id, second.credentials_id);
    assert_eq!((world.fetch(&upgrade).await.unwrap().credentials, world.kept().await), (vec![mistyped], 1));
}

// Behaviour 47: the ciphertext is deleted on cancel, and when the upgrade ends in any way.
async fn credentials_leave_with_the_cancel_and_with_the_end(db: TestDb) {
    let world = World::new(db).await;
    for how in ["cancel", "completed", "failed", "event", "archive"] {
        let (upgrade, token) = world.start_claimed().await;
        world.park(&upgrade, &["chart"]).await.unwrap();
        world.submit(&upgrade, vec![login("chart")]).await.unwrap();
        assert_eq!(world.kept().await, 1);
        match how {
            "cancel" => assert!(world.cancel(&upgrade).await.unwrap()),
            "completed" => drop(world.report(&upgrade, UpgradePhase::Completed).await.unwrap()),
            "failed" => drop(world.report(&upgrade, UpgradePhase::Failed).await.unwrap()),
            "event" => assert!(world.complete(&upgrade, &token, Ended::Applied).await.unwrap()),
            _ => world.clear().await,
        }
        assert_eq!(
            (world.kept().await, world.fetch(&upgrade).await.unwrap()),
            (0, pb::FetchDataplaneUpgradeCredentialsResponse::default()),
            "{how}"
        );
        world.clear().await;
    }
}

// Behaviour 47: a ciphertext that nobody fetched is deleted when it expires.
async fn credentials_are_kept_for_a_day(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart"]).await;
    world.submit(&upgrade, vec![login("chart")]).await.unwrap();
    let sweep = async || {
        let mut tx = world.test.db.begin().await.unwrap();
        let swept = sweep_upgrade_credentials(&mut tx, 10).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        swept
    };
    world.advance(24 * 60 * 60 - 60).await;
    assert_eq!((sweep().await, world.fetch(&upgrade).await.unwrap().credentials.len()), (0, 1));
    world.advance(61).await;
    // Over is over, whether or not somebody swept.
    assert_eq!(
        (world.fetch(&upgrade).await.unwrap(), world.kept().await),
        (pb::FetchDataplaneUpgradeCredentialsResponse::default(), 1)
    );
    assert_eq!((sweep().await, sweep().await, world.kept().await), (1, 0, 0));
}

// Behaviour 47: sealed for its row, tenant, workspace, upgrade and slot, a ciphertext opens for no other.
async fn a_row_opens_only_where_it_belongs(db: TestDb) {
    // Everything but the ciphertext is made to look right.
    const MOVE: &str = "UPDATE dataplane_upgrade_credentials SET id = $1, slot = $2, customer_id = $3, workspace_id = $4, event_id = $5";
    const ROW: &str = "SELECT id AS value FROM dataplane_upgrade_credentials";
    let world = World::new(db).await;
    let globex = world.test.customer("globex").await;
    let foreign = world.test.workspace(globex, "edge").await;
    let foreign_worker = workspace(globex, "globex", foreign, "edge");
    let beside = world.sibling.workspace.clone().unwrap().0;
    let event = |id: &str| Id::<Event>::parse(id).unwrap();

    let earlier = event(&world.upgrade_in(UpgradePhase::Cancelled).await);
    let own = event(&world.start_parked(&["chart"]).await);
    let elsewhere = event(&world.start_in("beside").await.unwrap());
    let trigger = request(call(&admin(globex, "globex")), super::world::upgrade_of("edge"));
    let abroad = event(&world.service.trigger_update(trigger).await.unwrap().into_inner().event_ids[0]);
    world.submit(&own.to_string(), vec![login("chart")]).await.unwrap();
    let row: Id<Credential> = query(ROW).value(&world.test.db).await.unwrap().unwrap();
    let other_row = Id::<Credential>::new(world.test.db.now().await.unwrap());

    let home = (world.customer, world.edge, &world.worker);
    for (what, row, slot, (customer, place, caller), upgrade) in [
        ("nothing", row, "chart", home, own),
        ("row", other_row, "chart", home, own),
        ("slot", row, "images", home, own),
        ("upgrade", row, "chart", home, earlier),
        ("workspace", row, "chart", (world.customer, beside, &world.sibling), elsewhere),
        ("tenant", row, "chart", (globex, foreign, &foreign_worker), abroad),
        ("nothing any more", row, "chart", home, own),
    ] {
        let mut tx = world.test.db.begin().await.unwrap();
        let moved = query(MOVE).bind(row).bind(slot).bind(customer).bind(place).bind(upgrade);
        assert_eq!(moved.execute(&mut tx).await.unwrap(), 1);
        tx.commit_unaudited("test").await.unwrap();
        let fetched = fetch_as(&world.service, caller, &upgrade.to_string()).await;
        if what.starts_with("nothing") {
            assert_eq!(fetched.unwrap().credentials, [login("chart")], "where it belongs, it opens");
        } else {
            let refused = fetched.unwrap_err();
            assert_eq!(refused.code(), Code::Internal, "another {what}");
            assert!(!format!("{refused:?}").contains(PASSWORD));
        }
    }
}

// Behaviour 47: a sealed login names its key-encryption key, so it opens after the key was changed.
async fn old_rows_open_after_the_key_changed(db: TestDb) {
    const SEALED: &str = "SELECT sealed AS value FROM dataplane_upgrade_credentials ORDER BY slot";
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart", "images"]).await;
    let same = pb::RegistryCredential { slot: "images".into(), ..login("chart") };
    world.submit(&upgrade, vec![login("chart"), same.clone()]).await.unwrap();
    let sealed: Vec<Vec<u8>> = query(SEALED).values(&world.test.db).await.unwrap();
    for sealed in &sealed {
        assert_eq!(Keyring::key_id(sealed).unwrap(), "test");
    }
    assert_ne!(sealed[0], sealed[1]);
    let old = world.test.deps();
    for (keys, opens) in [([("new", 3), ("test", 1)].as_slice(), true), (&[("new", 3)], false)] {
        let keys = keys.iter().map(|(id, byte)| Kek::new(id, &[*byte; 32]).unwrap()).collect();
        let deps = Deps { keyring: Arc::new(Keyring::new(keys).unwrap()), ..old.clone() };
        let service = Configurator::new(deps, Arc::new(Presence::default()), CancellationToken::new());
        let fetched = fetch_as(&service, &world.worker, &upgrade).await;
        if opens {
            assert_eq!(fetched.unwrap().credentials, [login("chart"), same.clone()]);
        } else {
            assert_eq!(fetched.unwrap_err().code(), Code::Internal);
        }
    }
}

async fn nothing_else_shows_a_password(db: TestDb) {
    const ROWS: [&str; 4] = [
        "SELECT sealed AS value FROM dataplane_upgrade_credentials",
        "SELECT metadata AS value FROM dataplane_upgrades",
        "SELECT metadata AS value FROM liaison_configuration_events WHERE metadata IS NOT NULL",
        "SELECT response AS value FROM idempotency_records",
    ];
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart"]).await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".into());
    let submit = pb::SubmitDataplaneUpgradeCredentialsRequest {
        upgrade_event_id: upgrade.clone(),
        credentials: vec![login("chart")],
        persist_in_cluster: false,
    };
    let mut told = Vec::new();
    for _ in 0..2 {
        let submit = request(context.clone(), submit.clone());
        told.push(format!("{:?}", world.service.submit_dataplane_upgrade_credentials(submit).await.unwrap()));
    }
    assert_eq!(world.kept().await, 1, "the repeat is answered, not done again");
    let unprintable = pb::RegistryCredential { password: format!("{PASSWORD}\u{7}"), ..login("chart") };
    told.push(format!("{:?}", world.submit(&upgrade, vec![unprintable]).await.unwrap_err()));
    told.push(format!("{:?}", world.get(&upgrade).await));
    told.push(format!("{:?}", world.pending().await));
    told.push(format!("{:?}", world.report(&upgrade, UpgradePhase::NeedsCredentials).await.unwrap()));
    for rows in ROWS {
        let found: Vec<Vec<u8>> = query(rows).values(&world.test.db).await.unwrap();
        assert!(!found.is_empty(), "{rows}");
        told.extend(found.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()));
    }
    let audit: Vec<String> = query("SELECT action || target || reason AS value FROM audit_entries")
        .values(&world.test.db)
        .await
        .unwrap();
    told.extend(audit);
    for told in told {
        assert!(!told.contains(PASSWORD), "{told}");
    }
}

async fn a_disclosure_is_audited_and_not_kept(db: TestDb) {
    const DISCLOSED: &str =
        "SELECT target AS value FROM audit_entries WHERE action = 'upgrade.fetch_credentials'";
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart"]).await;
    let fetch = async || {
        let mut context = call(&world.worker);
        context.action = "upgrade.fetch_credentials".into();
        context.idempotency_key = Some("once".into());
        let fetch = pb::FetchDataplaneUpgradeCredentialsRequest { event_id: upgrade.clone() };
        let answer = world.service.fetch_dataplane_upgrade_credentials(request(context, fetch)).await;
        answer.unwrap().into_inner().credentials.len()
    };
    assert_eq!(fetch().await, 0);
    let audited: Vec<String> = query(DISCLOSED).values(&world.test.db).await.unwrap();
    assert_eq!(audited, [""; 0], "nothing was disclosed");
    world.submit(&upgrade, vec![login("chart")]).await.unwrap();
    assert_eq!(fetch().await, 1);
    let audited: Vec<String> = query(DISCLOSED).values(&world.test.db).await.unwrap();
    assert_eq!((audited, world.count("idempotency_records").await), (vec![upgrade.clone()], 0));
    world.ack(&upgrade).await;
    assert_eq!(fetch().await, 0, "a repeat with the same key does not bring it back");
}
