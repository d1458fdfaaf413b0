//! McpServersService.

use agentrouter_api::common::PageRequest;
use agentrouter_api::configurator::McpServerConfig;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_api::providers::mcp_servers_service_server::McpServersService;
use agentrouter_api::providers::{
    DisableMcpServerRequest, GetMcpServerRequest, ListMcpServersRequest, ListMcpServersResponse, McpServer,
};
use agentrouter_delivery::Slot;
use agentrouter_providers::McpServers;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{Tenant, texts};

on_both_engines!(
    a_server_reads_back_as_written,
    a_disabled_server_is_not_delivered,
    pages_are_complete_whatever_the_order,
    tenants_do_not_see_each_others_catalog,
    wrong_requests_are_refused,
);

impl Tenant<'_> {
    fn mcp(&self) -> McpServers {
        McpServers::new(self.db.deps())
    }

    /// Writes a server into the catalog and delivers the catalog.
    async fn add_server(&self, id: &str, name: &str) {
        const INSERT: &str = "INSERT INTO mcp_catalog_servers (customer_id, id, url, name, description, icon_url, \
             categories, authentication, requires_auth, is_enabled, revision, created_at, updated_at) \
             VALUES ($1, $2, 'https://mcp.example', $3, 'Finds things', 'https://mcp.example/icon.png', \
             '[\"search\",\"web\"]', 'oauth2', TRUE, TRUE, 1, $4, $4)";
        let mut tx = self.db.db.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        query(INSERT).bind(self.id).bind(id).bind(name).bind(now).execute(&mut tx).await.unwrap();
        let slot = Slot::global(self.id, ConfigType::McpCatalog);
        agentrouter_delivery::regenerate(&mut tx, &slot, EventType::Created).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
    }

    async fn get_server(&self, id: &str) -> Result<Response<McpServer>, Status> {
        let message = GetMcpServerRequest { customer_id: self.slug.to_owned(), mcp_server_id: id.to_owned() };
        self.mcp().get_mcp_server(request(call(&self.admin), message)).await
    }

    async fn disable_server(&self, id: &str) -> Result<Response<McpServer>, Status> {
        let message =
            DisableMcpServerRequest { customer_id: self.slug.to_owned(), mcp_server_id: id.to_owned() };
        self.mcp().disable_mcp_server(request(call(&self.admin), message)).await
    }

    async fn list_servers(&self, page: PageRequest) -> Result<Response<ListMcpServersResponse>, Status> {
        let message = ListMcpServersRequest { customer_id: self.slug.to_owned(), page: Some(page) };
        self.mcp().list_mcp_servers(request(call(&viewer(self.id, self.slug)), message)).await
    }

    async fn delivered_servers(&self) -> (i64, Vec<McpServerConfig>) {
        match self.delivered("mcp_catalog").await {
            (version, Some(Payload::McpCatalog(content))) => (version, content.servers),
            (version, other) => panic!("version {version} holds {other:?}"),
        }
    }
}

async fn a_server_reads_back_as_written(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.add_server("io.example/search", "Search").await;
    let found = acme.get_server("io.example/search").await.unwrap().into_inner();
    let expected = McpServer {
        id: "io.example/search".to_owned(),
        customer_id: "acme".to_owned(),
        url: "https://mcp.example".to_owned(),
        name: "Search".to_owned(),
        description: "Finds things".to_owned(),
        icon_url: "https://mcp.example/icon.png".to_owned(),
        categories: texts(&["search", "web"]),
        authentication: "oauth2".to_owned(),
        requires_auth: true,
        enabled: true,
        created_at: found.created_at,
        updated_at: found.created_at,
        etag: "r1".to_owned(),
    };
    assert!(found.created_at.is_some());
    assert_eq!(found, expected);
    let listed = acme.list_servers(PageRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.mcp_servers, [expected]);
    assert_eq!(refused(acme.get_server("other").await), (Code::NotFound, "MCP_SERVER_NOT_FOUND".to_owned()));
}

