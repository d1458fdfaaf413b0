//! A key gets a new secret under the same id.

use std::time::Duration;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_testkit::{TestDb, on_both_engines, violations};
use tokio::task::JoinSet;

use crate::{World, by, id_of, key};

on_both_engines!(
    both_secrets_work_while_they_overlap,
    without_overlap_the_old_secret_ends_at_once,
    rotations_overlap_each_other,
    sessions_end_with_the_secret_they_were_made_with,
    racing_rotations_leave_one_secret,
    the_overlap_is_bounded,
);

const HOUR: Duration = Duration::from_hours(1);

// Behaviour 46: a rotation gives a new secret under the same id, and the old one works until the overlap ends.
async fn both_secrets_work_while_they_overlap(test: TestDb) {
    let world = World::new(test).await;
    let old = world.key(&world.operator, key("acme", "viewer")).await;
    let id = id_of(&old).to_owned();
    let new = world.rotate_key(&world.operator, "acme", &id, HOUR).await.unwrap().into_inner();
    let shown = new.api_key.unwrap();
    assert_eq!((&shown.id, shown.key_prefix.as_str()), (&id, &new.key[..11]));
    assert_eq!(shown.expires_at, None, "the key itself does not expire");
    for token in [&old.key, &new.key] {
        assert_eq!(world.principal(token).await.credential_id, id);
    }
    let end = world.principal(&old.key).await.expires_at.unwrap();
    assert!(end > world.test.db.now().await.unwrap());
    assert_eq!(world.principal(&new.key).await.expires_at, None);

    world.authenticator.forget();
    world.test.db.advance_clock(HOUR);
    world.refuses(&old.key).await;
    assert_eq!(world.principal(&new.key).await.credential_id, id);
}

async fn without_overlap_the_old_secret_ends_at_once(test: TestDb) {
    let world = World::new(test).await;
    let old = world.key(&world.operator, key("acme", "viewer")).await;
    world.principal(&old.key).await;
    let message = pb::RotateApiKeyRequest {
        customer_id: "acme".to_owned(),
        api_key_id: id_of(&old).to_owned(),
        overlap: None,
    };
    let new = world.api_keys.rotate_api_key(by(&world.operator, message)).await.unwrap().into_inner();
    world.refuses(&old.key).await;
    assert_eq!(world.principal(&new.key).await.credential_id, id_of(&old));
    // The bootstrap key, and the new one.
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM api_key_secrets").await, 2);
}

async fn rotations_overlap_each_other(test: TestDb) {
    let world = World::new(test).await;
    let first = world.key(&world.operator, key("acme", "viewer")).await;
    let id = id_of(&first).to_owned();
    let second = world.rotate_key(&world.operator, "acme", &id, HOUR).await.unwrap().into_inner();
    let third = world.rotate_key(&world.operator, "acme", &id, HOUR * 3).await.unwrap().into_inner();
    world.test.db.advance_clock(HOUR * 2);
    world.refuses(&first.key).await;
    world.principal(&second.key).await;
    world.authenticator.forget();
    world.test.db.advance_clock(HOUR);
    world.refuses(&second.key).await;
    world.principal(&third.key).await;
    // A shorter overlap of a later rotation holds for all that came before.
    let fourth = world.rotate_key(&world.operator, "acme", &id, HOUR).await.unwrap().into_inner();
    world.rotate_key(&world.operator, "acme", &id, Duration::ZERO).await.unwrap();
    for token in [&third.key, &fourth.key] {
        world.refuses(token).await;
    }
}

async fn sessions_end_with_the_secret_they_were_made_with(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let message = pb::CreateApiKeyRequest { identity_id: identity, ..key("acme", "admin") };
    let key = world.key(&world.operator, message).await;
    let old = world.session(&world.principal(&key.key).await, "", "").await;
    let new_key =
        world.rotate_key(&world.operator, "acme", id_of(&key), Duration::from_mins(5)).await.unwrap();
    let new = world.session(&world.principal(&new_key.into_inner().key).await, "", "").await;
    for session in [&old, &new] {
        world.principal(&session.token).await;
    }
    world.authenticator.forget();
    world.test.db.advance_clock(Duration::from_mins(5));
    world.refuses(&old.token).await;
    world.principal(&new.token).await;
}

async fn racing_rotations_leave_one_secret(test: TestDb) {
    let world = World::new(test).await;
    let old = world.key(&world.operator, key("acme", "viewer")).await;
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let (service, caller) = (world.api_keys.clone(), world.operator.clone());
        let message = pb::RotateApiKeyRequest {
            customer_id: "acme".to_owned(),
            api_key_id: id_of(&old).to_owned(),
            overlap: None,
        };
        calls.spawn(async move { service.rotate_api_key(by(&caller, message)).await.unwrap().into_inner() });
    }
    let answers = calls.join_all().await;
    world.refuses(&old.key).await;
    let shown = world.get_key(&world.operator, "acme", id_of(&old)).await.unwrap().key_prefix;
    for answer in answers {
        if answer.key.starts_with(&shown) {
            world.principal(&answer.key).await;
        } else {
            world.refuses(&answer.key).await;
        }
    }
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM api_key_secrets").await, 2);
}

async fn the_overlap_is_bounded(test: TestDb) {
    let world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    let rotate = async |seconds, nanos| {
        let message = pb::RotateApiKeyRequest {
            customer_id: "acme".to_owned(),
            api_key_id: id_of(&created).to_owned(),
            overlap: Some(prost_types::Duration { seconds, nanos }),
        };
        world.api_keys.rotate_api_key(by(&world.operator, message)).await
    };
    for (seconds, nanos) in [(-1, 0), (0, -1), (30 * 86_400, 1), (i64::MAX, 0)] {
        assert_eq!(violations(rotate(seconds, nanos).await), ["overlap"], "{seconds} {nanos}");
    }
    rotate(30 * 86_400, 0).await.unwrap();
    world.principal(&created.key).await;
}
