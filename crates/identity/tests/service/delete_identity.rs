//! What ends with an identity, and what does not.

use std::slice::from_ref;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::identities_service_server::IdentitiesService;
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Id, Member, Project};
use agentrouter_storage::{Tx, query};
use agentrouter_testkit::{TestDb, on_both_engines, refused};
use tonic::{Code, Response, Status};

use crate::{World, by, gateway_key, key};

on_both_engines!(
    everything_that_acts_for_it_ends,
    nobody_deletes_an_identity_with_a_key_above_the_own_role,
    the_last_operator_key_keeps_its_identity,
    an_identity_can_be_deleted_while_keys_are_made_for_it,
    an_identity_can_be_deleted_while_it_becomes_a_member,
);

async fn delete(
    world: &World,
    caller: &Principal,
    id: &str,
) -> Result<Response<pb::DeleteIdentityResponse>, Status> {
    let message = pb::DeleteIdentityRequest {
        customer_id: "acme".to_owned(),
        identity_id: id.to_owned(),
        etag: String::new(),
    };
    world.identities.delete_identity(by(caller, message)).await
}

/// Inserts a membership, and leaves it to the caller to commit it.
async fn add_member(world: &World, project: Id<Project>, identity: &str) -> Tx {
    let mut tx = world.test.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    query(
        "INSERT INTO project_members \
         (id, customer_id, project_id, identity_id, role, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, 'member', 1, $5, $5)",
    )
    .bind(Id::<Member>::new(now))
    .bind(world.acme)
    .bind(project)
    .bind(Id::<agentrouter_kernel::id::Identity>::parse(identity).unwrap())
    .bind(now)
    .execute(&mut tx)
    .await
    .unwrap();
    tx
}

async fn everything_that_acts_for_it_ends(test: TestDb) {
    let world = World::new(test).await;
    let project = world.test.project(world.acme, "default", true).await;
    let (ada, bob) = (world.identity("acme", "ada@a").await, world.identity("acme", "bob@a").await);
    let mut tokens = Vec::new();
    for identity in [&ada, &bob] {
        add_member(&world, project, identity).await.commit_unaudited("test data").await.unwrap();
        let message = pb::CreateApiKeyRequest { identity_id: identity.clone(), ..key("acme", "admin") };
        let made = world.key(&world.operator, message).await.key;
        let session = world.session(&world.principal(&made).await, "", "").await.token;
        world.key(&world.operator, gateway_key("acme", identity)).await;
        tokens.push([made, session]);
    }
    let [ada_tokens, bob_tokens] = tokens.try_into().unwrap();
    // A session of the other one that was made with her key.
    let borrowed = world.session(&world.principal(&ada_tokens[0]).await, &bob, "member").await.token;
    for token in ada_tokens.iter().chain(&bob_tokens).chain([&borrowed]) {
        world.principal(token).await;
    }

    delete(&world, &world.operator, &ada).await.unwrap();
    for token in ada_tokens.iter().chain([&borrowed]) {
        world.refuses(token).await;
    }
    for token in &bob_tokens {
        world.principal(token).await;
    }
    for (sql, left) in [
        ("SELECT COUNT(*) AS value FROM identities", 1),
        ("SELECT COUNT(*) AS value FROM project_members", 1),
        ("SELECT COUNT(*) AS value FROM tokens", 1),
        // His two, and the bootstrap key.
        ("SELECT COUNT(*) AS value FROM api_keys", 3),
        ("SELECT COUNT(*) AS value FROM api_key_secrets", 3),
    ] {
        assert_eq!(world.count(sql).await, left, "{sql}");
    }
    let tombstones = "SELECT user_id AS value FROM liaison_configurations WHERE deleted = TRUE";
    assert_eq!(query(tombstones).values::<String>(&world.test.db).await.unwrap(), from_ref(&ada));
    let again = refused(delete(&world, &world.operator, &ada).await);
    assert_eq!(again, (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned()));
}

async fn nobody_deletes_an_identity_with_a_key_above_the_own_role(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let operator = world.caller("acme", "operator", &identity).await;
    let admin = world.caller("acme", "admin", "").await;
    let denied = (Code::PermissionDenied, "ROLE_ABOVE_CALLER".to_owned());
    assert_eq!(refused(delete(&world, &admin, &identity).await), denied);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM identities").await, 1);
    // Once the key is revoked, it is in nobody's way.
    world.revoke_key(&world.operator, "acme", &operator.credential_id).await.unwrap();
    delete(&world, &admin, &identity).await.unwrap();
}

async fn the_last_operator_key_keeps_its_identity(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let operator = world.caller("acme", "operator", &identity).await;
    world.revoke_key(&operator, "acme", &world.operator.credential_id).await.unwrap();
    let last = (Code::FailedPrecondition, "LAST_OPERATOR_KEY".to_owned());
    assert_eq!(refused(delete(&world, &operator, &identity).await), last);
    let next = world.key(&operator, key("other", "operator")).await.key;
    delete(&world, &world.principal(&next).await, &identity).await.unwrap();
    world.principal(&next).await;
}

async fn an_identity_can_be_deleted_while_keys_are_made_for_it(test: TestDb) {
    let world = World::new(test).await;
    for round in 0..5 {
        let identity = world.identity("acme", "").await;
        let create = {
            let (service, caller) = (world.api_keys.clone(), world.operator.clone());
            let message = gateway_key("acme", &identity);
            async move {
                use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
                service.create_api_key(by(&caller, message)).await
            }
        };
        let (created, deleted) = tokio::join!(create, delete(&world, &world.operator, &identity));
        deleted.unwrap();
        if created.is_err() {
            let missing = (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned());
            assert_eq!(refused(created), missing, "round {round}");
        }
        let left = "SELECT COUNT(*) AS value FROM api_keys WHERE identity_id IS NOT NULL";
        assert_eq!(world.count(left).await, 0, "round {round}");
    }
}

async fn an_identity_can_be_deleted_while_it_becomes_a_member(test: TestDb) {
    let world = World::new(test).await;
    let project = world.test.project(world.acme, "default", true).await;
    let identity = world.identity("acme", "").await;
    let becoming = add_member(&world, project, &identity).await;
    let commit = async {
        tokio::task::yield_now().await;
        becoming.commit_unaudited("test data").await.unwrap();
    };
    let (deleted, ()) = tokio::join!(delete(&world, &world.operator, &identity), commit);
    deleted.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM project_members").await, 0);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM identities").await, 0);
}
