//! Repeated and concurrent writes.

use std::sync::Arc;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_testkit::{TestDb, refused};
use tokio::task::JoinSet;
use tonic::Code;

use crate::{World, by, by_with_key};

agentrouter_testkit::on_both_engines!(
    a_repeated_key_gets_the_same_answer,
    a_key_is_bound_to_its_request,
    a_refused_call_leaves_no_record,
    racing_repeats_create_one_customer,
    racing_creations_of_a_slug_have_one_winner,
    racing_updates_with_an_etag_have_one_winner,
    racing_updates_without_an_etag_lose_nothing,
);

fn create(slug: &str) -> pb::CreateCustomerRequest {
    pb::CreateCustomerRequest { customer_id: slug.to_owned(), ..Default::default() }
}

async fn a_repeated_key_gets_the_same_answer(db: TestDb) {
    let world = World::new(db).await;
    let first = world.tenancy.create_customer(by_with_key(&world.operator, "k", create("acme"))).await;
    let first = first.unwrap().into_inner();
    let update = pb::UpdateCustomerRequest {
        customer_id: "acme".into(),
        display_name: Some("changed since".into()),
        ..Default::default()
    };
    let updated = world.tenancy.update_customer(by_with_key(&world.operator, "u", update.clone())).await;
    let updated = updated.unwrap().into_inner();
    // The answer of then, not the customer of now.
    let again = world.tenancy.create_customer(by_with_key(&world.operator, "k", create("acme"))).await;
    assert_eq!(again.unwrap().into_inner(), first);
    let again = world.tenancy.update_customer(by_with_key(&world.operator, "u", update)).await;
    assert_eq!(again.unwrap().into_inner(), updated);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM customers").await, 2);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM audit_entries").await, 2);
}

async fn a_key_is_bound_to_its_request(db: TestDb) {
    let world = World::new(db).await;
    world.tenancy.create_customer(by_with_key(&world.operator, "k", create("acme"))).await.unwrap();
    let reused = world.tenancy.create_customer(by_with_key(&world.operator, "k", create("other"))).await;
    assert_eq!(refused(reused), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM customers").await, 2);
}

async fn a_refused_call_leaves_no_record(db: TestDb) {
    let world = World::new(db).await;
    let taken = world.tenancy.create_customer(by_with_key(&world.operator, "k", create("default"))).await;
    assert_eq!(refused(taken).0, Code::AlreadyExists);
    world.tenancy.create_customer(by_with_key(&world.operator, "k", create("acme"))).await.unwrap();
}

async fn racing_repeats_create_one_customer(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let world = Arc::clone(&world);
        tasks.spawn(async move {
            let message = by_with_key(&world.operator, "k", create("acme"));
            world.tenancy.create_customer(message).await.unwrap().into_inner()
        });
    }
    let answers = tasks.join_all().await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM customers WHERE slug = 'acme'").await, 1);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM audit_entries").await, 1);
}

async fn racing_creations_of_a_slug_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let mut tasks = JoinSet::new();
    for _ in 0..12 {
        let world = Arc::clone(&world);
        tasks.spawn(async move { world.tenancy.create_customer(by(&world.operator, create("acme"))).await });
    }
    let (won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::AlreadyExists, "CUSTOMER_ALREADY_EXISTS".to_owned()));
    }
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM projects").await, 1);
}

async fn racing_updates_with_an_etag_have_one_winner(db: TestDb) {
    let world = Arc::new(World::new(db).await);
    let etag = world.create("acme").await.etag;
    let mut tasks = JoinSet::new();
    for number in 0..12 {
        let (world, etag) = (Arc::clone(&world), etag.clone());
        tasks.spawn(async move {
            let message = pb::UpdateCustomerRequest {
                customer_id: "acme".into(),
                display_name: Some(format!("by {number}")),
                etag,
                ..Default::default()
            };
            world.tenancy.update_customer(by(&world.operator, message)).await
        });
    }
    let (mut won, lost): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1);
    for loser in lost {
        assert_eq!(refused(loser), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    }
    let winner = won.remove(0).unwrap().into_inner();
    assert_eq!(world.get("acme").await.unwrap().into_inner(), winner);
}

async fn racing_updates_without_an_etag_lose_nothing(db: TestDb) {
    let world = World::new(db).await;
    world.create("acme").await;
    for round in 0..8 {
        let update = || pb::UpdateCustomerRequest { customer_id: "acme".into(), ..Default::default() };
        let name = pb::UpdateCustomerRequest { display_name: Some(format!("name {round}")), ..update() };
        let text = pb::UpdateCustomerRequest { description: Some(format!("text {round}")), ..update() };
        let (first, second) = tokio::join!(
            world.tenancy.update_customer(by(&world.operator, name)),
            world.tenancy.update_customer(by(&world.operator, text)),
        );
        first.unwrap();
        second.unwrap();
        let found = world.get("acme").await.unwrap().into_inner();
        assert_eq!(found.display_name, format!("name {round}"));
        assert_eq!(found.description, format!("text {round}"));
    }
}
