//! ListWorkspaces.

use agentrouter_api::common::PageRequest;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{
    CreateWorkspaceRequest, ListWorkspacesRequest, ListWorkspacesResponse, WorkspaceState,
};
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{Tenant, labels};

on_both_engines!(
    pages_follow_the_order,
    filters_select,
    archived_ones_are_for_admins_who_ask,
    a_list_holds_the_own_workspaces_only,
    wrong_paging_is_refused,
);

impl Tenant<'_> {
    async fn list(
        &self,
        caller: &Principal,
        page: PageRequest,
        show_deleted: bool,
    ) -> Result<Response<ListWorkspacesResponse>, Status> {
        let message =
            ListWorkspacesRequest { customer_id: self.slug.to_owned(), page: Some(page), show_deleted };
        self.service.list_workspaces(request(call(caller), message)).await
    }

    async fn listed(&self, page: PageRequest, show_deleted: bool) -> (Vec<String>, String) {
        let answer = self.list(&self.admin, page, show_deleted).await.unwrap().into_inner();
        let names = answer.workspaces.into_iter().map(|workspace| workspace.workspace_id).collect();
        (names, answer.page.unwrap().next_page_token)
    }
}

async fn pages_follow_the_order(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    for (slug, display_name) in [("a", "Same"), ("b", "Zebra"), ("c", "Same"), ("d", "Same"), ("e", "Ant")] {
        let message =
            CreateWorkspaceRequest { display_name: display_name.to_owned(), ..acme.new_workspace(slug) };
        acme.create(message).await.unwrap();
    }
    let mut page = PageRequest {
        page_size: 2,
        order_by: "display_name, workspace_id desc".to_owned(),
        ..PageRequest::default()
    };
    let (mut seen, mut pages) = (Vec::new(), 0);
    loop {
        let (names, next) = acme.listed(page.clone(), false).await;
        seen.extend(names);
        pages += 1;
        if next.is_empty() {
            break;
        }
        page.page_token = next;
    }
    assert_eq!((seen, pages), (["e", "d", "c", "a", "b"].map(str::to_owned).to_vec(), 3));
}

async fn filters_select(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    for (slug, region) in [("eu-1", "eu"), ("eu-2", "eu"), ("us-1", "us")] {
        let message =
            CreateWorkspaceRequest { labels: labels(&[("region", region)]), ..acme.new_workspace(slug) };
        acme.create(message).await.unwrap();
    }
    for (filter, expected) in [
        ("labels.region = eu", vec!["eu-1", "eu-2"]),
        ("labels.region = eu AND NOT workspace_id = \"eu-1\"", vec!["eu-2"]),
        ("workspace_id : us OR display_name = nobody", vec!["us-1"]),
        ("created_at < \"2026-01-01T00:00:00Z\" OR updated_at < \"2020-01-01T00:00:00Z\"", vec![]),
    ] {
        let page = PageRequest {
            filter: filter.to_owned(),
            order_by: "workspace_id".to_owned(),
            ..PageRequest::default()
        };
        assert_eq!(acme.listed(page, false).await.0, expected, "{filter}");
    }
}

async fn archived_ones_are_for_admins_who_ask(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let gone = acme.created("eu-1").await;
    acme.created("eu-2").await;
    acme.archive("eu-1", "").await.unwrap();
    assert_eq!(acme.listed(PageRequest::default(), false).await.0, ["eu-2"]);
    let page = PageRequest { filter: "workspace_id = \"eu-1\"".to_owned(), ..PageRequest::default() };
    let mut shown = acme.list(&acme.admin, page, true).await.unwrap().into_inner().workspaces;
    let archived = shown.remove(0);
    assert_eq!((&archived.id, archived.state()), (&gone.id, WorkspaceState::Archived));
    assert_eq!((archived.archived_at, archived.etag.as_str()), (archived.updated_at, "r2"));
    assert!(archived.archived_at.is_some());

    let reader = viewer(acme.id, acme.slug);
    let denied = (Code::PermissionDenied, "ROLE_REQUIRED".to_owned());
    assert_eq!(refused(acme.list(&reader, PageRequest::default(), true).await), denied);
    acme.list(&reader, PageRequest::default(), false).await.unwrap();
    // A token does not carry what was asked for into another list.
    let one = PageRequest { page_size: 1, ..PageRequest::default() };
    let (_, page_token) = acme.listed(one.clone(), true).await;
    let other = acme.list(&acme.admin, PageRequest { page_token, ..one }, false).await;
    assert_eq!(violations(other), ["page.page_token"]);
}

async fn a_list_holds_the_own_workspaces_only(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    acme.created("eu-1").await;
    globex.created("eu-1").await;
    globex.created("us-1").await;
    assert_eq!(acme.listed(PageRequest::default(), true).await.0, ["eu-1"]);
    let foreign = globex.list(&acme.admin, PageRequest::default(), false).await;
    assert_eq!(refused(foreign), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
}

async fn wrong_paging_is_refused(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let page = PageRequest {
        page_size: -1,
        page_token: String::new(),
        filter: "number = 1".to_owned(),
        order_by: "state".to_owned(),
    };
    let expected = ["page.page_size", "page.filter", "page.order_by"];
    assert_eq!(violations(acme.list(&acme.admin, page, false).await), expected);
}
