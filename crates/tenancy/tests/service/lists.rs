//! Pages, filters and orders.

use std::time::Duration;

use agentrouter_api::common::PageRequest;
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, operator, refused, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{World, archive, by};

agentrouter_testkit::on_both_engines!(
    pages_hold_every_customer_once_in_every_order,
    filters_select,
    pages_of_a_filtered_list_end,
    a_token_continues_its_own_list_only,
    rows_that_come_and_go_do_not_disturb_a_list,
    a_page_names_every_violation,
    archived_customers_need_the_admin_role,
);

async fn list(
    world: &World,
    caller: &Principal,
    page: PageRequest,
) -> Result<Response<pb::ListCustomersResponse>, Status> {
    let message = pb::ListCustomersRequest { page: Some(page), show_deleted: false };
    world.tenancy.list_customers(by(caller, message)).await
}

/// The slugs of every page of a list.
async fn pages(world: &World, filter: &str, order_by: &str, page_size: i32) -> Vec<Vec<String>> {
    let mut pages = Vec::new();
    let mut page_token = String::new();
    loop {
        let page =
            PageRequest { page_size, page_token, filter: filter.to_owned(), order_by: order_by.to_owned() };
        let answer = list(world, &world.operator, page).await.unwrap().into_inner();
        pages.push(answer.customers.into_iter().map(|customer| customer.customer_id).collect());
        page_token = answer.page.unwrap().next_page_token;
        if page_token.is_empty() {
            return pages;
        }
        assert!(pages.len() < 100, "the list does not end");
    }
}

/// Eleven customers `c-00` to `c-10`, a second apart, with repeating display names, and `default`.
async fn populated(db: TestDb) -> World {
    let world = World::new(db).await;
    for number in 0..11 {
        world.db.db.advance_clock(Duration::from_secs(1));
        let message = pb::CreateCustomerRequest {
            customer_id: format!("c-{number:02}"),
            display_name: ["Beta", "alpha", "Ärger"][number % 3].to_owned(),
            description: format!("number {number}"),
            labels: [("parity".to_owned(), ["even", "odd"][number % 2].to_owned())].into(),
        };
        world.tenancy.create_customer(by(&world.operator, message)).await.unwrap();
    }
    world
}

fn numbered(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("c-{number:02}")).collect()
}

async fn pages_hold_every_customer_once_in_every_order(db: TestDb) {
    let world = populated(db).await;
    let filter = "customer_id : \"c-\"";
    for (order_by, expected) in [
        ("", numbered(0..11)),
        ("customer_id", numbered(0..11)),
        ("customer_id desc", numbered((0..11).rev())),
        ("created_at", numbered(0..11)),
        ("created_at desc", numbered((0..11).rev())),
        ("updated_at desc", numbered((0..11).rev())),
        ("description", numbered([0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9])),
        // Byte order on both engines: capitals, small letters, umlauts. The row id decides among equals.
        ("display_name", numbered([0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8])),
        ("display_name desc", numbered([8, 5, 2, 10, 7, 4, 1, 9, 6, 3, 0])),
        ("display_name desc, created_at", numbered([2, 5, 8, 1, 4, 7, 10, 0, 3, 6, 9])),
    ] {
        for page_size in [1, 2, 3, 5, 10, 11, 12, 0] {
            let pages = pages(&world, filter, order_by, page_size).await;
            let size = if page_size == 0 { 50 } else { usize::try_from(page_size).unwrap() };
            assert_eq!(pages.len(), 11_usize.div_ceil(size), "{order_by} by {page_size}");
            assert!(pages.iter().all(|page| page.len() <= size));
            assert_eq!(pages.concat(), expected, "{order_by} by {page_size}");
        }
    }
}

async fn filters_select(db: TestDb) {
    let world = populated(db).await;
    let all = list(&world, &world.operator, PageRequest::default()).await.unwrap().into_inner();
    let created = all.customers.iter().find(|customer| customer.customer_id == "c-05").unwrap().created_at;
    let created = created.unwrap();
    let created = agentrouter_kernel::Timestamp::from_micros(
        created.seconds * 1_000_000 + i64::from(created.nanos) / 1_000,
    );
    for (filter, expected) in [
        ("customer_id = c-03".to_owned(), numbered([3])),
        ("display_name = alpha".to_owned(), numbered([1, 4, 7, 10])),
        ("display_name : \"rge\"".to_owned(), numbered([2, 5, 8])),
        ("display_name : BETA".to_owned(), numbered([])),
        ("description : \"number 1\"".to_owned(), numbered([1, 10])),
        ("labels.parity = odd AND display_name != alpha".to_owned(), numbered([3, 5, 9])),
        ("labels.parity:* AND NOT labels.parity = odd".to_owned(), numbered([0, 2, 4, 6, 8, 10])),
        (format!("customer_id : \"c-\" AND created_at < \"{created}\""), numbered([0, 1, 2, 3, 4])),
        (format!("created_at >= \"{created}\" AND updated_at > \"{created}\""), numbered(6..11)),
        ("customer_id = c-01 OR customer_id = c-02 AND labels.parity = even".to_owned(), numbered([2])),
        ("description = \"%\"".to_owned(), numbered([])),
        ("description = \"' OR 1 = 1 --\"".to_owned(), numbered([])),
    ] {
        assert_eq!(pages(&world, &filter, "", 4).await.concat(), expected, "{filter}");
    }
}

