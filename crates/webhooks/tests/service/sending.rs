//! How messages reach receivers, and what becomes of those that do not.

use std::collections::HashSet;
use std::time::Duration;

use agentrouter_api::workspaces::{UpdateWebhookRequest, WebhookDeliveryState, WebhookDisabledReason};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use agentrouter_webhooks::{Sender, TargetPolicy};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Tenant;
use crate::receiver::{Answer, Receiver};

on_both_engines!(
    a_message_is_signed_as_the_standard_says,
    a_failed_attempt_is_made_again_later,
    attempts_end_after_a_day,
    a_busy_receiver_is_left_alone,
    a_receiver_that_is_gone_gets_no_more,
    redirects_are_not_followed,
    silence_is_a_failure,
    replicas_share_the_work,
    what_a_dead_replica_held_is_sent_again,
    a_slow_receiver_does_not_hold_up_others,
    ended_deliveries_are_forgotten,
);

async fn a_message_is_signed_as_the_standard_says(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, secret) = acme.created(&receiver.url).await;
    let queued = acme.test(&id).await.unwrap().into_inner();
    assert_eq!(queued.state(), WebhookDeliveryState::Pending);
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);

    let [received] = &receiver.received()[..] else { unreachable!("one message") };
    let verifier = standardwebhooks::Webhook::new(&secret).unwrap();
    verifier.verify(&received.body, &received.headers).unwrap();
    assert!(verifier.verify(b"{}", &received.headers).is_err());
    assert_eq!(received.header("webhook-id"), queued.message_id);
    assert_eq!(received.header("content-type"), "application/json");
    let json = received.json();
    assert_eq!(json["type"], "webhook.test");
    assert_eq!(json["data"]["customer_id"], "acme");
    assert_eq!(json["data"]["webhook_id"], id);
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!((delivery.state(), delivery.attempts), (WebhookDeliveryState::Delivered, 1));
    assert_eq!((delivery.last_status_code, delivery.last_error.as_str()), (204, ""));
    assert_eq!(delivery.next_attempt_at, None);
    assert!(delivery.ended_at.is_some());
}

async fn a_failed_attempt_is_made_again_later(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, secret) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    receiver.answers([Answer::Status(500)]);
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!((delivery.state(), delivery.attempts), (WebhookDeliveryState::Pending, 1));
    assert_eq!((delivery.last_status_code, delivery.last_error.as_str()), (500, "the receiver answered 500"));
    assert!(delivery.next_attempt_at.is_some());
    assert!(!format!("{delivery:?}").contains("canary"));

    assert_eq!(acme.sender.send_due().await.unwrap(), 0, "not yet");
    db.db.advance_clock(Duration::from_secs(6));
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    let [first, second] = &receiver.received()[..] else { unreachable!("two attempts") };
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_ne!(first.header("webhook-timestamp"), second.header("webhook-timestamp"));
    assert_eq!(first.body, second.body);
    assert!(second.is_signed_with(&secret));
    assert_eq!(acme.states(&id).await, [WebhookDeliveryState::Delivered]);
}

async fn attempts_end_after_a_day(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    receiver.answers([Answer::Status(404); 20]);
    for _ in 0..20 {
        acme.sender.send_due().await.unwrap();
        db.db.advance_clock(Duration::from_hours(14));
    }
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!((delivery.state(), delivery.attempts), (WebhookDeliveryState::Failed, 11));
    assert_eq!(delivery.last_error, "the receiver answered 404");
    assert_eq!((delivery.next_attempt_at, receiver.received().len()), (None, 11));
    assert!(acme.get(&id).await.unwrap().into_inner().enabled, "the next message gets its own attempts");
}

async fn a_busy_receiver_is_left_alone(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    receiver.answers([Answer::Busy(600)]);
    acme.sender.send_due().await.unwrap();
    db.db.advance_clock(Duration::from_secs(590));
    assert_eq!(acme.sender.send_due().await.unwrap(), 0);
    db.db.advance_clock(Duration::from_secs(20));
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    assert_eq!(acme.states(&id).await, [WebhookDeliveryState::Delivered]);
}

async fn a_receiver_that_is_gone_gets_no_more(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    receiver.answers([Answer::Status(500), Answer::Status(410)]);
    acme.test(&id).await.unwrap();
    acme.sender.send_due().await.unwrap();
    acme.test(&id).await.unwrap();
    acme.sender.send_due().await.unwrap();
    let webhook = acme.get(&id).await.unwrap().into_inner();
    assert_eq!((webhook.enabled, webhook.disabled_reason()), (false, WebhookDisabledReason::Gone));
    let deliveries = acme.deliveries(&id).await;
    assert_eq!(
        deliveries.iter().map(|delivery| (delivery.state(), delivery.last_status_code)).collect::<Vec<_>>(),
        [(WebhookDeliveryState::Failed, 410), (WebhookDeliveryState::Cancelled, 500)]
    );
    db.db.advance_clock(Duration::from_hours(24));
    assert_eq!(acme.sender.send_due().await.unwrap(), 0);

    let back = UpdateWebhookRequest { enabled: Some(true), ..acme.change(&id) };
    assert!(acme.update(back).await.unwrap().into_inner().enabled);
    acme.test(&id).await.unwrap();
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    assert_eq!(receiver.received().len(), 3);
}

