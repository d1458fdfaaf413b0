//! Which credentials are accepted, and how soon they no longer are.

use std::future::ready;
use std::time::{Duration, Instant};

use agentrouter_api::identity as pb;
use agentrouter_kernel::id::Id;
use agentrouter_kernel::{CredentialKind, FaultKind, Principal, Role};
use agentrouter_rpc::Authenticate;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::{World, authenticate, authenticator, gateway_key, id_of, in_an_hour, key, refuses};

on_both_engines!(
    a_key_calls_for_its_customer,
    the_prefix_may_be_missing_or_doubled,
    dead_and_wrong_credentials_are_refused_alike,
    an_archived_customer_calls_no_more,
    a_mistyped_key_is_refused_without_the_database,
    a_revoked_key_is_refused_at_once_here,
    other_replicas_follow_within_a_second,
    the_last_use_is_noted_once_a_minute,
    uses_are_written_before_the_server_stops,
    nothing_secret_is_shown_by_debug,
);

async fn a_key_calls_for_its_customer(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("other", "ada@example.com").await;
    let expires_at = in_an_hour(world.test.db.now().await.unwrap());
    let message = pb::CreateApiKeyRequest {
        identity_id: identity.clone(),
        expires_at: Some(expires_at),
        ..key("other", "admin")
    };
    let created = world.key(&world.operator, message).await;
    let principal = world.principal(&created.key).await;
    assert_eq!(
        principal,
        Principal {
            credential: CredentialKind::ApiKey,
            credential_id: id_of(&created).to_owned(),
            secret: principal.secret,
            customer: world.other,
            customer_slug: "other".to_owned(),
            role: Some(Role::Admin),
            identity: Id::parse(&identity),
            workspace: None,
            expires_at: principal.expires_at,
        }
    );
    assert_eq!(principal.expires_at.map(agentrouter_rpc::convert::timestamp), Some(expires_at));
    assert_eq!(world.operator.role, Some(Role::Operator));
    assert_eq!(world.operator.customer, world.acme);
    // The second answer is the kept one.
    assert_eq!(world.principal(&created.key).await, principal);
}

async fn the_prefix_may_be_missing_or_doubled(test: TestDb) {
    let world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    let bare = created.key.strip_prefix("ak-").unwrap();
    for form in [bare, &created.key, &format!("ak-{}", created.key)] {
        assert_eq!(world.principal(form).await.credential_id, id_of(&created));
    }
    world.refuses(&format!("ak-ak-{}", created.key)).await;
    for form in ["dev", "ak-dev", "ak-ak-dev"] {
        assert_eq!(world.principal(form).await, world.operator);
    }
    world.refuses("ak-ak-ak-dev").await;
}

async fn dead_and_wrong_credentials_are_refused_alike(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let gateway = world.key(&world.operator, gateway_key("acme", &identity)).await.key;
    let never_made = world.key(&world.operator, key("acme", "viewer")).await.key;
    let last = if never_made.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("{}{last}", &never_made[..never_made.len() - 1]);
    let long = "x".repeat(5000);
    for wrong in
        ["", "x", "DEV", "dev ", "eyJ.e30.x", "a.b.c", "\u{e9}", &gateway, &gateway[3..], &mistyped, &long]
    {
        world.refuses(wrong).await;
    }

    let revoked = world.key(&world.operator, key("acme", "viewer")).await;
    world.revoke_key(&world.operator, "acme", id_of(&revoked)).await.unwrap();
    world.refuses(&revoked.key).await;

    let expires_at = Some(in_an_hour(world.test.db.now().await.unwrap()));
    let message = pb::CreateApiKeyRequest { expires_at, ..key("acme", "viewer") };
    let expiring = world.key(&world.operator, message).await;
    assert_eq!(world.principal(&expiring.key).await.role, Some(Role::Viewer));
    world.authenticator.forget();
    world.test.db.advance_clock(Duration::from_hours(1));
    world.refuses(&expiring.key).await;
}

async fn an_archived_customer_calls_no_more(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("other", "").await;
    let admin = world.key(&world.operator, key("other", "admin")).await.key;
    let caller = world.principal(&admin).await;
    let session = world.session(&caller, &identity, "").await.token;
    assert_eq!(world.principal(&session).await.customer, world.other);

    let mut tx = world.test.db.begin().await.unwrap();
    query("UPDATE customers SET deleted_at = :now WHERE id = $1")
        .bind(world.other)
        .execute(&mut tx)
        .await
        .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    world.authenticator.forget();
    world.refuses(&admin).await;
    world.refuses(&session).await;
    assert_eq!(world.principal("dev").await, world.operator);
}