async fn pages_of_a_filtered_list_end(db: TestDb) {
    let world = populated(db).await;
    let found = pages(&world, "labels.parity = odd", "display_name desc", 2).await;
    assert_eq!(found, [numbered([5, 7]), numbered([1, 9]), numbered([3])]);
    assert_eq!(pages(&world, "customer_id = nothing", "", 2).await, [Vec::<String>::new()]);
}

// Behaviour 44: the token of a list of customers is refused with another filter, order or caller.
async fn a_token_continues_its_own_list_only(db: TestDb) {
    let world = populated(db).await;
    let first = PageRequest {
        page_size: 2,
        filter: "labels.parity = odd".into(),
        order_by: "display_name".into(),
        page_token: String::new(),
    };
    let answer = list(&world, &world.operator, first.clone()).await.unwrap().into_inner();
    let next = PageRequest { page_token: answer.page.unwrap().next_page_token, ..first };

    for wrong in [
        PageRequest { filter: "labels.parity = even".into(), ..next.clone() },
        PageRequest { filter: String::new(), ..next.clone() },
        PageRequest { order_by: "display_name desc".into(), ..next.clone() },
        PageRequest { order_by: String::new(), ..next.clone() },
        PageRequest { page_token: "nonsense".into(), ..next.clone() },
        PageRequest { page_token: format!("{}A", next.page_token), ..next.clone() },
    ] {
        let fields = violations(list(&world, &world.operator, wrong.clone()).await);
        assert_eq!(fields, ["page.page_token"], "{wrong:?}");
    }
    let message = pb::ListCustomersRequest { page: Some(next.clone()), show_deleted: true };
    let fields = violations(world.tenancy.list_customers(by(&world.operator, message)).await);
    assert_eq!(fields, ["page.page_token"]);
    let other =
        Principal { credential_id: "key_other".to_owned(), ..operator(world.operator.customer, "default") };
    assert_eq!(violations(list(&world, &other, next.clone()).await), ["page.page_token"]);
    let viewer = viewer(world.operator.customer, "default");
    assert_eq!(violations(list(&world, &viewer, next.clone()).await), ["page.page_token"]);

    // The size of the page may change.
    let answer = list(&world, &world.operator, PageRequest { page_size: 50, ..next }).await.unwrap();
    let rest: Vec<_> = answer.into_inner().customers.into_iter().map(|found| found.customer_id).collect();
    assert_eq!(rest, numbered([1, 7, 5]));
}

async fn rows_that_come_and_go_do_not_disturb_a_list(db: TestDb) {
    let world = populated(db).await;
    let first = PageRequest { page_size: 4, filter: "customer_id : \"c-\"".into(), ..Default::default() };
    let answer = list(&world, &world.operator, first.clone()).await.unwrap().into_inner();
    world.create("c-00-new").await;
    for slug in ["c-02", "c-03"] {
        world.tenancy.archive_customer(by(&world.operator, archive(slug))).await.unwrap();
    }
    let next = PageRequest { page_token: answer.page.unwrap().next_page_token, ..first };
    let answer = list(&world, &world.operator, next).await.unwrap().into_inner();
    let slugs: Vec<_> = answer.customers.into_iter().map(|customer| customer.customer_id).collect();
    assert_eq!(slugs, numbered(4..8));
}

async fn a_page_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let page = PageRequest {
        page_size: -1,
        filter: "nope = 1".into(),
        order_by: "labels".into(),
        page_token: String::new(),
    };
    let fields = violations(list(&world, &world.operator, page).await);
    assert_eq!(fields, ["page.page_size", "page.filter", "page.order_by"]);
    for (filter, order_by) in
        [("customer_id > a", ""), ("created_at = soon", ""), ("", "id"), ("", "customer_id up")]
    {
        let page = PageRequest { filter: filter.into(), order_by: order_by.into(), ..Default::default() };
        let fields = violations(list(&world, &world.operator, page).await);
        assert_eq!(fields.len(), 1, "{filter} {order_by}");
    }
    // Far too many is as many as there may be.
    let page = PageRequest { page_size: i32::MAX, ..Default::default() };
    assert_eq!(list(&world, &world.operator, page).await.unwrap().into_inner().customers.len(), 1);
}

async fn archived_customers_need_the_admin_role(db: TestDb) {
    let world = World::new(db).await;
    let viewer = viewer(world.operator.customer, "default");
    let message = pb::ListCustomersRequest { page: None, show_deleted: true };
    let refusal = refused(world.tenancy.list_customers(by(&viewer, message)).await);
    assert_eq!(refusal, (Code::PermissionDenied, "ROLE_REQUIRED".to_owned()));
}
