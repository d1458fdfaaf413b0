//! A key gets a new secret under the same id.

use std::time::Duration;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_api::identity::sessions_service_server::SessionsService;
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::{Tx, query};
use agentrouter_testkit::{TestDb, on_both_engines, refused, until_awaited, violations};
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use crate::{World, by, id_of, key};

on_both_engines!(
    both_secrets_work_while_they_overlap,
    without_overlap_the_old_secret_ends_at_once,
    rotations_overlap_each_other,
    sessions_end_with_the_secret_they_were_made_with,
    an_ended_secret_makes_no_session,
    a_session_ends_with_a_secret_whose_end_came_later,
    racing_rotations_leave_one_secret,
    an_ended_secret_gets_itself_no_other_one,
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

/// A key that acts for an identity, and who calls with it as long as an answer about it is kept.
struct Rotated {
    id: String,
    caller: Principal,
}

impl Rotated {
    async fn new(world: &World) -> Self {
        let identity_id = world.identity("acme", "").await;
        let message = pb::CreateApiKeyRequest { identity_id, ..key("acme", "admin") };
        let created = world.key(&world.operator, message).await;
        Self { id: id_of(&created).to_owned(), caller: world.principal(&created.key).await }
    }

    fn create(
        &self,
        world: &World,
    ) -> impl Future<Output = Result<Response<pb::CreateSessionResponse>, Status>> + Send + use<> {
        let (service, caller) = (world.sessions.clone(), self.caller.clone());
        async move { service.create_session(by(&caller, pb::CreateSessionRequest::default())).await }
    }

    fn rotate(
        &self,
        world: &World,
    ) -> impl Future<Output = Result<Response<pb::RotateApiKeyResponse>, Status>> + Send + use<> {
        let (service, caller) = (world.api_keys.clone(), world.operator.clone());
        let message = pb::RotateApiKeyRequest {
            customer_id: "acme".to_owned(),
            api_key_id: self.id.clone(),
            overlap: None,
        };
        async move { service.rotate_api_key(by(&caller, message)).await }
    }
}

fn unauthenticated() -> (Code, String) {
    (Code::Unauthenticated, "UNAUTHENTICATED".to_owned())
}

// Behaviour 46: a secret that ended makes no session, whoever still takes it for live.
async fn an_ended_secret_makes_no_session(test: TestDb) {
    let world = World::new(test).await;
    let key = Rotated::new(&world).await;
    let new = key.rotate(&world).await.unwrap().into_inner();
    // Another replica may keep its answer about the old secret for half a second more.
    assert_eq!(refused(key.create(&world).await), unauthenticated());
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM tokens").await, 0);
    let caller = world.principal(&new.key).await;
    let session = world.session(&caller, "", "").await;
    world.principal(&session.token).await;
    // The same holds for a key that is revoked, and for the secret of another one.
    let stranger = Rotated::new(&world).await.caller;
    let mixed = Principal { secret: stranger.secret, ..caller.clone() };
    let mixed = Rotated { caller: mixed, ..key };
    assert_eq!(refused(mixed.create(&world).await), unauthenticated());
    world.revoke_key(&world.operator, "acme", &mixed.id).await.unwrap();
    assert_eq!(refused(Rotated { caller, ..mixed }.create(&world).await), unauthenticated());
}

async fn a_session_ends_with_a_secret_whose_end_came_later(test: TestDb) {
    let world = World::new(test).await;
    let key = Rotated::new(&world).await;
    let overlap = Duration::from_mins(5);
    world.rotate_key(&world.operator, "acme", &key.id, overlap).await.unwrap();
    assert_eq!(key.caller.expires_at, None, "what is kept knows of no end");
    let session = key.create(&world).await.unwrap().into_inner();
    let shown = session.session.unwrap();
    assert!(shown.expires_at.unwrap().seconds <= shown.created_at.unwrap().seconds + 300);
    world.principal(&session.token).await;
    world.authenticator.forget();
    world.test.db.advance_clock(overlap);
    world.refuses(&session.token).await;
}

/// A transaction on PostgreSQL behind which everybody waits who writes a row of the customer.
async fn hold_up(world: &World, customer: Id<Customer>) -> Tx {
    let mut tx = world.test.db.begin().await.unwrap();
    let held = query("SELECT slug AS value FROM customers WHERE id = $1 FOR UPDATE").bind(customer);
    assert_eq!(held.value::<String>(&mut tx).await.unwrap().as_deref(), Some("acme"));
    tx
}

/// On SQLite there is one transaction at a time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_ends_a_session_that_is_being_made() {
    let world = World::new(agentrouter_testkit::postgres().await).await;
    let key = Rotated::new(&world).await;
    let mut tx = hold_up(&world, world.acme).await;
    let (mut creating, mut rotating) = (JoinSet::new(), JoinSet::new());
    creating.spawn(key.create(&world));
    until_awaited(&mut tx, 1).await;
    rotating.spawn(key.rotate(&world));
    until_awaited(&mut tx, 2).await;
    tx.commit_unaudited("test data").await.unwrap();
    rotating.join_next().await.unwrap().unwrap().unwrap();
    // It had passed every check.
    let session = creating.join_next().await.unwrap().unwrap().unwrap().into_inner();
    world.refuses(&session.token).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_session_is_made_while_a_rotation_is_being_committed() {
    let world = World::new(agentrouter_testkit::postgres().await).await;
    let key = Rotated::new(&world).await;
    let mut tx = hold_up(&world, world.acme).await;
    let (mut creating, mut rotating) = (JoinSet::new(), JoinSet::new());
    rotating.spawn(key.rotate(&world));
    until_awaited(&mut tx, 1).await;
    creating.spawn(key.create(&world));
    until_awaited(&mut tx, 2).await;
    tx.commit_unaudited("test data").await.unwrap();
    rotating.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(refused(creating.join_next().await.unwrap().unwrap()), unauthenticated());
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

async fn an_ended_secret_gets_itself_no_other_one(test: TestDb) {
    let world = World::new(test).await;
    let key = Rotated::new(&world).await;
    let rotate = async |caller: &Principal, overlap| world.rotate_key(caller, "acme", &key.id, overlap).await;
    let new = rotate(&key.caller, HOUR).await.unwrap().into_inner();
    // Both work, and either may go on with a third one.
    let new = world.principal(&new.key).await;
    let newest = rotate(&key.caller, Duration::ZERO).await.unwrap().into_inner();
    for ended in [&key.caller, &new] {
        assert_eq!(refused(rotate(ended, HOUR).await), unauthenticated());
    }
    assert_eq!(world.principal(&newest.key).await.expires_at, None);
    world.rotate_key(&world.operator, "acme", &key.id, Duration::ZERO).await.unwrap();
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
