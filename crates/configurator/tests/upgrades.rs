//! Upgrades of data planes, on both engines: who may ask for what in which phase, and how the phase follows the events.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod upgrades {
    pub(crate) mod cancels;
    pub(crate) mod credentials;
    pub(crate) mod model;
    pub(crate) mod races;
    pub(crate) mod rollbacks;
    pub(crate) mod world;
}

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, EventStatus, EventType, UpgradePhase};
use agentrouter_delivery::upgrade::{self, Mover, Phase};
use agentrouter_delivery::{retire_customer, retire_workspace};
use agentrouter_kernel::Principal;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, on_both_engines, request, workspace};
use tonic::Code;
use upgrades::world::{Ended, PHASES, TARGET, World, fields, metadata, reason, report_of, upgrade_of};

on_both_engines!(
    a_trigger_starts_an_upgrade,
    a_trigger_tells_every_wrong_field,
    a_workspace_has_one_upgrade_at_a_time,
    a_repeated_trigger_with_a_key_starts_one_upgrade,
    reports_follow_the_table,
    reports_tell_every_wrong_field,
    a_repeated_report_updates_the_details,
    an_automatic_rollback_names_both_releases,
    how_the_event_ends_moves_the_phase,
    an_upgrade_whose_event_is_stuck_has_failed,
    a_new_instruction_frees_the_workspace_from_stuck_ones,
    archiving_cancels,
    upgrades_of_others_do_not_exist,
    the_running_upgrade_is_shown_before_the_last_one,
);

async fn a_trigger_starts_an_upgrade(db: TestDb) {
    let world = World::new(db).await;
    let id = world.start().await;
    let event = world.next().await.unwrap();
    assert_eq!((event.id.as_str(), event.workspace_id.as_str()), (id.as_str(), "edge"));
    assert_eq!((event.config_type(), event.event_type()), (ConfigType::DataplaneUpgrade, EventType::Upgrade));
    assert_eq!((event.user_id.as_str(), event.key_id.as_str(), event.version), ("system", "", 0));
    assert_eq!(event.metadata, upgrade_of("edge").metadata);
    let upgrade = world.get(&id).await;
    assert_eq!((upgrade.event_id.as_str(), upgrade.workspace_id.as_str()), (id.as_str(), "edge"));
    assert_eq!((upgrade.phase(), upgrade.metadata), (UpgradePhase::Pending, upgrade_of("edge").metadata));
    assert_eq!((upgrade.message.as_str(), upgrade.running_version.as_str()), ("", ""));
    assert_eq!((upgrade.failed_version.as_str(), upgrade.rollback_event_id.as_str()), ("", ""));
    assert!(upgrade.created_at.is_some() && upgrade.created_at == upgrade.updated_at);
    let audited: Vec<String> =
        query("SELECT target AS value FROM audit_entries").values(&world.test.db).await.unwrap();
    assert_eq!(audited, [id]);
}

async fn a_trigger_tells_every_wrong_field(db: TestDb) {
    let world = World::new(db).await;
    let wrong = pb::TriggerUpdateRequest {
        user_id: "somebody".into(),
        config_type: ConfigType::DataplaneUpgrade.into(),
        key_id: "key".into(),
        event_type: EventType::UpgradeCancel.into(),
        workspace_id: String::new(),
        metadata: Some(metadata(&[("target_version", "not a version"), ("surprise", "x")])),
    };
    let expected =
        ["user_id", "key_id", "event_type", "workspace_id", "metadata.surprise", "metadata.target_version"];
    assert_eq!(fields(world.trigger(wrong).await), expected);
    let bare = pb::TriggerUpdateRequest { metadata: None, ..upgrade_of("edge") };
    assert_eq!(fields(world.trigger(bare).await), ["metadata.target_version"]);
    let nowhere = reason(world.start_in("nowhere").await);
    assert_eq!(nowhere, (Code::NotFound, "WORKSPACE_NOT_FOUND".into()));
    assert_eq!(world.count("dataplane_upgrades").await, 0);
    let as_system = pb::TriggerUpdateRequest {
        user_id: "system".into(),
        event_type: EventType::Upgrade.into(),
        workspace_id: world.edge.to_string(),
        ..upgrade_of("")
    };
    world.trigger(as_system).await.unwrap();
}

