//! Drift, healing and instructions, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::drift::{self, Observed, Replayed, Report, Scope};
use agentrouter_delivery::{Audience, Slot, instruct, resync, trigger};
use agentrouter_kernel::Timestamp;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{Fleet, applied, failed};
use prost::Message;

on_both_engines!(
    reconciling_is_a_fixed_point,
    a_full_sync_adds_nothing_to_what_is_on_its_way,
    what_is_reported_counts,
    healing_backs_off,
    refused_versions_are_not_healed,
    reconciling_brings_what_another_workspace_got,
    resyncing_ignores_the_reports,
    instructions_stand_beside_slots,
);

async fn sweep(fleet: &Fleet, scope: Scope, report: &Report) -> Replayed {
    drift::heal(fleet.db(), fleet.customer, fleet.workspaces[0], scope, report).await.unwrap()
}

async fn reconcile(fleet: &Fleet) -> Replayed {
    sweep(fleet, Scope::All, &Report::default()).await
}

async fn trigger_slot(fleet: &Fleet, slot: &Slot) {
    let mut tx = fleet.db().begin().await.unwrap();
    trigger(&mut tx, slot, EventType::Updated, &Audience::Everyone).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
}

/// Loses what the workspace recorded, as a restored data plane does.
async fn forget(fleet: &Fleet) {
    let mut tx = fleet.db().begin().await.unwrap();
    query("UPDATE workspace_slots SET applied_version = 0 WHERE workspace_id = $1")
        .bind(fleet.workspaces[0])
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test").await.unwrap();
}

/// Until when the only slot that was healed is not healed again.
async fn heal_after(fleet: &Fleet) -> Timestamp {
    let until = query("SELECT heal_after AS value FROM workspace_slots WHERE heal_after IS NOT NULL");
    until.value(fleet.db()).await.unwrap().unwrap()
}

async fn three_slots(fleet: &Fleet) {
    fleet.change(1).await;
    fleet.trigger().await;
    trigger_slot(fleet, &Slot::per_user(fleet.customer, "ada", ConfigType::UserKeys)).await;
    fleet.give_byok("ada", "key").await;
}

// Behaviour 20: the second reconcile replays 0 in every bucket, before and after the events are applied
async fn reconciling_is_a_fixed_point(db: TestDb) {
    let fleet = Fleet::new(db, 2).await;
    assert_eq!(reconcile(&fleet).await, Replayed::default());
    three_slots(&fleet).await;
    // What was offered to all is on its way, even before it is laid out.
    assert_eq!(reconcile(&fleet).await, Replayed::default());
    assert_eq!(fleet.converge(0).await, 3);
    assert_eq!(reconcile(&fleet).await, Replayed::default());
    forget(&fleet).await;
    let replayed = reconcile(&fleet).await;
    assert_eq!(replayed, Replayed { global: 1, per_user: 1, per_user_per_key: 1 });
    assert_eq!(replayed.total(), 3);
    assert_eq!(reconcile(&fleet).await, Replayed::default());
    let pending = fleet.pending(0).await;
    assert!(pending.iter().all(|event| event.event_type == "reconciled"), "{pending:?}");
    assert_eq!(fleet.converge(0).await, 3);
    assert_eq!(reconcile(&fleet).await, Replayed::default());
    // Nobody else's workspace was touched.
    assert_eq!(fleet.converge(1).await, 3);
}

// Behaviour 21: a full sync while one event is held and one waits adds an event for the third slot only
async fn a_full_sync_adds_nothing_to_what_is_on_its_way(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    three_slots(&fleet).await;
    fleet.give_byok("ada", "other").await;
    let pending = fleet.pending(0).await;
    let of = |key: &str| pending.iter().find(|event| event.key_id == key).unwrap().id;
    fleet.hold(0, of("key"), "worker").await;
    let claim = fleet.hold(0, of("other"), "worker").await;
    fleet.complete(0, of("other"), &claim, applied()).await.unwrap();
    let full = sweep(&fleet, Scope::Users, &Report::default()).await;
    assert_eq!(full, Replayed::default(), "held, waiting and applied");
    let mut tx = fleet.db().begin().await.unwrap();
    query("UPDATE workspace_slots SET applied_version = 0").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    let full = sweep(&fleet, Scope::Users, &Report::default()).await;
    assert_eq!(full, Replayed { per_user_per_key: 1, ..Replayed::default() });
    assert_eq!(sweep(&fleet, Scope::Users, &Report::default()).await, Replayed::default());
    // Global slots are not part of it.
    assert!(
        fleet.pending(0).await.iter().all(|event| event.event_type != "full_sync" || event.key_id == "other")
    );
}

// Behaviour 22: a slot that is recorded as applied is healed where the worker reports another checksum
async fn what_is_reported_counts(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let configuration = fleet.trigger().await.configuration;
    fleet.converge(0).await;
    let observed = |version, checksum: &str| Observed {
        user_id: "system".into(),
        config_type: ConfigType::Providers,
        key_id: String::new(),
        version,
        checksum: checksum.into(),
    };
    let report = |slots, is_complete| Report { slots, is_complete };
    for calm in [
        report(vec![], false),
        report(vec![observed(1, "")], true),
        report(vec![observed(1, &configuration.checksum)], true),
    ] {
        assert_eq!(sweep(&fleet, Scope::All, &calm).await, Replayed::default(), "{calm:?}");
    }
    let edited = report(vec![observed(1, "edited by hand")], false);
    assert_eq!(sweep(&fleet, Scope::All, &edited).await.global, 1);
    assert_eq!(sweep(&fleet, Scope::All, &edited).await.global, 0, "it is on its way");
    fleet.converge(0).await;
    fleet.advance(600);
    let lost = report(vec![], true);
    assert_eq!(sweep(&fleet, Scope::All, &lost).await.global, 1, "a complete report without it");
}

