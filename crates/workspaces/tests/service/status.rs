//! GetWorkspaceStatus, along the life of an event.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, DoctorRuntime, EventStatus};
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{GetWorkspaceStatusRequest, SlotStatus, WorkspaceStatus};
use agentrouter_delivery::claim::LEASE_DEFAULT;
use agentrouter_delivery::complete::Outcome;
use agentrouter_delivery::{Audience, Slot, delete_user_slots};
use agentrouter_kernel::id::{Event, Id};
use agentrouter_kernel::{Principal, Role};
use agentrouter_rpc::convert::timestamp;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request};
use prost::Message;
use tonic::{Code, Response, Status};

use crate::Tenant;
use crate::fleet::Worker;

on_both_engines!(
    an_empty_workspace_is_converged,
    a_new_workspace_waits_for_every_live_slot,
    an_event_is_followed_to_its_end,
    a_newer_version_waits_behind_one_in_flight,
    a_failure_is_tried_again_until_it_is_stuck,
    a_version_that_failed_is_shown_beside_the_one_that_runs,
    a_lease_that_ran_out_holds_nothing,
    a_tombstone_counts_until_it_is_applied,
    a_slot_of_one_workspace_is_shown_there_only,
    a_workspace_left_behind_is_not_converged,
    instructions_count_but_are_no_slots,
    a_worker_is_online_while_it_calls,
    the_doctor_observation_is_shown,
    tenants_do_not_see_each_others_status,
);

impl Tenant<'_> {
    pub(crate) async fn status(&self, workspace_id: &str) -> Result<Response<WorkspaceStatus>, Status> {
        let message = GetWorkspaceStatusRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
        };
        let reader = Principal { role: Some(Role::Viewer), ..self.admin.clone() };
        self.service.get_workspace_status(request(call(&reader), message)).await
    }

    async fn eu_1(&self) -> WorkspaceStatus {
        self.status("eu-1").await.unwrap().into_inner()
    }
}

/// Pending, in-flight and stuck events.
fn counts(status: &WorkspaceStatus) -> (i32, i32, i32) {
    (status.pending_events, status.in_flight_events, status.stuck_events)
}

/// A slot of the customer whose newest event is this one.
fn providers(desired: i64, applied: i64, event: EventStatus, id: Id<Event>) -> SlotStatus {
    SlotStatus {
        user_id: "system".to_owned(),
        config_type: ConfigType::Providers.into(),
        key_id: String::new(),
        desired_version: desired,
        applied_version: applied,
        applied_at: None,
        event_status: event.into(),
        event_id: id.to_string(),
        stuck: false,
        error_message: String::new(),
        failed_version: 0,
    }
}

async fn an_empty_workspace_is_converged(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.created("eu-1").await;
    let expected = WorkspaceStatus {
        workspace: Some(created.clone()),
        online: false,
        converged: true,
        slots: Vec::new(),
        pending_events: 0,
        in_flight_events: 0,
        stuck_events: 0,
        doctor_runtime: None,
        upgrade: None,
    };
    assert_eq!(acme.eu_1().await, expected);
    assert_eq!(acme.status(&created.id).await.unwrap().into_inner(), expected);
}

async fn a_new_workspace_waits_for_every_live_slot(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let user = db.identity(acme.id, "Ada").await;
    acme.change_providers(1).await;
    acme.change_providers(2).await;
    acme.trigger(&Slot::global(acme.id, ConfigType::McpCatalog)).await;
    acme.trigger(&Slot::per_user(acme.id, user.to_string(), ConfigType::UserKeys)).await;
    acme.created("eu-1").await;

    let before = acme.eu_1().await;
    assert!(!before.converged);
    assert_eq!(counts(&before), (3, 0, 0));
    let stands: Vec<_> = before
        .slots
        .iter()
        .map(|slot| (slot.config_type(), slot.user_id.as_str(), slot.desired_version, slot.event_status()))
        .collect();
    let user = user.to_string();
    let expected = [
        (ConfigType::McpCatalog, "system", 1, EventStatus::Pending),
        (ConfigType::Providers, "system", 2, EventStatus::Pending),
        (ConfigType::UserKeys, user.as_str(), 1, EventStatus::Pending),
    ];
    assert_eq!(stands, expected);

    // Whether the events have rows yet makes no difference, not even to their ids.
    let worker = Worker::new(&acme, "eu-1").await;
    assert_eq!(worker.open_events().await, 0);
    assert_eq!(worker.pending().await.len(), 3);
    assert_eq!(worker.open_events().await, 3);
    assert_eq!(acme.eu_1().await, before);

    assert_eq!(worker.converge().await, 3);
    let after = acme.eu_1().await;
    assert!(after.converged);
    assert_eq!(counts(&after), (0, 0, 0));
    for (slot, waiting) in after.slots.iter().zip(&before.slots) {
        assert_eq!(slot.event_status(), EventStatus::Applied);
        assert_eq!((slot.applied_version, &slot.event_id), (waiting.desired_version, &waiting.event_id));
    }
}

