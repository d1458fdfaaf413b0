//! Calls that meet: whatever comes first, there is one upgrade per workspace and one end to it.

use std::sync::Arc;

use agentrouter_api::configurator::{EventType, UpgradePhase};
use agentrouter_delivery::retire_workspace;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use tokio::task::JoinSet;
use tonic::Code;

use super::world::{Ended, World, reason};

on_both_engines!(
    of_racing_triggers_one_starts,
    a_cancel_racing_a_completion_ends_in_one_phase,
    racing_completions_of_upgrade_and_cancel_have_one_winner,
    a_cancel_racing_the_first_claim_is_either_at_once_or_by_instruction,
    a_trigger_racing_the_archival_leaves_nothing_under_way,
    a_rollback_racing_a_new_upgrade_leaves_one_under_way,
);

const ROUNDS: usize = 20;

async fn of_racing_triggers_one_starts(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    for _ in 0..5 {
        let mut racers = JoinSet::new();
        for _ in 0..8 {
            let world = Arc::clone(&world);
            racers.spawn(async move { world.start_in("edge").await });
        }
        let (started, refused): (Vec<_>, Vec<_>) =
            racers.join_all().await.into_iter().partition(Result::is_ok);
        assert_eq!((started.len(), refused.len()), (1, 7));
        for refused in refused {
            assert_eq!(reason(refused), (Code::FailedPrecondition, "UPGRADE_ACTIVE".into()));
        }
        assert_eq!(world.next().await.unwrap().event_type(), EventType::Upgrade);
        world.clear().await;
    }
}

// Behaviour 5: a cancel racing a completion ends in exactly one terminal phase, and both succeed.
async fn a_cancel_racing_a_completion_ends_in_one_phase(db: TestDb) {
    let world = World::new(db).await;
    let mut ends = Vec::new();
    for round in 0..ROUNDS {
        let (upgrade, token) = world.start_running().await;
        let (completing, cancelling) =
            (world.complete(&upgrade, &token, Ended::Applied), world.cancel(&upgrade));
        // Whoever is asked first is not always first.
        let (completed, cancelled) = if round % 2 == 0 {
            tokio::join!(completing, cancelling)
        } else {
            let (cancelled, completed) = tokio::join!(cancelling, completing);
            (completed, cancelled)
        };
        assert!(completed.unwrap() && cancelled.unwrap());
        let ended = world.get(&upgrade).await;
        assert_eq!(
            ended.phase(),
            UpgradePhase::Completed,
            "the new release runs, whatever was asked for meanwhile"
        );
        // If the cancel was first it is on its way still, and finds nothing to do.
        if let Some(event) = world.next().await {
            let token = world.claim(&event.id).await;
            world.complete(&event.id, &token, Ended::Applied).await.unwrap();
            ends.push("cancel first");
        }
        assert_eq!((world.get(&upgrade).await, world.next().await), (ended, None));
    }
    assert!(ends.len() <= ROUNDS);
}

// Behaviour 5: whichever of the upgrade and its cancel is completed first decides.
async fn racing_completions_of_upgrade_and_cancel_have_one_winner(db: TestDb) {
    let world = World::new(db).await;
    for _ in 0..ROUNDS {
        let (upgrade, token) = world.start_running().await;
        world.cancel(&upgrade).await.unwrap();
        let (cancel, cancelling) = world.claim_next(EventType::UpgradeCancel).await;
        let (cancelled, completed) = tokio::join!(
            world.complete(&cancel, &cancelling, Ended::Applied),
            world.complete(&upgrade, &token, Ended::Applied),
        );
        assert!(cancelled.unwrap() && completed.unwrap());
        let ended = world.get(&upgrade).await;
        assert!(matches!(ended.phase(), UpgradePhase::Completed | UpgradePhase::Cancelled), "{ended:?}");
        for other in [UpgradePhase::Completed, UpgradePhase::Cancelled, UpgradePhase::Failed] {
            let told = world.report(&upgrade, other).await;
            assert_eq!(told.is_ok(), other == ended.phase());
        }
        assert_eq!((world.phase(&upgrade).await, world.next().await), (ended.phase(), None));
    }
}

async fn a_cancel_racing_the_first_claim_is_either_at_once_or_by_instruction(db: TestDb) {
    let world = World::new(db).await;
    for _ in 0..ROUNDS {
        let upgrade = world.start().await;
        let (claimed, cancelled) = tokio::join!(world.try_claim(&upgrade), world.cancel(&upgrade));
        assert!(cancelled.unwrap());
        let claimed = claimed.success;
        let expected = if claimed { UpgradePhase::Cancelling } else { UpgradePhase::Cancelled };
        assert_eq!(world.phase(&upgrade).await, expected);
        assert_eq!(
            world.next().await.is_some(),
            claimed,
            "an instruction where there is something to cancel"
        );
        world.clear().await;
    }
}

async fn a_trigger_racing_the_archival_leaves_nothing_under_way(db: TestDb) {
    const ARCHIVE: &str = "UPDATE workspaces SET deleted_at = $2 WHERE id = $1";
    const ACTIVE: &str =
        "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM dataplane_upgrades WHERE ended_at IS NULL";
    let world = World::new(db).await;
    for _ in 0..ROUNDS {
        let archiving = async {
            let mut tx = world.test.db.begin().await.unwrap();
            let now = tx.now().await.unwrap();
            query(ARCHIVE).bind(world.edge).bind(now).execute(&mut tx).await.unwrap();
            retire_workspace(&mut tx, world.customer, world.edge).await.unwrap();
            tx.commit_unaudited("test").await.unwrap();
        };
        let (started, ()) = tokio::join!(world.start_in("edge"), archiving);
        if let Err(refused) = started {
            assert_eq!(reason::<()>(Err(refused)), (Code::NotFound, "WORKSPACE_NOT_FOUND".into()));
        }
        let active: i64 = query(ACTIVE).value(&world.test.db).await.unwrap().unwrap();
        assert_eq!((active, world.next().await), (0, None));
        let mut tx = world.test.db.begin().await.unwrap();
        query("UPDATE workspaces SET deleted_at = NULL").execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }
}

async fn a_rollback_racing_a_new_upgrade_leaves_one_under_way(db: TestDb) {
    let world = World::new(db).await;
    for _ in 0..ROUNDS {
        let completed = world.start_completed().await;
        let (started, rolled_back) = tokio::join!(world.start_in("edge"), world.roll_back(&completed));
        assert!(started.is_ok() != rolled_back.is_ok(), "{started:?} {rolled_back:?}");
        for refused in [started.err(), rolled_back.err()].into_iter().flatten() {
            assert_eq!(reason::<()>(Err(refused)), (Code::FailedPrecondition, "UPGRADE_ACTIVE".into()));
        }
        assert!(world.next().await.is_some());
        world.clear().await;
    }
}
