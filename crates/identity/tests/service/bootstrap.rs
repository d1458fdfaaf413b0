//! The first key.

use agentrouter_api::identity as pb;
use agentrouter_envelope::Secret;
use agentrouter_identity::bootstrap_key;
use agentrouter_identity::keys::is_key_format;
use agentrouter_kernel::{CredentialKind, Fault, Role};
use agentrouter_testkit::{TestDb, on_both_engines};

use crate::{World, authenticate, authenticator};

on_both_engines!(
    a_generated_key_works,
    a_chosen_key_works_as_given,
    an_unusable_key_is_refused,
    a_failed_start_leaves_nothing,
);

async fn insert(world: &World, key: Option<&str>) -> Result<Option<Secret>, Fault> {
    let mut tx = world.test.db.begin().await.unwrap();
    let key = key.map(Secret::new);
    let made = bootstrap_key(&mut tx, world.other, key.as_ref()).await?;
    tx.commit_unaudited("test data").await.unwrap();
    Ok(made)
}

async fn a_generated_key_works(test: TestDb) {
    let world = World::new(test).await;
    let made = insert(&world, None).await.unwrap().unwrap();
    assert!(made.expose().starts_with("ak-") && is_key_format(made.expose()));
    let principal = world.principal(made.expose()).await;
    assert_eq!((principal.credential, principal.role), (CredentialKind::ApiKey, Some(Role::Operator)));
    assert_eq!((principal.customer, principal.expires_at), (world.other, None));
    let shown = world.get_key(&principal, "other", &principal.credential_id).await.unwrap();
    assert_eq!((shown.display_name.as_str(), shown.created_by.as_str()), ("bootstrap", "bootstrap"));
    assert_eq!((shown.state(), shown.role.as_str()), (pb::ApiKeyState::Active, "operator"));
    assert_eq!(shown.key_prefix, made.expose()[..11]);
}

async fn a_chosen_key_works_as_given(test: TestDb) {
    let world = World::new(test).await;
    // `dev` was given to the first start, and is what a call with `ak-dev` presents.
    let shown = world.get_key(&world.operator, "acme", &world.operator.credential_id).await.unwrap();
    assert_eq!(shown.key_prefix, "", "a part of a short key would be too much of it");
    for given in ["ak-choice", "two.dots.key", "s3cret!"] {
        assert!(insert(&world, Some(given)).await.unwrap().is_none());
        assert_eq!(world.principal(given).await.customer, world.other);
    }
    world.principal("choice").await;
    // One in the key format is recognised by its beginning, as any other.
    let generated = world.key(&world.operator, crate::key("acme", "viewer")).await;
    world.revoke_key(&world.operator, "acme", crate::id_of(&generated)).await.unwrap();
    assert!(insert(&world, Some(&generated.key)).await.unwrap().is_none());
    let principal = world.principal(&generated.key).await;
    let shown = world.get_key(&world.operator, "other", &principal.credential_id).await.unwrap();
    assert_eq!(shown.key_prefix, generated.key[..11]);
    // So is another process.
    let (replica, _, _usage) = authenticator(&world.test, &world.test.reopen().await).await;
    assert_eq!(authenticate(&replica, "dev").await.unwrap(), world.operator);
}

async fn an_unusable_key_is_refused(test: TestDb) {
    let world = World::new(test).await;
    for given in ["", "ak-", "with space", "gk-abc", "eyJhbGciOiJub25lIn0.e30."] {
        let fault = insert(&world, Some(given)).await.unwrap_err();
        assert_eq!(fault.violations()[0].field, "bootstrap_key", "{given}");
    }
    let taken = insert(&world, Some("ak-dev")).await.unwrap_err();
    assert_eq!(taken.reason(), "API_KEY_ALREADY_EXISTS");
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM api_keys").await, 1);
}

async fn a_failed_start_leaves_nothing(test: TestDb) {
    let world = World::new(test).await;
    let mut tx = world.test.db.begin().await.unwrap();
    let made = bootstrap_key(&mut tx, world.other, None).await.unwrap().unwrap();
    drop(tx);
    world.refuses(made.expose()).await;
}