async fn an_event_is_followed_to_its_end(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    let event = acme.change_providers(1).await.events.remove(0);
    let waiting = acme.eu_1().await;
    assert_eq!(waiting.slots, [providers(1, 0, EventStatus::Pending, event)]);

    let row = worker.only_pending().await;
    let claim = worker.hold(row.id).await;
    let held = acme.eu_1().await;
    assert_eq!((held.converged, counts(&held)), (false, (0, 1, 0)));
    assert_eq!(held.slots, [providers(1, 0, EventStatus::Acknowledged, event)]);

    worker.complete(&row, &claim, crate::fleet::applied()).await.unwrap();
    let applied = acme.eu_1().await;
    assert_eq!((applied.converged, counts(&applied)), (true, (0, 0, 0)));
    let applied_at = applied.slots[0].applied_at;
    assert!(applied_at.is_some());
    assert_eq!(applied.slots, [SlotStatus { applied_at, ..providers(1, 1, EventStatus::Applied, event) }]);

    // The next version.
    let next = acme.change_providers(2).await.events.remove(0);
    let waiting = acme.eu_1().await;
    assert_eq!((waiting.converged, counts(&waiting)), (false, (1, 0, 0)));
    assert_eq!(waiting.slots, [SlotStatus { applied_at, ..providers(2, 1, EventStatus::Pending, next) }]);
}

async fn a_newer_version_waits_behind_one_in_flight(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    acme.change_providers(1).await;
    let row = worker.only_pending().await;
    let claim = worker.hold(row.id).await;
    acme.change_providers(2).await;
    let newest = acme.change_providers(3).await.events.remove(0);
    let behind = acme.eu_1().await;
    assert_eq!(counts(&behind), (1, 1, 0));
    assert_eq!(behind.slots, [providers(3, 0, EventStatus::Pending, newest)]);
    assert!(worker.pending().await.is_empty());
    assert_eq!(acme.eu_1().await, behind);

    // The older one may finish, and counts.
    worker.complete(&row, &claim, crate::fleet::applied()).await.unwrap();
    let caught_up = acme.eu_1().await;
    assert_eq!((caught_up.converged, counts(&caught_up)), (false, (1, 0, 0)));
    assert_eq!(caught_up.slots[0].applied_version, 1);
    assert_eq!(worker.converge().await, 1);
    assert!(acme.eu_1().await.converged);
}

async fn a_failure_is_tried_again_until_it_is_stuck(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    acme.change_providers(1).await;
    let event = worker.fail(false).await.id;
    let failed = SlotStatus {
        error_message: "no such model".to_owned(),
        ..providers(1, 0, EventStatus::Failed, event)
    };
    let status = acme.eu_1().await;
    assert_eq!((status.converged, counts(&status)), (false, (1, 0, 0)));
    assert_eq!(status.slots, std::slice::from_ref(&failed));

    db.db.advance_clock(Duration::from_secs(3));
    assert_eq!(worker.fail(true).await.id, event);
    let status = acme.eu_1().await;
    assert_eq!((status.converged, counts(&status)), (false, (0, 0, 1)));
    assert_eq!(status.slots, [SlotStatus { stuck: true, ..failed }]);

    // Only newer content frees the slot, from the moment it is there.
    let newer = acme.change_providers(2).await.events.remove(0);
    let freed = acme.eu_1().await;
    assert_eq!(counts(&freed), (1, 0, 0));
    assert_eq!(freed.slots, [providers(2, 0, EventStatus::Pending, newer)]);
    worker.only_pending().await;
    assert_eq!(acme.eu_1().await, freed);
}

// Behaviour 25: after a data plane went back by itself, the status names the failed version and the running one.
async fn a_version_that_failed_is_shown_beside_the_one_that_runs(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    acme.change_providers(1).await;
    assert_eq!(worker.converge().await, 1);
    let applied_at = |status: &WorkspaceStatus| status.slots[0].applied_at;
    acme.change_providers(2).await;
    let event = worker.only_pending().await;
    let claim = worker.hold(event.id).await;
    let outcome =
        Outcome::Failed { message: "the probe failed".to_owned(), permanent: true, running: Some(1) };
    assert!(worker.complete(&event, &claim, outcome).await.unwrap());
    let status = acme.eu_1().await;
    assert_eq!((status.converged, counts(&status)), (false, (0, 0, 1)));
    let expected = SlotStatus {
        applied_at: applied_at(&status),
        stuck: true,
        error_message: "the probe failed".to_owned(),
        failed_version: 2,
        ..providers(2, 1, EventStatus::Failed, event.id)
    };
    assert_eq!(status.slots, [expected]);

    // It stays so while a newer version is on its way, and is over once that runs.
    let newer = acme.change_providers(3).await.events.remove(0);
    let status = acme.eu_1().await;
    let waiting = SlotStatus {
        applied_at: applied_at(&status),
        failed_version: 2,
        ..providers(3, 1, EventStatus::Pending, newer)
    };
    assert_eq!(status.slots, [waiting]);
    assert_eq!(worker.converge().await, 1);
    let status = acme.eu_1().await;
    assert!(status.converged);
    let caught_up = providers(3, 3, EventStatus::Applied, newer);
    assert_eq!(status.slots, [SlotStatus { applied_at: applied_at(&status), ..caught_up }]);
}