async fn a_workspace_has_one_upgrade_at_a_time(db: TestDb) {
    const SECOND: &str = "INSERT INTO dataplane_upgrades SELECT $1, customer_id, workspace_id, phase, message, \
         target_version, metadata, required_credentials, running_version, failed_version, NULL, NULL, created_at, \
         updated_at, NULL FROM dataplane_upgrades LIMIT 1";
    let world = World::new(db).await;
    let first = world.start().await;
    let status = world.start_in("edge").await.unwrap_err();
    assert!(status.message().contains(&first), "{status:?}");
    assert_eq!(reason::<()>(Err(status)), (Code::FailedPrecondition, "UPGRADE_ACTIVE".into()));
    assert_eq!(world.pending().await.len(), 1, "a refused trigger sends nothing");
    world.start_in("beside").await.unwrap();
    // The database holds it even where the code does not ask.
    let mut tx = world.test.db.begin().await.unwrap();
    let id = agentrouter_kernel::id::Id::<agentrouter_kernel::id::Event>::new(tx.now().await.unwrap());
    let refused = query(SECOND).bind(id).execute(&mut tx).await;
    assert!(matches!(refused, Err(agentrouter_storage::StorageError::Conflict(_))), "{refused:?}");
    drop(tx);
    world.cancel(&first).await.unwrap();
    assert_ne!(world.start().await, first);
}

async fn a_repeated_trigger_with_a_key_starts_one_upgrade(db: TestDb) {
    let world = World::new(db).await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".into());
    let ask = || world.service.trigger_update(request(context.clone(), upgrade_of("edge")));
    let (first, second) = (ask().await.unwrap().into_inner(), ask().await.unwrap().into_inner());
    assert_eq!(first, second);
    assert_eq!(world.count("dataplane_upgrades").await, 1);
}

// Behaviour 16: a report never takes a phase back, and what ended stays ended.
async fn reports_follow_the_table(db: TestDb) {
    let world = World::new(db).await;
    for from in PHASES {
        for to in PHASES {
            let upgrade = world.upgrade_in(from).await;
            let [before, after] = [from, to].map(|phase| Phase::from_proto(phase.into()).unwrap());
            let outcome = world.report(&upgrade, to).await;
            if from == to || before.may_move(Mover::Worker, after) {
                assert_eq!(outcome.unwrap().phase(), to, "{from:?}");
                assert_eq!(world.phase(&upgrade).await, to);
            } else {
                assert_eq!(
                    reason(outcome),
                    (Code::FailedPrecondition, "UPGRADE_PHASE_MISMATCH".into()),
                    "{from:?} {to:?}"
                );
                assert_eq!(world.phase(&upgrade).await, from);
            }
            world.clear().await;
        }
    }
}

async fn reports_tell_every_wrong_field(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start().await;
    let wrong = pb::ReportDataplaneUpgradeRequest {
        event_id: "evt_1".into(),
        phase: 0,
        required_credentials: vec!["chart".into()],
        running_version: "1 2".into(),
        failed_version: "-".into(),
        ..Default::default()
    };
    let expected = ["event_id", "phase", "required_credentials", "running_version", "failed_version"];
    assert_eq!(fields(world.tell(wrong).await), expected);
    assert_eq!(fields(world.park(&upgrade, &[]).await), ["required_credentials"]);
    let slots = ["chart", "", "chart", "a slot"];
    let expected = ["required_credentials[1]", "required_credentials[2]", "required_credentials[3]"];
    assert_eq!(fields(world.park(&upgrade, &slots).await), expected);
    assert_eq!(world.phase(&upgrade).await, UpgradePhase::Pending);
}

