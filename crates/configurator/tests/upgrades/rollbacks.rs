//! Undoing an upgrade that was completed.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::{EventType, UpgradePhase};
use agentrouter_delivery::drift;
use agentrouter_testkit::{TestDb, on_both_engines};
use tonic::Code;

use super::world::{Ended, PHASES, TARGET, World, reason, report_of, text};

on_both_engines!(
    only_a_completed_upgrade_is_rolled_back,
    an_undone_upgrade_does_not_come_back,
    a_failed_rollback_can_be_asked_for_again,
    only_the_release_that_runs_is_rolled_back,
);

async fn only_a_completed_upgrade_is_rolled_back(db: TestDb) {
    let world = World::new(db).await;
    for from in PHASES {
        let upgrade = world.upgrade_in(from).await;
        let outcome = world.roll_back(&upgrade).await;
        if from == UpgradePhase::Completed {
            let event = outcome.unwrap();
            let shown = world.get(&event).await;
            assert_eq!(
                (shown.phase(), shown.event_id.as_str()),
                (UpgradePhase::RollingBack, upgrade.as_str())
            );
            assert_eq!(
                (shown.rollback_event_id.as_str(), shown.running_version.as_str()),
                (event.as_str(), TARGET)
            );
            let told = world.next().await.unwrap();
            assert_eq!((told.id.as_str(), told.event_type()), (event.as_str(), EventType::UpgradeRollback));
            assert_eq!(told.metadata.unwrap().fields["upgrade_event_id"], text(&upgrade));
            let second = reason(world.start_in("edge").await);
            assert_eq!(second.1, "UPGRADE_ACTIVE", "a rollback is under way");
        } else {
            let expected = (Code::FailedPrecondition, "UPGRADE_PHASE_MISMATCH".into());
            assert_eq!(reason(outcome), expected, "{from:?}");
            assert_eq!(world.phase(&upgrade).await, from);
        }
        world.clear().await;
    }
}

// Behaviour 24: what was undone is not offered again, by no sweep, until somebody starts a new upgrade.
async fn an_undone_upgrade_does_not_come_back(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_completed().await;
    let event = world.roll_back(&upgrade).await.unwrap();
    let token = world.claim(&event).await;
    let told = pb::ReportDataplaneUpgradeRequest {
        running_version: "1.9.3".into(),
        ..report_of(&event, UpgradePhase::RolledBack)
    };
    world.tell(told).await.unwrap();
    world.complete(&event, &token, Ended::Applied).await.unwrap();
    let undone = world.get(&upgrade).await;
    assert_eq!((undone.phase(), undone.running_version.as_str()), (UpgradePhase::RolledBack, "1.9.3"));
    for scope in [drift::Scope::All, drift::Scope::Users] {
        let report = drift::Report { slots: Vec::new(), is_complete: true };
        let replayed = drift::heal(&world.test.db, world.customer, world.edge, scope, &report).await.unwrap();
        assert_eq!(replayed.total(), 0);
    }
    let mut tx = world.test.db.begin().await.unwrap();
    let queued = agentrouter_delivery::resync(&mut tx, world.customer, world.edge, None).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    world.advance(600).await;
    assert_eq!((queued, world.next().await), (0, None));
    assert_eq!(reason(world.report(&upgrade, UpgradePhase::Completed).await).1, "UPGRADE_PHASE_MISMATCH");
    assert_eq!(reason(world.roll_back(&upgrade).await).1, "UPGRADE_PHASE_MISMATCH");
    assert_eq!(world.get(&upgrade).await, undone);
    world.start().await;
    assert_eq!(world.next().await.unwrap().event_type(), EventType::Upgrade);
}

async fn a_failed_rollback_can_be_asked_for_again(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start_completed().await;
    let first = world.roll_back(&upgrade).await.unwrap();
    let token = world.claim(&first).await;
    world.complete(&first, &token, Ended::Rejected).await.unwrap();
    let shown = world.get(&upgrade).await;
    assert_eq!((shown.phase(), shown.running_version.as_str()), (UpgradePhase::Completed, TARGET));
    assert_eq!(shown.message, "the rollback failed: it cannot come up");
    let second = world.roll_back(&upgrade).await.unwrap();
    assert_ne!(first, second);
    // A worker that dies on it gets it again, until it is undone.
    world.claim(&second).await;
    world.advance(31).await;
    assert_eq!(world.phase(&upgrade).await, UpgradePhase::RollingBack);
    world.report(&second, UpgradePhase::RolledBack).await.unwrap();
    assert_eq!((world.phase(&upgrade).await, world.next().await), (UpgradePhase::RolledBack, None));
}

async fn only_the_release_that_runs_is_rolled_back(db: TestDb) {
    let world = World::new(db).await;
    let older = world.start_completed().await;
    let newer = world.start_completed().await;
    let overtaken = reason(world.roll_back(&older).await);
    assert_eq!(overtaken, (Code::FailedPrecondition, "UPGRADE_NOT_CURRENT".into()));
    let event = world.roll_back(&newer).await.unwrap();
    assert_eq!(reason(world.roll_back(&older).await).1, "UPGRADE_ACTIVE");
    let token = world.claim(&event).await;
    world.complete(&event, &token, Ended::Applied).await.unwrap();
    // The older one runs again, and one that failed does not change that.
    world.upgrade_in(UpgradePhase::Failed).await;
    world.roll_back(&older).await.unwrap();
}
