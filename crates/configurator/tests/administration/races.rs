//! Callers that do the same at the same time.

use std::sync::Arc;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_configurator::{Configurator, Presence};
use agentrouter_delivery::Slot;
use agentrouter_rpc::Deps;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, request};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::World;

on_both_engines!(
    one_of_many_creates_the_server,
    saves_of_one_key_follow_each_other,
    a_token_is_revoked_once,
    rollbacks_and_changes_leave_no_hole,
);

const CALLERS: usize = 8;

impl World<'_> {
    /// Calls from as many replicas at once, each with connections of its own.
    async fn together<T, F>(&self, call: impl Fn(Configurator, usize) -> F) -> Vec<Result<T, Status>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Status>> + Send + 'static,
    {
        let barrier = Arc::new(Barrier::new(CALLERS));
        let mut calls = JoinSet::new();
        for index in 0..CALLERS {
            let deps = Deps { db: self.db.reopen().await, ..self.db.deps() };
            let service = Configurator::new(deps, Arc::new(Presence::default()), CancellationToken::new());
            let (barrier, called) = (Arc::clone(&barrier), call(service, index));
            calls.spawn(async move {
                barrier.wait().await;
                called.await
            });
        }
        calls.join_all().await
    }

    /// Asserts that the versions of a configuration are one to the newest.
    async fn without_holes(&self, slot: &Slot) -> i64 {
        const VERSIONS: &str = "SELECT v.version AS value FROM liaison_configuration_versions v \
             JOIN liaison_configurations c ON c.id = v.configuration_id \
             WHERE c.customer_id = $1 AND c.config_type = $2 AND c.user_id = $3 ORDER BY v.version";
        let versions: Vec<i64> = query(VERSIONS)
            .bind(self.customer)
            .bind(agentrouter_delivery::config_type_name(slot.config_type))
            .bind(&slot.user_id)
            .values(&self.db.db)
            .await
            .unwrap();
        let newest = self.version(slot).await;
        assert_eq!(versions, (1..=newest).collect::<Vec<_>>());
        newest
    }
}

async fn one_of_many_creates_the_server(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let answers = world
        .together(|service, index| {
            let message = pb::UpsertMcpCatalogServerRequest {
                id: "jira".to_owned(),
                url: format!("https://jira-{index}.example"),
                ..Default::default()
            };
            let sent = request(call(&world.worker), message);
            async move { Ok(service.upsert_mcp_catalog_server(sent).await?.into_inner().created) }
        })
        .await;
    let created = answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count();
    assert_eq!(created, 1);
    assert_eq!(world.without_holes(&world.catalog()).await, i64::try_from(CALLERS).unwrap());
}

async fn saves_of_one_key_follow_each_other(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let answers = world
        .together(|service, index| {
            let backend = pb::ByokBackend {
                name: "a".to_owned(),
                schema: "openai".to_owned(),
                base_url: "https://a.example".to_owned(),
                credential: Some(pb::Credential { value: format!("sk-{index}"), ..Default::default() }),
                ..Default::default()
            };
            let message = pb::SaveByokBackendsRequest {
                user_id: "ada".to_owned(),
                key_address: "k1".to_owned(),
                backends: vec![backend],
            };
            let sent = request(call(&world.worker), message);
            async move { Ok(service.save_byok_backends(sent).await?.into_inner().updated) }
        })
        .await;
    assert!(answers.into_iter().all(|answer| answer.unwrap()));
    let slot = Slot::per_key(world.customer, "ada", ConfigType::Byok, "k1");
    assert_eq!(world.without_holes(&slot).await, i64::try_from(CALLERS).unwrap());
    // The key that is stored is the one that the newest version names.
    let configuration = world.get(&world.worker, &slot).await.unwrap();
    let Some(pb::configuration::Payload::Byok(payload)) = &configuration.payload else {
        panic!("{configuration:?}")
    };
    let credential = payload.backends[0].credential.as_ref().unwrap();
    assert_eq!(credential.version, configuration.version);
    assert!(credential.value.starts_with("sk-"), "{credential:?}");
}

async fn a_token_is_revoked_once(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let answers = world
        .together(|service, _| {
            let message = pb::RevokeUserTokenRequest { jti: "jti".to_owned(), ..Default::default() };
            let sent = request(call(&world.worker), message);
            async move { Ok(service.revoke_user_token(sent).await?.into_inner().revoked_at) }
        })
        .await;
    let times: Vec<_> = answers.into_iter().map(Result::unwrap).collect();
    assert!(times.iter().all(|time| time.is_some() && *time == times[0]), "{times:?}");
    let slot = Slot::global(world.customer, ConfigType::RevokedTokens);
    assert_eq!(world.without_holes(&slot).await, 1);
    let kept: Option<i64> =
        query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM revoked_tokens").value(&db.db).await.unwrap();
    assert_eq!(kept, Some(1));
}

async fn rollbacks_and_changes_leave_no_hole(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    world.provider(2).await;
    let answers = world
        .together(|service, index| {
            let version = if index.is_multiple_of(2) { 1 } else { 2 };
            let message = pb::RollbackConfigurationRequest { configuration_id: id.clone(), version };
            let sent = request(call(&world.admin), message);
            async move { Ok(service.rollback_configuration(sent).await?.into_inner().configuration) }
        })
        .await;
    for answer in answers {
        assert!(answer.is_ok_and(|configuration| configuration.is_some()));
    }
    let newest = world.without_holes(&world.providers()).await;
    assert!((3..=2 + 8).contains(&newest), "{newest}");
    let missing = pb::RollbackConfigurationRequest { configuration_id: id, version: newest + 1 };
    let refusal = world.service.rollback_configuration(request(call(&world.admin), missing)).await;
    assert_eq!(refusal.unwrap_err().code(), Code::NotFound);
}