async fn a_lease_that_ran_out_holds_nothing(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    let event = acme.change_providers(1).await.events.remove(0);
    let row = worker.only_pending().await;
    worker.hold(row.id).await;
    db.db.advance_clock(LEASE_DEFAULT + Duration::from_secs(1));
    let status = acme.eu_1().await;
    assert_eq!(counts(&status), (1, 0, 0));
    assert_eq!(status.slots, [providers(1, 0, EventStatus::Pending, event)]);
    // With a newer version behind it, only that one waits, as a poll then finds.
    let newer = acme.change_providers(2).await.events.remove(0);
    let status = acme.eu_1().await;
    assert_eq!(counts(&status), (1, 0, 0));
    assert_eq!(status.slots, [providers(2, 0, EventStatus::Pending, newer)]);
    assert_eq!(worker.only_pending().await.id, newer);
    assert_eq!(acme.eu_1().await, status);
}

async fn a_tombstone_counts_until_it_is_applied(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let user = db.identity(acme.id, "Ada").await.to_string();
    acme.created("eu-1").await;
    let worker = Worker::new(&acme, "eu-1").await;
    acme.trigger(&Slot::per_user(acme.id, &user, ConfigType::UserKeys)).await;
    assert_eq!(worker.converge().await, 1);
    assert_eq!(acme.eu_1().await.slots.len(), 1);

    let mut tx = db.db.begin().await.unwrap();
    assert_eq!(delete_user_slots(&mut tx, acme.id, &user).await.unwrap(), 1);
    tx.commit_unaudited("test").await.unwrap();
    let deleted = acme.eu_1().await;
    assert_eq!((deleted.converged, counts(&deleted)), (false, (1, 0, 0)));
    assert_eq!(deleted.slots, []);
    // A workspace that never had it has nothing to delete.
    acme.created("eu-2").await;
    let new = acme.status("eu-2").await.unwrap().into_inner();
    assert_eq!((new.converged, counts(&new)), (true, (0, 0, 0)));

    assert_eq!(worker.converge().await, 1);
    let settled = acme.eu_1().await;
    assert_eq!((settled.converged, counts(&settled)), (true, (0, 0, 0)));
}

async fn a_slot_of_one_workspace_is_shown_there_only(db: TestDb) {
    const SETTING: &str = "INSERT INTO system_settings (customer_id, workspace_id, name, value, updated_at) \
         VALUES ($1, $2, 'proxy_url', 'https://eu-1.example', 0)";
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.created("eu-2").await;
    let workspace = acme.scope("eu-1").await.id;
    let mut tx = db.db.begin().await.unwrap();
    query(SETTING).bind(acme.id).bind(workspace).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    acme.trigger(&Slot::proxy_url(acme.id, workspace)).await;
    let status = acme.eu_1().await;
    assert_eq!((status.slots.len(), counts(&status)), (1, (1, 0, 0)));
    assert_eq!(status.slots[0].config_type(), ConfigType::ProxyUrl);
    assert_eq!(status.slots[0].key_id, workspace.to_string());
    let other = acme.status("eu-2").await.unwrap().into_inner();
    assert_eq!((other.slots.len(), other.converged, counts(&other)), (0, true, (0, 0, 0)));
}

