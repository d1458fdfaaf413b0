//! The keys that tokens are signed with, on one replica and on several.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_identity::{SigningKeys, issue_workspace_token, sweep_expired};
use agentrouter_kernel::CredentialKind;
use agentrouter_kernel::id::{Id, Workspace};
use agentrouter_rpc::WorkspaceTokens;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use crate::{World, authenticate, authenticator, start_together};

on_both_engines!(
    replicas_that_start_together_make_one_key,
    the_published_keys_verify_tokens,
    old_tokens_survive_a_rotation_on_every_replica,
    a_replaced_key_goes_with_its_last_token,
    a_workspace_token_calls_for_its_workspace,
    a_key_under_another_kek_is_found_at_start,
);

const DAY: Duration = Duration::from_hours(24);
const KEYS: &str = "SELECT COUNT(*) AS value FROM server_secrets WHERE name LIKE 'signing-key/%'";

async fn workspace_token(world: &World, keys: &SigningKeys, workspace: Id<Workspace>) -> String {
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = issue_workspace_token(&mut tx, keys, world.acme, workspace).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    issued.token.expose().to_owned()
}

fn kid_of(token: &str) -> String {
    decode_header(token).unwrap().kid.unwrap()
}

async fn replicas_that_start_together_make_one_key(test: TestDb) {
    let keyring = test.deps().keyring;
    let published = start_together(&test, move |db| {
        let keyring = Arc::clone(&keyring);
        async move { SigningKeys::load_or_create(&db, &keyring).await.unwrap().jwks_json().await.unwrap() }
    })
    .await;
    assert_eq!(query(KEYS).value::<i64>(&test.db).await.unwrap(), Some(1));
    assert!(published.iter().all(|json| *json == published[0]), "{published:?}");
}

async fn the_published_keys_verify_tokens(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let token = workspace_token(&world, &world.signing, workspace).await;
    let json = world.signing.jwks_json().await.unwrap();
    let raw: Value = serde_json::from_str(&json).unwrap();
    let fields = raw["keys"][0].as_object().unwrap();
    let names: Vec<&str> = fields.keys().map(String::as_str).collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"], "and nothing private");
    assert_eq!(
        (&fields["kty"], &fields["crv"], &fields["alg"], &fields["use"]),
        (&"OKP".into(), &"Ed25519".into(), &"EdDSA".into(), &"sig".into())
    );

    // As any other program would.
    let published: JwkSet = serde_json::from_str(&json).unwrap();
    let key = DecodingKey::from_jwk(published.find(&kid_of(&token)).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["agentrouter"]);
    validation.set_issuer(&["agentrouter"]);
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
    assert_eq!(claims["ws"], workspace.to_string());
    assert_eq!(claims["cust"], world.acme.to_string());
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 90 * 86_400);
}

async fn old_tokens_survive_a_rotation_on_every_replica(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let (replica, replica_keys, _usage) = authenticator(&world.test, &world.test.reopen().await).await;
    let old = workspace_token(&world, &world.signing, workspace).await;
    authenticate(&replica, &old).await.unwrap();

    let new_kid = world.signing.rotate().await.unwrap();
    assert_ne!(kid_of(&old), new_kid);
    // Both sign with the new key now, and both know it.
    for keys in [&world.signing, &replica_keys] {
        let token = workspace_token(&world, keys, workspace).await;
        assert_eq!(kid_of(&token), new_kid);
        for authenticator in [&world.authenticator, &replica] {
            assert!(authenticate(authenticator, &token).await.unwrap().workspace.is_some());
        }
    }
    replica.forget();
    authenticate(&replica, &old).await.unwrap();
    let published: JwkSet = serde_json::from_str(&world.signing.jwks_json().await.unwrap()).unwrap();
    let kids: Vec<_> = published.keys.iter().map(|key| key.common.key_id.clone().unwrap()).collect();
    assert_eq!(kids, [new_kid, kid_of(&old)]);
}

async fn a_replaced_key_goes_with_its_last_token(test: TestDb) {
    let world = World::new(test).await;
    let sweep = async || {
        let mut tx = world.test.db.begin().await.unwrap();
        sweep_expired(&mut tx, 100).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
        world.count(KEYS).await
    };
    world.test.db.advance_clock(DAY * 100);
    assert_eq!(sweep().await, 1, "the only key stays, however old it is");
    let new_kid = world.signing.rotate().await.unwrap();
    world.test.db.advance_clock(DAY * 90);
    assert_eq!(sweep().await, 2, "a token of the old key may still be alive");
    world.test.db.advance_clock(DAY * 2);
    assert_eq!(sweep().await, 1);
    let workspace = world.test.workspace(world.acme, "default").await;
    assert_eq!(kid_of(&workspace_token(&world, &world.signing, workspace).await), new_kid);
}

async fn a_workspace_token_calls_for_its_workspace(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let tokens: Arc<dyn WorkspaceTokens> = Arc::clone(&world.signing) as _;
    let mut tx = world.test.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    let issued = tokens.issue(&mut tx, world.acme, workspace).await.unwrap();
    assert_eq!(issued.expires_at.as_secs(), now.plus(DAY * 90).as_secs());
    tx.commit_unaudited("test data").await.unwrap();

    let principal = world.principal(issued.token.expose()).await;
    assert_eq!(principal.credential, CredentialKind::Workspace);
    assert_eq!(principal.credential_id, issued.jti);
    assert_eq!(principal.workspace, Some((workspace, "default".to_owned())));
    assert_eq!((principal.customer, principal.role, principal.identity), (world.acme, None, None));
    assert_eq!(principal.expires_at, Some(issued.expires_at));
    assert_eq!(world.principal(&format!("ak-{}", issued.token.expose())).await, principal);

    let mut tx = world.test.db.begin().await.unwrap();
    let archive = query("UPDATE workspaces SET deleted_at = :now WHERE id = $1").bind(workspace);
    archive.execute(&mut tx).await.unwrap();
    // A token of a transaction that came to nothing is none.
    let undone = tokens.issue(&mut tx, world.acme, workspace).await.unwrap();
    drop(tx);
    world.refuses(undone.token.expose()).await;
    world.principal(issued.token.expose()).await;

    let mut tx = world.test.db.begin().await.unwrap();
    let archive = query("UPDATE workspaces SET deleted_at = :now WHERE id = $1").bind(workspace);
    archive.execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    world.authenticator.forget();
    world.refuses(issued.token.expose()).await;
}

async fn a_key_under_another_kek_is_found_at_start(test: TestDb) {
    let world = World::new(test).await;
    let stranger = agentrouter_envelope::Kek::new("test", &[9; 32]).unwrap();
    let keyring = Arc::new(agentrouter_envelope::Keyring::new(vec![stranger]).unwrap());
    let fault = SigningKeys::load_or_create(&world.test.db, &keyring).await.unwrap_err();
    assert_eq!(fault.reason(), "INTERNAL");
}