async fn a_mistyped_key_is_refused_without_the_database(test: TestDb) {
    let world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await.key;
    let first = if created.as_bytes()[3] == b'x' { 'y' } else { 'x' };
    let mistyped = format!("ak-{first}{}", &created[4..]);
    world.test.db.close().await;
    world.refuses(&mistyped).await;
    world.refuses("gk-anything").await;
    // Whoever has a right key is told to come back, and not that it is wrong.
    for token in [created.as_str(), "dev-2"] {
        let fault = authenticate(&world.authenticator, token).await.unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Unavailable, "{token}");
    }
}

async fn a_revoked_key_is_refused_at_once_here(test: TestDb) {
    let world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    world.principal(&created.key).await;
    world.revoke_key(&world.operator, "acme", id_of(&created)).await.unwrap();
    world.refuses(&created.key).await;
}

// Behaviour 45: a revoked credential is refused by another replica within a second.
async fn other_replicas_follow_within_a_second(test: TestDb) {
    let world = World::new(test).await;
    let (replica, _, _usage) = authenticator(&world.test, &world.test.reopen().await).await;
    let identity = world.identity("acme", "").await;
    let admin = world.caller("acme", "admin", "").await;
    let key = world.key(&world.operator, key("acme", "viewer")).await;
    let session = world.session(&admin, &identity, "viewer").await;
    let session_id = session.session.unwrap().id;

    for token in [&key.key, &session.token] {
        authenticate(&replica, token).await.unwrap();
    }
    world.revoke_key(&world.operator, "acme", id_of(&key)).await.unwrap();
    world.revoke_session(&world.operator, &session_id).await.unwrap();
    let committed = Instant::now();
    for token in [&key.key, &session.token] {
        // Asking again and again keeps no answer alive.
        loop {
            // When it was asked is what counts, however long the answer took.
            let asked = committed.elapsed();
            if authenticate(&replica, token).await.is_err() {
                break;
            }
            assert!(asked < Duration::from_secs(1), "{token} is still accepted");
            tokio::task::yield_now().await;
        }
        refuses(&replica, token).await;
    }
}

// Behaviour 46: the last use is written at most once a minute.
async fn the_last_use_is_noted_once_a_minute(test: TestDb) {
    let mut world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    // The bootstrap key was used while the world was made.
    assert_eq!(world.usage.next().await.unwrap().unwrap(), 1);
    let last_used = async |world: &World| {
        let shown = world.get_key(&world.operator, "acme", id_of(&created)).await.unwrap();
        shown.last_used_at.map(|time| time.seconds)
    };
    assert_eq!(last_used(&world).await, None);

    world.principal(&created.key).await;
    assert_eq!(world.usage.next().await.unwrap().unwrap(), 1);
    let first = last_used(&world).await.unwrap();

    world.test.db.advance_clock(Duration::from_secs(50));
    world.authenticator.forget();
    world.principal(&created.key).await;
    tokio::select! {
        biased;
        written = world.usage.next() => panic!("a use was noted within the minute: {written:?}"),
        () = ready(()) => {}
    }
    assert_eq!(last_used(&world).await, Some(first));

    world.test.db.advance_clock(Duration::from_secs(11));
    world.authenticator.forget();
    world.principal(&created.key).await;
    assert_eq!(world.usage.next().await.unwrap().unwrap(), 1);
    assert!(last_used(&world).await.unwrap() >= first + 60);
}

async fn uses_are_written_before_the_server_stops(test: TestDb) {
    let world = World::new(test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    world.principal(&created.key).await;
    let stop = CancellationToken::new();
    stop.cancel();
    let mut jobs = JoinSet::new();
    jobs.spawn(world.usage.run(stop));
    jobs.join_next().await.unwrap().unwrap();
    let used = query("SELECT COUNT(*) AS value FROM api_keys WHERE last_used_at IS NOT NULL");
    assert_eq!(used.value::<i64>(&world.test.db).await.unwrap(), Some(2));
    // Nobody writes any more; calls go on.
    world.authenticator.forget();
    assert!(world.authenticator.authenticate("dev").await.is_ok());
}

async fn nothing_secret_is_shown_by_debug(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    world.principal(&created.key).await;
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = agentrouter_identity::issue_workspace_token(&mut tx, &world.signing, world.acme, workspace)
        .await
        .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let shown = format!("{:?} {:?} {:?} {issued:?}", world.authenticator, world.signing, world.usage);
    assert!(shown.contains(&issued.jti));
    let signature = issued.token.expose().rsplit('.').next().unwrap();
    for secret in [&created.key[11..], signature, "PRIVATE"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
