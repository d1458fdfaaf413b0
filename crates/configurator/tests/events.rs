//! Drift, batches, history and rollouts as ConfiguratorService answers them, on both engines.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod fleet;

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, EventStatus};
use agentrouter_delivery::sweep_events;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, on_both_engines, request, viewer};
use fleet::{Fleet, fields, reason};
use tonic::Code;

on_both_engines!(
    only_workspaces_reconcile,
    a_poll_that_reports_drift_returns_the_event,
    batches_tell_each_result,
    batches_are_checked_as_a_whole,
    a_claim_is_given_back,
    a_stuck_event_is_retried_and_audited,
    a_partial_success_tells_what_was_rejected,
    times_that_workers_send_decide_nothing,
    events_are_listed_with_their_history,
    an_event_is_found_before_it_is_laid_out,
    a_rollout_tells_who_lags,
    a_rollout_to_one_workspace,
    history_is_swept_and_claims_go_on,
    a_trigger_reaches_a_large_fleet_at_once,
);

async fn only_workspaces_reconcile(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let reconcile = pb::ReconcileWorkspaceRequest::default();
    let status = fleet.service.reconcile_workspace(request(call(&fleet.admin), reconcile)).await.unwrap_err();
    assert_eq!(
        (status.code(), reason(&status).as_str()),
        (Code::PermissionDenied, "WORKSPACE_CLAIM_REQUIRED")
    );
    let sync = pb::FullSyncWorkspaceRequest::default();
    let status = fleet.service.full_sync_workspace(request(call(&fleet.admin), sync)).await.unwrap_err();
    assert_eq!(reason(&status), "WORKSPACE_CLAIM_REQUIRED");
    fleet.change(1).await;
    fleet.keys("ada").await;
    fleet.converge("edge").await;
    let lost = pb::ReconcileWorkspaceRequest { observed: vec![], observed_complete: true };
    let replayed = |message: pb::ReconcileWorkspaceRequest| async {
        let call = call(&fleet.worker("edge"));
        let answer = fleet.service.reconcile_workspace(request(call, message)).await.unwrap().into_inner();
        (
            answer.replayed_total,
            answer.replayed_global,
            answer.replayed_per_user,
            answer.replayed_per_user_per_key,
        )
    };
    assert_eq!(replayed(pb::ReconcileWorkspaceRequest::default()).await, (0, 0, 0, 0));
    assert_eq!(replayed(lost.clone()).await, (2, 1, 1, 0));
    assert_eq!(replayed(lost).await, (0, 0, 0, 0));
    fleet.converge("edge").await;
    fleet.test.db.advance_clock(Duration::from_secs(5));
    let lost = pb::FullSyncWorkspaceRequest { observed: vec![], observed_complete: true };
    let call_of_edge = call(&fleet.worker("edge"));
    let answer = fleet.service.full_sync_workspace(request(call_of_edge, lost)).await.unwrap().into_inner();
    assert_eq!(
        (answer.replayed_total, answer.replayed_per_user, answer.replayed_per_user_per_key),
        (1, 1, 0)
    );
    let wrong = pb::ReconcileWorkspaceRequest {
        observed: vec![pb::ObservedSlot { version: -1, ..Default::default() }],
        observed_complete: false,
    };
    let call_of_edge = call(&fleet.worker("edge"));
    let status = fleet.service.reconcile_workspace(request(call_of_edge, wrong)).await.unwrap_err();
    assert_eq!(fields(&status), ["observed[0].config_type", "observed[0].user_id", "observed[0].version"]);
}