async fn a_repeated_report_updates_the_details(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_parked(&["chart"]).await;
    let first = world.get(&upgrade).await;
    world.advance(1).await;
    assert_eq!(world.park(&upgrade, &["chart"]).await.unwrap(), first, "nothing new, nothing written");
    let second = world.park(&upgrade, &["chart", "images"]).await.unwrap();
    assert_eq!(second.required_credentials, ["chart", "images"]);
    assert!(second.updated_at.unwrap().seconds > first.updated_at.unwrap().seconds);
    let running = pb::ReportDataplaneUpgradeRequest {
        message: format!("\0{}", "x".repeat(5000)),
        running_version: "1.0.0".into(),
        ..report_of(&upgrade, UpgradePhase::Running)
    };
    let told = world.tell(running).await.unwrap();
    assert_eq!(told.required_credentials, [""; 0]);
    assert!(told.message.starts_with("\u{fffd}xxx") && told.message.len() <= 4098, "{}", told.message.len());
    let again = world.report(&upgrade, UpgradePhase::Running).await.unwrap();
    assert_eq!(again, told, "what a repeat does not say stays");
}

// Behaviour 25: after an automatic rollback both the release that failed and the one that runs are told.
async fn an_automatic_rollback_names_both_releases(db: TestDb) {
    let world = World::new(db).await;
    let (upgrade, token) = world.start_running().await;
    let failed = pb::ReportDataplaneUpgradeRequest {
        message: "the pods did not become ready".into(),
        running_version: "1.9.3".into(),
        failed_version: TARGET.into(),
        ..report_of(&upgrade, UpgradePhase::Failed)
    };
    world.tell(failed).await.unwrap();
    world.complete(&upgrade, &token, Ended::Rejected).await.unwrap();
    let shown = world.get(&upgrade).await;
    assert_eq!(shown.phase(), UpgradePhase::Failed);
    assert_eq!((shown.running_version.as_str(), shown.failed_version.as_str()), ("1.9.3", TARGET));
    assert_eq!(shown.message, "the pods did not become ready", "what the worker said first stays");
    // A worker that only ends the event names the failed one all the same, and may tell the other one later.
    let upgrade = world.upgrade_in(UpgradePhase::Failed).await;
    let shown = world.get(&upgrade).await;
    assert_eq!((shown.running_version.as_str(), shown.failed_version.as_str()), ("", TARGET));
    assert_eq!(shown.message, "it cannot come up");
    let late = pb::ReportDataplaneUpgradeRequest {
        running_version: "1.9.3".into(),
        ..report_of(&upgrade, UpgradePhase::Failed)
    };
    let shown = world.tell(late).await.unwrap();
    assert_eq!((shown.running_version.as_str(), shown.failed_version.as_str()), ("1.9.3", TARGET));
}

// Behaviour 5: a repeated completion of an upgrade's event changes nothing, and another one is refused.
async fn how_the_event_ends_moves_the_phase(db: TestDb) {
    let world = World::new(db).await;
    let (upgrade, token) = world.start_claimed().await;
    assert!(world.complete(&upgrade, &token, Ended::Applied).await.unwrap());
    let shown = world.get(&upgrade).await;
    assert_eq!((shown.phase(), shown.running_version.as_str()), (UpgradePhase::Completed, TARGET));
    assert!(world.complete(&upgrade, &token, Ended::Applied).await.unwrap());
    let other = reason(world.complete(&upgrade, &token, Ended::Rejected).await);
    assert_eq!(other, (Code::FailedPrecondition, "EVENT_ALREADY_COMPLETED".into()));
    assert_eq!(world.get(&upgrade).await, shown);
    // Failing leaves it under way as long as another attempt follows.
    let (upgrade, token) = world.start_running().await;
    world.complete(&upgrade, &token, Ended::Failed).await.unwrap();
    assert_eq!((world.phase(&upgrade).await, world.next().await), (UpgradePhase::Running, None));
    world.advance(2).await;
    let token = world.claim(&upgrade).await;
    world.complete(&upgrade, &token, Ended::Applied).await.unwrap();
    assert_eq!(world.phase(&upgrade).await, UpgradePhase::Completed);
}

