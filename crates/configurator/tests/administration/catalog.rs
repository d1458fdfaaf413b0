//! UpsertMCPCatalogServer.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{
    ConfigType, McpServerConfig, UpsertMcpCatalogServerRequest, UpsertMcpCatalogServerResponse,
};
use agentrouter_kernel::Principal;
use agentrouter_storage::{query, row};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    a_new_server_is_stored_whole_and_delivered,
    a_sparse_update_moves_the_url_and_enables,
    an_overwrite_replaces_every_field,
    nothing_new_keeps_revision_and_version,
    a_workspace_speaks_for_itself_only,
    every_wrong_field_is_named,
    tenants_have_catalogs_of_their_own,
    a_repeated_call_answers_the_same,
);

row! {
    #[derive(Debug, PartialEq, Eq)]
    struct Stored {
        url: String,
        name: String,
        description: String,
        icon_url: String,
        categories: String,
        authentication: String,
        requires_auth: bool,
        is_enabled: bool,
        revision: i64,
    }
}

fn seed(id: &str) -> UpsertMcpCatalogServerRequest {
    UpsertMcpCatalogServerRequest {
        workspace_id: String::new(),
        id: id.to_owned(),
        url: "http://jira.mcp.svc:8080/mcp".to_owned(),
        name: "Jira".to_owned(),
        description: "Finds and files issues".to_owned(),
        icon_url: "https://icons.example/jira.svg".to_owned(),
        categories: vec!["issues".to_owned(), "say \"hi\"".to_owned()],
        authentication: "oauth2".to_owned(),
        requires_auth: true,
        force_overwrite: false,
    }
}

/// What `seed` leaves behind.
fn stored() -> Stored {
    let seed = seed("jira");
    Stored {
        url: seed.url,
        name: seed.name,
        description: seed.description,
        icon_url: seed.icon_url,
        categories: r#"["issues","say \"hi\""]"#.to_owned(),
        authentication: seed.authentication,
        requires_auth: true,
        is_enabled: true,
        revision: 1,
    }
}

impl World<'_> {
    async fn try_upsert(
        &self,
        caller: &Principal,
        message: UpsertMcpCatalogServerRequest,
    ) -> Result<Response<UpsertMcpCatalogServerResponse>, Status> {
        self.service.upsert_mcp_catalog_server(request(call(caller), message)).await
    }

    /// Whether the row is new.
    async fn upsert(&self, caller: &Principal, message: UpsertMcpCatalogServerRequest) -> bool {
        self.try_upsert(caller, message).await.unwrap().into_inner().created
    }

    async fn stored_server(&self, id: &str) -> Option<Stored> {
        const STORED: &str = "SELECT url, name, description, icon_url, categories, authentication, requires_auth, \
             is_enabled, revision FROM mcp_catalog_servers WHERE customer_id = $1 AND id = $2";
        query(STORED).bind(self.customer).bind(id).optional(&self.db.db).await.unwrap()
    }

    async fn edit_server(&self, sql: &'static str) {
        let mut tx = self.db.db.begin().await.unwrap();
        query(sql).bind(self.customer).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    async fn delivered_servers(&self) -> (i64, Vec<McpServerConfig>) {
        let configuration = self.get(&self.admin, &self.catalog()).await.unwrap();
        match configuration.payload {
            Some(Payload::McpCatalog(payload)) => (configuration.version, payload.servers),
            other => panic!("{other:?}"),
        }
    }
}

async fn a_new_server_is_stored_whole_and_delivered(db: TestDb) {
    let world = World::new(&db, "acme").await;
    assert!(world.upsert(&world.worker, seed("jira")).await);
    assert_eq!(world.stored_server("jira").await, Some(stored()));
    let expected = McpServerConfig {
        id: "jira".to_owned(),
        name: "Jira".to_owned(),
        url: "http://jira.mcp.svc:8080/mcp".to_owned(),
        authentication: "oauth2".to_owned(),
        requires_auth: true,
    };
    assert_eq!(world.delivered_servers().await, (1, vec![expected]));
    for worker in [&world.worker, &world.sibling] {
        assert_eq!(world.pending(worker).await, [(ConfigType::McpCatalog, 1)]);
    }
    assert_eq!(world.audited().await, 1);
}

async fn a_sparse_update_moves_the_url_and_enables(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.upsert(&world.admin, seed("jira")).await;
    world
        .edit_server(
            "UPDATE mcp_catalog_servers SET name = 'Our Jira', is_enabled = FALSE WHERE customer_id = $1",
        )
        .await;
    let message = UpsertMcpCatalogServerRequest {
        id: "jira".to_owned(),
        url: "https://jira.example".to_owned(),
        name: "Ignored".to_owned(),
        ..Default::default()
    };
    assert!(!world.upsert(&world.worker, message).await);
    let expected = Stored {
        url: "https://jira.example".to_owned(),
        name: "Our Jira".to_owned(),
        revision: 2,
        ..stored()
    };
    assert_eq!(world.stored_server("jira").await, Some(expected));
    let (version, servers) = world.delivered_servers().await;
    assert_eq!(
        (version, servers[0].url.as_str(), servers[0].name.as_str()),
        (2, "https://jira.example", "Our Jira")
    );
}

