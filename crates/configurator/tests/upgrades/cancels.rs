//! Cancelling an upgrade: who may in which phase, and what becomes of it.

use agentrouter_api::configurator::{ConfigType, EventType, UpgradePhase};
use agentrouter_testkit::{TestDb, on_both_engines};
use tonic::Code;

use super::world::{Ended, PHASES, TARGET, World, reason, text};

on_both_engines!(
    cancelling_succeeds_in_every_phase,
    what_no_worker_took_is_cancelled_at_once,
    a_cancel_reaches_the_worker,
    a_cancel_that_comes_too_late_changes_nothing,
    a_cancelled_upgrade_is_not_tried_again,
    a_cancel_that_fails_leaves_the_end_to_the_upgrade,
);

// Behaviour 5: cancelling is idempotent in every phase.
async fn cancelling_succeeds_in_every_phase(db: TestDb) {
    let world = World::new(db).await;
    for from in PHASES {
        let upgrade = world.upgrade_in(from).await;
        let expected = match from {
            UpgradePhase::Pending => UpgradePhase::Cancelled,
            UpgradePhase::NeedsCredentials | UpgradePhase::Running => UpgradePhase::Cancelling,
            other => other,
        };
        let before = world.get(&upgrade).await;
        assert!(world.cancel(&upgrade).await.unwrap(), "{from:?}");
        let after = world.get(&upgrade).await;
        assert_eq!(after.phase(), expected, "{from:?}");
        if from == expected {
            assert_eq!(before, after);
        }
        let waiting = world.pending().await;
        assert!(world.cancel(&upgrade).await.unwrap(), "{from:?}");
        assert_eq!((world.get(&upgrade).await, world.pending().await), (after, waiting));
        world.clear().await;
    }
}

async fn what_no_worker_took_is_cancelled_at_once(db: TestDb) {
    let world = World::new(db).await;
    let upgrade = world.start().await;
    world.cancel(&upgrade).await.unwrap();
    assert_eq!((world.phase(&upgrade).await, world.next().await), (UpgradePhase::Cancelled, None));
    assert!(!world.try_claim(&upgrade).await.success);
    // A worker that took it and died may have begun.
    let (upgrade, _) = world.start_claimed().await;
    world.advance(31).await;
    world.cancel(&upgrade).await.unwrap();
    assert_eq!(world.phase(&upgrade).await, UpgradePhase::Cancelling);
    assert_eq!(world.next().await.unwrap().event_type(), EventType::UpgradeCancel);
}

// Behaviour 16: an upgrade that was cancelled is not completed by a late completion.
async fn a_cancel_reaches_the_worker(db: TestDb) {
    let world = World::new(db).await;
    let (upgrade, token) = world.start_running().await;
    world.cancel(&upgrade).await.unwrap();
    // The instruction comes while the upgrade's own event is in flight.
    let event = world.next().await.unwrap();
    assert_eq!(
        (event.event_type(), event.config_type()),
        (EventType::UpgradeCancel, ConfigType::DataplaneUpgrade)
    );
    let told = event.metadata.unwrap();
    assert_eq!(told.fields["upgrade_event_id"], text(&upgrade));
    assert_eq!(told.fields["target_version"], text(TARGET));
    let refused = reason(world.report(&upgrade, UpgradePhase::Running).await);
    assert_eq!(refused, (Code::FailedPrecondition, "UPGRADE_PHASE_MISMATCH".into()));
    let cancel = world.claim(&event.id).await;
    assert!(world.complete(&event.id, &cancel, Ended::Applied).await.unwrap());
    let cancelled = world.get(&upgrade).await;
    assert_eq!(cancelled.phase(), UpgradePhase::Cancelled);
    assert_eq!(world.get(&event.id).await, cancelled, "the cancel names the upgrade, too");
    assert!(world.complete(&upgrade, &token, Ended::Applied).await.unwrap());
    assert_eq!(world.get(&upgrade).await, cancelled);
}

