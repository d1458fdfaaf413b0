//! ListConfigurationVersions, DiffConfigurations, and how long versions are kept.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_delivery::{VERSIONS_KEPT, sweep_versions};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    versions_are_listed_newest_first,
    a_diff_names_what_changed,
    a_diff_spans_tombstones,
    wrong_requests_are_refused,
    tenants_have_histories_of_their_own,
    versions_are_kept_thirty_days_and_the_newest_for_ever,
);

impl World<'_> {
    pub(crate) async fn versions(
        &self,
        id: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<Response<pb::ListConfigurationVersionsResponse>, Status> {
        let message = pb::ListConfigurationVersionsRequest {
            configuration_id: id.to_owned(),
            page_size,
            page_token: page_token.to_owned(),
        };
        self.service.list_configuration_versions(request(call(&self.viewer), message)).await
    }

    async fn kept_versions(&self, id: &str) -> Vec<i64> {
        let versions = self.versions(id, 0, "").await.unwrap().into_inner().versions;
        versions.iter().map(|version| version.version).collect()
    }

    pub(crate) async fn diff(
        &self,
        id: &str,
        from_version: i64,
        to_version: i64,
    ) -> Result<Response<pb::DiffConfigurationsResponse>, Status> {
        let message =
            pb::DiffConfigurationsRequest { configuration_id: id.to_owned(), from_version, to_version };
        self.service.diff_configurations(request(call(&self.viewer), message)).await
    }

    async fn changes(&self, id: &str, from: i64, to: i64) -> Vec<(String, Option<String>, Option<String>)> {
        let changes = self.diff(id, from, to).await.unwrap().into_inner().changes;
        changes.into_iter().map(|change| (change.path, change.before, change.after)).collect()
    }

    async fn sweep(&self, limit: i64) -> u64 {
        let mut tx = self.db.db.begin().await.unwrap();
        let swept = sweep_versions(&mut tx, limit).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        swept
    }

    async fn server(&self, id: &str, url: &str) {
        let message = pb::UpsertMcpCatalogServerRequest {
            id: id.to_owned(),
            url: url.to_owned(),
            ..Default::default()
        };
        self.service.upsert_mcp_catalog_server(request(call(&self.admin), message)).await.unwrap();
    }
}

async fn versions_are_listed_newest_first(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let first = world.provider(1).await;
    world.provider(2).await;
    let newest = world.provider(3).await;
    let page = world.versions(&first.id, 2, "").await.unwrap().into_inner();
    let numbers: Vec<_> = page.versions.iter().map(|version| version.version).collect();
    assert_eq!(numbers, [3, 2]);
    assert_eq!(page.versions[0], newest);
    let rest = world.versions(&first.id, 2, &page.next_page_token).await.unwrap().into_inner();
    assert_eq!((rest.versions, rest.next_page_token), (vec![first.clone()], String::new()));
    // A token of one configuration is none of another's list.
    world.server("a", "https://a.example").await;
    let catalog = world.get(&world.admin, &world.catalog()).await.unwrap();
    let reused = world.versions(&catalog.id, 2, &page.next_page_token).await;
    assert_eq!(violations(reused), ["page_token"]);
}

async fn a_diff_names_what_changed(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.server("b", "https://b.example").await;
    world.server("c", "https://c.example").await;
    world.server("a", "https://a.example").await;
    world.server("b", "https://new.example").await;
    let id = world.get(&world.admin, &world.catalog()).await.unwrap().id;
    let text = |text: &str| Some(text.to_owned());
    // Another one before it does not make `b` a changed one.
    let added = r#"{"authentication":"","id":"a","name":"","requires_auth":false,"url":"https://a.example"}"#;
    assert_eq!(
        world.changes(&id, 2, 0).await,
        [
            ("/mcp_catalog/servers/0".to_owned(), None, text(added)),
            (
                "/mcp_catalog/servers/1/url".to_owned(),
                text("\"https://b.example\""),
                text("\"https://new.example\"")
            ),
        ]
    );
    // And back.
    assert_eq!(world.changes(&id, 3, 2).await, [("/mcp_catalog/servers/0".to_owned(), text(added), None)]);
    assert_eq!(world.changes(&id, 4, 4).await, []);
}

async fn a_diff_spans_tombstones(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let message = pb::SaveByokBackendsRequest {
        user_id: "ada".to_owned(),
        key_address: "k1".to_owned(),
        backends: vec![pb::ByokBackend {
            name: "a".to_owned(),
            schema: "openai".to_owned(),
            base_url: "https://a.example".to_owned(),
            credential: Some(pb::Credential { value: "sk-canary".to_owned(), ..Default::default() }),
            ..Default::default()
        }],
    };
    let saved = world.service.save_byok_backends(request(call(&world.admin), message)).await.unwrap();
    let id = saved.into_inner().configuration.unwrap().id;
    let message = pb::DeleteByokBackendsRequest { user_id: "ada".to_owned() };
    world.service.delete_byok_backends(request(call(&world.admin), message)).await.unwrap();
    let changes = world.changes(&id, 1, 2).await;
    assert_eq!((changes.len(), changes[0].0.as_str(), &changes[0].2), (1, "/byok", &None));
    // What changed is shown, but for the key.
    assert!(changes[0].1.as_ref().unwrap().contains("https://a.example"));
    let listed = world.versions(&id, 0, "").await.unwrap();
    assert!(!format!("{changes:?} {listed:?}").contains("sk-canary"));
}

async fn wrong_requests_are_refused(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    assert_eq!(violations(world.versions("", -1, "").await), ["configuration_id", "page_size"]);
    assert_eq!(
        violations(world.diff("cfg_1", 0, -1).await),
        ["configuration_id", "from_version", "to_version"]
    );
    let missing = (Code::NotFound, "VERSION_NOT_FOUND".to_owned());
    assert_eq!(refused(world.diff(&id, 1, 2).await), missing);
    assert_eq!(refused(world.diff(&id, 2, 1).await), missing);
}

async fn tenants_have_histories_of_their_own(db: TestDb) {
    let acme = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    let id = acme.provider(1).await.id;
    globex.provider(1).await;
    let missing = (Code::NotFound, "CONFIGURATION_NOT_FOUND".to_owned());
    assert_eq!(refused(globex.versions(&id, 0, "").await), missing);
    assert_eq!(refused(globex.diff(&id, 1, 0).await), missing);
}

async fn versions_are_kept_thirty_days_and_the_newest_for_ever(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    db.db.advance_clock(VERSIONS_KEPT);
    // The first version was the newest until now, so it is kept from now on.
    world.provider(2).await;
    assert_eq!(world.sweep(10).await, 0);
    world.provider(3).await;
    db.db.advance_clock(VERSIONS_KEPT.checked_sub(Duration::from_mins(1)).unwrap());
    assert_eq!(world.sweep(10).await, 0);
    assert_eq!(world.kept_versions(&id).await, [3, 2, 1]);
    db.db.advance_clock(Duration::from_mins(2));
    // In bounded steps, the oldest first.
    assert_eq!(world.sweep(1).await, 1);
    assert_eq!(world.kept_versions(&id).await, [3, 2]);
    assert_eq!(world.sweep(10).await, 1);
    db.db.advance_clock(VERSIONS_KEPT);
    assert_eq!(world.sweep(10).await, 0);
    assert_eq!(world.kept_versions(&id).await, [3]);
    assert_eq!(refused(world.diff(&id, 2, 3).await), (Code::NotFound, "VERSION_NOT_FOUND".to_owned()));
    assert_eq!(world.provider(4).await.version, 4);
}