async fn an_upgrade_whose_event_is_stuck_has_failed(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start().await;
    for _ in 0..5 {
        assert_eq!(world.phase(&upgrade).await, UpgradePhase::Pending);
        world.claim(&upgrade).await;
        world.advance(31).await;
    }
    let shown = world.get(&upgrade).await;
    assert_eq!(
        (shown.phase(), shown.message.as_str()),
        (UpgradePhase::Failed, "the worker stopped answering")
    );
    assert_eq!((shown.failed_version.as_str(), world.next().await), (TARGET, None));
}

async fn a_new_instruction_frees_the_workspace_from_stuck_ones(db: TestDb) {
    const STUCK: &str =
        "SELECT status AS value FROM liaison_configuration_events WHERE is_open = TRUE AND stuck = TRUE";
    let world = World::new(db).await;
    let failed = world.upgrade_in(UpgradePhase::Failed).await;
    let stuck: Vec<String> = query(STUCK).values(&world.test.db).await.unwrap();
    assert_eq!(stuck, ["failed"], "it stays to be seen");
    let next = world.start().await;
    let stuck: Vec<String> = query(STUCK).values(&world.test.db).await.unwrap();
    assert_eq!((stuck, world.phase(&failed).await), (vec![], UpgradePhase::Failed));
    assert_eq!(world.next().await.unwrap().id, next);
}

async fn archiving_cancels(db: TestDb) {
    let world = World::new(db).await;
    for phase in PHASES {
        for whole_customer in [false, true] {
            let upgrade = world.upgrade_in(phase).await;
            let mut tx = world.test.db.begin().await.unwrap();
            if whole_customer {
                retire_customer(&mut tx, world.customer).await.unwrap();
            } else {
                retire_workspace(&mut tx, world.customer, world.edge).await.unwrap();
            }
            tx.commit_unaudited("test").await.unwrap();
            let has_ended = Phase::from_proto(phase.into()).unwrap().has_ended();
            let expected = if has_ended { phase } else { UpgradePhase::Cancelled };
            assert_eq!((world.phase(&upgrade).await, world.next().await), (expected, None), "{phase:?}");
        }
    }
    // Nothing is started in a workspace that is out of service, or rolled back there.
    let completed = world.start_completed().await;
    let mut tx = world.test.db.begin().await.unwrap();
    query("UPDATE workspaces SET deleted_at = :now WHERE id = $1")
        .bind(world.edge)
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(reason(world.start_in("edge").await), (Code::NotFound, "WORKSPACE_NOT_FOUND".into()));
    assert_eq!(reason(world.roll_back(&completed).await), (Code::NotFound, "WORKSPACE_NOT_FOUND".into()));
    assert!(world.cancel(&completed).await.unwrap());
}

