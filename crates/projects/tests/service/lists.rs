//! Pages, filters and orders of projects and members.

use std::time::Duration;

use agentrouter_api::common::PageRequest;
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::{Principal, Timestamp};
use agentrouter_testkit::{TestDb, operator, refused, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{World, by, create, identity};

agentrouter_testkit::on_both_engines!(
    pages_hold_every_project_once_in_every_order,
    filters_select_projects,
    a_token_continues_its_own_list_only,
    a_page_names_every_violation,
    archived_projects_need_the_admin_role,
    pages_hold_every_member_once_in_every_order,
    filters_select_members,
    a_token_continues_the_members_of_one_project,
);

async fn list(
    world: &World,
    caller: &Principal,
    page: PageRequest,
) -> Result<Response<pb::ListProjectsResponse>, Status> {
    let message =
        pb::ListProjectsRequest { customer_id: "acme".into(), page: Some(page), show_deleted: false };
    world.projects.list_projects(by(caller, message)).await
}

async fn members(
    world: &World,
    project: &str,
    page: PageRequest,
) -> Result<Response<pb::ListProjectMembersResponse>, Status> {
    let message = pb::ListProjectMembersRequest {
        customer_id: "acme".into(),
        project_id: project.into(),
        page: Some(page),
    };
    world.projects.list_project_members(by(&world.admin, message)).await
}

fn page(filter: &str, order_by: &str, page_size: i32) -> PageRequest {
    PageRequest { page_size, filter: filter.into(), order_by: order_by.into(), ..Default::default() }
}

/// The slugs on every page of a list.
async fn slugs(world: &World, mut page: PageRequest) -> Vec<String> {
    let mut slugs = Vec::new();
    loop {
        let answer = list(world, &world.admin, page.clone()).await.unwrap().into_inner();
        slugs.extend(answer.projects.into_iter().map(|project| project.project_id));
        page.page_token = answer.page.unwrap().next_page_token;
        if page.page_token.is_empty() {
            return slugs;
        }
        assert!(slugs.len() < 100, "the list does not end");
    }
}

/// The identities on every page of a list of members.
async fn identities(world: &World, mut page: PageRequest) -> Vec<String> {
    let mut identities = Vec::new();
    loop {
        let answer = members(world, "alpha", page.clone()).await.unwrap().into_inner();
        identities.extend(answer.members.into_iter().map(|member| member.identity_id));
        page.page_token = answer.page.unwrap().next_page_token;
        if page.page_token.is_empty() {
            return identities;
        }
        assert!(identities.len() < 100, "the list does not end");
    }
}

/// Eight projects `p-0` to `p-7`, a second apart, with repeating display names, and `default`; and a second
/// customer with the same.
async fn populated(db: TestDb) -> World {
    let world = World::new(db).await;
    let other = world.db.customer("other").await;
    for number in 0..8 {
        world.db.db.advance_clock(Duration::from_secs(1));
        let message = pb::CreateProjectRequest {
            display_name: ["beta", "Alpha"][number % 2].to_owned(),
            description: format!("number {number}"),
            labels: [("mod3".to_owned(), (number % 3).to_string())].into(),
            ..create(&format!("p-{number}"))
        };
        world.projects.create_project(by(&world.admin, message.clone())).await.unwrap();
        let message = pb::CreateProjectRequest { customer_id: "other".into(), ..message };
        world.projects.create_project(by(&operator(other, "other"), message)).await.unwrap();
    }
    world
}

fn numbered(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("p-{number}")).collect()
}

async fn pages_hold_every_project_once_in_every_order(db: TestDb) {
    let world = populated(db).await;
    let filter = "project_id != default";
    for (order_by, expected) in [
        ("", numbered(0..8)),
        ("project_id desc", numbered((0..8).rev())),
        ("created_at", numbered(0..8)),
        ("updated_at desc", numbered((0..8).rev())),
        ("description desc", numbered((0..8).rev())),
        ("display_name", numbered([1, 3, 5, 7, 0, 2, 4, 6])),
        ("display_name, created_at desc", numbered([7, 5, 3, 1, 6, 4, 2, 0])),
        ("display_name desc, project_id", numbered([0, 2, 4, 6, 1, 3, 5, 7])),
    ] {
        for size in [1, 2, 3, 7, 8, 9, 0] {
            assert_eq!(slugs(&world, page(filter, order_by, size)).await, expected, "{order_by} by {size}");
        }
    }
}