async fn redirects_are_not_followed(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    receiver.answers([Answer::Redirect]);
    acme.sender.send_due().await.unwrap();
    let paths: Vec<_> = receiver.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, ["/hook"]);
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!((delivery.state(), delivery.last_status_code), (WebhookDeliveryState::Pending, 302));
}

async fn silence_is_a_failure(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (silent, _) = acme.created(&receiver.url).await;
    let (closed, _) = acme.created("http://127.0.0.1:1/hook").await;
    receiver.answers([Answer::Nothing]);
    acme.test(&silent).await.unwrap();
    acme.test(&closed).await.unwrap();
    let sender = acme.sender.clone().with_timeout(Duration::from_secs(2));
    assert_eq!(sender.send_due().await.unwrap(), 2);
    let error = async |id: &str| acme.deliveries(id).await.remove(0).last_error;
    assert_eq!(error(&silent).await, "there was no answer in time");
    assert_eq!(error(&closed).await, "no connection could be made");
}

async fn replicas_share_the_work(db: TestDb) {
    const MESSAGES: usize = 60;
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    for _ in 0..MESSAGES {
        acme.test(&id).await.unwrap();
    }
    let mut replicas = JoinSet::new();
    for _ in 0..3 {
        let mut deps = db.deps();
        deps.db = db.reopen().await;
        let sender = Sender::new(&deps, TargetPolicy::Any).unwrap();
        replicas.spawn(async move { sender.send_due().await.unwrap() });
    }
    let sent = replicas.join_all().await;
    assert_eq!(sent.iter().sum::<usize>(), MESSAGES);
    let ids: HashSet<_> =
        receiver.received().iter().map(|received| received.header("webhook-id").to_owned()).collect();
    assert_eq!((receiver.received().len(), ids.len()), (MESSAGES, MESSAGES), "each once");
    let states: HashSet<_> = acme.states(&id).await.into_iter().map(i32::from).collect();
    assert_eq!(states, HashSet::from([WebhookDeliveryState::Delivered.into()]));
}

async fn what_a_dead_replica_held_is_sent_again(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    receiver.answers([Answer::Nothing]);
    let dying = Sender::new(&db.deps(), TargetPolicy::Any).unwrap();
    let mut replica = JoinSet::new();
    replica.spawn(async move { dying.send_due().await.unwrap() });
    receiver.until(1).await;
    replica.shutdown().await;

    assert_eq!(acme.sender.send_due().await.unwrap(), 0, "it may be alive");
    db.db.advance_clock(Duration::from_secs(31));
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!((delivery.state(), delivery.attempts), (WebhookDeliveryState::Delivered, 2));
    let ids: HashSet<_> =
        receiver.received().iter().map(|received| received.header("webhook-id").to_owned()).collect();
    assert_eq!((receiver.received().len(), ids.len()), (2, 1), "the same message");
}

async fn a_slow_receiver_does_not_hold_up_others(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (slow, quick) = (Receiver::start().await, Receiver::start().await);
    slow.answers([Answer::Nothing; 100]);
    let (slow_id, _) = acme.created(&slow.url).await;
    let (quick_id, _) = acme.created(&quick.url).await;
    for _ in 0..100 {
        acme.test(&slow_id).await.unwrap();
    }
    acme.test(&quick_id).await.unwrap();
    let shutdown = CancellationToken::new();
    // Longer than anything here is waited for, so that what is silent keeps its place.
    let sender = acme.sender.clone().with_timeout(Duration::from_secs(25));
    let mut running = JoinSet::new();
    running.spawn(sender.run(shutdown.clone()));
    quick.until(1).await;
    slow.until(4).await;
    assert_eq!(slow.received().len(), 4, "no more than its share of the places");
    shutdown.cancel();
}

async fn ended_deliveries_are_forgotten(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    acme.sender.send_due().await.unwrap();
    let sweep = async || {
        let mut tx = db.db.begin().await.unwrap();
        let swept = agentrouter_webhooks::sweep_ended(&mut tx, 100).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        swept
    };
    db.db.advance_clock(Duration::from_hours(29 * 24));
    assert_eq!(sweep().await, 0);
    acme.test(&id).await.unwrap();
    db.db.advance_clock(Duration::from_hours(2 * 24));
    assert_eq!(sweep().await, 1);
    assert_eq!(acme.states(&id).await, [WebhookDeliveryState::Pending], "what waits is not forgotten");
    let payloads = query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM webhook_deliveries");
    assert_eq!(payloads.value(&db.db).await.unwrap(), Some(1));
}
