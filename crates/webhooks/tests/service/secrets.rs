//! Signing secrets: shown once, sealed for their webhook, rotated with an overlap.

use std::time::Duration;

use agentrouter_api::workspaces::WebhookDeliveryState;
use agentrouter_api::workspaces::webhooks_service_server::WebhooksService;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, request};

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(
    a_secret_is_shown_once_and_kept_sealed,
    both_secrets_sign_until_the_overlap_ends,
    a_secret_that_was_moved_does_not_open,
    a_repeated_creation_shows_the_same_secret,
);

async fn stored(db: &TestDb) -> Vec<Vec<u8>> {
    query("SELECT secret AS value FROM webhooks ORDER BY id").values(&db.db).await.unwrap()
}

async fn a_secret_is_shown_once_and_kept_sealed(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (id, secret) = acme.created("https://hooks.example").await;
    let encoded = secret.strip_prefix("whsec_").unwrap();
    assert_eq!(encoded.len(), 44, "32 bytes in base64");
    standardwebhooks::Webhook::new(&secret).unwrap();
    let read = acme.get(&id).await.unwrap().into_inner();
    assert!(!format!("{read:?}").contains(encoded));
    let [sealed] = &stored(&db).await[..] else { unreachable!("one webhook") };
    assert!(!sealed.windows(16).any(|window| encoded.as_bytes().starts_with(window)));
}

async fn both_secrets_sign_until_the_overlap_ends(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, old) = acme.created(&receiver.url).await;
    let new = acme.rotate(&id, Some(Duration::from_hours(1))).await;
    assert!(acme.get(&id).await.unwrap().into_inner().previous_secret_expires_at.is_some());
    let send = async || {
        acme.test(&id).await.unwrap();
        acme.sender.send_due().await.unwrap();
        let last = receiver.received().pop().unwrap();
        (last.is_signed_with(&old), last.is_signed_with(&new))
    };
    assert_eq!(send().await, (true, true));
    db.db.advance_clock(Duration::from_mins(61));
    assert_eq!(send().await, (false, true));

    // The sweep takes it away, too.
    let mut tx = db.db.begin().await.unwrap();
    agentrouter_webhooks::sweep_ended(&mut tx, 100).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    let kept =
        query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM webhooks WHERE previous_secret IS NOT NULL");
    assert_eq!(kept.value(&db.db).await.unwrap(), Some(0));

    let at_once = acme.rotate(&id, Some(Duration::ZERO)).await;
    assert_eq!(send().await, (false, false));
    assert!(receiver.received().pop().unwrap().is_signed_with(&at_once));
}

async fn a_secret_that_was_moved_does_not_open(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let other = Tenant::new(&db, "other").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    other.created("https://hooks.example").await;
    let mut tx = db.db.begin().await.unwrap();
    query("UPDATE webhooks SET secret = (SELECT o.secret FROM webhooks o WHERE o.customer_id = $2) WHERE customer_id = $1")
        .bind(acme.id)
        .bind(other.id)
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test").await.unwrap();
    acme.test(&id).await.unwrap();
    assert_eq!(acme.sender.send_due().await.unwrap(), 1);
    assert!(receiver.received().is_empty(), "nothing goes out unsigned, or signed by another secret");
    let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
    assert_eq!(delivery.state(), WebhookDeliveryState::Pending);
    assert_eq!(delivery.last_error, "the signing secret does not open; rotate it");
}

async fn a_repeated_creation_shows_the_same_secret(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut context = call(&acme.admin);
    context.idempotency_key = Some("once".to_owned());
    let message = acme.new_webhook("https://hooks.example");
    let first = acme.service.create_webhook(request(context.clone(), message.clone())).await.unwrap();
    let again = acme.service.create_webhook(request(context, message)).await.unwrap();
    assert_eq!(first.into_inner(), again.into_inner());
    assert_eq!(stored(&db).await.len(), 1);
}
