//! WatchPendingEvents, on both engines.

#![expect(clippy::unwrap_used, reason = "a test that meets the unexpected must stop")]

mod fleet;

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_configurator::Configurator;
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, call, on_both_engines, request};
use fleet::{Fleet, fields, reason};
use tokio_stream::StreamExt;
use tonic::{Code, Status};
use tonic_types::StatusExt;

on_both_engines!(
    a_watch_tells_what_waits_and_what_comes,
    a_cursor_goes_on_without_loss_or_repeat,
    what_waits_for_an_older_version_follows_it,
    what_becomes_pending_again_is_told_again,
    a_slow_reader_gets_the_newest_state,
    cursors_expire_and_belong_to_their_workspace,
    a_watch_is_of_one_workspace,
    a_watching_worker_keeps_what_it_holds,
    what_is_held_does_not_hang_on_heartbeats,
    shutdown_ends_a_watch_with_a_hint,
    many_watches_of_one_customer,
);

type Stream = <Configurator as ConfiguratorService>::WatchPendingEventsStream;

async fn watch(
    fleet: &Fleet,
    caller: &Principal,
    message: pb::WatchPendingEventsRequest,
) -> Result<Stream, Status> {
    let stream = fleet.service.watch_pending_events(request(call(caller), message)).await?;
    Ok(stream.into_inner())
}

async fn watch_from(fleet: &Fleet, slug: &str, cursor: &str) -> Result<Stream, Status> {
    let message = pb::WatchPendingEventsRequest { cursor: cursor.to_owned(), ..Default::default() };
    watch(fleet, &fleet.worker(slug), message).await
}

/// The next message, a heartbeat or not.
async fn next(stream: &mut Stream) -> Result<pb::WatchPendingEventsResponse, Status> {
    tokio::time::timeout(Duration::from_secs(20), stream.next()).await.unwrap().unwrap()
}

/// The next message with events: their ids, and the cursor behind them.
async fn news(stream: &mut Stream) -> (Vec<String>, String) {
    loop {
        let message = next(stream).await.unwrap();
        if !message.events.is_empty() {
            return (message.events.into_iter().map(|event| event.id).collect(), message.cursor);
        }
    }
}

/// Waits for heartbeats, so that whatever was to come has come.
async fn silence(stream: &mut Stream) -> String {
    let mut cursor = String::new();
    for _ in 0..3 {
        let message = next(stream).await.unwrap();
        assert_eq!(message.events, [], "a heartbeat");
        cursor = message.cursor;
    }
    cursor
}

async fn a_watch_tells_what_waits_and_what_comes(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    let first = fleet.change(1).await.event_ids;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    assert_eq!(news(&mut stream).await.0, first[..1]);
    silence(&mut stream).await;
    let keys = fleet.keys("ada").await.event_ids;
    assert_eq!(news(&mut stream).await.0, keys[..1]);
    // An idle stream begins with where it stands.
    let mut idle = watch_from(&fleet, "far", "").await.unwrap();
    assert_eq!(news(&mut idle).await.0, [first[1].clone(), keys[1].clone()]);
    fleet.converge("far").await;
    let mut idle = watch_from(&fleet, "far", "").await.unwrap();
    let message = next(&mut idle).await.unwrap();
    assert!(message.events.is_empty() && !message.cursor.is_empty());
}

// Behaviour 37: a watch resumed with its last cursor tells what came since, all of it and nothing twice
async fn a_cursor_goes_on_without_loss_or_repeat(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let mut expected = Vec::new();
    let mut told = Vec::new();
    let mut cursor = String::new();
    for round in 0..6 {
        let mut stream = watch_from(&fleet, "edge", &cursor).await.unwrap();
        for user in 0..round {
            expected.extend(fleet.keys(&format!("user-{round}-{user}")).await.event_ids);
        }
        while told.len() < expected.len() {
            let (events, next) = news(&mut stream).await;
            told.extend(events);
            cursor = next;
        }
        // The stream breaks, and something happens before the next one.
        drop(stream);
        expected.extend(fleet.keys(&format!("between-{round}")).await.event_ids);
    }
    let mut stream = watch_from(&fleet, "edge", &cursor).await.unwrap();
    let (events, cursor) = news(&mut stream).await;
    told.extend(events);
    assert_eq!(told, expected);
    // All is still pending, and yet there is nothing more to tell.
    let mut stream = watch_from(&fleet, "edge", &cursor).await.unwrap();
    silence(&mut stream).await;
}