// Behaviour 22: a poll that reports another checksum than the desired one returns the event that repairs it
async fn a_poll_that_reports_drift_returns_the_event(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let configuration = fleet.change(1).await.configuration.unwrap();
    fleet.converge("edge").await;
    let observed = |checksum: &str| pb::ObservedSlot {
        user_id: "system".into(),
        config_type: ConfigType::Providers.into(),
        key_id: String::new(),
        version: 1,
        checksum: checksum.into(),
    };
    let poll = |checksum: &str| pb::ListPendingEventsRequest {
        observed: vec![observed(checksum)],
        observed_complete: true,
        ..Default::default()
    };
    assert!(fleet.poll("edge", poll(&configuration.checksum)).await.events.is_empty());
    let events = fleet.poll("edge", poll("edited")).await.events;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].version, events[0].event_type()), (1, pb::EventType::Reconciled));
    // An API key only looks, whatever it says it observed.
    let poll = pb::ListPendingEventsRequest { workspace_id: "edge".into(), ..poll("other") };
    fleet.converge("edge").await;
    fleet.test.db.advance_clock(Duration::from_secs(5));
    let seen =
        fleet.service.list_pending_events(request(call(&fleet.admin), poll)).await.unwrap().into_inner();
    assert!(seen.events.is_empty());
}

// Behaviour 12: a batch of up to 100 claims and completions with a result for each event
async fn batches_tell_each_result(db: TestDb) {
    let fleet = Fleet::new(db, &["a", "b", "c"]).await;
    let ids = fleet.change(1).await.event_ids;
    let nowhere = "evt_01K00000000000000000000000".to_owned();
    let message = pb::BatchAcknowledgeEventsRequest {
        event_ids: vec![ids[0].clone(), nowhere.clone(), ids[1].clone()],
        worker_id: "worker".into(),
        lease: None,
    };
    let claimed = fleet.service.batch_acknowledge_events(request(call(&fleet.admin), message)).await.unwrap();
    let claimed = claimed.into_inner().results;
    let told: Vec<_> = claimed
        .iter()
        .map(|result| {
            (
                result.event_id.clone(),
                result.response.as_ref().is_some_and(|r| r.success),
                result.error_reason.as_str(),
            )
        })
        .collect();
    assert_eq!(
        told,
        [(ids[0].clone(), true, ""), (nowhere.clone(), false, "EVENT_NOT_FOUND"), (ids[1].clone(), true, "")]
    );
    let report = |index: usize, event: &str, success| pb::CompleteEventRequest {
        event_id: event.to_owned(),
        success,
        error_message: "no".into(),
        claim_token: claimed[index].response.as_ref().unwrap().claim_token.clone(),
        ..Default::default()
    };
    let completions = vec![report(0, &ids[0], true), report(2, &ids[1], false), report(0, &ids[2], true)];
    let message = pb::BatchCompleteEventsRequest { completions };
    let done = fleet.service.batch_complete_events(request(call(&fleet.admin), message)).await.unwrap();
    let told: Vec<_> = done
        .into_inner()
        .results
        .into_iter()
        .map(|result| (result.response.map(|response| response.success), result.error_reason))
        .collect();
    assert_eq!(
        told,
        [(Some(true), String::new()), (Some(true), String::new()), (None, "STALE_CLAIM".to_owned())]
    );
    assert_eq!(fleet.event(&ids[0]).await.status(), EventStatus::Applied);
    assert_eq!(fleet.event(&ids[1]).await.failures.len(), 1);
    // A worker reaches the events of its own workspace only.
    let message = pb::BatchAcknowledgeEventsRequest {
        event_ids: vec![ids[2].clone()],
        worker_id: "worker".into(),
        lease: None,
    };
    let foreign =
        fleet.service.batch_acknowledge_events(request(call(&fleet.worker("a")), message)).await.unwrap();
    assert_eq!(foreign.into_inner().results[0].error_reason, "EVENT_NOT_FOUND");
}

async fn batches_are_checked_as_a_whole(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let acknowledge = |event_ids: Vec<String>| {
        let message = pb::BatchAcknowledgeEventsRequest { event_ids, worker_id: String::new(), lease: None };
        fleet.service.batch_acknowledge_events(request(call(&fleet.admin), message))
    };
    assert_eq!(fields(&acknowledge(vec![]).await.unwrap_err()), ["event_ids"]);
    assert_eq!(
        fields(&acknowledge(vec!["x".into(), "y".into()]).await.unwrap_err()),
        ["event_ids[0]", "event_ids[1]"]
    );
    let many = vec!["evt_01K00000000000000000000000".to_owned(); 101];
    assert_eq!(fields(&acknowledge(many).await.unwrap_err()), ["event_ids"]);
    let completions = vec![pb::CompleteEventRequest { claim_token: "x".into(), ..Default::default() }];
    let message = pb::BatchCompleteEventsRequest { completions };
    let status = fleet.service.batch_complete_events(request(call(&fleet.admin), message)).await.unwrap_err();
    assert_eq!(fields(&status), ["completions[0].event_id", "completions[0].claim_token"]);
}