// Behaviour 23: healing the same version waits 2 s, 6 s, 18 s and so on, and starts anew with new content
async fn healing_backs_off(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    fleet.trigger().await;
    fleet.converge(0).await;
    let lost = Report { slots: Vec::new(), is_complete: true };
    for delay in [2, 6, 18, 54, 162, 300, 300] {
        let length = Duration::from_secs(delay);
        let before = fleet.db().now().await.unwrap();
        assert_eq!(sweep(&fleet, Scope::All, &lost).await.total(), 1);
        let until = heal_after(&fleet).await;
        let after = fleet.db().now().await.unwrap();
        assert!((before.plus(length)..=after.plus(length)).contains(&until), "{delay} s: {until:?}");
        fleet.converge(0).await;
        // Well before, since time also goes by by itself, and more of it on a slow machine.
        let early = delay.saturating_sub(6);
        fleet.advance(early);
        assert_eq!(sweep(&fleet, Scope::All, &lost).await.total(), 0, "{delay}");
        fleet.advance(delay - early);
    }
    sweep(&fleet, Scope::All, &lost).await;
    fleet.change(2).await;
    fleet.trigger().await;
    fleet.converge(0).await;
    assert_eq!(sweep(&fleet, Scope::All, &lost).await.total(), 1);
}

// Behaviour 23: a version that the data plane rejected is not healed until there is a newer one
async fn refused_versions_are_not_healed(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    let event = fleet.trigger().await.events[0];
    let claim = fleet.hold(0, event, "worker").await;
    fleet.complete(0, event, &claim, failed(true)).await.unwrap();
    let lost = Report { slots: Vec::new(), is_complete: true };
    for _ in 0..3 {
        assert_eq!(reconcile(&fleet).await.total(), 0);
        assert_eq!(sweep(&fleet, Scope::All, &lost).await.total(), 0);
        fleet.advance(1_000);
    }
    fleet.change(2).await;
    fleet.trigger().await;
    assert_eq!(fleet.converge(0).await, 1);
    assert_eq!(sweep(&fleet, Scope::All, &lost).await.total(), 1);
}

async fn reconciling_brings_what_another_workspace_got(db: TestDb) {
    let fleet = Fleet::new(db, 2).await;
    fleet.change(1).await;
    fleet.trigger().await;
    fleet.converge(0).await;
    fleet.change(2).await;
    fleet.trigger_only("ws-1").await;
    assert_eq!(fleet.converge(0).await, 0);
    assert_eq!(reconcile(&fleet).await.global, 1);
    assert_eq!(fleet.pending(0).await[0].version, 2);
    assert_eq!(fleet.converge(0).await, 1);
    assert_eq!(fleet.applied_version(0).await, 2);
}

async fn resyncing_ignores_the_reports(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    three_slots(&fleet).await;
    fleet.converge(0).await;
    for (slot, expected) in [(Some(fleet.slot()), 1), (None, 2), (None, 0)] {
        let mut tx = fleet.db().begin().await.unwrap();
        let queued = resync(&mut tx, fleet.customer, fleet.workspaces[0], slot.as_ref()).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        assert_eq!(queued, expected);
    }
    assert_eq!(fleet.converge(0).await, 3);
    let mut tx = fleet.db().begin().await.unwrap();
    let never = Slot::global(fleet.customer, ConfigType::RevokedTokens);
    let refused = resync(&mut tx, fleet.customer, fleet.workspaces[0], Some(&never)).await.unwrap_err();
    assert_eq!(refused.reason(), "CONFIGURATION_NOT_FOUND");
}

async fn instructions_stand_beside_slots(db: TestDb) {
    let fleet = Fleet::new(db, 1).await;
    fleet.change(1).await;
    fleet.trigger().await;
    let metadata = prost_types::Struct {
        fields: [("target_version".to_owned(), prost_types::Value::from("1.2.0"))].into(),
    };
    let mut events = Vec::new();
    for event_type in [EventType::Upgrade, EventType::UpgradeCancel] {
        let mut tx = fleet.db().begin().await.unwrap();
        let id = instruct(&mut tx, fleet.customer, fleet.workspaces[0], event_type, &metadata).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        events.push(id);
    }
    let pending = fleet.pending(0).await;
    assert_eq!(pending.iter().map(|event| event.id).collect::<Vec<_>>()[1..], events);
    assert_eq!(pending[1].metadata, Some(metadata.encode_to_vec()));
    assert_eq!((pending[1].event_type.as_str(), pending[1].version), ("upgrade", 0));
    // Both at the same time: the cancel reaches the running upgrade.
    let upgrade = fleet.hold(0, events[0], "worker").await;
    let cancel = fleet.hold(0, events[1], "worker").await;
    fleet.change(2).await;
    fleet.trigger().await;
    assert_eq!(fleet.converge(0).await, 1);
    assert!(fleet.complete(0, events[1], &cancel, applied()).await.unwrap());
    assert!(fleet.complete(0, events[0], &upgrade, failed(true)).await.unwrap());
    assert!(fleet.event(events[0]).await.stuck);
}