async fn what_waits_for_an_older_version_follows_it(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let first = fleet.change(1).await.event_ids;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    news(&mut stream).await;
    let claim = fleet.claim("edge", &first[0], "worker").await;
    let second = fleet.change(2).await.event_ids;
    let cursor = silence(&mut stream).await;
    // It is held back, and the cursor knows.
    let keys = fleet.keys("ada").await.event_ids;
    let (told, _) = news(&mut stream).await;
    assert_eq!(told, keys);
    let done = pb::CompleteEventRequest {
        event_id: first[0].clone(),
        success: true,
        claim_token: claim.claim_token,
        ..Default::default()
    };
    fleet.service.complete_event(request(call(&fleet.worker("edge")), done)).await.unwrap();
    assert_eq!(news(&mut stream).await.0, second);
    let mut resumed = watch_from(&fleet, "edge", &cursor).await.unwrap();
    assert_eq!(news(&mut resumed).await.0, [second[0].clone(), keys[0].clone()]);
}

async fn what_becomes_pending_again_is_told_again(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    assert_eq!(news(&mut stream).await.0, event);
    let claim = fleet.claim("edge", &event[0], "stops").await;
    let release = pb::ReleaseEventRequest {
        event_id: event[0].clone(),
        claim_token: claim.claim_token,
        worker_id: String::new(),
    };
    fleet.service.release_event(request(call(&fleet.worker("edge")), release)).await.unwrap();
    assert_eq!(news(&mut stream).await.0, event);
    // A worker that dies with it: the lease ends, and the server settles it.
    fleet.claim("edge", &event[0], "dies").await;
    fleet.test.db.advance_clock(Duration::from_secs(31));
    agentrouter_delivery::settle_due(&fleet.test.db, 100).await.unwrap();
    assert_eq!(news(&mut stream).await.0, event);
    fleet.fail("edge", &event[0], true).await;
    silence(&mut stream).await;
    let retry = pb::RetryEventRequest { event_id: event[0].clone() };
    fleet.service.retry_event(request(call(&fleet.admin), retry)).await.unwrap();
    assert_eq!(news(&mut stream).await.0, event);
}

// Behaviour 38: of many versions that come while the reader is slow it gets the newest, and no queue builds up
async fn a_slow_reader_gets_the_newest_state(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    next(&mut stream).await.unwrap();
    let mut newest = String::new();
    for weight in 1..=40 {
        newest.clone_from(&fleet.change(weight).await.event_ids[0]);
    }
    // It reads on now: at most what was on its way when it stopped, then the newest.
    let mut told = Vec::new();
    while told.last() != Some(&newest) {
        told.extend(news(&mut stream).await.0);
    }
    assert!(told.len() <= 3, "{} messages for 40 versions", told.len());
    silence(&mut stream).await;
}

// Behaviour 37: a cursor that is too old is OUT_OF_RANGE, and so is one from a database that has gone back
async fn cursors_expire_and_belong_to_their_workspace(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    fleet.change(1).await;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    let (_, cursor) = news(&mut stream).await;
    for wrong in ["nonsense", &cursor[1..]] {
        assert_eq!(fields(&watch_from(&fleet, "edge", wrong).await.err().unwrap()), ["cursor"]);
    }
    assert_eq!(fields(&watch_from(&fleet, "far", &cursor).await.err().unwrap()), ["cursor"]);
    // A worker goes on after its token was renewed.
    let renewed = Principal { credential_id: "tok_next".into(), ..fleet.worker("edge") };
    let message = pb::WatchPendingEventsRequest { cursor: cursor.clone(), ..Default::default() };
    let mut resumed = watch(&fleet, &renewed, message).await.unwrap();
    assert_eq!(next(&mut resumed).await.unwrap().events, []);
    let mut tx = fleet.test.db.begin().await.unwrap();
    agentrouter_storage::query("UPDATE workspace_sync SET offered = 0").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("a restored database").await.unwrap();
    let ahead = watch_from(&fleet, "edge", &cursor).await.err().unwrap();
    assert_eq!((ahead.code(), reason(&ahead).as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    let (_, cursor) = news(&mut stream).await;
    fleet.test.db.advance_clock(Duration::from_secs(3601));
    let old = watch_from(&fleet, "edge", &cursor).await.err().unwrap();
    assert_eq!((old.code(), reason(&old).as_str()), (Code::OutOfRange, "CURSOR_EXPIRED"));
}

async fn a_watch_is_of_one_workspace(db: TestDb) {
    let fleet = Fleet::new(db, &["edge", "far"]).await;
    let nowhere = pb::WatchPendingEventsRequest::default();
    assert_eq!(fields(&watch(&fleet, &fleet.admin, nowhere).await.err().unwrap()), ["workspace_id"]);
    let far = pb::WatchPendingEventsRequest { workspace_id: "far".into(), ..Default::default() };
    let refused = watch(&fleet, &fleet.worker("edge"), far.clone()).await.err().unwrap();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "WORKSPACE_MISMATCH"));
    let event = fleet.change(1).await.event_ids[1].clone();
    let mut stream = watch(&fleet, &fleet.admin, far).await.unwrap();
    assert_eq!(news(&mut stream).await.0, [event]);
    let other = fleet.test.customer("other").await;
    let stranger = agentrouter_testkit::admin(other, "other");
    let edge = pb::WatchPendingEventsRequest { workspace_id: "edge".into(), ..Default::default() };
    assert_eq!(reason(&watch(&fleet, &stranger, edge).await.err().unwrap()), "WORKSPACE_NOT_FOUND");
}