// Behaviour 11: a worker that stops gives its claim back, and another one has it at once as the first attempt
async fn a_claim_is_given_back(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids[0].clone();
    let claim = fleet.claim("edge", &event, "stops").await;
    let release = |token: &str| {
        let message = pb::ReleaseEventRequest {
            event_id: event.clone(),
            claim_token: token.to_owned(),
            worker_id: "stops".into(),
        };
        fleet.service.release_event(request(call(&fleet.worker("edge")), message))
    };
    assert_eq!(fields(&release("x").await.unwrap_err()), ["claim_token"]);
    release(&claim.claim_token).await.unwrap();
    let stale = release(&claim.claim_token).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "STALE_CLAIM"));
    let next = fleet.claim("edge", &event, "next").await;
    assert_eq!((next.success, next.attempt), (true, 1));
}

// Behaviour 26: RetryEvent redrives a stuck event, and the retry is in the audit log
async fn a_stuck_event_is_retried_and_audited(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids[0].clone();
    let retry = || {
        let message = pb::RetryEventRequest { event_id: event.clone() };
        fleet.service.retry_event(request(call(&fleet.admin), message))
    };
    let early = retry().await.unwrap_err();
    assert_eq!((early.code(), reason(&early).as_str()), (Code::FailedPrecondition, "EVENT_NOT_FAILED"));
    fleet.fail("edge", &event, true).await;
    assert!(fleet.event(&event).await.stuck);
    let retried = retry().await.unwrap().into_inner();
    assert_eq!((retried.status(), retried.stuck, retried.attempt), (EventStatus::Pending, false, 0));
    assert_eq!(fleet.converge("edge").await, 1);
    let audited: Option<i64> =
        query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM audit_entries WHERE target = $1")
            .bind(&event)
            .value(&fleet.test.db)
            .await
            .unwrap();
    assert_eq!(audited, Some(1));
    let other = fleet.test.customer("other").await;
    let message = pb::RetryEventRequest { event_id: event.clone() };
    let foreign =
        fleet.service.retry_event(request(call(&admin(other, "other")), message)).await.unwrap_err();
    assert_eq!(reason(&foreign), "EVENT_NOT_FOUND");
}

// Behaviour 28: a completion tells which resources were applied and which were rejected, and why.
async fn a_partial_success_tells_what_was_rejected(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    let ids = fleet.change(1).await.event_ids;
    let resources = vec![
        pb::ResourceResult { resource: "openai".into(), applied: true, reason: String::new() },
        pb::ResourceResult { resource: "cohere".into(), applied: false, reason: "no such schema".into() },
    ];
    for (slug, event, success) in [("edge", &ids[0], true), ("far", &ids[1], false)] {
        let claim = fleet.claim(slug, event, "worker").await;
        let done = pb::CompleteEventRequest {
            event_id: event.clone(),
            success,
            claim_token: claim.claim_token,
            resources: resources.clone(),
            ..Default::default()
        };
        fleet.service.complete_event(request(call(&fleet.worker(slug)), done)).await.unwrap();
        assert_eq!(fleet.event(event).await.resources, resources);
    }
}