async fn upgrades_of_others_do_not_exist(db: TestDb) {
    let world = World::new(db).await;
    let other = world.test.customer("globex").await;
    let foreign = world.test.workspace(other, "edge").await;
    let upgrade = world.start_parked(&["chart"]).await;
    let delivery = world.get(&upgrade).await;
    let strangers =
        [admin(other, "globex"), workspace(other, "globex", foreign, "edge"), world.sibling.clone()];
    for stranger in &strangers {
        let is_worker = stranger.workspace.is_some();
        let mut refused = as_worker(&world, stranger, &upgrade).await;
        // Workspace tokens do not get that far: the policies refuse them before the service is asked.
        if !is_worker {
            refused.extend(as_admin(&world, stranger, &upgrade).await);
        }
        for (method, refused) in refused {
            let expected = if !is_worker && matches!(method, "fetch" | "ack") {
                (Code::PermissionDenied, "WORKSPACE_CLAIM_REQUIRED".to_owned())
            } else {
                (Code::NotFound, "UPGRADE_NOT_FOUND".to_owned())
            };
            assert_eq!(refused, expected, "{method} {stranger:?}");
        }
    }
    assert_eq!(world.get(&upgrade).await, delivery);
    // An event that is no upgrade is none.
    let providers = pb::TriggerUpdateRequest {
        user_id: "system".into(),
        config_type: ConfigType::Providers.into(),
        ..Default::default()
    };
    let answer = world.service.trigger_update(request(call(&world.admin), providers)).await.unwrap();
    let event = &answer.into_inner().event_ids[0];
    assert_eq!(reason(world.cancel(event).await), (Code::NotFound, "UPGRADE_NOT_FOUND".into()));
}

/// How somebody is refused who manages upgrades.
async fn as_admin(world: &World, caller: &Principal, upgrade: &str) -> [(&'static str, (Code, String)); 4] {
    let service = &world.service;
    let context = || call(caller);
    let login = pb::RegistryCredential {
        slot: "chart".into(),
        registry: "r.example".into(),
        username: "u".into(),
        password: "p".into(),
    };
    let get = pb::GetDataplaneUpgradeRequest { event_id: upgrade.into() };
    let cancel = pb::CancelDataplaneUpgradeRequest { upgrade_event_id: upgrade.into() };
    let roll_back = pb::RollbackDataplaneUpgradeRequest { upgrade_event_id: upgrade.into() };
    let submit = pb::SubmitDataplaneUpgradeCredentialsRequest {
        upgrade_event_id: upgrade.into(),
        credentials: vec![login],
        persist_in_cluster: false,
    };
    [
        ("get", reason(service.get_dataplane_upgrade(request(context(), get)).await)),
        ("cancel", reason(service.cancel_dataplane_upgrade(request(context(), cancel)).await)),
        ("roll back", reason(service.rollback_dataplane_upgrade(request(context(), roll_back)).await)),
        ("submit", reason(service.submit_dataplane_upgrade_credentials(request(context(), submit)).await)),
    ]
}

/// How somebody is refused who carries upgrades out.
async fn as_worker(world: &World, caller: &Principal, upgrade: &str) -> Vec<(&'static str, (Code, String))> {
    let service = &world.service;
    let context = || call(caller);
    let report = report_of(upgrade, UpgradePhase::Running);
    let fetch = pb::FetchDataplaneUpgradeCredentialsRequest { event_id: upgrade.into() };
    let ack = pb::AckDataplaneUpgradeCredentialsRequest { event_id: upgrade.into() };
    vec![
        ("report", reason(service.report_dataplane_upgrade(request(context(), report)).await)),
        ("fetch", reason(service.fetch_dataplane_upgrade_credentials(request(context(), fetch)).await)),
        ("ack", reason(service.ack_dataplane_upgrade_credentials(request(context(), ack)).await)),
    ]
}

async fn the_running_upgrade_is_shown_before_the_last_one(db: TestDb) {
    let world = World::new(db).await;
    let shown = async || {
        let row = upgrade::of_workspace(&world.test.db, world.customer, world.edge).await.unwrap();
        row.map(|row| (row.event_id.to_string(), row.phase))
    };
    assert_eq!(shown().await, None);
    let completed = world.start_completed().await;
    assert_eq!(shown().await, Some((completed.clone(), Phase::Completed)));
    world.advance(1).await;
    let failed = world.upgrade_in(UpgradePhase::Failed).await;
    assert_eq!(shown().await, Some((failed, Phase::Failed)));
    world.advance(1).await;
    world.roll_back(&completed).await.unwrap();
    assert_eq!(shown().await, Some((completed, Phase::RollingBack)));
    let event = world.next().await.unwrap();
    assert_eq!(event.status(), EventStatus::Pending);
}