// Behaviour 8: a worker that watches keeps what it holds without naming it, and loses it when it is gone
async fn a_watching_worker_keeps_what_it_holds(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids[0].clone();
    let message = pb::WatchPendingEventsRequest { worker_id: "slow".into(), ..Default::default() };
    let mut stream = watch(&fleet, &fleet.worker("edge"), message).await.unwrap();
    news(&mut stream).await;
    fleet.claim("edge", &event, "slow").await;
    for _ in 0..4 {
        fleet.test.db.advance_clock(Duration::from_secs(20));
        // A heartbeat after the clock moved, and the flush that the server does every second.
        next(&mut stream).await.unwrap();
        next(&mut stream).await.unwrap();
        next(&mut stream).await.unwrap();
        fleet.presence.flush(&fleet.test.db).await.unwrap();
        let other = fleet.claim("edge", &event, "other").await;
        assert_eq!((other.success, other.holder.as_str()), (false, "slow"));
    }
    // It was there a moment ago, and that is not long enough.
    next(&mut stream).await.unwrap();
    drop(stream);
    fleet.test.db.advance_clock(Duration::from_secs(20));
    fleet.presence.flush(&fleet.test.db).await.unwrap();
    fleet.test.db.advance_clock(Duration::from_secs(11));
    assert!(fleet.claim("edge", &event, "other").await.success);
}

// Behaviour 8: what is held is kept between two heartbeats, and for as long as one of the worker's streams is open.
async fn what_is_held_does_not_hang_on_heartbeats(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let event = fleet.change(1).await.event_ids[0].clone();
    let message = pb::WatchPendingEventsRequest { worker_id: "slow".into(), ..Default::default() };
    let mut stream = watch(&fleet, &fleet.worker("edge"), message.clone()).await.unwrap();
    news(&mut stream).await;
    // A connection that was lost is noticed late, when the worker has come back already.
    drop(watch(&fleet, &fleet.worker("edge"), message).await.unwrap());
    fleet.claim("edge", &event, "slow").await;
    for _ in 0..4 {
        fleet.test.db.advance_clock(Duration::from_secs(20));
        fleet.presence.flush(&fleet.test.db).await.unwrap();
        let other = fleet.claim("edge", &event, "other").await;
        assert_eq!((other.success, other.holder.as_str()), (false, "slow"));
    }
}

async fn shutdown_ends_a_watch_with_a_hint(db: TestDb) {
    let fleet = Fleet::new(db, &["edge"]).await;
    let mut stream = watch_from(&fleet, "edge", "").await.unwrap();
    next(&mut stream).await.unwrap();
    fleet.shutdown.cancel();
    let ended = loop {
        match next(&mut stream).await {
            Ok(heartbeat) => assert!(heartbeat.events.is_empty()),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unavailable);
    let delay = ended.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!((Duration::from_millis(500)..Duration::from_millis(2_500)).contains(&delay), "{delay:?}");
    assert!(stream.next().await.is_none());
}

async fn many_watches_of_one_customer(db: TestDb) {
    let slugs: Vec<String> = (0..40).map(|index| format!("w{index}")).collect();
    let slugs: Vec<&str> = slugs.iter().map(String::as_str).collect();
    let fleet = Fleet::new(db, &slugs).await;
    let mut streams = Vec::new();
    for slug in &slugs {
        let mut stream = watch_from(&fleet, slug, "").await.unwrap();
        next(&mut stream).await.unwrap();
        streams.push(stream);
    }
    let mut statements = fleet.test.db.statements();
    for weight in 1..=3 {
        let events = fleet.change(weight).await.event_ids;
        while statements.try_recv().is_ok() {}
        for (stream, event) in streams.iter_mut().zip(&events) {
            // One that is told late may skip a version, never the newest.
            while news(stream).await.0 != [event.clone()] {}
        }
    }
    // What is new for all of them is read for all of them.
    let mut reads = 0;
    while let Ok(statement) = statements.try_recv() {
        reads += usize::from(statement.query.text(fleet.test.db.engine()).contains("is_blocked"));
    }
    assert!((1..10).contains(&reads), "{reads} reads for {} watches", streams.len());
    // News for one of them are for one of them.
    let only = pb::TriggerUpdateRequest { workspace_id: "w7".into(), ..fleet::providers() };
    fleet.provider(9).await;
    let event = fleet.trigger(only).await.event_ids;
    assert_eq!(news(&mut streams[7]).await.0, event);
    silence(&mut streams[8]).await;
}