// Behaviour 10: a worker whose clock is an hour off gets the same leases, and is seen at the same time.
async fn times_that_workers_send_decide_nothing(db: TestDb) {
    let fleet = Fleet::new(db, &["slow", "fast"]).await;
    let ids = fleet.change(1).await.event_ids;
    for (slug, event, hours) in [("slow", &ids[0], -1), ("fast", &ids[1], 1)] {
        let now = fleet.test.db.now().await.unwrap().as_secs();
        let claim = fleet.claim(slug, event, "worker").await;
        let observed_at = prost_types::Timestamp { seconds: now + hours * 3600, nanos: 0 };
        let poll = pb::ListPendingEventsRequest {
            worker_id: "worker".into(),
            held: vec![pb::HeldEvent { event_id: event.clone(), claim_token: claim.claim_token }],
            doctor_runtime: Some(pb::DoctorRuntime { observed_at: Some(observed_at), ..Default::default() }),
            ..Default::default()
        };
        let renewed = fleet.poll(slug, poll).await.renewed;
        let lease = renewed[0].lease_expires_at.unwrap().seconds - now;
        assert!((29..=32).contains(&lease), "{slug}: {lease} s");
        fleet.presence.flush(&fleet.test.db).await.unwrap();
        let seen: Option<i64> =
            query("SELECT last_seen_at AS value FROM workspace_sync WHERE workspace_id = $1")
                .bind(fleet.workspace(slug))
                .value(&fleet.test.db)
                .await
                .unwrap();
        assert!((0..=5_000_000).contains(&(seen.unwrap() - now * 1_000_000)), "{slug}: {seen:?}");
    }
}

// Behaviour 14: a superseded event is never delivered, names its successor, and stays in the history
async fn events_are_listed_with_their_history(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    let mut newest = Vec::new();
    for weight in 1..=3 {
        newest.push(fleet.change(weight).await.event_ids[0].clone());
        fleet.poll("edge", pb::ListPendingEventsRequest::default()).await;
    }
    fleet.keys("ada").await;
    fleet.converge("edge").await;
    let list = |message: pb::ListEventsRequest| {
        fleet.service.list_events(request(call(&viewer(fleet.customer, "acme")), message))
    };
    let of_edge = pb::ListEventsRequest { workspace_id: "edge".into(), ..Default::default() };
    let events = list(of_edge.clone()).await.unwrap().into_inner().events;
    let told: Vec<_> =
        events.iter().map(|event| (event.config_type(), event.version, event.status())).collect();
    assert_eq!(
        told,
        [
            (ConfigType::UserKeys, 1, EventStatus::Applied),
            (ConfigType::Providers, 3, EventStatus::Applied),
            (ConfigType::Providers, 2, EventStatus::Superseded),
            (ConfigType::Providers, 1, EventStatus::Superseded),
        ]
    );
    assert_eq!(events[3].superseded_by, newest[1]);
    // What was offered and not laid out yet is there, too.
    let all = list(pb::ListEventsRequest::default()).await.unwrap().into_inner().events;
    assert_eq!(all.len(), 6);
    let waiting = pb::ListEventsRequest { status: EventStatus::Pending.into(), ..Default::default() };
    let waiting = list(waiting).await.unwrap().into_inner().events;
    assert!(waiting.iter().all(|event| event.workspace_id == "far") && waiting.len() == 2);
    let of_ada = pb::ListEventsRequest {
        user_id: "ada".into(),
        config_type: ConfigType::UserKeys.into(),
        ..of_edge.clone()
    };
    assert_eq!(list(of_ada).await.unwrap().into_inner().events.len(), 1);
    // Pages meet without a gap or an overlap.
    let mut paged = Vec::new();
    let mut page = pb::ListEventsRequest { page_size: 4, ..Default::default() };
    loop {
        let answer = list(page.clone()).await.unwrap().into_inner();
        paged.extend(answer.events);
        if answer.next_page_token.is_empty() {
            break;
        }
        page.page_token = answer.next_page_token;
    }
    assert_eq!(paged, all);
    let reused =
        pb::ListEventsRequest { user_id: "ada".into(), page_token: page.page_token, ..Default::default() };
    assert_eq!(fields(&list(reused).await.unwrap_err()), ["page_token"]);
    let wrong = pb::ListEventsRequest { page_size: -1, status: 99, config_type: 99, ..Default::default() };
    assert_eq!(fields(&list(wrong).await.unwrap_err()), ["page_size", "status", "config_type"]);
    let nowhere = pb::ListEventsRequest { workspace_id: "nowhere".into(), ..Default::default() };
    assert_eq!(reason(&list(nowhere).await.unwrap_err()), "WORKSPACE_NOT_FOUND");
}