async fn an_overwrite_replaces_every_field(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.upsert(&world.admin, seed("jira")).await;
    let message = UpsertMcpCatalogServerRequest {
        id: "jira".to_owned(),
        url: "https://jira.example".to_owned(),
        force_overwrite: true,
        ..Default::default()
    };
    assert!(!world.upsert(&world.admin, message.clone()).await);
    let expected = Stored {
        url: "https://jira.example".to_owned(),
        name: String::new(),
        description: String::new(),
        icon_url: String::new(),
        categories: "[]".to_owned(),
        authentication: String::new(),
        requires_auth: false,
        is_enabled: true,
        revision: 2,
    };
    assert_eq!(world.stored_server("jira").await, Some(expected));
    assert_eq!(world.delivered_servers().await.0, 2);
    // Overwriting makes a new row, too.
    let message = UpsertMcpCatalogServerRequest { id: "other".to_owned(), ..message };
    assert!(world.upsert(&world.admin, message).await);
}

async fn nothing_new_keeps_revision_and_version(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.upsert(&world.admin, seed("jira")).await;
    for force_overwrite in [false, true] {
        let message = UpsertMcpCatalogServerRequest { force_overwrite, ..seed("jira") };
        assert!(!world.upsert(&world.admin, message).await);
    }
    assert_eq!(world.stored_server("jira").await.unwrap().revision, 1);
    assert_eq!(world.delivered_servers().await.0, 1);
    // What is shown to people only is no news for data planes.
    let message = UpsertMcpCatalogServerRequest {
        description: "Changed".to_owned(),
        force_overwrite: true,
        ..seed("jira")
    };
    world.upsert(&world.admin, message).await;
    assert_eq!(world.stored_server("jira").await.unwrap().revision, 2);
    assert_eq!(world.delivered_servers().await.0, 1);
}

async fn a_workspace_speaks_for_itself_only(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let named = |name: &str| UpsertMcpCatalogServerRequest { workspace_id: name.to_owned(), ..seed("jira") };
    for other in ["sibling", "nowhere"] {
        let status = world.try_upsert(&world.worker, named(other)).await;
        assert_eq!(refused(status), (Code::PermissionDenied, "WORKSPACE_MISMATCH".to_owned()), "{other}");
    }
    let status = world.try_upsert(&world.admin, named("nowhere")).await;
    assert_eq!(refused(status), (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned()));
    assert_eq!(world.stored_server("jira").await, None);
    assert!(world.upsert(&world.worker, named("edge")).await);
    assert!(!world.upsert(&world.admin, named("sibling")).await);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let wrong = UpsertMcpCatalogServerRequest {
        workspace_id: "nowhere".to_owned(),
        id: String::new(),
        url: "jira".to_owned(),
        name: "x".repeat(256),
        description: "x".repeat(4097),
        icon_url: "javascript:alert(1)".to_owned(),
        categories: ["a", "", "a"].map(str::to_owned).to_vec(),
        authentication: "x".repeat(64),
        requires_auth: false,
        force_overwrite: false,
    };
    let expected =
        ["id", "url", "name", "description", "icon_url", "categories[1]", "categories[2]", "authentication"];
    let status = world.try_upsert(&world.admin, wrong).await;
    assert_eq!(violations(status), expected);
    let many = (0..65).map(|index| format!("c{index}")).collect();
    let wrong = UpsertMcpCatalogServerRequest { categories: many, id: "i".repeat(256), ..seed("jira") };
    let status = world.try_upsert(&world.admin, wrong).await;
    assert_eq!(violations(status), ["id", "categories"]);
}

async fn tenants_have_catalogs_of_their_own(db: TestDb) {
    let acme = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    acme.upsert(&acme.admin, seed("jira")).await;
    assert_eq!(globex.stored_server("jira").await, None);
    let other = UpsertMcpCatalogServerRequest { url: "https://globex.example".to_owned(), ..seed("jira") };
    assert!(globex.upsert(&globex.worker, other).await);
    assert_eq!(acme.stored_server("jira").await, Some(stored()));
    assert_eq!((acme.delivered_servers().await.0, globex.delivered_servers().await.0), (1, 1));
}

async fn a_repeated_call_answers_the_same(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let mut context = call(&world.worker);
    context.idempotency_key = Some("once".to_owned());
    for _ in 0..2 {
        let sent = request(context.clone(), seed("jira"));
        assert!(world.service.upsert_mcp_catalog_server(sent).await.unwrap().into_inner().created);
    }
    assert_eq!(world.audited().await, 1);
}
