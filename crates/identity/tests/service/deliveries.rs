//! What data planes learn of credentials, in the transaction that changes them.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{Configuration, RevokedToken};
use agentrouter_api::identity as pb;
use agentrouter_api::identity::identities_service_server::IdentitiesService;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, on_both_engines};
use prost::Message;

use crate::{World, by};

on_both_engines!(a_revoked_session_is_told_to_the_data_planes, a_deleted_identity_leaves_nothing_behind);

impl World {
    async fn told(&self) -> (i64, Vec<RevokedToken>) {
        const VERSION: &str = "SELECT version AS value FROM liaison_configurations \
             WHERE customer_id = $1 AND config_type = 'revoked_tokens' AND user_id = 'system'";
        const CONTENT: &str = "SELECT content AS value FROM liaison_configurations \
             WHERE customer_id = $1 AND config_type = 'revoked_tokens' AND user_id = 'system'";
        let version: Option<i64> = query(VERSION).bind(self.acme).value(&self.test.db).await.unwrap();
        let content: Option<Vec<u8>> = query(CONTENT).bind(self.acme).value(&self.test.db).await.unwrap();
        let payload = content.and_then(|content| Configuration::decode(content.as_slice()).unwrap().payload);
        match payload {
            Some(Payload::RevokedTokens(payload)) => (version.unwrap(), payload.tokens),
            None => (0, Vec::new()),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_revoked_session_is_told_to_the_data_planes(test: TestDb) {
    let world = World::new(test).await;
    let identity = world.identity("acme", "").await;
    let created = world.session(&world.operator, &identity, "viewer").await;
    let session = created.session.unwrap();
    assert_eq!(world.told().await, (0, vec![]));
    world.revoke_session(&world.operator, &session.id).await.unwrap();
    let told = RevokedToken { jti: session.id, expires_at: session.expires_at };
    assert_eq!(world.told().await, (1, vec![told]));
    world.refuses(&created.token).await;
}

async fn a_deleted_identity_leaves_nothing_behind(test: TestDb) {
    const BACKEND: &str = "INSERT INTO byok_credentials (id, customer_id, user_id, key_address, backend, version, sealed, \
         created_at, updated_at) VALUES ($1, $1, $2, 'k1', 'b', 1, $3, 0, 0)";
    const PROFILE: &str = "INSERT INTO mcp_profiles (id, customer_id, slug, user_id, key_id, display_name, servers, \
         revision, created_at, updated_at) VALUES ($1, $1, 'p', $2, 'k1', '', '[]', 1, 0, 0)";
    let world = World::new(test).await;
    let (identity, other) = (world.identity("acme", "").await, world.identity("acme", "").await);
    let mut tx = world.test.db.begin().await.unwrap();
    query(BACKEND)
        .bind(world.acme)
        .bind(&identity)
        .bind(b"sealed".as_slice())
        .execute(&mut tx)
        .await
        .unwrap();
    query(PROFILE).bind(world.acme).bind(&identity).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    for (id, left) in [(&other, 1), (&identity, 0)] {
        let message = pb::DeleteIdentityRequest {
            customer_id: "acme".to_owned(),
            identity_id: id.clone(),
            ..Default::default()
        };
        world.identities.delete_identity(by(&world.operator, message)).await.unwrap();
        assert_eq!(world.count("SELECT COUNT(*) AS value FROM byok_credentials").await, left);
        assert_eq!(world.count("SELECT COUNT(*) AS value FROM mcp_profiles").await, left);
    }
}
