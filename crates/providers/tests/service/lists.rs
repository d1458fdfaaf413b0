//! ListProviders.

use agentrouter_api::common::PageRequest;
use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_api::providers::{CreateProviderRequest, ListProvidersRequest, ListProvidersResponse};
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{Tenant, labels};

on_both_engines!(
    pages_follow_the_order,
    filters_select,
    a_list_holds_the_own_providers_only,
    wrong_paging_is_refused,
);

impl Tenant<'_> {
    async fn list(
        &self,
        caller: &Principal,
        page: PageRequest,
    ) -> Result<Response<ListProvidersResponse>, Status> {
        let message = ListProvidersRequest { customer_id: self.slug.to_owned(), page: Some(page) };
        self.providers.list_providers(request(call(caller), message)).await
    }

    async fn listed(&self, page: PageRequest) -> (Vec<String>, String) {
        let answer = self.list(&self.admin, page).await.unwrap().into_inner();
        let names = answer.providers.into_iter().map(|provider| provider.provider_id).collect();
        (names, answer.page.unwrap().next_page_token)
    }

    async fn create_named(&self, provider_id: &str, display_name: &str, team: &str) {
        let message = CreateProviderRequest {
            display_name: display_name.to_owned(),
            labels: labels(&[("team", team)]),
            ..self.openai(provider_id)
        };
        self.create(message).await.unwrap();
    }
}

async fn pages_follow_the_order(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    for (provider_id, display_name) in
        [("a", "Same"), ("b", "Zebra"), ("c", "Same"), ("d", "Same"), ("e", "Ant")]
    {
        acme.create_named(provider_id, display_name, "ml").await;
    }
    let mut page =
        PageRequest { page_size: 2, order_by: "display_name desc".to_owned(), ..PageRequest::default() };
    let mut seen = Vec::new();
    let mut sizes = Vec::new();
    loop {
        let (names, next) = acme.listed(page.clone()).await;
        sizes.push(names.len());
        seen.extend(names);
        if next.is_empty() {
            break;
        }
        page.page_token = next;
    }
    assert_eq!(sizes, [2, 2, 1]);
    // Among equals, the newest first: the row id runs with the last field.
    assert_eq!(seen.first().map(String::as_str), Some("b"));
    assert_eq!(seen.last().map(String::as_str), Some("e"));
    let mut middle = seen[1..4].to_vec();
    middle.sort();
    assert_eq!(middle, ["a", "c", "d"]);

    let order_by = "provider_id desc".to_owned();
    let (names, _) = acme.listed(PageRequest { order_by, ..PageRequest::default() }).await;
    assert_eq!(names, ["e", "d", "c", "b", "a"]);
}

async fn filters_select(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_named("openai", "OpenAI", "ml").await;
    acme.create_named("spare", "OpenAI, spare", "web").await;
    for (filter, expected) in [
        ("provider_id = \"spare\"", vec!["spare"]),
        ("display_name : spare AND labels.team = web", vec!["spare"]),
        ("labels.team = ml OR labels.team = web", vec!["openai", "spare"]),
        ("NOT base_url : openai.example", vec![]),
        ("created_at > \"2026-01-01T00:00:00Z\" AND updated_at < \"2020-01-01T00:00:00Z\"", vec![]),
    ] {
        let page = PageRequest {
            filter: filter.to_owned(),
            order_by: "provider_id".to_owned(),
            ..PageRequest::default()
        };
        assert_eq!(acme.listed(page).await.0, expected, "{filter}");
    }
}

async fn a_list_holds_the_own_providers_only(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.create_named("openai", "Ours", "ml").await;
    globex.create_named("openai", "Theirs", "ml").await;
    globex.create_named("other", "Theirs", "ml").await;
    let answer = acme.list(&viewer(acme.id, acme.slug), PageRequest::default()).await.unwrap().into_inner();
    let names: Vec<_> = answer.providers.iter().map(|provider| provider.display_name.as_str()).collect();
    assert_eq!(names, ["Ours"]);
    let foreign = globex.list(&acme.admin, PageRequest::default()).await;
    assert_eq!(refused(foreign), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    // A token is good for its own tenant's list only.
    let one = PageRequest { page_size: 1, ..PageRequest::default() };
    let (_, page_token) = globex.listed(one).await;
    assert!(!page_token.is_empty());
    let stolen =
        acme.list(&acme.admin, PageRequest { page_token, page_size: 1, ..PageRequest::default() }).await;
    assert_eq!(violations(stolen), ["page.page_token"]);
}

async fn wrong_paging_is_refused(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let page = PageRequest {
        page_size: -1,
        page_token: String::new(),
        filter: "api_key = x".to_owned(),
        order_by: "labels".to_owned(),
    };
    let expected = ["page.page_size", "page.filter", "page.order_by"];
    assert_eq!(violations(acme.list(&acme.admin, page).await), expected);
    let message = ListProvidersRequest::default();
    let nameless = acme.providers.list_providers(request(call(&acme.admin), message)).await;
    assert_eq!(violations(nameless), ["customer_id"]);
}