async fn an_event_is_found_before_it_is_laid_out(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids[0].clone();
    assert_eq!(fleet.event(&event).await.status(), EventStatus::Pending);
    let other = fleet.test.customer("other").await;
    let get = |event_id: &str, caller| {
        let message = pb::GetEventRequest { event_id: event_id.to_owned() };
        fleet.service.get_event(request(call(&caller), message))
    };
    let foreign = get(&event, admin(other, "other")).await.unwrap_err();
    assert_eq!((foreign.code(), reason(&foreign).as_str()), (Code::NotFound, "EVENT_NOT_FOUND"));
    assert_eq!(fields(&get("nope", fleet.admin.clone()).await.unwrap_err()), ["event_id"]);
}

async fn a_rollout_tells_who_lags(db: TestDb) {
    let fleet = Fleet::new(db, &["applied", "back", "failing", "holding", "idle"]).await;
    let first = fleet.change(1).await;
    fleet.converge("back").await;
    let ids = fleet.change(2).await.event_ids;
    assert_eq!(first.event_ids.len(), 5);
    fleet.converge("applied").await;
    let claim = fleet.claim("back", &ids[1], "worker").await;
    let went_back = pb::CompleteEventRequest {
        event_id: ids[1].clone(),
        claim_token: claim.claim_token,
        error_message: "5xx".into(),
        permanent: true,
        applied_version: 1,
        ..Default::default()
    };
    fleet.service.complete_event(request(call(&fleet.worker("back")), went_back)).await.unwrap();
    fleet.fail("failing", &ids[2], false).await;
    fleet.claim("holding", &ids[3], "worker").await;
    let rollout = |version, page_size, page_token: &str| {
        let message = pb::GetRolloutRequest {
            user_id: "system".into(),
            config_type: ConfigType::Providers.into(),
            key_id: String::new(),
            version,
            page_size,
            page_token: page_token.to_owned(),
        };
        fleet.service.get_rollout(request(call(&viewer(fleet.customer, "acme")), message))
    };
    let newest = rollout(0, 0, "").await.unwrap().into_inner();
    let counts =
        (newest.wanted, newest.in_flight, newest.pending, newest.applied, newest.failed, newest.stuck);
    assert_eq!((newest.version, counts), (2, (5, 1, 1, 1, 1, 1)));
    let told: Vec<_> = newest
        .lagging
        .iter()
        .map(|lagging| {
            (
                lagging.workspace_id.as_str(),
                lagging.status(),
                lagging.stuck,
                lagging.applied_version,
                lagging.failed_version,
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("back", EventStatus::Failed, true, 1, 2),
            ("failing", EventStatus::Failed, false, 0, 0),
            ("holding", EventStatus::Acknowledged, false, 0, 0),
            ("idle", EventStatus::Pending, false, 0, 0),
        ]
    );
    assert_eq!(newest.lagging[0].error_message, "5xx");
    // The event of the one that was never laid out is known all the same.
    assert_eq!(newest.lagging[3].event_id, ids[4]);
    let before = rollout(1, 0, "").await.unwrap().into_inner();
    assert_eq!((before.applied, before.wanted), (2, 5));
    let first = rollout(2, 3, "").await.unwrap().into_inner();
    assert_eq!(first.lagging, newest.lagging[..3]);
    let second = rollout(2, 3, &first.next_page_token).await.unwrap().into_inner();
    assert_eq!((second.lagging.as_slice(), second.next_page_token.as_str()), (&newest.lagging[3..], ""));
    assert_eq!(reason(&rollout(3, 0, "").await.unwrap_err()), "VERSION_NOT_FOUND");
    assert_eq!(fields(&rollout(-1, -1, "").await.unwrap_err()), ["page_size", "version"]);
    let never = pb::GetRolloutRequest {
        user_id: "system".into(),
        config_type: ConfigType::McpCatalog.into(),
        ..Default::default()
    };
    let status = fleet.service.get_rollout(request(call(&fleet.admin), never)).await.unwrap_err();
    assert_eq!(reason(&status), "CONFIGURATION_NOT_FOUND");
}

async fn a_rollout_to_one_workspace(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    fleet.change(1).await;
    fleet.converge("edge").await;
    fleet.converge("far").await;
    fleet.provider(2).await;
    fleet.trigger(pb::TriggerUpdateRequest { workspace_id: "edge".into(), ..fleet::providers() }).await;
    let message = pb::GetRolloutRequest {
        user_id: "system".into(),
        config_type: ConfigType::Providers.into(),
        ..Default::default()
    };
    let rollout = fleet.service.get_rollout(request(call(&fleet.admin), message)).await.unwrap().into_inner();
    assert_eq!((rollout.wanted, rollout.pending, rollout.applied), (2, 1, 0));
    assert_eq!(
        rollout.lagging[1].status(),
        EventStatus::Unspecified,
        "nothing is on its way to the other one"
    );
}

async fn history_is_swept_and_claims_go_on(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let mut ids = Vec::new();
    for weight in 1..=3 {
        ids.push(fleet.change(weight).await.event_ids[0].clone());
        if weight < 3 {
            fleet.converge("edge").await;
        }
    }
    fleet.fail("edge", &ids[2], true).await;
    let sweep = async |limit| {
        let mut tx = fleet.test.db.begin().await.unwrap();
        let swept = sweep_events(&mut tx, limit).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        swept
    };
    fleet.test.db.advance_clock(Duration::from_hours(29 * 24));
    assert_eq!(sweep(100).await, 0);
    fleet.test.db.advance_clock(Duration::from_hours(2 * 24));
    assert_eq!((sweep(1).await, sweep(100).await, sweep(100).await), (1, 1, 0));
    let get = pb::GetEventRequest { event_id: ids[0].clone() };
    let gone = fleet.service.get_event(request(call(&fleet.admin), get)).await.unwrap_err();
    assert_eq!(reason(&gone), "EVENT_NOT_FOUND");
    // What is stuck is not history.
    assert!(fleet.event(&ids[2]).await.stuck);
    fleet.change(4).await;
    assert_eq!(fleet.converge("edge").await, 1);
}

// Behaviour 33: one trigger for 10,000 workspaces is there for all of them with its commit, and for none before
async fn a_trigger_reaches_a_large_fleet_at_once(db: TestDb) {
    const MANY: i64 = 10_000;
    let fleet = Fleet::new(db, &["edge"]).await;
    fleet.many_workspaces(MANY - 1).await;
    fleet.provider(1).await;
    // An uncommitted trigger is seen by nobody, and an aborted one leaves nothing.
    let mut tx = fleet.test.db.begin().await.unwrap();
    let slot = agentrouter_delivery::Slot::global(fleet.customer, ConfigType::Providers);
    let audience = agentrouter_delivery::Audience::Everyone;
    let aborted =
        agentrouter_delivery::trigger(&mut tx, &slot, pb::EventType::Updated, &audience).await.unwrap();
    assert_eq!(aborted.events.len(), 10_000);
    drop(tx);
    assert!(fleet.poll("edge", pb::ListPendingEventsRequest::default()).await.events.is_empty());
    let triggered = fleet.trigger(fleet::providers()).await;
    assert_eq!(triggered.event_ids.len(), 10_000);
    let rollout = pb::GetRolloutRequest {
        user_id: "system".into(),
        config_type: ConfigType::Providers.into(),
        ..Default::default()
    };
    let spread = fleet.service.get_rollout(request(call(&fleet.admin), rollout)).await.unwrap().into_inner();
    assert_eq!((spread.wanted, spread.pending), (10_000, 10_000));
    let listed = pb::ListPendingEventsRequest { limit: 1, ..Default::default() };
    fleet.service.list_pending_events(request(call(&fleet.admin), listed)).await.unwrap();
    let laid_out: Option<i64> =
        query("SELECT CAST(COUNT(DISTINCT workspace_id) AS BIGINT) AS value FROM liaison_configuration_events WHERE status = 'pending'")
            .value(&fleet.test.db)
            .await
            .unwrap();
    assert_eq!(laid_out, Some(MANY));
}