async fn filters_select_projects(db: TestDb) {
    let world = populated(db).await;
    let third = world.get(&world.admin, "p-3").await.unwrap().into_inner().created_at.unwrap();
    let third = Timestamp::from_micros(third.seconds * 1_000_000 + i64::from(third.nanos) / 1_000);
    for (filter, expected) in [
        ("project_id = p-3".to_owned(), numbered([3])),
        ("display_name = Alpha AND labels.mod3 = \"1\"".to_owned(), numbered([1, 7])),
        ("description : \"number\" AND NOT labels.mod3 = \"0\"".to_owned(), numbered([1, 2, 4, 5, 7])),
        (format!("created_at <= \"{third}\" AND project_id != default"), numbered(0..4)),
        (format!("updated_at > \"{third}\""), numbered(4..8)),
        ("project_id = p-1 OR project_id = p-2".to_owned(), numbered([1, 2])),
        ("project_id = p-9".to_owned(), numbered([])),
    ] {
        assert_eq!(slugs(&world, page(&filter, "", 2)).await, expected, "{filter}");
    }
}

// Behaviour 44: the token of a list of projects is refused with another filter, order or caller.
async fn a_token_continues_its_own_list_only(db: TestDb) {
    let world = populated(db).await;
    let operator = operator(world.customer, "acme");
    let first = page("display_name = beta", "description", 2);
    let answer = list(&world, &operator, first.clone()).await.unwrap().into_inner();
    let next = PageRequest { page_token: answer.page.unwrap().next_page_token, ..first };
    for wrong in [
        PageRequest { filter: "display_name = Alpha".into(), ..next.clone() },
        PageRequest { order_by: "description desc".into(), ..next.clone() },
        PageRequest { page_token: "AAAA".into(), ..next.clone() },
    ] {
        assert_eq!(violations(list(&world, &operator, wrong).await), ["page.page_token"]);
    }
    assert_eq!(violations(list(&world, &world.admin, next.clone()).await), ["page.page_token"]);
    for (customer_id, show_deleted) in [("acme", true), ("other", false)] {
        let message = pb::ListProjectsRequest {
            customer_id: customer_id.into(),
            page: Some(next.clone()),
            show_deleted,
        };
        let result = world.projects.list_projects(by(&operator, message)).await;
        assert_eq!(violations(result), ["page.page_token"]);
    }
    // Either name of the customer continues it.
    let message = pb::ListProjectsRequest {
        customer_id: world.customer.to_string(),
        page: Some(next),
        show_deleted: false,
    };
    let answer = world.projects.list_projects(by(&operator, message)).await.unwrap().into_inner();
    let slugs: Vec<_> = answer.projects.into_iter().map(|project| project.project_id).collect();
    assert_eq!(slugs, numbered([4, 6]));
}

async fn a_page_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let bad = page("id = x", "labels.team", -1);
    let expected = ["page.page_size", "page.filter", "page.order_by"];
    assert_eq!(violations(list(&world, &world.admin, bad.clone()).await), expected);
    assert_eq!(violations(members(&world, "default", bad).await), expected);
    assert_eq!(violations(members(&world, "default", page("", "identity_id", 0)).await), ["page.order_by"]);
    let message = pb::ListProjectsRequest::default();
    assert_eq!(violations(world.projects.list_projects(by(&world.admin, message)).await), ["customer_id"]);
    let message = pb::ListProjectMembersRequest::default();
    let fields = violations(world.projects.list_project_members(by(&world.admin, message)).await);
    assert_eq!(fields, ["customer_id", "project_id"]);
}

