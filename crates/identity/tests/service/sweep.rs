//! Revocations, and what becomes of rows that expired.

use std::time::Duration;

use agentrouter_identity::{issue_workspace_token, revoke_token, sweep_expired};
use agentrouter_kernel::Timestamp;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};

use crate::{World, id_of, key};

on_both_engines!(
    a_revocation_is_kept_once_and_until_the_last_expiry,
    our_own_tokens_end_with_their_revocation,
    a_revocation_holds_in_its_customer_only,
    expired_rows_go_in_bounded_steps,
);

const HOUR: Duration = Duration::from_hours(1);

async fn revoke(world: &World, jti: &str, expires_at: Timestamp) -> Timestamp {
    let mut tx = world.test.db.begin().await.unwrap();
    let at = revoke_token(&mut tx, world.acme, jti, "id_1", "lost", expires_at).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    at
}

async fn a_revocation_is_kept_once_and_until_the_last_expiry(test: TestDb) {
    let world = World::new(test).await;
    let now = world.test.db.now().await.unwrap();
    let first = revoke(&world, "gateway-token", now.plus(HOUR)).await;
    assert!(first >= now);
    world.test.db.advance_clock(Duration::from_mins(1));
    for (expires_at, kept) in [(now.plus(HOUR * 2), now.plus(HOUR * 2)), (now.plus(HOUR), now.plus(HOUR * 2))]
    {
        assert_eq!(revoke(&world, "gateway-token", expires_at).await, first);
        let stored: Timestamp =
            query("SELECT expires_at AS value FROM revoked_tokens WHERE jti = 'gateway-token'")
                .value(&world.test.db)
                .await
                .unwrap()
                .unwrap();
        assert_eq!(stored, kept);
    }
}

async fn our_own_tokens_end_with_their_revocation(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.acme, "default").await;
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = issue_workspace_token(&mut tx, &world.signing, world.acme, workspace).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    world.principal(issued.token.expose()).await;
    revoke(&world, &issued.jti.to_lowercase(), issued.expires_at).await;
    world.authenticator.forget();
    world.refuses(issued.token.expose()).await;
    // Neither the revocation nor the row alone lets it through again.
    for undo in ["DELETE FROM revoked_tokens", "UPDATE tokens SET expires_at = expires_at + 3600000000"] {
        let mut tx = world.test.db.begin().await.unwrap();
        query(undo).execute(&mut tx).await.unwrap();
        world.authenticator.forget();
        drop(tx);
        world.refuses(issued.token.expose()).await;
    }
}

async fn a_revocation_holds_in_its_customer_only(test: TestDb) {
    let world = World::new(test).await;
    let workspace = world.test.workspace(world.other, "default").await;
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = issue_workspace_token(&mut tx, &world.signing, world.other, workspace).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    revoke(&world, &issued.jti, issued.expires_at).await;
    world.authenticator.forget();
    assert_eq!(world.principal(issued.token.expose()).await.customer, world.other);
}

async fn expired_rows_go_in_bounded_steps(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let admin = world.caller("acme", "admin", &identity).await;
    let now = world.test.db.now().await.unwrap();
    for number in 0..5 {
        revoke(&world, &format!("gateway-{number}"), now.plus(HOUR)).await;
        world.session(&admin, "", "").await;
    }
    revoke(&world, "lasting", now.plus(HOUR * 3)).await;
    let rotated = world.key(&world.operator, key("acme", "viewer")).await;
    world.rotate_key(&world.operator, "acme", id_of(&rotated), HOUR).await.unwrap();
    let sweep = async |limit| {
        let mut tx = world.test.db.begin().await.unwrap();
        let swept = sweep_expired(&mut tx, limit).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
        swept
    };
    assert_eq!(sweep(100).await, 0);
    world.test.db.advance_clock(HOUR + Duration::from_mins(1));
    assert_eq!(sweep(2).await, 2 + 2 + 1, "two tokens, two revocations, the replaced secret");
    assert_eq!(sweep(100).await, 3 + 3);
    assert_eq!(sweep(100).await, 0);
    let left: Vec<String> =
        query("SELECT jti AS value FROM revoked_tokens").values(&world.test.db).await.unwrap();
    assert_eq!(left, ["lasting"]);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM tokens").await, 0);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM server_secrets").await, 1);
}