async fn a_disabled_server_is_not_delivered(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.add_server("fetch", "Fetch").await;
    acme.add_server("search", "Search").await;
    let before = acme.get_server("search").await.unwrap().into_inner();
    let disabled = acme.disable_server("search").await.unwrap().into_inner();
    let expected =
        McpServer { enabled: false, etag: "r2".to_owned(), updated_at: disabled.updated_at, ..before };
    assert_eq!(disabled, expected);
    assert!(disabled.updated_at.unwrap().seconds >= disabled.created_at.unwrap().seconds);
    let (version, delivered) = acme.delivered_servers().await;
    assert_eq!((version, delivered.len(), delivered[0].id.as_str()), (3, 1, "fetch"));
    // Disabled already: no new revision, and nothing to deliver.
    assert_eq!(acme.disable_server("search").await.unwrap().into_inner(), expected);
    assert_eq!(acme.delivered_servers().await.0, 3);
    assert_eq!(acme.audited().await, ["search", "search"]);
    assert_eq!(
        refused(acme.disable_server("other").await),
        (Code::NotFound, "MCP_SERVER_NOT_FOUND".to_owned())
    );
}

async fn pages_are_complete_whatever_the_order(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    // One of them has as many characters as a row id has bytes.
    for id in ["d", "b", "sixteen-letters!", "a", "c"] {
        acme.add_server(id, "Same").await;
    }
    for (order_by, expected) in [
        ("", ["a", "b", "c", "d", "sixteen-letters!"]),
        ("id desc", ["sixteen-letters!", "d", "c", "b", "a"]),
        ("name", ["a", "b", "c", "d", "sixteen-letters!"]),
        ("name desc, id desc", ["sixteen-letters!", "d", "c", "b", "a"]),
        ("url, name desc", ["a", "b", "c", "d", "sixteen-letters!"]),
    ] {
        let mut page = PageRequest { page_size: 2, order_by: order_by.to_owned(), ..PageRequest::default() };
        let mut seen = Vec::new();
        loop {
            let answer = acme.list_servers(page.clone()).await.unwrap().into_inner();
            seen.extend(answer.mcp_servers.into_iter().map(|server| server.id));
            page.page_token = answer.page.unwrap().next_page_token;
            if page.page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, expected, "{order_by:?}");
    }
    let filter = "name = Same AND NOT id = a AND NOT id : letters".to_owned();
    let answer =
        acme.list_servers(PageRequest { filter, ..PageRequest::default() }).await.unwrap().into_inner();
    assert_eq!(answer.mcp_servers.len(), 3);
}

async fn tenants_do_not_see_each_others_catalog(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.add_server("search", "Ours").await;
    globex.add_server("search", "Theirs").await;
    globex.add_server("fetch", "Theirs").await;
    let not_found = (Code::NotFound, "MCP_SERVER_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get_server("fetch").await), not_found);
    assert_eq!(refused(acme.disable_server("fetch").await), not_found);
    assert_eq!(acme.get_server("search").await.unwrap().into_inner().name, "Ours");
    acme.disable_server("search").await.unwrap();
    assert!(globex.get_server("search").await.unwrap().into_inner().enabled);
    assert_eq!(globex.delivered_servers().await.0, 2);
    let listed = acme.list_servers(PageRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.mcp_servers.len(), 1);
    let intruder = Tenant { admin: acme.admin.clone(), ..globex };
    let not_found = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
    assert_eq!(refused(intruder.get_server("search").await), not_found);
    assert_eq!(refused(intruder.disable_server("search").await), not_found);
}

async fn wrong_requests_are_refused(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = GetMcpServerRequest::default();
    let nameless = acme.mcp().get_mcp_server(request(call(&acme.admin), message)).await;
    assert_eq!(violations(nameless), ["customer_id", "mcp_server_id"]);
    assert_eq!(violations(acme.disable_server("").await), ["mcp_server_id"]);
    for (order_by, filter, expected) in [
        ("authentication", "", "page.order_by"),
        (",", "", "page.order_by"),
        ("name sideways", "", "page.order_by"),
        ("", "customer_id = x", "page.filter"),
    ] {
        let page = PageRequest {
            order_by: order_by.to_owned(),
            filter: filter.to_owned(),
            ..PageRequest::default()
        };
        assert_eq!(violations(acme.list_servers(page).await), [expected], "{order_by:?} {filter:?}");
    }
}