async fn a_cancel_that_comes_too_late_changes_nothing(db: TestDb) {
    let world = World::new(db).await;
    let (upgrade, token) = world.start_running().await;
    world.cancel(&upgrade).await.unwrap();
    world.complete(&upgrade, &token, Ended::Applied).await.unwrap();
    let completed = world.get(&upgrade).await;
    assert_eq!((completed.phase(), completed.running_version.as_str()), (UpgradePhase::Completed, TARGET));
    let (cancel, token) = world.claim_next(EventType::UpgradeCancel).await;
    world.complete(&cancel, &token, Ended::Applied).await.unwrap();
    assert_eq!(world.get(&upgrade).await, completed);
    // A worker that reports the end does not hear of the cancel any more.
    let (upgrade, _) = world.start_running().await;
    world.cancel(&upgrade).await.unwrap();
    world.report(&upgrade, UpgradePhase::Completed).await.unwrap();
    assert_eq!(world.next().await, None);
}

async fn a_cancelled_upgrade_is_not_tried_again(db: TestDb) {
    let world = World::new(db).await;
    // Its worker gave up on it, or died, or its attempt failed before or after the cancel.
    for how in ["failed after", "failed before", "died after", "died before"] {
        let (upgrade, token) = world.start_running().await;
        match how {
            "failed before" => drop(world.complete(&upgrade, &token, Ended::Failed).await.unwrap()),
            "died before" => world.advance(31).await,
            _ => {}
        }
        world.cancel(&upgrade).await.unwrap();
        match how {
            "failed after" => {
                world.complete(&upgrade, &token, Ended::Failed).await.unwrap();
                let shown = world.get(&upgrade).await;
                assert_eq!(
                    (shown.phase(), shown.message.as_str()),
                    (UpgradePhase::Cancelled, "it did not come up")
                );
            }
            "died after" => world.advance(31).await,
            _ => {}
        }
        world.advance(600).await;
        let (cancel, token) = world.claim_next(EventType::UpgradeCancel).await;
        world.complete(&cancel, &token, Ended::Applied).await.unwrap();
        assert_eq!(
            (world.phase(&upgrade).await, world.next().await),
            (UpgradePhase::Cancelled, None),
            "{how}"
        );
    }
}

async fn a_cancel_that_fails_leaves_the_end_to_the_upgrade(db: TestDb) {
    let world = World::new(db).await;
    for (ended, expected) in
        [(Ended::Applied, UpgradePhase::Completed), (Ended::Rejected, UpgradePhase::Cancelled)]
    {
        let (upgrade, token) = world.start_running().await;
        world.cancel(&upgrade).await.unwrap();
        let (cancel, cancelling) = world.claim_next(EventType::UpgradeCancel).await;
        world.complete(&cancel, &cancelling, Ended::Rejected).await.unwrap();
        let shown = world.get(&upgrade).await;
        assert_eq!(shown.phase(), UpgradePhase::Cancelling);
        assert_eq!(shown.message, "the cancel failed: it cannot come up");
        world.complete(&upgrade, &token, ended).await.unwrap();
        assert_eq!(world.phase(&upgrade).await, expected);
    }
    // Where neither is left, nobody knows what runs.
    for cancel_first in [true, false] {
        let (upgrade, _) = world.start_running().await;
        world.cancel(&upgrade).await.unwrap();
        if !cancel_first {
            world.advance(31).await;
        }
        let (cancel, token) = world.claim_next(EventType::UpgradeCancel).await;
        world.complete(&cancel, &token, Ended::Rejected).await.unwrap();
        if cancel_first {
            assert_eq!(world.phase(&upgrade).await, UpgradePhase::Cancelling);
            world.advance(31).await;
        }
        assert_eq!((world.phase(&upgrade).await, world.next().await), (UpgradePhase::Failed, None));
    }
}