async fn archived_projects_need_the_admin_role(db: TestDb) {
    let world = World::new(db).await;
    let message = pb::ListProjectsRequest { customer_id: "acme".into(), page: None, show_deleted: true };
    let viewer = viewer(world.customer, "acme");
    let refusal = refused(world.projects.list_projects(by(&viewer, message.clone())).await);
    assert_eq!(refusal, (Code::PermissionDenied, "ROLE_REQUIRED".to_owned()));
    world.projects.list_projects(by(&world.admin, message)).await.unwrap();
}

/// Seven members of `alpha`, a second apart, every third an admin.
async fn with_members(db: TestDb) -> (World, Vec<String>) {
    let world = World::new(db).await;
    world.create("alpha").await;
    world.create("beta").await;
    let mut all = Vec::new();
    for number in 0..7 {
        world.db.db.advance_clock(Duration::from_secs(1));
        let role = if number % 3 == 0 { "admin" } else { "member" };
        let person = world.member("alpha", "person", role).await;
        world.add(&world.admin, "beta", &person, "member").await.unwrap();
        all.push(identity(&person).to_string());
    }
    (world, all)
}

fn picked(all: &[String], numbers: &[usize]) -> Vec<String> {
    numbers.iter().map(|&number| all[number].clone()).collect()
}

async fn pages_hold_every_member_once_in_every_order(db: TestDb) {
    let (world, all) = with_members(db).await;
    for (order_by, expected) in [
        ("", [0, 1, 2, 3, 4, 5, 6]),
        ("created_at desc", [6, 5, 4, 3, 2, 1, 0]),
        ("updated_at", [0, 1, 2, 3, 4, 5, 6]),
        ("role", [0, 3, 6, 1, 2, 4, 5]),
        ("role desc, created_at", [1, 2, 4, 5, 0, 3, 6]),
    ] {
        for size in [1, 2, 6, 7, 8, 0] {
            let found = identities(&world, page("", order_by, size)).await;
            assert_eq!(found, picked(&all, &expected), "{order_by} by {size}");
        }
    }
}

async fn filters_select_members(db: TestDb) {
    let (world, all) = with_members(db).await;
    let third = members(&world, "alpha", page("", "", 0)).await.unwrap().into_inner().members[2].clone();
    let created = third.created_at.unwrap();
    let created = Timestamp::from_micros(created.seconds * 1_000_000 + i64::from(created.nanos) / 1_000);
    for (filter, expected) in [
        ("role = admin".to_owned(), picked(&all, &[0, 3, 6])),
        ("NOT role = admin".to_owned(), picked(&all, &[1, 2, 4, 5])),
        (format!("identity_id = {}", all[4]), picked(&all, &[4])),
        (
            format!("identity_id = {} OR identity_id = {}", all[4], all[1].to_lowercase()),
            picked(&all, &[1, 4]),
        ),
        ("identity_id = somebody".to_owned(), Vec::new()),
        (format!("created_at >= \"{created}\" AND role = member"), picked(&all, &[2, 4, 5])),
    ] {
        assert_eq!(identities(&world, page(&filter, "", 2)).await, expected, "{filter}");
    }
}

async fn a_token_continues_the_members_of_one_project(db: TestDb) {
    let (world, all) = with_members(db).await;
    let first = page("", "", 3);
    let answer = members(&world, "alpha", first.clone()).await.unwrap().into_inner();
    let next = PageRequest { page_token: answer.page.unwrap().next_page_token, ..first };
    assert_eq!(violations(members(&world, "beta", next.clone()).await), ["page.page_token"]);
    assert_eq!(
        violations(
            members(&world, "alpha", PageRequest { filter: "role = member".into(), ..next.clone() }).await
        ),
        ["page.page_token"]
    );
    let answer = members(&world, "alpha", next).await.unwrap().into_inner();
    let found: Vec<_> = answer.members.into_iter().map(|member| member.identity_id).collect();
    assert_eq!(found, picked(&all, &[3, 4, 5]));
}