async fn a_workspace_left_behind_is_not_converged(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    acme.created("eu-2").await;
    let worker = Worker::new(&acme, "eu-1").await;
    let first = acme.change_providers(1).await.events.remove(0);
    assert_eq!(worker.converge().await, 1);
    let only = Audience::Only(acme.scope("eu-2").await);
    let second = acme.change_providers_for(2, &only).await.events.remove(0);
    let behind = acme.eu_1().await;
    assert_eq!((behind.converged, counts(&behind)), (false, (0, 0, 0)));
    let applied_at = behind.slots[0].applied_at;
    assert_eq!(behind.slots, [SlotStatus { applied_at, ..providers(2, 1, EventStatus::Applied, first) }]);
    // The other one, new as it is, has a row for this event before anything else is laid out for it.
    let other = acme.status("eu-2").await.unwrap().into_inner();
    assert_eq!((other.converged, counts(&other)), (false, (1, 0, 0)));
    assert_eq!(other.slots, [providers(2, 0, EventStatus::Pending, second)]);
    Worker::new(&acme, "eu-2").await.hold(second).await;
    let other = acme.status("eu-2").await.unwrap().into_inner();
    assert_eq!(counts(&other), (0, 1, 0));
    assert_eq!(other.slots, [providers(2, 0, EventStatus::Acknowledged, second)]);

    // A delivery that does not follow from the version is found all the same.
    let repeated = acme.trigger(&acme.providers_slot()).await.events.remove(0);
    let offered = acme.eu_1().await;
    assert_eq!(offered.slots, [SlotStatus { applied_at, ..providers(2, 1, EventStatus::Pending, repeated) }]);
    assert_eq!(worker.converge().await, 1);
    let converged = acme.eu_1().await;
    let applied_at = converged.slots[0].applied_at;
    assert_eq!(
        converged.slots,
        [SlotStatus { applied_at, ..providers(2, 2, EventStatus::Applied, repeated) }]
    );
    assert!(converged.converged);
}

async fn instructions_count_but_are_no_slots(db: TestDb) {
    const INSTRUCTION: &str = "INSERT INTO liaison_configuration_events (id, customer_id, workspace_id, user_id, \
             config_type, key_id, event_type, version, status, position, attempt, stuck, is_open, due_at, lease_micros, \
             worker_id, claimed_by, outcome, error_message, created_at) \
         VALUES ($1, $2, $3, 'system', 'dataplane_upgrade', '', 'upgrade', 0, $4, 1, 1, $5, TRUE, $6, 0, '', '', '', '', $7)";
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let workspace = acme.scope("eu-1").await.id;
    let mut tx = db.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    let later = now.plus(Duration::from_hours(1));
    for (status, stuck, due_at) in [
        ("pending", false, None),
        ("acknowledged", false, Some(later)),
        ("acknowledged", false, Some(now)),
        ("failed", false, Some(later)),
        ("failed", true, None),
    ] {
        query(INSTRUCTION)
            .bind(Id::<Event>::new(now))
            .bind(acme.id)
            .bind(workspace)
            .bind(status)
            .bind(stuck)
            .bind(due_at)
            .bind(now)
            .execute(&mut tx)
            .await
            .unwrap();
    }
    tx.commit_unaudited("test data").await.unwrap();
    let status = acme.eu_1().await;
    assert_eq!((status.converged, status.slots.len(), counts(&status)), (true, 0, (3, 1, 1)));
}

impl Tenant<'_> {
    async fn set_sync(&self, column: &str, value: impl Into<agentrouter_storage::Value>) {
        let mut tx = self.db.db.begin().await.unwrap();
        query(format!("UPDATE workspace_sync SET {column} = $1 WHERE customer_id = $2"))
            .bind(value)
            .bind(self.id)
            .execute(&mut tx)
            .await
            .unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }
}

async fn a_worker_is_online_while_it_calls(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let seen = db.db.now().await.unwrap();
    acme.set_sync("last_seen_at", seen).await;
    let status = acme.eu_1().await;
    assert!(status.online);
    assert_eq!(status.workspace.unwrap().last_seen_at, Some(timestamp(seen)));
    assert_eq!(acme.get("eu-1").await.unwrap().into_inner().last_seen_at, Some(timestamp(seen)));
    db.db.advance_clock(Duration::from_secs(121));
    assert!(!acme.eu_1().await.online);
}

async fn the_doctor_observation_is_shown(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.created("eu-1").await;
    let observed = DoctorRuntime {
        cron_job_present: true,
        schedule: "*/5 * * * *".to_owned(),
        reason: "ImagePullBackOff".to_owned(),
        ..DoctorRuntime::default()
    };
    acme.set_sync("doctor_runtime", observed.encode_to_vec()).await;
    assert_eq!(acme.eu_1().await.doctor_runtime, Some(observed));
    acme.set_sync("doctor_runtime", vec![0xFF_u8]).await;
    assert_eq!(refused(acme.status("eu-1").await), (Code::Internal, "INTERNAL".to_owned()));
}

async fn tenants_do_not_see_each_others_status(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.created("eu-1").await;
    let theirs = globex.created("eu-1").await;
    globex.change_providers(1).await;
    let status = acme.eu_1().await;
    assert_eq!((status.slots.len(), counts(&status)), (0, (0, 0, 0)));
    assert_eq!(counts(&globex.eu_1().await), (1, 0, 0));
    let foreign = acme.status(&theirs.id).await;
    assert_eq!(refused(foreign), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
    let intruder = Tenant { slug: globex.slug, ..acme };
    assert_eq!(refused(intruder.status("eu-1").await).0, Code::NotFound);
}
